"""What is read from files that anybody may have made: JSON with bounds, numbers in range, text that can be a path.

JSON allows integers of four thousand digits, 1e308, NaN, and brackets in brackets without end; each of them is fine
until somebody computes with it. Here a number that nothing measured can be becomes None, as a value that is missing,
and nesting beyond MAX_DEPTH is damage.
"""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, TypeGuard

LARGEST = 1e15  # of a number: seconds, pixels, metres and steps are far below
MAX_DEPTH = 24
_MAX_DIGITS = 18  # of an integer
_MAX_PATH, _MAX_PART = 4096, 255  # bytes, of Linux's file systems


def read_json(path: Path, max_bytes: int) -> Any:
    """What a file holds.

    Raises:
        OSError: if it cannot be read, or is no plain file: a pipe may be waited for, a device read, for ever.
        ValueError: if it is larger than `max_bytes`, no JSON, or nested too deep.
    """
    return parse_json(read_bytes(path, max_bytes).decode("utf-8"))


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """The content of a plain file.

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
    """JSON with numbers that are out of range as None.

    Raises:
        ValueError: if it is no JSON, or nested too deep.
    """
    try:
        value = json.loads(text, parse_int=_whole, parse_float=_real, parse_constant=lambda name: None)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels") from None
    _check_depth(value)
    return value


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number that something measured can be."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number that can count something."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


def is_path(value: object) -> TypeGuard[str]:
    """Whether a value is text that a file system takes for a path."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    try:
        parts = os.fsencode(value).split(b"/")
    except UnicodeEncodeError:  # half characters
        return False
    return sum(map(len, parts)) + len(parts) <= _MAX_PATH and all(len(part) <= _MAX_PART for part in parts)


def is_inner_path(value: object) -> TypeGuard[str]:
    """Whether a value is text that names something below a folder, and never the folder or what is beside it."""
    parts = value.split("/") if is_path(value) else [""]
    return parts[0] != "" and parts[-1] not in ("", ".") and ".." not in parts


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
