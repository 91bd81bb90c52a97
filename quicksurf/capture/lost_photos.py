"""Why a photo without a camera is of no use, told so that somebody who still stands beside the object can mend it.

Structure from motion knows that a photo matches no other. That it is out of focus, or a second copy, it does not.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from quicksurf.capture.photo_figures import BLURRED, CLIPPED, FAR_EXPOSURE, PhotoFigures, measure, stops_apart

LOOK_PIXELS = 300_000  # blur of a pixel at this size is what matching and the fit suffer from
_N_BESIDE = 12  # photos that a lost one is measured against
_CHUNK = 1 << 20


def find_copies(paths: Sequence[Path]) -> dict[Path, Path]:
    """Files that hold, byte for byte, what another one holds, which has the shortest name: copies get longer ones.

    Kept, a copy of a photo that is held out would measure how well the fit knows a photo it was fitted to. Files
    that cannot be read are left to who reads them.
    """
    by_size: dict[int, list[Path]] = {}
    for path in paths:
        with suppress(OSError):
            by_size.setdefault(path.stat().st_size, []).append(path)
    copies: dict[Path, Path] = {}
    for n_bytes, same_size in by_size.items():
        firsts: dict[bytes, Path] = {}
        for path in sorted(same_size, key=lambda p: len(p.name)) if n_bytes and len(same_size) > 1 else ():
            with suppress(OSError):
                first = firsts.setdefault(_digest(path), path)
                copies.update({path: first} if path != first else {})
    return copies


def explain(
    reasons: Mapping[int, str], used: Sequence[int], look: Callable[[int], UInt8[np.ndarray, "_ _ 3"]]
) -> dict[int, str]:
    """`reasons` with what is wrong with the photo itself before them, measured against photos that were used.

    Args:
        reasons: why each lost photo is lost, as structure from motion sees it.
        used: the photos that were placed.
        look: pixels of a photo, about LOOK_PIXELS of them.
    """
    if not reasons or not used:
        return dict(reasons)
    chosen = np.linspace(0, len(used) - 1, min(_N_BESIDE, len(used))).round().astype(int)
    beside = [measure(look(used[index])) for index in chosen]
    found = {index: _fault(measure(look(index)), beside) for index in reasons}
    return {index: found[index] + reason for index, reason in reasons.items()}


def _fault(figures: PhotoFigures, beside: Sequence[PhotoFigures]) -> str:
    """What stands out beside the other photos, with a colon; nothing if nothing does."""
    sharpness = figures.sharpness / float(np.median([other.sharpness for other in beside]))
    clipped = figures.clipped - float(np.median([other.clipped for other in beside]))
    stops = stops_apart(figures.brightness, [other.brightness for other in beside])
    if stops < -FAR_EXPOSURE:  # noise looks sharp, and what is clipped looks blurred: exposure first
        return f"too dark, {-stops:.0f} stops below the others: "
    if stops > 0 and clipped > CLIPPED:
        return f"too bright, {100 * figures.clipped:.0f} % of it is white: "
    if sharpness < BLURRED:
        return f"blurred, {100 * sharpness:.0f} % as sharp as the others: "
    return ""


def _digest(path: Path) -> bytes:
    digest = blake2b()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()
