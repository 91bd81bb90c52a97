"""A COLMAP reconstruction, binary or text, beside its images.

COLMAP's cameras look along +z with y down and count pixel centres at +0.5, as ours do, so only [R | t] is
inverted. All its polynomial lenses are special cases of ours; the table says which parameter goes where.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from quicksurf.capture.assemble import ReadOptions, Views, assemble, every_eighth
from quicksurf.capture.colmap_files import Lens, Model, Point, Posed, count_images, read_model, suffix_of
from quicksurf.capture.images import require_images
from quicksurf.capture.listing import PHOTO_FOLDERS, natural_key, photos_in
from quicksurf.capture.names import find_named, looked_in
from quicksurf.capture.scene import ReadReport, Scene, SparsePoints
from quicksurf.errors import CaptureError, ImageError
from quicksurf.geometry.cameras import Cameras

_PLACES = (
    "",
    "sparse",
    "colmap/sparse",
    "colmap",
    "distorted/sparse",
    "dense/sparse",
)  # and their subfolders
_MODEL_FOLDERS = ("sparse", "colmap", "distorted", "dense")
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
    """Return the folder under `source` that holds a COLMAP model, the largest of the first place that has any."""
    models = _models(source)
    return models[0] if models else None


def read_colmap(source: Path, options: ReadOptions) -> Scene:
    """Read the COLMAP model found in `source` with the images beside it.

    Raises:
        CaptureError: if the model is damaged, empty or has a lens that is not known.
        ImageError: if fewer than three of its images are on disk.
        RoiError: if no camera sees the region of interest.
    """
    models = _models(source)
    if not models:
        raise CaptureError(f"{source} holds no COLMAP model: cameras and images (.bin or .txt) are expected")
    model, report, root = read_model(models[0]), ReadReport(), _root(source)
    report.notes += _notes(models, model, source)
    names = [image.name for image in model.images]
    folders = _image_folders(root, models[0])
    found, note = find_named(names, root, folders)
    report.notes += [note] if note else []
    posed = sorted((i for i in model.images if i.name in found), key=lambda image: natural_key(image.name))
    absent = [name for name in names if name not in found]
    _note_absent(posed, absent, found, report)
    if names and not posed:
        raise ImageError(
            f"none of the {len(names)} images of the COLMAP model is on disk: {looked_in(absent, root, folders)}; "
            "copy the images beside the model"
        )
    require_images(len(posed), report.lost, root)
    views = Views(
        root=root,
        paths=[found[image.name] for image in posed],
        cameras=_cameras(model.lenses, posed),
        held_out=every_eighth(len(posed)),
        points=sparse_points(model.points or [], [image.image_id for image in posed]),
    )
    return assemble(views, source, options, report)


def sparse_points(points: Sequence[Point], image_ids: Sequence[int]) -> SparsePoints:
    """Return reliable points and the images that see them; image i of the result is `image_ids[i]`.

    Points on fewer than three images or more than two pixels off are dropped: they are mostly false matches.
    """
    number = {image_id: index for index, image_id in enumerate(image_ids)}
    positions, colors, observations = [], [], []
    for point in points:
        observers = {number[image_id] for image_id in point.image_ids if image_id in number}
        if len(observers) < _MIN_TRACK or not point.error <= _MAX_ERROR_PIXELS:
            continue
        observations += [(len(positions), observer) for observer in sorted(observers)]
        positions.append(point.position)
        colors.append(point.color)
    return SparsePoints(
        positions=torch.from_numpy(np.array(positions, dtype=np.float64).reshape(-1, 3)),
        colors=torch.from_numpy(np.array(colors, dtype=np.uint8).reshape(-1, 3)),
        observations=torch.tensor(observations, dtype=torch.int64).reshape(-1, 2),
    )


def _models(source: Path) -> list[Path]:
    """The folders with models of the first place that has any, the one of most images first."""
    for place in _PLACES:
        folder = source / place
        below = [path for path in folder.glob("*/") if path.name.isdecimal()] if place else []
        found = [
            path for path in (folder, *sorted(below, key=lambda p: natural_key(p.name))) if suffix_of(path)
        ]
        if found:
            return sorted(found, key=count_images, reverse=True)  # stable: the first of the largest
    return []


def _notes(models: Sequence[Path], model: Model, source: Path) -> list[str]:
    notes = []
    if len(models) > 1:
        others = ", ".join(f"{_inside(path, source)} has {count_images(path)}" for path in models[1:])
        notes.append(
            f"of {len(models)} COLMAP models the largest is taken, {_inside(models[0], source)} with "
            f"{len(model.images)} images; {others}"
        )
    if model.points is None:
        notes.append("the COLMAP model has no points3D: the region of interest is found without")
    return notes


def _inside(path: Path, source: Path) -> str:
    return path.relative_to(source).as_posix()


def _note_absent(
    posed: Sequence[Posed], absent: Sequence[str], found: Mapping[str, Path], report: ReadReport
) -> None:
    """Note images of the model that are not on disk, and photos beside the others that the model lacks."""
    if absent and posed:
        n_images = len(posed) + len(absent)
        more = ", …" if len(absent) > 1 else ""
        report.warnings.append(
            f"{len(absent)} of {n_images} posed images are not on disk ({absent[0]}{more})"
        )
    used = set(found.values())
    for folder in dict.fromkeys(path.parent for path in used):
        for path in photos_in(folder):
            if path not in used:
                report.lost[path.name] = f"{path}: no camera in the COLMAP model"
                report.photos += 1
    report.photos += len(posed)


def _root(source: Path) -> Path:
    """The folder of the capture: `source`, or where its images lie if it is that of a model."""
    for root in (source, *source.absolute().parents[:3]):
        if any((root / name).is_dir() for name in PHOTO_FOLDERS):
            return root
        if not (suffix_of(root) or root.name in _MODEL_FOLDERS):
            break
    return source


def _image_folders(root: Path, model: Path) -> list[Path]:
    """Where the model's names may start from."""
    bases = [root, *(base for base in (model, *model.parents[:2]) if base.is_relative_to(root))]
    folders = [base / name for base in bases for name in PHOTO_FOLDERS]
    return [*(folder for folder in dict.fromkeys(folders) if folder.is_dir()), root]


