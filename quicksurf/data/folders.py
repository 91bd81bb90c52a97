"""Files below a folder that somebody else may have filled: hidden ones passed over, and the walk bounded.

A link to a folder is not followed: one to `/` would lead over the whole disk, one to a parent in a circle.
"""

import os
from collections.abc import Iterator
from pathlib import Path

MAX_FILES = 100_000  # ten times the photos of the largest captures
_MAX_DEPTH = 5
_NOT_THE_USERS = ("@eadir", "__macosx", "lost+found")  # previews of a NAS, resource forks of a zip


def files_below(folder: Path) -> list[Path]:
    """All files below `folder`, sorted, at most MAX_FILES; folders that cannot be read hold none."""
    found: list[Path] = []
    for path in _walk(folder, _MAX_DEPTH):
        if len(found) == MAX_FILES:
            break
        found.append(path)
    return sorted(found)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is the system's: `.DS_Store`, `._IMG_1.jpg`, `@eaDir`."""
    return name.startswith(".") or name.casefold() in _NOT_THE_USERS


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if is_hidden(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), depth - 1) if depth else ()
        elif is_file(Path(entry.path)):
            yield Path(entry.path)
