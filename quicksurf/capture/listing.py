"""List what lies in a capture's folder: photos, masks, previews, videos, and files of other kinds.

A mask or preview beside its photo is known by its name: the name of another file in the same folder, with or without
suffix, and a word for what it is (`a_mask.png`, `a.jpg.mask.png`, `mask_a.png`, `a-thumb.jpg`). A file of such a name
without its photo is a photo.

The walk through sub-folders is bounded. It skips hidden files and does not follow links to folders: one to `/` would
lead over the whole disk, one to a parent in a circle.
"""

import os
import re
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from quicksurf.errors import ImageError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".webp", ".heic", ".heif", ".bmp"}
)
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"})
PHOTO_FOLDERS = ("images", "image", "rgb", "input", "photos")
"""Where photos usually lie, the likeliest first."""
MASK_FOLDERS = ("masks", "mask")
MAX_ENTRIES = 100_000  # ten times the photos of the largest captures
MASK, PREVIEW = "mask", "preview"

_MAX_DEPTH = 5
_SYSTEM_FOLDERS = ("@eadir", "__macosx", "lost+found")  # previews of a NAS, resource forks of a zip
_UNREAD = frozenset(
    ".dng .cr2 .cr3 .nef .arw .raf .orf .rw2 .gif .avif .jxl .exr .hdr .psd".split()  # noqa: SIM905
)
_WORDS = {
    MASK: ("mask", "masks", "matte", "alpha", "seg", "segmentation", "silhouette"),
    PREVIEW: ("thumb", "thumbs", "thumbnail", "preview", "proxy", "small"),
}
_KIND = {word: kind for kind, words in _WORDS.items() for word in words}
_WORD = "|".join(sorted(_KIND, key=len, reverse=True))
_NAMED_AFTER = (
    re.compile(rf"(?P<base>.+?)[ _.-]+(?P<word>{_WORD})"),
    re.compile(rf"(?P<word>{_WORD})[ _.-]+(?P<base>.+)"),
)
_MAX_LISTED = 6


class Inventory(NamedTuple):
    """The files of a folder and those below, by kind; all sorted."""

    folder: Path
    photos: list[Path]
    masks: list[Path]
    previews: list[Path]
    videos: list[Path]
    unread: list[Path]
    """Pictures of kinds that are not read."""

    def describe(self) -> str:
        """List in one line what was found and what of it no capture uses."""
        found = [self.count(self.photos, "photo"), self.count(self.masks, "mask")]
        left = [
            self.count(self.previews, "preview"),
            self.count(self.videos, "film"),
            self.count(self.unread, "picture", " of kinds that are not read"),
        ]
        text = ", ".join(filter(None, found)) or "no photos"
        return text + (f"; left out: {', '.join(filter(None, left))}" if any(left) else "")

    def count(self, paths: Sequence[Path], noun: str, what: str = "") -> str:
        """Count files by folder: `27 photos (24 in images/, 3 in more/)`; empty for none."""
        if not paths:
            return ""
        places = Counter(path.parent.relative_to(self.folder).as_posix() for path in paths)
        parts = [f"{n} in {place}/" if place != "." else f"{n} here" for place, n in sorted(places.items())]
        more = [f"more in {len(parts) - _MAX_LISTED} folders"] if len(parts) > _MAX_LISTED else []
        return f"{len(paths)} {noun}{'s' * (len(paths) != 1)}{what} ({', '.join(parts[:_MAX_LISTED] + more)})"


def take_inventory(folder: Path) -> Inventory:
    """Sort the files in `folder` and below by kind."""
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
        result.videos.extend(path for path in files if path.suffix.lower() in VIDEO_SUFFIXES)
        result.unread.extend(path for path in files if path.suffix.lower() in _UNREAD)
    return result


def list_images(folder: Path) -> list[Path]:
    """List the photos directly inside `folder`, in natural order, without hidden files, masks and previews.

    Raises:
        ImageError: if there is none, naming sub-folders that have some and videos; or if two share a name but for
            case or suffix (masks and cameras are matched by that name).
    """
    files = photos_in(folder)
    if not files:
        raise _no_images(folder)
    seen: dict[str, Path] = {}
    for path in files:
        twin = seen.setdefault(path.stem.casefold(), path)
        if twin is not path:
            raise ImageError(
                f"{folder} holds two photos of one name, {twin.name} and {path.name}: rename or remove one; a mask "
                "of the other belongs into masks/"
            )
    return files


