"""A folder of photos without cameras: headers, structure from motion, scene."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt8

from quicksurf.capture.assemble import ReadOptions, Views, assemble, every_eighth
from quicksurf.capture.exif import Focal
from quicksurf.capture.images import (
    ImageFile,
    each_or_error,
    read_header,
    read_pixels,
    require_images,
)
from quicksurf.capture.listing import list_images
from quicksurf.capture.photo_figures import LOOK_PIXELS, explain, find_copies
from quicksurf.capture.scene import ReadReport, Scene
from quicksurf.capture.sfm.plan import plan_poses
from quicksurf.capture.sfm.poses import Photos, Poses, find_poses
from quicksurf.errors import ImageError
from quicksurf.kernels.host import instruction_set, usable_cpus

_FEW = 0.5  # of the photos placed: fewer is a doubtful capture
_DOUBTED = 0.05  # of the placed photos that contradict their place: fewer are the luck of single photos

T = TypeVar("T", Path, ImageFile)
R = TypeVar("R")


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
    """Return `read_photos` for files already listed; `ordered` ones are matched with more of their neighbours."""
    started = time.monotonic()
    report = ReadReport(photos=len(paths))
    copies = find_copies(paths)
    report.lost.update({copy.name: f"the same photo as {first.name}" for copy, first in copies.items()})
    files = _usable([path for path in paths if path not in copies], read_header, report)
    require_images(len(files), report.lost, root)
    poses = _pose(files, root, options, ordered, started + options.pose_seconds)
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
    """Group photos of one camera, lens and zoom: of one upright size, one lens and one focal length in EXIF."""
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


def _pose(files: list[ImageFile], root: Path, options: ReadOptions, ordered: bool, deadline: float) -> Poses:
    """Poses of as many photos as can be placed."""
    megapixels = float(np.median([file.width * file.height for file in files])) / 1e6
    plan = plan_poses(
        len(files),
        megapixels,
        deadline - time.monotonic(),
        usable_cpus(),
        ordered,
        instruction_set(),
    )
    options.say(plan.describe(len(files)))
    groups: list[tuple[list[int], float | None, bool]] = [
        (group.members, None, False)
        if group.focal is None
        else (group.members, group.focal.pixels / files[group.members[0]].width, not group.focal.cropped)
        for group in group_cameras(files)
    ]
    photos = Photos([file.path for file in files], groups)
    with _work_folder(options.work_folder) as folder:
        poses = find_poses(photos, folder, plan, deadline - time.monotonic(), options.say)

    def look(index: int) -> UInt8[np.ndarray, "_ _ 3"]:
        return read_pixels(files[index].path, LOOK_PIXELS).rgb

    return poses._replace(reasons=explain(poses.reasons, poses.registered, look) | poses.unreadable)


def _usable(items: Sequence[T], read: Callable[[T], R], report: ReadReport) -> list[R]:
    """What `read` gives for each path or file that it does not fail on; the others are lost."""
    results = each_or_error(items, read)
    for item, result in zip(items, results, strict=True):
        if isinstance(result, ImageError):
            report.lost[item.path.name if isinstance(item, ImageFile) else item.name] = str(result)
    return [result for result in results if not isinstance(result, ImageError)]


def _note_lost(poses: Poses, files: Sequence[ImageFile], report: ReadReport, options: ReadOptions) -> None:
    """Tell what was placed and what was not, and what speaks against the poses."""
    names = [file.path.name for file in files]
    report.lost.update({names[index]: reason for index, reason in poses.reasons.items()})
    report.apart = [[names[index] for index in group] for group in poses.groups]
    n_doubtful = len(poses.doubtful)
    report.contradicting = [names[index] for index in poses.doubtful]
    n_placed = len(poses.registered)
    report.reprojection_error = poses.error
    options.say(
        f"{n_placed} of {report.photos} photos placed, mean reprojection error {poses.error:.2f} pixels"
    )
    for name, reason in report.lost.items():
        options.say(f"  lost {name}: {reason}")
    if n_placed < _FEW * report.photos:
        report.problems.append(
            f"only {n_placed} of {report.photos} photos could be placed: expect holes; take more photos that "
            "overlap by two thirds, in focus"
        )
    if report.apart:
        report.problems.append(_groups_apart(n_placed, report.apart))
    if n_doubtful > _DOUBTED * n_placed:
        named = ", ".join(report.contradicting[:5]) + (" ..." if n_doubtful > 5 else "")
        report.problems.append(
            f"the poses of {n_doubtful} photos contradict the others ({named}): alike sides may have been taken for "
            "one; look at the mesh, leave these photos out, or put something unlike beside each side"
        )
    report.warnings += report.problems


def _groups_apart(n_placed: int, apart: list[list[str]]) -> str:
    groups = "; ".join(f"{len(group)} like {group[0]}" for group in apart[:4])
    return (
        f"the photos fall into {len(apart) + 1} groups that nothing joins for certain: {n_placed} photos are used, "
        f"not those of the others ({groups}); take photos between the groups, of the object in both positions, or "
        "give masks"
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
