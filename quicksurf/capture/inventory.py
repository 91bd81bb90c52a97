"""What lies in a capture's folder, what of it was used, and what was left out and why, each in one line."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from quicksurf.capture.companions import MASK, PREVIEW, companions
from quicksurf.capture.folders import files_below
from quicksurf.capture.images import in_short
from quicksurf.capture.listing import SUFFIXES, VIDEO_SUFFIXES
from quicksurf.capture.masks import FOLDERS as MASK_FOLDERS
from quicksurf.capture.scene import Scene

_UNREAD = frozenset(
    {
        ".dng",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
        ".raf",
        ".orf",
        ".rw2",
        ".gif",
        ".avif",
        ".jxl",
        ".exr",
        ".hdr",
        ".psd",
    }
)
_MAX_LISTED = 6


class Inventory(NamedTuple):
    """The files of a folder and those below, by what they are; all sorted."""

    folder: Path
    photos: list[Path]
    masks: list[Path]
    previews: list[Path]
    films: list[Path]
    unread: list[Path]
    """Pictures of kinds that are not read."""

    def describe(self) -> str:
        """What was found, and what of it no capture uses."""
        found = [_counted(self.photos, "photo", self.folder), _counted(self.masks, "mask", self.folder)]
        left = [
            _counted(self.previews, "preview", self.folder),
            _counted(self.films, "film", self.folder),
            _counted(self.unread, "picture", self.folder, " of kinds that are not read"),
        ]
        text = ", ".join(filter(None, found)) or "no photos"
        return text + (f"; left out: {', '.join(filter(None, left))}" if any(left) else "")


def take_inventory(folder: Path) -> Inventory:
    """Look through `folder` and what is below; hidden files and links to folders are passed over."""
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for path in files_below(folder):
        by_folder[path.parent].append(path)
    result = Inventory(folder, [], [], [], [], [])
    for parent, files in by_folder.items():
        images = [path for path in files if path.suffix.lower() in SUFFIXES]
        kinds = companions(images)
        of_masks = any(part.casefold() in MASK_FOLDERS for part in parent.relative_to(folder).parts)
        for path in images:
            kind = MASK if of_masks else kinds.get(path)
            {MASK: result.masks, PREVIEW: result.previews, None: result.photos}[kind].append(path)
        result.films.extend(path for path in files if path.suffix.lower() in VIDEO_SUFFIXES)
        result.unread.extend(path for path in files if path.suffix.lower() in _UNREAD)
    return result


def describe_use(scene: Scene, inventory: Inventory | None) -> str:
    """How many photos are used, how many have masks, and what became of the others."""
    lost = scene.report.lost
    text = f"{len(scene.images)} of {max(scene.report.photos, len(scene.images))} photos used"
    n_masks = sum(mask is not None for mask in scene.masks)
    text += f", {n_masks} with masks" if n_masks else ""
    reasons = Counter(in_short(name, reason) for name, reason in lost.items())
    left = [f"{count} ({reason})" for reason, count in reasons.most_common(_MAX_LISTED)]
    if inventory is not None:
        used = {file.path for file in scene.files}
        others = [path for path in inventory.photos if path not in used and path.name not in lost]
        left += [_counted(others, "photo", inventory.folder, " not of this capture")] if others else []
    return text + (f"; left out: {', '.join(left)}" if left else "")


def _counted(paths: Sequence[Path], noun: str, folder: Path, what: str = "") -> str:
    """`27 photos (24 in images/, 3 in more/)`; empty for none."""
    if not paths:
        return ""
    places = Counter(path.parent.relative_to(folder).as_posix() for path in paths)
    parts = [
        f"{count} in {place}/" if place != "." else f"{count} here" for place, count in sorted(places.items())
    ]
    more = [f"more in {len(parts) - _MAX_LISTED} folders"] if len(parts) > _MAX_LISTED else []
    return f"{len(paths)} {noun}{'s' * (len(paths) != 1)}{what} ({', '.join(parts[:_MAX_LISTED] + more)})"