def photos_in(folder: Path) -> list[Path]:
    """List photos as `list_images`, none for a folder that holds none or cannot be read."""
    files = _files_in(folder, SUFFIXES)
    others = companions(files)
    return [path for path in files if path not in others]


def companions(files: Sequence[Path]) -> dict[Path, str]:
    """Find the files of one folder that belong to another of them, each with its kind, MASK or PREVIEW."""
    bases = {name.casefold() for file in files for name in (file.stem, file.name)}
    found = {}
    for file in files:
        for pattern in _NAMED_AFTER:
            match = pattern.fullmatch(file.stem.casefold())
            if match is not None and match["base"] in bases:
                found[file] = _KIND[match["word"]]
    return found


def names_of_mask(base: str) -> list[str]:
    """List the stems, in lower case, that the mask of a photo named `base` may have, the plainest first."""
    base = base.casefold()
    pairs = [(word, separator) for word in _WORDS[MASK] for separator in "_-. "]
    after = [f"{base}{separator}{word}" for word, separator in pairs]
    return [base, *after, *(f"{word}{separator}{base}" for word, separator in pairs)]


def files_below(folder: Path) -> list[Path]:
    """List the files below `folder`, sorted; of the first MAX_ENTRIES files and folders, the nearest first."""
    found: list[Path] = []
    pending, n_seen = deque([(str(folder), 0)]), 0
    while pending and n_seen < MAX_ENTRIES:
        here, depth = pending.popleft()
        entries = _entries(here)
        n_seen += len(entries)
        found += [path for entry in entries if is_file(path := Path(entry.path))]
        if depth < _MAX_DEPTH:
            pending += [(entry.path, depth + 1) for entry in entries if entry.is_dir(follow_symlinks=False)]
    return sorted(found)


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return the sort key that puts IMG_9 before IMG_10 whatever the case."""
    parts = [part for part in re.split(r"(\d+)", name.casefold()) if part]
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name


def is_file(path: Path) -> bool:
    """Test for a file; False for names that no file can have and for links in a circle."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def _is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is the system's: `.DS_Store`, `._IMG_1.jpg`, `@eaDir`."""
    return name.startswith(".") or name.casefold() in _SYSTEM_FOLDERS


def _files_in(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """Files of these kinds directly inside `folder`, in natural order, without hidden ones; none if unreadable."""
    try:
        found = [p for p in folder.iterdir() if p.suffix.lower() in suffixes and not _is_hidden(p.name)]
    except OSError:
        return []
    return sorted(filter(is_file, found), key=lambda path: natural_key(path.name))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What lies in a folder and is not hidden, sorted; nothing of one that cannot be read."""
    try:
        with os.scandir(folder) as scan:
            found = list(islice((entry for entry in scan if not _is_hidden(entry.name)), MAX_ENTRIES))
    except OSError:
        return []
    return sorted(found, key=lambda entry: entry.name)


def _no_images(folder: Path) -> ImageError:
    videos = [video.name for video in _files_in(folder, VIDEO_SUFFIXES)]
    if videos:
        give = "that" if len(videos) == 1 else "one of these"
        return ImageError(
            f"no images in {folder}, but film: {_listed(videos)}; give {give}, as {folder / videos[0]}"
        )
    counts = {}
    for below in sorted((*folder.glob("*/"), *folder.glob("*/*/")), key=lambda path: natural_key(str(path))):
        if below.is_dir() and not _is_hidden(below.name) and (n_images := len(photos_in(below))):
            counts[below] = n_images
    if not counts:
        kinds = ", ".join(sorted(SUFFIXES))
        return ImageError(f"no images in {folder}: expected files ending in {kinds}; check the path")
    named = [f"{n_images} in {below}" for below, n_images in counts.items()]
    return ImageError(
        f"no images in {folder}; {_listed(named)}: give {'that' if len(counts) == 1 else 'one of these'}"
    )


def _listed(names: list[str]) -> str:
    """Up to five, the last after `and`."""
    names = names[:5] + ([f"{len(names) - 5} others"] if len(names) > 5 else [])
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
