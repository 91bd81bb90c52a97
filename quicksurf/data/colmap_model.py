"""A COLMAP reconstruction, binary or text, beside its images.

COLMAP's cameras look along +z with y down and count pixel centres at +0.5, as ours do, so only [R | t] is
inverted. All its polynomial lenses are special cases of ours; the table says which parameter goes where.

pycolmap is imported when there is a model to read: see `_load_pycolmap`.
"""

import signal
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch

from quicksurf.cameras import Cameras
from quicksurf.data.assemble import ReadOptions, Views, assemble, every_eighth
from quicksurf.data.images import natural_key, require_images
from quicksurf.data.scene import ReadReport, Scene, SparsePoints
from quicksurf.errors import CaptureError

if TYPE_CHECKING:
    import pycolmap

_PLACES = ("sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", "")
_FILES = ("cameras", "images", "points3D")
_IMAGE_FOLDERS = ("images", "image", "rgb")
_MIN_TRACK = 3  # two views fix a point, the third confirms it
_MAX_ERROR_PIXELS = 2.0
# Model → where its parameters go, of f (both focal lengths), fx, fy, cx, cy, k1 … k4, p1, p2; fisheye or not.
_MODELS: dict[str, tuple[str, bool]] = {
    "SIMPLE_PINHOLE": ("f cx cy", False),
    "PINHOLE": ("fx fy cx cy", False),
    "SIMPLE_RADIAL": ("f cx cy k1", False),
    "RADIAL": ("f cx cy k1 k2", False),
    "OPENCV": ("fx fy cx cy k1 k2 p1 p2", False),
    "OPENCV_FISHEYE": ("fx fy cx cy k1 k2 k3 k4", True),
    "SIMPLE_RADIAL_FISHEYE": ("f cx cy k1", True),
    "RADIAL_FISHEYE": ("f cx cy k1 k2", True),
}


def find_model(source: Path) -> Path | None:
    """The folder under `source` that holds a COLMAP model, in any of the usual places."""
    for place in _PLACES:
        folder = source / place
        if any(all((folder / f"{name}{suffix}").is_file() for name in _FILES) for suffix in (".bin", ".txt")):
            return folder
    return None


def read_colmap(source: Path, options: ReadOptions) -> Scene:
    """Read the COLMAP model found in `source` with the images beside it.

    Raises:
        CaptureError: if the model is damaged, empty or has a lens that is not known.
        ImageError: if fewer than three of its images are on disk.
        RoiError: if no camera sees the region of interest.
    """
    model = find_model(source)
    if model is None:
        raise CaptureError(
            f"{source} holds no COLMAP model: cameras, images and points3D (.bin or .txt) are expected"
        )
    try:
        _check_lengths(model)
        reconstruction = _load_pycolmap().Reconstruction(str(model))
    except (struct.error, RuntimeError, ValueError, IndexError, MemoryError, OSError) as error:
        raise CaptureError(f"the COLMAP model in {model} is damaged ({error}); export it again") from error
    folder = _image_folder(source, model)
    images = {image.name: folder / image.name for image in reconstruction.images.values()}
    escaping = [name for name in images if Path(name).is_absolute() or ".." in Path(name).parts]
    if escaping:
        raise CaptureError(f"the COLMAP model in {model} names an image outside its folder: {escaping[0]}")
    report = ReadReport()
    return scene_from_reconstruction(reconstruction, images, source, source, options, report)


def scene_from_reconstruction(
    reconstruction: "pycolmap.Reconstruction",
    images: Mapping[str, Path],
    root: Path,
    source: Path,
    options: ReadOptions,
    report: ReadReport,
    upright: bool = False,
) -> Scene:
    """The scene of a reconstruction whose image `name` is the file `images[name]`.

    Names that `images` lacks, or whose file is gone, are skipped with a count. Points on fewer than three
    images or more than two pixels off are dropped: they are mostly false matches.

    Args:
        reconstruction: poses, lenses and points.
        images: file of each image by its name in the reconstruction.
        root: folder that names in the scene are relative to; masks are looked for in it.
        source: what the user gave.
        options: see `ReadOptions`.
        report: what is known so far; `photos` is set if it is zero.
        upright: the cameras refer to pixels after EXIF's orientation.

    Raises:
        CaptureError: for a lens that is not known, masks or images that do not fit.
        ImageError: if fewer than three images can be read.
        RoiError: if no camera sees the region of interest.
    """
    posed = sorted(
        (i for i in reconstruction.images.values() if i.has_pose), key=lambda i: natural_key(i.name)
    )
    present = [image for image in posed if image.name in images and images[image.name].is_file()]
    if len(present) < len(posed):
        gone = next(image.name for image in posed if image not in present)
        report.warnings.append(
            f"{len(posed) - len(present)} of {len(posed)} posed images are not on disk ({gone}, …)"
        )
    report.photos = report.photos or len(present)
    require_images(len(present), report.lost, root)
    paths = [images[image.name] for image in present]
    views = Views(
        root=root,
        paths=paths,
        cameras=_cameras(reconstruction, present),
        held_out=every_eighth(len(present)),
        points=sparse_points(reconstruction, [image.image_id for image in present]),
        upright=upright,
    )
    return assemble(views, source, options, report)


