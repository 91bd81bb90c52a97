"""Which files of a folder are photos: by their suffix, without hidden ones, masks and previews of others."""

import re
from pathlib import Path

from quicksurf.capture.companions import companions
from quicksurf.capture.folders import is_file, is_hidden
from quicksurf.errors import ImageError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".webp", ".heic", ".heif", ".bmp"}
)
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"})
PHOTO_FOLDERS = ("images", "image", "rgb", "input", "photos")
"""Where photos usually lie, the likeliest first."""


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key that puts IMG_9 before IMG_10 whatever the case."""
    parts = [part for part in re.split(r"(\d+)", name.casefold()) if part]
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name


def list_images(folder: Path) -> list[Path]:
    """Photos directly inside `folder`, in natural order; hidden files, masks, previews and other kinds are passed over.

    Raises:
        ImageError: if there is none, naming sub-folders that have some and films; or if two share a name but for case
            or suffix (masks and cameras are matched by that name).
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
    """As `list_images`, and none of a folder that holds none or must not be read."""
    files = files_in(folder, SUFFIXES)
    others = companions(files)
    return [path for path in files if path not in others]


def files_in(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """Files of these kinds directly inside `folder`, in natural order, without hidden ones; none if unreadable."""
    try:
        found = [p for p in folder.iterdir() if p.suffix.lower() in suffixes and not is_hidden(p.name)]
    except OSError:
        return []
    return sorted(filter(is_file, found), key=lambda path: natural_key(path.name))


def _no_images(folder: Path) -> ImageError:
    films = [film.name for film in files_in(folder, VIDEO_SUFFIXES)]
    if films:
        give = "that" if len(films) == 1 else "one of these"
        return ImageError(
            f"no images in {folder}, but film: {_listed(films)}; give {give}, as {folder / films[0]}"
        )
    counts = {}
    for below in sorted((*folder.glob("*/"), *folder.glob("*/*/")), key=lambda path: natural_key(str(path))):
        if below.is_dir() and not is_hidden(below.name) and (n_images := len(photos_in(below))):
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
