"""Photos by the names that a camera file gives them, found on this disk.

The file was often written on another machine: with backslashes, absolute paths, a folder in front, or for a folder of
another name or size. Names are taken as they stand where such files exist. Where none does, the one folder is taken
under which the most names are found by their last parts; two names never share a file. What was done is reported.
"""

import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import unquote

from quicksurf.capture.listing import MASK_FOLDERS, PHOTO_FOLDERS, SUFFIXES, files_below, is_file, natural_key
from quicksurf.errors import CaptureError
from quicksurf.untrusted import shown

_MAX_LETTERS = 4096  # of a path, on Linux

Parts: TypeAlias = tuple[str, ...]


class Named(NamedTuple):
    """What became of the names."""

    paths: dict[str, Path]
    """The file of each name that has one."""
    note: str
    """How names were matched that have no file as they stand; empty if there are none."""


class _Way(NamedTuple):
    """One way to read all names: the last parts of each, without the first `n_stripped`, below `base`."""

    base: Parts
    n_stripped: int


def find_named(
    names: Sequence[str], root: Path, folders: Sequence[Path], photos: Collection[Path] | None = None
) -> Named:
    """Return the files of `names`, which are relative to the first of `folders` that has any of them.

    Args:
        names: as `parts_of` takes them.
        root: folder of the capture; no file outside is read.
        folders: in `root`.
        photos: of names of masks, the photos they belong to; None for names of photos.
    """
    ways = (
        {name: path for name in names if (path := _as_it_stands(name, root, folder)) is not None}
        for folder in folders
    )
    exact = next(filter(None, ways), {})
    absent = [name for name in names if name not in exact]
    if not absent:
        return Named(exact, "")
    files = [path for path in files_below(root) if path.suffix.lower() in SUFFIXES]
    if photos is None:
        files = [path for path in files if not _in_mask_folder(path.relative_to(root))]
    else:
        files = [path for path in files if path not in photos]
    if exact:
        alike = _alike(absent, files, root, folders)
        taken = set(exact.values())
        alike = {name: path for name, path in alike.items() if path not in taken}
        return Named(exact | alike, _note(alike, root))
    found = _alike(names, files, root, folders) or _elsewhere(names, files, root)
    return Named(found, _note(found, root))


def looked_in(names: Sequence[str], root: Path, folders: Sequence[Path]) -> str:
    """Tell what was looked for without success, and where, for a message."""
    places = " and ".join(dict.fromkeys(_place(folder, root) for folder in folders))
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"looked in {places} for {shown(names[0])}{more}"


def parts_of(root: Path, name: Any, where: str) -> tuple[Parts, bool]:
    """Return the parts of a path relative to `root`, and whether it lies inside; of one outside, all but its anchor
    and `..`.

    Raises:
        CaptureError: if `name` is no path.
    """
    if not isinstance(name, str) or not name or "\0" in name or len(name) > _MAX_LETTERS:
        raise CaptureError(
            f"{where}: a path of at most {_MAX_LETTERS} letters is expected, found {shown(repr(name))}"
        )
    plain = PurePosixPath(posixpath.normpath(name.replace("\\", "/")))
    drive = PureWindowsPath(name).drive
    if not drive:
        for home in (root.absolute(), root.resolve()):
            whole = Path(posixpath.normpath(home / plain))
            if whole.is_relative_to(home):
                return whole.relative_to(home).parts, True
    kept = [part for part in plain.parts if part not in ("/", "//", "..") and part != drive]
    return tuple(kept), False


def _as_it_stands(name: str, root: Path, folder: Path) -> Path | None:
    """The file of that very name; NeRF-synthetic leaves the suffix off."""
    parts, is_inside = parts_of(folder, name, str(root))
    if not is_inside:
        folder, (parts, is_inside) = root, parts_of(root, name, str(root))
    if not is_inside or not parts:
        return None
    path = folder.joinpath(*parts)
    endings = ["", *sorted(SUFFIXES)] if path.suffix.lower() not in SUFFIXES else [""]
    return next((whole for ending in endings if is_file(whole := path.with_name(path.name + ending))), None)


