"""Files of a run folder, which may be anybody's: links are not followed, pipes not read, litter is removed."""

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from quicksurf.errors import OutputError

FOLDERS = ("checkpoint", "checkpoint.new", "checkpoint.old", "poses", "masks", "render", "export")
_LITTER = re.compile(r"\.[^/]*-[a-z0-9_]{8}(\.[^/.]+)?")  # what quicksurf.files writes until it is whole
_POSES_LITTER = re.compile(r"(sfm|frames)-[a-z0-9_]{8}")  # folders at work, with copies of all photos


def own_file(path: Path) -> BinaryIO:
    """Open a file of a run, to append to; a link to another one is not followed, and nothing but a file is opened.

    Raises:
        OSError: if it is a link, a pipe or a device, or cannot be opened.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    return os.fdopen(handle, "ab")


def remove(path: Path) -> None:
    """Remove a file, a folder, or a link but not what it leads to; what cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def sweep(folder: Path) -> None:
    """Remove what killed commands left half-written in `folder` and below."""
    for parent, _, names in os.walk(folder):  # follows no links
        for name in names:
            if _LITTER.fullmatch(name):
                remove(Path(parent) / name)


def half_written(folder: Path, names: Iterable[str]) -> list[Path]:
    """Find the files of `folder` that a killed command was writing to become `names`."""
    patterns = [
        re.compile(rf"\.{re.escape(Path(name).stem)}-[0-9a-f]{{8}}{re.escape(Path(name).suffix)}")
        for name in names
    ]
    with suppress(OSError):
        entries = list(folder.iterdir())
        return [entry for entry in entries if any(pattern.fullmatch(entry.name) for pattern in patterns)]
    return []


def holds_more(folder: Path, *names: str) -> bool:
    """Tell whether a folder holds anything but a lock and what a killed command left of `names`, its first files."""
    litter = half_written(folder, names)
    return any(entry.name != ".lock" and entry not in litter for entry in folder.iterdir())


def sweep_files(folder: Path, names: Iterable[str]) -> None:
    """Remove what killed commands left of `names` in a folder that may hold anything else."""
    for path in half_written(folder, names):
        remove(path)


def settle_checkpoint(path: Path) -> None:
    """Finish or undo a change of a run's checkpoint that a kill interrupted.

    The old one steps aside only for a new one that is whole, so that a new one beside an old one alone takes its place.
    """
    new, current, old = (path / name for name in ("checkpoint.new", "checkpoint", "checkpoint.old"))
    with suppress(OSError):
        if old.is_dir() and new.is_dir() and not current.exists():
            os.replace(new, current)
    remove(new)
    if current.is_dir() and any(current.iterdir()):
        remove(old)


def sweep_run(path: Path) -> None:
    """Remove what killed commands left half-written in a run; to be called under its lock."""
    settle_checkpoint(path)
    if (path / "summary.json").exists():
        remove(path / "summary.previous.json")
    for folder, pattern in ((path, _LITTER), (path / "poses", _POSES_LITTER)):
        with suppress(OSError):
            for entry in list(folder.iterdir()):
                if pattern.fullmatch(entry.name):
                    remove(entry)
    for name in ("poses", "masks", "export"):
        sweep(path / name)


def is_litter(name: str) -> bool:
    """Tell whether a file's name is that of one which was not finished."""
    return _LITTER.fullmatch(name) is not None


def refuse_links(path: Path) -> None:
    """Refuse a run whose folders lie elsewhere: what is written would land there.

    Raises:
        OutputError: naming the link.
    """
    for name in FOLDERS:
        if (path / name).is_symlink():
            raise OutputError(
                f"{path / name} is a link: a run's folders lie in the run; remove it, or copy what it holds"
            )


def refuse_strange_files(path: Path) -> None:
    """Refuse a run with pipes or devices in the place of its files: reading one may never end.

    Raises:
        OutputError: naming it.
    """
    for entry in path.iterdir():
        with suppress(OSError):  # a link to nothing is no file
            mode = entry.stat().st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise OutputError(f"{entry} is a pipe or a device: expected a file; remove it")
