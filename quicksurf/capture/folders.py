"""Files below a folder that somebody else may have filled: hidden ones passed over, and the walk bounded.

A link to a folder is not followed: one to `/` would lead over the whole disk, one to a parent in a circle.
"""

import os
from collections import deque
from itertools import islice
from pathlib import Path

MAX_ENTRIES = 100_000  # ten times the photos of the largest captures
_MAX_DEPTH = 5
_NOT_THE_USERS = ("@eadir", "__macosx", "lost+found")  # previews of a NAS, resource forks of a zip


def files_below(folder: Path) -> list[Path]:
    """The files below `folder`, sorted; of the first MAX_ENTRIES files and folders, the nearest first."""
    found: list[Path] = []
    pending, n_seen = deque([(str(folder), 0)]), 0
    while pending and n_seen < MAX_ENTRIES:
        here, depth = pending.popleft()
        entries = _entries(here)
        n_seen += len(entries)
        found += [Path(entry.path) for entry in entries if _is_file(entry)]
        if depth < _MAX_DEPTH:
            pending += [(entry.path, depth + 1) for entry in entries if entry.is_dir(follow_symlinks=False)]
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


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What lies in a folder and is not hidden, sorted; nothing of one that cannot be read."""
    try:
        with os.scandir(folder) as scan:
            found = list(islice((entry for entry in scan if not is_hidden(entry.name)), MAX_ENTRIES))
    except OSError:
        return []
    return sorted(found, key=lambda entry: entry.name)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link in a circle
        return False
