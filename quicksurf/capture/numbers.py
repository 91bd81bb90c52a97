"""Numbers of files that others wrote: finite and of a size that can mean something, or an error that names them.

Every reader of cameras takes its numbers from here. JSON allows 401 digits, 1e308 and NaN; what none of these may do
is to reach the arithmetic, where it overflows far from the file it came from.
"""

from typing import Any

import numpy as np
from jaxtyping import Float64

from quicksurf.errors import CaptureError

LARGEST = 1e12  # a map's coordinates in tenths of a millimetre are below 1e11
LARGEST_SIDE = 1_000_000  # pixels
_SHOWN = 60  # letters of what was found


def shown(value: Any) -> str:
    """`value` as text, cut to a length that a message can hold."""
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def number(value: Any, what: str) -> float:
    """`value` as a float; `what` names it and its place.

    Raises:
        CaptureError: if it is no number, not finite, or beyond LARGEST.
    """
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not real or not -LARGEST <= value <= LARGEST:  # exact for integers of any length; false for NaN
        raise CaptureError(
            f"{what} must be a finite number, found {shown(repr(value))}; ±{LARGEST:g} is the most"
        )
    return float(value)


def side(value: Any, what: str) -> int:
    """`value` as a width or height in pixels.

    Raises:
        CaptureError: if it is no number from 1 to LARGEST_SIDE.
    """
    pixels = number(value, what)
    if not 1 <= pixels <= LARGEST_SIDE:
        raise CaptureError(f"{what} must be from 1 to {LARGEST_SIDE:,} pixels, found {pixels:g}")
    return round(pixels)


def matrix(value: Any, shapes: tuple[tuple[int, int], ...], what: str) -> Float64[np.ndarray, "_ _"]:
    """`value`, nested lists or an array, as a matrix of one of `shapes`.

    Raises:
        CaptureError: if it has another shape, or an entry is no finite number within ±LARGEST.
    """
    try:
        entries = np.array(value, dtype=object if isinstance(value, (list, tuple)) else None)
    except ValueError:  # ragged
        entries = np.empty(0)
    if entries.shape not in shapes:
        rows, columns = shapes[0]
        found = f", found {list(entries.shape)}" if entries.ndim == 2 else ""
        raise CaptureError(f"{what} must be {rows} x {columns} numbers{found}")
    if entries.dtype != object and not np.issubdtype(entries.dtype, np.number):
        raise CaptureError(f"{what} must be {shapes[0][0]} x {shapes[0][1]} numbers, found {entries.dtype}")
    checked = [number(entry, f"{what}: an entry") for entry in entries.ravel().tolist()]
    return np.array(checked).reshape(entries.shape)
