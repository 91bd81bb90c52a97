"""The end of every loader: posed images on disk become a `Scene`.

A loader finds names, cameras and points (`Views`); this module reads the pixels, drops the files that cannot
be read, brings cameras and masks to the size of the pixels, and chooses the region of interest.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool

from quicksurf.capture import images, masks
from quicksurf.capture.automatic_masks.folder import corrected, read_kept
from quicksurf.capture.automatic_masks.make import Mask, make_masks
from quicksurf.capture.automatic_masks.network import Saliency
from quicksurf.capture.camera_checks import check_lenses, check_parallax, lens_warnings
from quicksurf.capture.masks import as_given
from quicksurf.capture.roi import automatic_roi, check_roi, kind_of, looks_inward
from quicksurf.capture.scene import Kind, MadeMasks, PhotoFile, ReadReport, Scene, SparsePoints
from quicksurf.errors import CaptureError, ConfigError, ImageError
from quicksurf.geometry import cameras as lens
from quicksurf.geometry.cameras import Cameras
from quicksurf.geometry.region import Roi

HELD_OUT_EVERY = 8  # the field's convention for captures without a split of their own
_MIN_TO_HOLD_OUT = 8  # below that every view is needed for the surface


@dataclass(frozen=True)
class ReadOptions:
    """How much to read of a capture, and where to keep what is made on the way."""

    max_pixels: int
    """Larger images are area-filtered down to this many pixels each, cameras with them."""
    use_masks: bool = True
    """Use mask files and alpha channels where there are any."""
    mask_folder: Path | None = None
    """Where the masks lie; None looks for them in the capture."""
    kept_masks: Path | None = None
    """Folder of the masks that a run was fitted with, which stand for all others."""
    saliency: Callable[[], Saliency] | None = None
    """Loads the network that makes masks where there are none; None makes none."""
    mask_seconds: float = float("inf")
    """Time left for that."""
    roi: Roi | None = None
    """The user's region of interest; None chooses one."""
    kind: Kind | None = None
    """The user's word on the kind of capture; None tells it from cameras and points."""
    whole_scene: bool = False
    """What surrounds an object is wanted, too: the region of interest holds all that has points, unless there are
    masks."""
    work_folder: Path | None = None
    """Where structure from motion keeps its database; None takes a temporary folder."""
    pose_seconds: float = 300.0
    """Time left for finding poses, where the capture has none."""
    points_seconds: Callable[[int], float] = lambda n_photos: 0.0
    """Time for points where a capture has cameras and no points, by the number of photos; 0 leaves them out."""
    say: Callable[[str], None] = print
    """Receives one line at a time for the user."""


@dataclass(frozen=True)
class Views:
    """Posed images on disk, before a pixel is read. Lists and cameras run in parallel."""

    root: Path
    """The folder of the capture; names are relative to it."""
    paths: list[Path]
    cameras: Cameras
    """Sized as the camera file says; images of another size but the same aspect are accepted."""
    held_out: Bool[np.ndarray, "n"]
    mask_paths: list[Path | None] | None = None
    """Mask of each image as the capture names it; None looks for a folder of masks."""
    points: SparsePoints | None = None
    roi: Roi | None = None
    """A region of interest that the capture itself states."""
    upright: bool = False
    """Cameras refer to pixels after EXIF's orientation (photos posed by us), not as stored."""


def every_eighth(n_images: int) -> Bool[np.ndarray, "n"]:
    """Return the default split: views 0, 8, 16, … are held out; none of fewer than eight."""
    return (np.arange(n_images) % HELD_OUT_EVERY == 0) & (n_images >= _MIN_TO_HOLD_OUT)


