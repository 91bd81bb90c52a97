"""Find out what a capture on disk is, and read it.

Recognised, in this order: a transforms.json (or a folder with one), IDR's npz, a COLMAP model, a video,
photos.
"""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from quicksurf.capture.assemble import ReadOptions
from quicksurf.capture.colmap import find_model, read_colmap
from quicksurf.capture.idr import NAMES as IDR_NAMES
from quicksurf.capture.idr import read_idr
from quicksurf.capture.images import in_short
from quicksurf.capture.listing import (
    PHOTO_FOLDERS,
    SUFFIXES,
    VIDEO_SUFFIXES,
    Inventory,
    photos_in,
    take_inventory,
)
from quicksurf.capture.scene import Scene
from quicksurf.capture.transforms import NAMES as TRANSFORMS_NAMES
from quicksurf.capture.transforms import read_transforms
from quicksurf.errors import CaptureError, ImageError

__all__ = ["ReadOptions", "read_scene"]

_MAX_REASONS = 6  # in a line


def read_scene(source: Path, options: ReadOptions) -> Scene:
    """Read the capture at `source` (a file or folder of any known form), saying what it is taken for.

    Raises:
        ImageError: if there are no or too few usable images, or `source` is nothing known.
        CaptureError: if its camera file or masks are broken or inconsistent.
        PosesError: if photos or a video could not be posed.
        RoiError: if no camera sees the region of interest.
    """
    started = time.monotonic()
    source = Path(source)
    kind, path, read = _recognise(source)
    inventory = (
        take_inventory(source if source.is_dir() else source.parent) if read is not _read_video else None
    )
    found = f"{kind}; {inventory.describe()}" if inventory else kind
    options.say(f"{source}: {found}")
    scene = read(path, options)
    report = scene.report
    report.found, report.used = found, describe_use(scene, inventory)
    for line in (*report.notes, report.used):
        options.say(line)
    scene.report.seconds_read = time.monotonic() - started - scene.report.seconds_poses
    return scene


def describe_use(scene: Scene, inventory: Inventory | None) -> str:
    """Count the photos that are used and those with masks, and explain what became of the others."""
    lost = scene.report.lost
    text = f"{len(scene.images)} of {max(scene.report.photos, len(scene.images))} photos used"
    n_masks = sum(mask is not None for mask in scene.masks)
    text += f", {n_masks} with masks" if n_masks else ""
    reasons = Counter(in_short(name, reason) for name, reason in lost.items())
    left = [f"{count} ({reason})" for reason, count in reasons.most_common(_MAX_REASONS)]
    if inventory is not None:
        used = {file.path for file in scene.files}
        others = [path for path in inventory.photos if path not in used and path.name not in lost]
        left += [inventory.count(others, "photo", " not of this capture")] if others else []
    return text + (f"; left out: {', '.join(left)}" if left else "")


def _recognise(source: Path) -> tuple[str, Path, Callable[[Path, ReadOptions], Scene]]:
    """What `source` is, in words, the path its reader starts from, and that reader."""
    if source.is_file():
        return _recognise_file(source)
    if not source.is_dir():
        raise ImageError(
            f"{source}: no such file or folder; give a folder of photos, a video or a camera file"
        )
    for name in TRANSFORMS_NAMES:
        if (source / name).is_file():
            return f"cameras from {name}", source / name, read_transforms
    for name in IDR_NAMES:
        if (source / name).is_file():
            return f"cameras from {name} (IDR)", source / name, read_idr
    model = find_model(source)
    if model is not None:
        return (
            f"a COLMAP model in {model.relative_to(source) if model != source else '.'}",
            source,
            read_colmap,
        )
    if not photos_in(source):
        for name in PHOTO_FOLDERS:
            if (source / name).is_dir():
                kind = f"photos in {name}/ without cameras, poses are found from them"
                return kind, source / name, _read_photos
    return "photos without cameras, poses are found from them", source, _read_photos


def _recognise_file(source: Path) -> tuple[str, Path, Callable[[Path, ReadOptions], Scene]]:
    suffix = source.suffix.lower()
    if suffix == ".json":
        return "cameras from transforms.json", source, read_transforms
    if suffix == ".npz":
        return "cameras from npz (IDR)", source, read_idr
    if suffix in VIDEO_SUFFIXES:
        return "a video, frames are chosen from it", source, _read_video
    if suffix in SUFFIXES:
        raise ImageError(f"{source} is one photo: give the folder of at least 3, better 20 or more")
    known = ", ".join(sorted(VIDEO_SUFFIXES))
    raise CaptureError(
        f"{source}: unknown kind of file; expected a .json or .npz of cameras or a video ({known})"
    )


def _read_photos(source: Path, options: ReadOptions) -> Scene:
    from quicksurf.capture.photos import read_photos  # the poser is loaded only where cameras are missing

    return read_photos(source, options)


def _read_video(source: Path, options: ReadOptions) -> Scene:
    from quicksurf.capture.video import read_video  # so are the video codecs

    return read_video(source, options)