def _alike(
    names: Sequence[str], files: Sequence[Path], root: Path, folders: Sequence[Path]
) -> dict[str, Path]:
    """Files in the very folder that a name says, of the same name but for case and suffix, where there is one alone."""
    by_place: dict[Parts, list[Path]] = defaultdict(list)
    for path in files:
        parts = _split(path.relative_to(root))
        by_place[_folded((*parts[:-1], Path(parts[-1]).stem))].append(path)
    found = {}
    for name in names:
        parts, _ = parts_of(root, name, str(root))
        parts = (*parts[:-1], Path(parts[-1]).stem) if parts else ()
        bases = dict.fromkeys(_split(folder.relative_to(root)) for folder in folders)
        places = [by_place.get(_folded((*base, *parts)), []) for base in bases]
        matches = next(filter(None, places), [])
        if len(matches) == 1:
            found[name] = matches[0]
    return found if len(set(found.values())) == len(found) else {}


def _elsewhere(names: Sequence[str], files: Sequence[Path], root: Path) -> dict[str, Path]:
    """The files of the way to read the names that finds the most of them."""
    by_name: dict[str, list[Parts]] = defaultdict(list)
    origin: dict[Parts, Path] = {}
    for path in files:
        parts = _split(path.relative_to(root))
        origin[parts] = path
        for key in {_fold(parts[-1]), _fold(Path(parts[-1]).stem)}:
            by_name[key].append(parts)
    ways: dict[_Way, dict[str, Path]] = defaultdict(dict)
    for name in names:
        parts, _ = parts_of(root, name, str(root))
        for other in by_name.get(_fold(parts[-1]), ()) if parts else ():
            for n_common in range(1, _n_common(parts, other) + 1):
                ways[_Way(other[:-n_common], len(parts) - n_common)][name] = origin[other]
    sound = {way: found for way, found in ways.items() if len(set(found.values())) == len(found)}
    return sound[min(sound, key=lambda way: _rank(way, sound))] if sound else {}


def _rank(way: _Way, ways: Mapping[_Way, dict[str, Path]]) -> tuple[Any, ...]:
    """Sort key: the way that finds the most names, drops the fewest parts, in the likeliest folder."""
    last = way.base[-1] if way.base else ""
    usual = PHOTO_FOLDERS.index(last) if last in PHOTO_FOLDERS else len(PHOTO_FOLDERS)
    return -len(ways[way]), way.n_stripped, usual, natural_key("/".join(way.base))


def _n_common(first: Parts, second: Parts) -> int:
    """How many of their last parts agree but for case; the last ones are known to, but for a suffix left off."""
    n_common = 1
    for a, b in zip(reversed(first[:-1]), reversed(second[:-1]), strict=False):
        if _fold(a) != _fold(b):
            break
        n_common += 1
    return n_common


def _split(relative: Path) -> Parts:
    """Parts of a path on this disk; zips of Windows leave files whose names hold backslashes."""
    return tuple(part for part in str(relative).replace("\\", "/").split("/") if part not in ("", "."))


def _folded(parts: Parts) -> Parts:
    return tuple(map(_fold, parts))


def _fold(name: str) -> str:
    """Remove differences of case, of how accents are composed (macOS), and of a URL's percent signs."""
    return unicodedata.normalize("NFC", unquote(name)).casefold()


def _in_mask_folder(relative: Path) -> bool:
    return any(part.casefold() in MASK_FOLDERS for part in relative.parts[:-1])


def _note(found: Mapping[str, Path], root: Path) -> str:
    if not found:
        return ""
    name, path = next(iter(found.items()))
    which = "1 photo is" if len(found) == 1 else f"{len(found)} photos are"
    return f"{which} not where the file says: {shown(name)} is read from {path.relative_to(root).as_posix()}"


def _place(folder: Path, root: Path) -> str:
    inside = folder.relative_to(root).as_posix()
    return str(root) if inside == "." else f"{inside}/"