def assemble(views: Views, source: Path, options: ReadOptions, report: ReadReport) -> Scene:
    """Read the pixels of `views` and complete the scene; unreadable files are noted in the report.

    Raises:
        ImageError: if fewer than three images can be read.
        CaptureError: if a mask has another aspect than its image, all masks are black, no image has that of its
            camera, the cameras stand at one place, or a lens cannot be undistorted.
        RoiError: if no camera sees the region of interest.
    """
    names = [path.name for path in views.paths]
    check_lenses(views.cameras, names)
    report.warnings += lens_warnings(views.cameras, names)
    check_parallax(views.cameras, views.points)
    upright = [_upright(views, index) for index in range(len(views.paths))]
    pixels = images.each_or_error(
        range(len(upright)), lambda i: images.read_pixels(views.paths[i], options.max_pixels, upright[i])
    )
    fits, cameras = fit_cameras(views, pixels, report)
    images.require_images(len(fits), report.lost, views.root)
    views, read = _select(views, list(fits)), list(fits.values())
    kept = list(fits)
    turned = [upright[index] for index in kept]
    found = _masks(views, read, turned, options, report)
    files = [PhotoFile(path, turn) for path, turn in zip(views.paths, turned, strict=True)]
    points = views.points
    if points is None:
        points = _points(views, files, found, options, report)
    kind = options.kind or kind_of(cameras, points)
    if (
        options.whole_scene
        and options.kind is None
        and kind == "around"
        and all(mask is None for mask in found)
    ):
        kind = "facade"  # the region of one, and its far background
    if views.points is None and kind == "around" and looks_inward(cameras):
        points = (
            None  # they have checked the cameras; the fit of one object is worse with them (tools/LOG.md)
        )
    roi = _roi(views, cameras, found, points, kind, options)
    if options.saliency is not None and any(mask is None for mask in found):
        found = _with_made(views, read, cameras, found, roi, kind, options, report)
        roi = _roi(views, cameras, found, points, kind, options)
    found, some_only = masks.use_some(found, [path.name for path in views.paths])
    report.warnings += some_only + masks.mask_warnings(found, [path.name for path in views.paths])
    report.warnings += check_roi(roi, cameras, kind) + images.lost_warnings(report.lost)
    return Scene(
        name=views.root.resolve().name,
        source=source,
        cameras=cameras,
        images=[item.rgb for item in read],
        masks=found,
        names=[path.relative_to(views.root).as_posix() for path in views.paths],
        held_out=_split(views.held_out & _measurable(found), report),
        roi=roi,
        points=points,
        report=report,
        files=files,
        kind=kind,
    )


def fit_cameras(
    views: Views, pixels: Sequence[images.Pixels | ImageError], report: ReadReport
) -> tuple[dict[int, images.Pixels], Cameras]:
    """Return the images that can be used, by index, with their cameras at the size of the pixels in memory.

    An image that cannot be read, or has another aspect than its camera says, is lost alone.

    Raises:
        CaptureError: if the aspect of every image differs from its camera's.
    """
    fits: dict[int, images.Pixels] = {}
    misfits = []
    for index, item in enumerate(pixels):
        path, stated = views.paths[index], views.cameras.sizes[index].tolist()
        if isinstance(item, ImageError):
            report.lost[path.name] = str(item)
        elif _has_aspect(item.size, stated):
            fits[index] = item
        else:
            misfits.append(
                f"{path}: {item.size[0]} x {item.size[1]} pixels but its camera says {stated[0]} x {stated[1]}, "
                "another aspect: use the image it was made for or correct w and h"
            )
            report.lost[path.name] = misfits[-1]
    if misfits and not fits:
        raise CaptureError(f"no image has the aspect of its camera; {misfits[0]}")
    sizes = torch.tensor([[item.rgb.shape[1], item.rgb.shape[0]] for item in fits.values()]).view(-1, 2)
    return fits, lens.resize(views.cameras.select(torch.tensor(list(fits), dtype=torch.long)), sizes)


def _has_aspect(size: tuple[int, int], stated: Sequence[int]) -> bool:
    scale = size[0] / stated[0]
    return abs(stated[1] * scale - size[1]) <= 1.5 * max(1.0, scale)  # sizes are rounded to pixels


def _upright(views: Views, index: int) -> bool:
    """Whether to turn image `index`: as the views say, else if only then it agrees with its camera."""
    if views.upright:
        return True
    try:
        header = images.read_header(views.paths[index])
    except ImageError:
        return False  # reading the pixels reports it
    stated_wide = bool(views.cameras.sizes[index, 0] > views.cameras.sizes[index, 1])
    stored_wide = header.stored_size[0] > header.stored_size[1]
    return (header.width, header.height) != header.stored_size and stated_wide != stored_wide


def _select(views: Views, kept: Sequence[int]) -> Views:
    if len(kept) == len(views.paths):
        return views
    return replace(
        views,
        paths=[views.paths[index] for index in kept],
        cameras=views.cameras.select(torch.tensor(kept)),
        held_out=views.held_out[list(kept)],
        mask_paths=None if views.mask_paths is None else [views.mask_paths[index] for index in kept],
        points=select_observers(views.points, kept, len(views.paths)),
    )