def _cameras(lenses: Mapping[int, Lens], images: Sequence[Posed]) -> Cameras:
    cameras = [lenses[image.camera_id] for image in images]
    described = [_lens(camera, image.name) for camera, image in zip(cameras, images, strict=True)]
    to_world = Rotation.from_quat([image.quaternion for image in images], scalar_first=True).inv()
    centers = -to_world.apply([image.translation for image in images])
    return Cameras(
        c2w=torch.from_numpy(np.concatenate([to_world.as_matrix(), centers[:, :, None]], axis=2)),
        intrinsics=torch.tensor([lens[0] for lens in described], dtype=torch.float64),
        distortion=torch.tensor([lens[1] for lens in described], dtype=torch.float64),
        fisheye=torch.tensor([lens[2] for lens in described]),
        sizes=torch.tensor([[camera.width, camera.height] for camera in cameras]),
    )


def _lens(camera: Lens, name: str) -> tuple[list[float], list[float], bool]:
    """Intrinsics, distortion and whether it is a fisheye; `name` is an image that has this camera."""
    if camera.model not in _MODELS:
        raise CaptureError(
            f"{name} has COLMAP's camera model {camera.model}; known are {', '.join(_MODELS)}: run "
            "`colmap image_undistorter`, or reconstruct with --ImageReader.camera_model OPENCV"
        )
    keys, fisheye = _MODELS[camera.model]
    values = dict(zip(keys.split(), camera.params, strict=True))
    focal = values.get("f", 0.0)
    intrinsics = [values.get("fx", focal), values.get("fy", focal), values["cx"], values["cy"]]
    distortion = [values.get(key, 0.0) for key in ("k1", "k2", "k3", "k4", "p1", "p2")]
    if min(intrinsics[:2]) <= 0:
        raise CaptureError(
            f"the camera of {name} has a focal length of {min(intrinsics[:2]):g}; reconstruct again"
        )
    return intrinsics, distortion, fisheye
