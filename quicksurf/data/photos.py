"""A folder of photos without cameras: headers, structure from motion, scene."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8

from quicksurf import _native
from quicksurf.data.assemble import ReadOptions, Views, assemble, every_eighth
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
from quicksurf.data.sfm.plan import plan_poses
from quicksurf.data.sfm.poses import Photos, Poses, find_poses
from quicksurf.errors import ImageError

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
    """`read_photos` for files already listed; `ordered` ones are matched with more of their neighbours."""
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


def group_cameras(files: Sequence[ImageFile]) -> list[tuple[list[int], float | None]]:
    """Photos of one camera and zoom, as far as can be told: same upright size, and same lens in EXIF.

    Returns:
        the photos of each group, and their focal length in parts of their width.
    """
    groups: dict[tuple[int, int, int | None, str], list[int]] = {}
    for index, file in enumerate(files):
        focal = None if file.focal_pixels is None else round(file.focal_pixels)
        groups.setdefault((file.width, file.height, focal, file.lens), []).append(index)
    firsts = [(members, files[members[0]]) for members in groups.values()]
    return [
        (members, None if first.focal_pixels is None else first.focal_pixels / first.width)
        for members, first in firsts
    ]


def _pose(files: list[ImageFile], root: Path, options: ReadOptions, ordered: bool, deadline: float) -> Poses:
    """Poses of as many photos as can be placed."""
    megapixels = float(np.median([file.width * file.height for file in files])) / 1e6
    plan = plan_poses(
        len(files), megapixels, deadline - time.monotonic(), _native.usable_cpus(), ordered
    )
    options.say(plan.describe(len(files)))
    photos = Photos([file.path for file in files], group_cameras(files))
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
    options.say(f"{n_placed} of {report.photos} photos placed")
    for name, reason in report.lost.items():
        options.say(f"  lost {name}: {reason}")
    if n_placed < _FEW * report.photos:
        report.doubts.append(
            f"only {n_placed} of {report.photos} photos could be placed: expect holes; take more photos that "
            "overlap by two thirds, in focus"
        )
    if report.apart:
        report.doubts.append(_groups_apart(n_placed, report.apart))
    if n_doubtful > _DOUBTED * n_placed:
        named = ", ".join(report.contradicting[:5]) + (" ..." if n_doubtful > 5 else "")
        report.doubts.append(
            f"the poses of {n_doubtful} photos contradict the others ({named}): alike sides may have been taken for "
            "one; look at the mesh, leave these photos out, or put something unlike beside each side"
        )
    report.warnings += report.doubts


def _groups_apart(n_placed: int, apart: list[list[str]]) -> str:
    groups = "; ".join(f"{len(group)} like {group[0]}" for group in apart[:4])
    return (
        f"the photos fall into {len(apart) + 1} groups that nothing joins for certain: {n_placed} photos are used, not "
        f"those of the others ({groups}); take photos between the groups, of the object in both positions, or give masks"
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