def sparse_points(reconstruction: "pycolmap.Reconstruction", image_ids: list[int]) -> SparsePoints:
    """Reliable points and the images that see them; image i of the result is `image_ids[i]`."""
    number = {image_id: index for index, image_id in enumerate(image_ids)}
    positions, colors, observations = [], [], []
    for point in reconstruction.points3D.values():
        observers = {number[item.image_id] for item in point.track.elements if item.image_id in number}
        if len(observers) < _MIN_TRACK or not point.error <= _MAX_ERROR_PIXELS:
            continue
        observations += [(len(positions), observer) for observer in sorted(observers)]
        positions.append(point.xyz)
        colors.append(point.color)
    return SparsePoints(
        positions=torch.from_numpy(np.array(positions, dtype=np.float64).reshape(-1, 3)),
        colors=torch.from_numpy(np.array(colors, dtype=np.uint8).reshape(-1, 3)),
        observations=torch.tensor(observations, dtype=torch.int64).reshape(-1, 2),
    )


def _load_pycolmap() -> ModuleType:
    """Import pycolmap, and keep the signal handlers that were there.

    Its logging library takes SIGTERM over without Python's knowledge when it is loaded, and would end a fit with
    a stack trace where the fit's own handler stops it and keeps the result.
    """
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    import pycolmap

    if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
        for signum, handler in handlers.items():
            if handler is not None:  # None: set by no Python code, nor can it be set again from here
                signal.signal(signum, handler)
    return pycolmap


def _check_lengths(model: Path) -> None:
    """Walk the binary files by the lengths they state before pycolmap takes memory for them.

    pycolmap allocates what a damaged length asks for, which is terabytes as likely as not. Formats: COLMAP's
    reconstruction_io, ReadImagesBinary and ReadPoints3DBinary.

    Raises:
        struct.error: if a file ends before its records do.
    """
    if not (model / "points3D.bin").is_file():
        return
    images, points = (model / "images.bin").read_bytes(), (model / "points3D.bin").read_bytes()
    offset = 8
    for _ in range(_length(images, 0, 73)):
        name_end = images.find(b"\0", offset + 64)  # after the id, pose and camera id
        offset = name_end + 9 + 24 * _length(images, name_end + 1 if name_end >= 0 else len(images), 24)
    offset = 8
    for _ in range(_length(points, 0, 51)):
        offset += 51 + 8 * _length(points, offset + 43, 8)  # after the id, position, colour and error


def _length(body: bytes, offset: int, item_bytes: int) -> int:
    """The count stored at `offset`, if that many items can follow it.

    Raises:
        struct.error: if they cannot.
    """
    (count,) = struct.unpack_from("<Q", body, offset)
    if count * item_bytes > len(body) - offset - 8:
        raise struct.error(f"{count} records are stated, the file ends before them")
    return count


def _cameras(reconstruction: "pycolmap.Reconstruction", images: list["pycolmap.Image"]) -> Cameras:
    cameras = [reconstruction.cameras[image.camera_id] for image in images]
    lenses = [_lens(camera, image.name) for camera, image in zip(cameras, images, strict=True)]
    worlds = [image.cam_from_world().matrix() for image in images]
    poses = [np.concatenate([pose[:, :3].T, -pose[:, :3].T @ pose[:, 3:]], axis=1) for pose in worlds]
    return Cameras(
        c2w=torch.from_numpy(np.stack(poses)),
        intrinsics=torch.tensor([lens[0] for lens in lenses], dtype=torch.float64),
        distortion=torch.tensor([lens[1] for lens in lenses], dtype=torch.float64),
        fisheye=torch.tensor([lens[2] for lens in lenses]),
        sizes=torch.tensor([[camera.width, camera.height] for camera in cameras]),
    )


def _lens(camera: "pycolmap.Camera", name: str) -> tuple[list[float], list[float], bool]:
    """Intrinsics, distortion and whether it is a fisheye; `name` is an image that has this camera."""
    model = camera.model.name
    if model not in _MODELS:
        raise CaptureError(
            f"{name} has COLMAP's camera model {model}; known are {', '.join(_MODELS)}: run "
            "`colmap image_undistorter`, or reconstruct with --ImageReader.camera_model OPENCV"
        )
    keys, fisheye = _MODELS[model]
    values = dict(zip(keys.split(), map(float, camera.params), strict=True))
    fx, fy = values.get("fx", values.get("f")), values.get("fy", values.get("f"))
    intrinsics = [fx, fy, values["cx"], values["cy"]]
    distortion = [values.get(key, 0.0) for key in ("k1", "k2", "k3", "k4", "p1", "p2")]
    if not np.isfinite(intrinsics + distortion).all():
        raise CaptureError(f"the camera of {name} holds NaN or infinity; reconstruct again")
    return intrinsics, distortion, fisheye


def _image_folder(source: Path, model: Path) -> Path:
    bases = [source, source.parent, model.parent, model.parent.parent]
    folders = [base / name for base in bases for name in _IMAGE_FOLDERS]
    return next((folder for folder in folders if folder.is_dir()), source)
