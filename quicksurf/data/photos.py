"""A folder of photos without cameras: headers, copies at feature size, structure from motion, scene."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from quicksurf import _native
from quicksurf.data.assemble import ReadOptions, Views, assemble, every_eighth
from quicksurf.data.exif import Focal
from quicksurf.data.images import (
    ImageFile,
    each_or_error,
    list_images,
    read_header,
    read_pixels,
    require_images,
)
from quicksurf.data.lost_photos import LOOK_PIXELS, explain, find_copies
from quicksurf.data.scene import ReadReport, Scene
from quicksurf.data.sfm import Photos, Poses, find_poses
from quicksurf.data.sfm_plan import Plan, plan_poses, plan_retry
from quicksurf.errors import BudgetError, ImageError, PosesError
from quicksurf.io import write_atomic

_ENOUGH = 0.6  # of the photos registered: fewer is worth a second, harder try
_QUALITY = 95  # JPEG of the working copies: its noise is below the camera's own


T = TypeVar("T", Path, ImageFile)
R = TypeVar("R")


class _Copies(NamedTuple):
    photos: Photos
    files: list[ImageFile]
    """The originals, in the same order."""


def read_photos(folder: Path, options: ReadOptions) -> Scene:
    """Find cameras for the photos directly in `folder` and read them; lost photos are named in the report.

    Raises:
        ImageError: if there are fewer than three usable photos.
        PosesError: if no three of them could be posed.
        BudgetError: if `options.pose_seconds` is too short, before anything is begun or when time is out.
        RoiError: if no camera sees the region of interest.
    """
    return pose_and_read(list_images(folder), folder, options, ordered=False)


def pose_and_read(paths: Sequence[Path], root: Path, options: ReadOptions, ordered: bool) -> Scene:
    """`read_photos` for files already listed; `ordered` ones are matched with more of their neighbours."""
    started = time.monotonic()
    report = ReadReport(photos=len(paths))
    copies = find_copies(paths)
    report.lost.update({copy.name: f"the same photo as {first.name}" for copy, first in copies.items()})
    files = _usable([path for path in paths if path not in copies], read_header, report)
    require_images(len(files), report.lost, root)
    poses, files = _pose(files, root, options, ordered, report, started + options.pose_seconds)
    _note_lost(poses, files, report, options)
    report.seconds_poses = time.monotonic() - started
    kept = [files[index].path for index in poses.registered]
    views = Views(
        root=root,
        paths=kept,
        cameras=poses.cameras,
        held_out=every_eighth(len(kept)),
        points=poses.points,
        upright=True,
    )
    return assemble(views, root, options, report)


class CameraGroup(NamedTuple):
    """Photos that share intrinsics, as far as EXIF and sizes tell."""

    members: list[int]
    focal: Focal | None
    lens: str
    """Camera, lens and zoom from EXIF; where it is empty, only the size joins these photos."""


def group_cameras(files: Sequence[ImageFile]) -> list[CameraGroup]:
    """Photos of one camera, lens and zoom: the same upright size, and the same lens and focal length in EXIF."""
    groups: dict[tuple[int, int, str, int], CameraGroup] = {}
    for index, (file, focal) in enumerate(zip(files, _focals(files), strict=True)):
        key = file.width, file.height, file.lens, 0 if focal is None else round(focal.pixels)
        groups.setdefault(key, CameraGroup([], focal, file.lens)).members.append(index)
    return list(groups.values())


def _focals(files: Sequence[ImageFile]) -> list[Focal | None]:
    """Focal lengths in pixels, where crops of one lens share the scale that the largest of them needs.

    A crop alone states only the least scale at which it fits into the original. Crops that have a side in common
    were not cut at one scale, but each shrunk to that side.
    """
    shapes: dict[str, set[tuple[int, int]]] = {}
    most: dict[str, float] = {}
    for file in files:
        if file.lens and file.focal is not None and file.focal.cropped:
            shapes.setdefault(file.lens, set()).add((file.width, file.height))
            most[file.lens] = max(most.get(file.lens, 0.0), file.focal.pixels)
    shared = {lens for lens, sizes in shapes.items() if _no_common_side(sizes)}
    return [
        file.focal._replace(pixels=most[file.lens])
        if file.lens in shared and file.focal is not None and file.focal.cropped
        else file.focal
        for file in files
    ]


def _no_common_side(shapes: set[tuple[int, int]]) -> bool:
    sides = [side for shape in {(min(shape), max(shape)) for shape in shapes} for side in set(shape)]
    return len(sides) == len(set(sides))


def _pose(
    files: list[ImageFile],
    root: Path,
    options: ReadOptions,
    ordered: bool,
    report: ReadReport,
    deadline: float,
) -> tuple[Poses, list[ImageFile]]:
    """Poses of the photos that could be copied, and those photos; a second try if too few were found."""
    megapixels = float(np.median([file.width * file.height for file in files])) / 1e6
    cpus = _native.usable_cpus()
    plan = plan_poses(len(files), megapixels, deadline - time.monotonic(), cpus, ordered)
    found, error = _attempt(files, root, options, plan, report, deadline)
    if found is not None and len(found[0].registered) >= _ENOUGH * len(files):
        return found
    again = plan_retry(len(files), megapixels, deadline - time.monotonic(), cpus, ordered)
    if again is not None:
        n_first = len(found[0].registered) if found else 0
        options.say(
            f"only {n_first} of {len(files)} photos registered: trying once more with larger features"
        )
        second, _ = _attempt(files, root, options, again, report, deadline)
        found = max(filter(None, (found, second)), key=lambda pair: len(pair[0].registered), default=None)
    if found is None:
        raise error or PosesError(f"no poses found for the photos in {root}")
    return found


def _attempt(
    files: list[ImageFile], root: Path, options: ReadOptions, plan: Plan, report: ReadReport, deadline: float
) -> tuple[tuple[Poses, list[ImageFile]] | None, PosesError | BudgetError | None]:
    options.say(plan.describe(len(files)))
    with _work_folder(options.work_folder) as folder:
        copies = _copy(files, folder / "images", plan, report)
        require_images(len(copies.files), report.lost, root)
        try:
            poses = find_poses(copies.photos, folder, plan, deadline - time.monotonic(), options.say)
        except (PosesError, BudgetError) as error:  # a second try that is late must not cost the first
            return None, error

        def look(index: int) -> UInt8[np.ndarray, "_ _ 3"]:
            return read_pixels(folder / "images" / copies.photos.names[index], LOOK_PIXELS).rgb

        reasons = explain(poses.reasons, poses.registered, look)
    return (poses._replace(reasons=reasons), copies.files), None


def _copy(files: Sequence[ImageFile], folder: Path, plan: Plan, report: ReadReport) -> _Copies:
    """Write upright 8-bit copies of at most `plan.feature_pixels`; files with damaged pixels are lost."""
    folder.mkdir(parents=True)
    names = dict(zip((file.path for file in files), _spread_names(len(files)), strict=True))

    def copy(file: ImageFile) -> tuple[ImageFile, float]:
        pixels = read_pixels(file.path, plan.feature_pixels)
        image = Image.fromarray(pixels.rgb)
        write_atomic(
            folder / names[file.path],
            lambda target: image.save(target, "JPEG", quality=_QUALITY, subsampling=0),
        )
        return file, image.width / pixels.size[0]

    copied = _usable(files, copy, report)
    kept = [file for file, _ in copied]
    groups = [
        (group.members, None if group.focal is None else group.focal.pixels * copied[group.members[0]][1])
        for group in group_cameras(kept)
    ]
    return _Copies(Photos([names[file.path] for file in kept], groups), kept)


def _spread_names(n_images: int) -> list[str]:
    """Names whose alphabet, the worker's order, takes every fourth photo first, then those between.

    So what is missing when time runs out is missing everywhere alike, not all on one side of the object.
    """
    order = [index for offset in (0, 2, 1, 3) for index in range(offset, n_images, 4)]
    ranks = {index: rank for rank, index in enumerate(order)}
    return [f"{ranks[index]:06d}.jpg" for index in range(n_images)]


def _usable(items: Sequence[T], read: Callable[[T], R], report: ReadReport) -> list[R]:
    """What `read` gives for each path or file that it does not fail on; the others are lost."""
    results = each_or_error(items, read)
    for item, result in zip(items, results, strict=True):
        if isinstance(result, ImageError):
            report.lost[item.path.name if isinstance(item, ImageFile) else item.name] = str(result)
    return [result for result in results if not isinstance(result, ImageError)]


def _note_lost(poses: Poses, files: Sequence[ImageFile], report: ReadReport, options: ReadOptions) -> None:
    report.lost.update({files[index].path.name: reason for index, reason in poses.reasons.items()})
    options.say(f"{len(poses.registered)} of {report.photos} photos registered")
    for name, reason in report.lost.items():
        options.say(f"  lost {name}: {reason}")
    if len(poses.registered) < _ENOUGH * report.photos:
        report.warnings.append(
            f"only {len(poses.registered)} of {report.photos} photos could be posed: expect holes; take more "
            "photos that overlap by two thirds, in focus"
        )


@contextmanager
def _work_folder(parent: Path | None) -> Iterator[Path]:
    """A new folder for one attempt; of it only sfm.log stays, and only where the user has a folder for it."""
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="sfm-", dir=parent))
    try:
        yield folder
    finally:
        if parent is not None and (folder / "sfm.log").is_file():
            (folder / "sfm.log").replace(parent / "sfm.log")
        shutil.rmtree(folder, ignore_errors=True)