def select_observers(points: SparsePoints | None, kept: Sequence[int], n_images: int) -> SparsePoints | None:
    """Return the same points seen by the images `kept` alone, renumbered 0, 1, … in that order."""
    if points is None:
        return None
    renumbered = torch.full((n_images,), -1)
    renumbered[torch.tensor(kept)] = torch.arange(len(kept))
    observers = renumbered[points.observations[:, 1]]
    observations = torch.stack([points.observations[:, 0], observers], 1)[observers >= 0]
    return points._replace(observations=observations)


def _roi(
    views: Views,
    cameras: Cameras,
    found: Sequence[Mask | None],
    points: SparsePoints | None,
    kind: Kind,
    options: ReadOptions,
) -> Roi:
    return options.roi or views.roi or automatic_roi(cameras, found, points, kind)


def _masks(
    views: Views,
    read: Sequence[images.Pixels],
    upright: Sequence[bool],
    options: ReadOptions,
    report: ReadReport,
) -> list[Mask | None]:
    """The masks that are given, or that the run has kept."""
    if options.kept_masks is not None:
        return [read_kept(options.kept_masks, index, item.rgb) for index, item in enumerate(read)]
    return _given(views, read, upright, options, report) if options.use_masks else [None] * len(read)


def _given(
    views: Views,
    read: Sequence[images.Pixels],
    upright: Sequence[bool],
    options: ReadOptions,
    report: ReadReport,
) -> list[Mask | None]:
    mask_paths, warnings = views.mask_paths, []
    if options.mask_folder is not None:
        mask_paths, warnings = masks.masks_in(options.mask_folder, views.paths)
    elif mask_paths is None:
        mask_paths, warnings = masks.find_masks(views.root, views.paths)
    if options.saliency is not None:
        mask_paths = corrected(mask_paths)  # the others are made anew
    found: list[Mask | None] = []
    for path, item, turned in zip(mask_paths, read, upright, strict=True):
        if path is not None:
            found.append(masks.read_mask(path, item, turned))
        else:
            found.append(None if item.alpha is None else as_given(masks.coverage(item.alpha)))
    files = [path for path in mask_paths if path is not None]
    masks.require_object(found, str(files[0].parent) if files else f"the alpha channels of {views.root}")
    report.warnings += warnings
    return found


def _points(
    views: Views,
    files: Sequence[PhotoFile],
    found: Sequence[Mask | None],
    options: ReadOptions,
    report: ReadReport,
) -> SparsePoints | None:
    """Points that the photos show with the cameras held, where there is time for them."""
    seconds = options.points_seconds(len(files))
    if seconds <= 0:
        return None
    from quicksurf.capture.sfm.given_cameras import find_points  # OpenCV is loaded only where it is needed

    began = time.monotonic()
    result = find_points(files, found, views.cameras, seconds, options.say)
    report.seconds_points = time.monotonic() - began
    if result is None:
        report.notes.append("no time to find points with the given cameras")
        return None
    report.notes.append(result.line)
    report.warnings += result.warnings
    return result.points if len(result.points.positions) else None


def _with_made(
    views: Views,
    read: Sequence[images.Pixels],
    cameras: Cameras,
    given: list[Mask | None],
    roi: Roi,
    kind: Kind,
    options: ReadOptions,
    report: ReadReport,
) -> list[Mask | None]:
    """The given masks, and for photos without one those that are made, if the photos show one object."""
    assert options.saliency is not None
    check_roi(roi, cameras)
    if kind != "around":
        report.made_masks = MadeMasks(verdict="no masks made: the photos do not go around an object")
        report.notes.append(report.made_masks.verdict)
        return given
    try:
        look = options.saliency()
    except ConfigError as error:
        report.made_masks = MadeMasks(verdict=str(error))
    else:
        made = make_masks([item.rgb for item in read], cameras, roi, given, look, options.mask_seconds)
        names = [path.name for path, mask in zip(views.paths, made.masks, strict=True) if mask is not None]
        report.made_masks = MadeMasks(made.verdict, names, made.agreement, made.angle)
        given = [mine if mask is None else mask for mask, mine in zip(given, made.masks, strict=True)]
    report.notes.append(report.made_masks.verdict)
    return given


def _measurable(found: Sequence[Mask | None]) -> Bool[np.ndarray, "n"]:
    """Which views may be held out: where there are masks, those that say what of the photo is to be seen."""
    masked = np.array([mask is not None for mask in found])
    return masked | (not masked.any())


def _split(held_out: Bool[np.ndarray, "n"], report: ReadReport) -> Bool[np.ndarray, "n"]:
    if (~held_out).sum() >= images.MIN_IMAGES:
        return held_out
    report.warnings.append(
        "too few views to hold any out: all are used, and held-out quality is not measured"
    )
    return np.zeros_like(held_out)
