"""transforms.json in its three dialects (instant-ngp, nerfstudio, NeRF-synthetic), read and written.

Axes: the file has OpenGL cameras (x right, y up, z backward); ours are OpenCV's, so columns y and z of the
rotation change sign. The world is left as it is. Intrinsics stand in each frame or once for all;
NeRF-synthetic gives only `camera_angle_x`, leaves the suffix off `file_path`, and keeps its split in separate
files.
"""

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from quicksurf.capture.assemble import ReadOptions, Views, assemble, every_eighth
from quicksurf.capture.images import read_header
from quicksurf.capture.names import find_named, looked_in, parts_of
from quicksurf.capture.scene import ReadReport, Scene
from quicksurf.errors import CaptureError, ImageError
from quicksurf.files import write_json
from quicksurf.geometry.cameras import Cameras
from quicksurf.untrusted import matrix, number, shown, side

NAMES = ("transforms.json", "transforms_train.json")
_SPLITS = ("train", "test", "val")
_MAX_BYTES = 256 << 20  # 10,000 frames take 10 MB
DISTORTION_KEYS = ("k1", "k2", "k3", "k4", "p1", "p2")  # in the order of Cameras.distortion
GL_TO_CV = np.diag([1.0, -1.0, -1.0])
_PERSPECTIVE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
_FISHEYE = ("OPENCV_FISHEYE",)
_RIGID = 1e-3  # largest entry of RᵀR − I: files written with few digits reach 1e-4


class Frame(NamedTuple):
    """One frame of the file, resolved: everything but the pixels."""

    path: Path
    mask: str | None
    """As the file names it."""
    c2w: Float[np.ndarray, "3 4"]
    intrinsics: tuple[float, float, float, float]
    distortion: tuple[float, ...]
    fisheye: bool
    size: tuple[int, int]


def _frame(path: Path, lens: Mapping[str, Any], c2w: Float[np.ndarray, "3 4"], where: str) -> Frame:
    """Check what a frame says of its lens; `lens` holds the frame's keys over those of the whole file."""
    model = str(lens.get("camera_model", "OPENCV"))
    if model not in _PERSPECTIVE + _FISHEYE:
        known = ", ".join(_PERSPECTIVE + _FISHEYE)
        raise CaptureError(
            f"{where}: camera_model {shown(repr(model))} is not known; undistort to one of {known}"
        )
    if "w" in lens and "h" in lens:
        size = side(lens["w"], f"{where}: w"), side(lens["h"], f"{where}: h")
    else:
        size = read_header(path).stored_size
    distortion = tuple(_number(lens, key, where, 0.0) for key in DISTORTION_KEYS)
    fisheye = model in _FISHEYE or lens.get("is_fisheye") is True
    return Frame(path, lens.get("mask_path"), c2w, _intrinsics(lens, size, where), distortion, fisheye, size)


def _inside(root: Path, name: Any, where: str) -> Path:
    """`root / name`: a capture may come from anywhere, so it names files of its own folder only."""
    parts, is_inside = parts_of(root, name, where)
    if not is_inside:
        raise CaptureError(
            f"{where}: the path {shown(repr(name))} leaves the folder of the capture, and nothing in it is named "
            f"like that; make it relative to {root}"
        )
    return root.joinpath(*parts)


def _pose(value: Any, where: str) -> Float[np.ndarray, "3 4"]:
    """Read a frame's `transform_matrix` as an OpenCV camera-to-world matrix.

    The rotation is replaced by the nearest orthonormal one: digits lost in the file would otherwise bend rays.
    """
    pose = matrix(value, ((4, 4), (3, 4)), f"{where}: transform_matrix")
    rotation = pose[:3, :3]
    error = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if error > _RIGID or np.linalg.det(rotation) < 0:
        problem = f"off by {error:.2g}" if error > _RIGID else "mirrored"
        raise CaptureError(
            f"{where}: transform_matrix is not rigid, its rotation is {problem}; "
            "export poses without scale or shear"
        )
    left, _, right = np.linalg.svd(rotation)
    return np.concatenate([left @ right @ GL_TO_CV, pose[:3, 3:]], axis=1)


def _intrinsics(
    lens: Mapping[str, Any], size: tuple[int, int], where: str
) -> tuple[float, float, float, float]:
    width, height = size
    if "fl_x" not in lens and "camera_angle_x" not in lens:
        raise CaptureError(f"{where} lacks `fl_x` (or `camera_angle_x`){_nearest('fl_x', lens)}")
    fx = _number(lens, "fl_x", where) if "fl_x" in lens else _from_angle(lens, "camera_angle_x", width, where)
    fy = fx
    if "fl_y" in lens:
        fy = _number(lens, "fl_y", where)
    elif "fl_x" not in lens and "camera_angle_y" in lens:
        fy = _from_angle(lens, "camera_angle_y", height, where)
    if fx <= 0 or fy <= 0:
        raise CaptureError(f"{where}: focal lengths must be positive, found {fx:g} and {fy:g}")
    return fx, fy, _number(lens, "cx", where, width / 2), _number(lens, "cy", where, height / 2)


