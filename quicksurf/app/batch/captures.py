"""Which captures a folder of captures holds, and where the run of each goes."""

import re
import zlib
from pathlib import Path
from typing import NamedTuple

from quicksurf.capture.listing import SUFFIXES, VIDEO_SUFFIXES, natural_key
from quicksurf.errors import ImageError

MAX_CAPTURES = 10_000
LOGS = "logs"
RECORD, PAGE = "batch.json", "index.html"
_TAKEN = (LOGS, RECORD, PAGE)  # by the batch itself, in the folder where the runs go


class Capture(NamedTuple):
    """One capture of a batch."""

    source: Path
    """Absolute; links are kept, whose names the user chose."""
    name: str
    """Of its run folder: what a file system may dislike is taken out."""


def find_captures(folder: Path, output: Path) -> list[Capture]:
    """Return the folders and videos directly inside `folder`, in natural order, but for hidden ones.

    Nor is `output`, where the runs go, a capture, or the folder that it lies in: `runs/` beside the captures.
    Every other folder counts: its own fit reports what is wrong with it, and the rest continues.

    Raises:
        ImageError: if there is none, too many, or `folder` is itself a capture.
    """
    if not folder.is_dir():
        raise ImageError(
            f"{folder} is no folder: give the folder that holds one folder of photos for each capture"
        )
    entries = sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
    results = {output.resolve(), *output.resolve().parents}
    found = [path for path in entries if _may_be_capture(path) and path.resolve() not in results]
    photos = any(path.suffix.lower() in SUFFIXES for path in entries)
    if photos or not found:
        what = "photos itself" if photos else "no folders and no videos"
        raise ImageError(
            f"{folder} holds {what}: expected one folder of photos, or a video, for each capture; "
            "a single capture is for quicksurf fit"
        )
    if len(found) > MAX_CAPTURES:
        raise ImageError(f"{folder} holds {len(found)} captures: at most {MAX_CAPTURES} go into one batch")
    return _named(found)


def _may_be_capture(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    return path.is_dir() or (path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES)


def _named(sources: list[Path]) -> list[Capture]:
    """Plain names; those that are taken get a checksum of their own name, which does not change with the others."""
    plain = [re.sub(r"[^\w.-]+", "-", source.name).strip("-.") or "capture" for source in sources]
    taken = [*_TAKEN, *(name.casefold() for name in plain)]
    names = [
        name
        if taken.count(name.casefold()) == 1
        else f"{name}-{zlib.crc32(source.name.encode('utf-8', 'replace')):08x}"
        for name, source in zip(plain, sources, strict=True)
    ]
    return [Capture(source.absolute(), name) for source, name in zip(sources, names, strict=True)]
