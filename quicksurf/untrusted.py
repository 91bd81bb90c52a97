"""Read files that anybody may have made: JSON with bounds, numbers in range, text that can be a path.

JSON allows integers of four thousand digits, 1e308, NaN and endless nesting; arithmetic on them overflows far from the
file they came from. For files of our own, `parse_json` turns a number beyond LARGEST into None, as if it were missing.
Cameras come from other programs: `number`, `side` and `matrix` check each value, and raise an error that names it.
"""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from jaxtyping import Float64

from quicksurf.errors import CaptureError

LARGEST = 1e15  # of a number: seconds, pixels, metres and steps are far below
LARGEST_COORDINATE = 1e12  # of a camera file: a map's coordinates in tenths of a millimetre are below 1e11
LARGEST_SIDE = 1_000_000  # pixels
MAX_DEPTH = 24
_SHOWN = 60  # letters of a value in a message
_MAX_DIGITS = 18  # of an integer
_MAX_PATH, _MAX_PART = 4096, 255  # bytes, of Linux's file systems


def read_json(path: Path, max_bytes: int) -> Any:
    """Read a JSON file, with numbers that are out of range as None.

    Raises:
        OSError: if it cannot be read, or is no plain file: a pipe or a device may never end.
        ValueError: if it is larger than `max_bytes`, no JSON, or nested too deep.
    """
    return parse_json(read_bytes(path, max_bytes).decode("utf-8"))


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Read a plain file.

    Raises:
        OSError: as `read_json`.
        ValueError: if it is larger than `max_bytes`.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no plain file", str(path))
        if found.st_size > max_bytes:
            raise ValueError(f"it is larger than {max_bytes >> 20} MiB")
        return file.read(max_bytes)


def parse_json(text: str) -> Any:
    """Parse JSON, with numbers that are out of range as None.

    Raises:
        ValueError: if it is no JSON, or nested too deep.
    """
    try:
        value = json.loads(text, parse_int=_whole, parse_float=_real, parse_constant=lambda name: None)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels") from None
    _check_depth(value)
    return value


def is_number(value: object, largest: float = LARGEST) -> TypeGuard[float]:
    """Test for a finite number within ±`largest`."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return False
    return bool(-largest <= value <= largest)  # exact for integers of any length; false for NaN


def is_count(value: object) -> TypeGuard[int]:
    """Test for a whole number from 0 to LARGEST."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


def is_path(value: object) -> TypeGuard[str]:
    """Test for text that the file system accepts as a path."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    try:
        parts = os.fsencode(value).split(b"/")
    except UnicodeEncodeError:  # half characters
        return False
    return sum(map(len, parts)) + len(parts) <= _MAX_PATH and all(len(part) <= _MAX_PART for part in parts)


def is_inner_path(value: object) -> TypeGuard[str]:
    """Test for a path to something inside a folder, never the folder itself or a place outside."""
    parts = value.split("/") if is_path(value) else [""]
    return parts[0] != "" and parts[-1] not in ("", ".") and ".." not in parts


def shown(value: Any) -> str:
    """Convert a value to text that is short enough for a message."""
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def number(value: Any, what: str) -> float:
    """Convert `value` to a float; `what` names it and its place.

    Raises:
        CaptureError: if it is no number, not finite, or beyond LARGEST_COORDINATE.
    """
    if not is_number(value, LARGEST_COORDINATE):
        found = shown(repr(value))
        raise CaptureError(
            f"{what} must be a finite number, found {found}; ±{LARGEST_COORDINATE:g} is the most"
        )
    return float(value)


def side(value: Any, what: str) -> int:
    """Convert `value` to a width or height in pixels.

    Raises:
        CaptureError: if it is no number from 1 to LARGEST_SIDE.
    """
    pixels = number(value, what)
    if not 1 <= pixels <= LARGEST_SIDE:
        raise CaptureError(f"{what} must be from 1 to {LARGEST_SIDE:,} pixels, found {pixels:g}")
    return round(pixels)


def matrix(value: Any, shapes: tuple[tuple[int, int], ...], what: str) -> Float64[np.ndarray, "_ _"]:
    """Convert `value`, nested lists or an array, to a matrix of one of `shapes`.

    Raises:
        CaptureError: if it has another shape, or an entry is no finite number within ±LARGEST_COORDINATE.
    """
    try:
        entries = np.array(value, dtype=object if isinstance(value, (list, tuple)) else None)
    except ValueError:  # ragged
        entries = np.empty(0)
    expected = f"{what} must be {shapes[0][0]} x {shapes[0][1]} numbers"
    if entries.shape not in shapes:
        raise CaptureError(expected + (f", found {list(entries.shape)}" if entries.ndim == 2 else ""))
    if entries.dtype != object and not np.issubdtype(entries.dtype, np.number):
        raise CaptureError(f"{expected}, found {entries.dtype}")
    checked = [number(entry, f"{what}: an entry") for entry in entries.ravel().tolist()]
    return np.array(checked).reshape(entries.shape)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        containers = [item for item in level if isinstance(item, (dict, list))]
        if not containers:
            return
        level = [
            inner for item in containers for inner in (item.values() if isinstance(item, dict) else item)
        ]
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")


def _whole(text: str) -> int | None:
    return int(text) if len(text) <= _MAX_DIGITS and abs(int(text)) <= LARGEST else None


def _real(text: str) -> float | None:
    value = float(text)
    return value if abs(value) <= LARGEST else None