def _from_angle(lens: Mapping[str, Any], key: str, extent: int, where: str) -> float:
    """Focal length from a field of view in radians: extent / (2 tan(angle / 2))."""
    angle = _number(lens, key, where)
    if not 0 < angle < math.pi:
        raise CaptureError(f"{where}: {key} is {angle:g}, radians between 0 and π are expected")
    return extent / (2 * math.tan(angle / 2))


def _number(lens: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    return number(lens.get(key, default), f"{where}: {key}")


def _require(mapping: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in mapping:
        raise CaptureError(f"{where} lacks `{key}`{_nearest(key, mapping)}")
    return mapping[key]


def _nearest(key: str, mapping: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(key, [str(found) for found in mapping], 1, 0.5)
    if close:
        return f"; it has `{shown(close[0])}`: rename it"
    return f"; it has {', '.join(shown(found) for found in sorted(mapping)[:8]) or 'no key at all'}"


def read_transforms(source: Path, options: ReadOptions) -> Scene:
    """Read a capture described by `source`, a transforms.json or transforms_train.json.

    Raises:
        CaptureError: if the file is broken, incomplete or inconsistent, naming the frame and the key.
        ImageError: if fewer than three images are left.
        RoiError: if no camera sees the region of interest.
    """
    root, report = source.parent, ReadReport()
    frames: list[Frame] = []
    held_out: list[bool] = []
    for path, in_test in _files(source):
        content = _load(path)
        read = _frames(content, path, report)
        frames += read
        held_out += _split(content, read, root, report) if in_test is None else [in_test] * len(read)
    if not frames:
        names = [str(entry.get("file_path")) for entry in content["frames"]]
        raise CaptureError(
            f"{source}: none of its frames has an image on disk: {looked_in(names, root, [root])}; "
            "copy the images beside it"
        )
    views = Views(
        root=root,
        paths=[frame.path for frame in frames],
        cameras=_cameras(frames),
        held_out=np.array(held_out),
        mask_paths=_named_masks(source, frames, report)
        if options.use_masks and options.mask_folder is None and options.kept_masks is None
        else None,
    )
    return assemble(views, source, options, report)


class CameraFile(NamedTuple):
    """What `write_cameras` wrote."""

    cameras: Cameras
    names: list[str]
    held_out: Bool[np.ndarray, "n"]


def read_cameras(path: Path) -> CameraFile:
    """Read the cameras of a transforms.json alone: its images need not be there where it states their sizes.

    Raises:
        CaptureError: if the file is broken, incomplete or inconsistent, naming the frame and the key.
    """
    content, frames = _load(path), []
    for index, entry in enumerate(content["frames"]):
        where = f"{path}: frame {index}"
        image = _inside(path.parent, _require(entry, "file_path", where), where)
        c2w = _pose(_require(entry, "transform_matrix", where), where)
        frames.append(_frame(image, {**content, **entry}, c2w, where))
    names = [frame.path.relative_to(path.parent).as_posix() for frame in frames]
    held_out = _split(content, frames, path.parent, ReadReport())
    return CameraFile(_cameras(frames), names, np.array(held_out))


def write_cameras(
    path: Path, cameras: Cameras, names: Sequence[str], held_out: Bool[np.ndarray, "n"]
) -> None:
    """Write cameras in nerfstudio's form of transforms.json, in their own frame: every lens in its own entry.

    Raises:
        OutputError: if the file cannot be written.
    """
    poses = cameras.c2w.double().numpy().copy()
    poses[:, :, :3] = poses[:, :, :3] @ GL_TO_CV
    frames = []
    for index, name in enumerate(names):
        fx, fy, cx, cy = cameras.intrinsics[index].tolist()
        width, height = cameras.sizes[index].tolist()
        frames.append(
            {
                "file_path": name,
                "camera_model": "OPENCV_FISHEYE" if cameras.fisheye[index] else "OPENCV",
                **{"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": width, "h": height},
                **dict(zip(DISTORTION_KEYS, cameras.distortion[index].tolist(), strict=True)),
                "transform_matrix": [*poses[index].tolist(), [0.0, 0.0, 0.0, 1.0]],
            }
        )
    split = {
        "train_filenames": [name for name, out in zip(names, held_out, strict=True) if not out],
        "test_filenames": [name for name, out in zip(names, held_out, strict=True) if out],
    }
    write_json(path, {"camera_model": "OPENCV", **split, "frames": frames})


def _files(source: Path) -> list[tuple[Path, bool | None]]:
    """The files to read with whether their frames are held out (None: the file says)."""
    if source.name != "transforms_train.json":
        return [(source, None)]
    beside: list[tuple[Path, bool | None]] = [
        (source.with_name(f"transforms_{split}.json"), split != "train") for split in _SPLITS
    ]
    # Held-out views are test's, or val's where there is no test: 100 are enough and reading takes time.
    present = [item for item in beside if item[0].is_file()]
    return present[:2] if len(present) > 1 else [(source, None)]


def _load(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise CaptureError(f"{path} has {path.stat().st_size >> 20} MB: not a camera file")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise CaptureError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise CaptureError(f"{path} is not valid JSON ({error}); export it again") from error
    if not isinstance(content, dict):
        raise CaptureError(f"{path} holds a {type(content).__name__}, an object with `frames` is expected")
    frames = _require(content, "frames", str(path))
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise CaptureError(f"{path}: `frames` must be a non-empty list of objects")
    return content


def _frames(content: Mapping[str, Any], source: Path, report: ReadReport) -> list[Frame]:
    root, names, outside = source.parent, [], []
    for index, entry in enumerate(content["frames"]):
        names.append(_require(entry, "file_path", f"{source}: frame {index}"))
        if not parts_of(root, names[-1], f"{source}: frame {index}")[1]:
            outside.append((names[-1], f"{source}: frame {index}"))
    found, note = find_named(names, root, [root])
    if outside and not any(name in found for name, _ in outside):
        _inside(root, *outside[0])
    report.notes += [note] if note else []
    frames, absent = [], []
    seen: set[Path] = set()
    for index, (entry, name) in enumerate(zip(content["frames"], names, strict=True)):
        path = found.get(name)
        where = f"{source}: frame {index} ({shown(name)})"
        c2w = _pose(_require(entry, "transform_matrix", where), where)
        if path is None:
            absent.append(name)
            continue
        if path in seen:
            raise CaptureError(f"{where} names an image for the second time: keep one of the frames")
        seen.add(path)
        report.photos += 1
        try:
            frames.append(_frame(path, {**content, **entry}, c2w, where))
        except ImageError as error:
            report.lost[path.name] = str(error)
    if absent:
        total = len(content["frames"])
        report.warnings.append(
            f"{len(absent)} of {total} frames in {source.name} have no image on disk and are skipped "
            f"({shown(absent[0])}{', …' if len(absent) > 1 else ''})"
        )
    return frames


def _cameras(frames: Sequence[Frame]) -> Cameras:
    return Cameras(
        c2w=torch.from_numpy(np.stack([frame.c2w for frame in frames])),
        intrinsics=torch.tensor([frame.intrinsics for frame in frames], dtype=torch.float64),
        distortion=torch.tensor([frame.distortion for frame in frames], dtype=torch.float64),
        fisheye=torch.tensor([frame.fisheye for frame in frames]),
        sizes=torch.tensor([frame.size for frame in frames]),
    )


def _named_masks(source: Path, frames: Sequence[Frame], report: ReadReport) -> list[Path | None] | None:
    """Masks as the frames name them, or None where no frame does."""
    root = source.parent
    names = [frame.mask for frame in frames if frame.mask is not None]
    if not names:
        return None
    where = f"{source}: mask_path"
    outside = [name for name in names if not parts_of(root, name, where)[1]]
    found, note = find_named(names, root, [root], {frame.path for frame in frames})
    if outside and not any(name in found for name in outside):
        _inside(root, outside[0], where)
    report.notes += [note] if note else []
    missing = [name for name in names if name not in found]
    if len(missing) == len(names):
        raise CaptureError(
            f"{source}: {len(missing)} of {len(frames)} masks named by `mask_path` are not there, "
            f"{looked_in(missing, root, [root])}; copy them or remove the key"
        )
    if missing:
        report.warnings.append(
            f"{len(missing)} of {len(names)} masks named by `mask_path` are not there ({shown(missing[0])}, …)"
        )
    return [None if frame.mask is None else found.get(frame.mask) for frame in frames]


def _split(content: Mapping[str, Any], frames: Sequence[Frame], root: Path, report: ReadReport) -> list[bool]:
    """Which frames are held out: by the file's lists of names, else every eighth."""
    lists: dict[str, set[Path]] = {}
    paths = {frame.path for frame in frames}
    for split in _SPLITS:
        names = content.get(f"{split}_filenames")
        if isinstance(names, list):
            # looked for only where none is that of a frame as it stands
            found = {root.joinpath(*parts_of(root, name, f"{split}_filenames")[0]) for name in names}
            elsewhere = () if found & paths else find_named(names, root, [root]).paths.values()
            lists[split] = found | set(elsewhere)
    named = set().union(*lists.values())
    if lists and frames and not paths & named:
        report.warnings.append("the lists of names of its split match no frame: every eighth is held out")
        lists = {}
    if not lists:
        return every_eighth(len(frames)).tolist()
    if "train" in lists:
        return [frame.path not in lists["train"] for frame in frames]
    out = lists.get("test", set()) | lists.get("val", set())
    return [frame.path in out for frame in frames]
