"""Measure blur and exposure of photos from their pixels, and explain why a photo has no camera.

Figures of one photo depend on its content, so they are compared with those of the other photos of the capture.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import uniform_filter

BLUR_WIDTH = 5  # pixels of the box that a photo is blurred by once more
BLURRED = 0.75  # of the capture's median sharpness: one pixel of blur leaves 0.4 to 0.7, content alone varies from 0.83
OFF_EXPOSURE = 0.5  # stops from the capture's median: the eye sees a third
FAR_EXPOSURE = 2.0  # stops of a photo's own brightness: content alone makes 1.2 at most in the captures tried
CLIPPED = 0.1  # fraction of clipped pixels beyond the median's: white backdrops are clipped in every photo
LOOK_PIXELS = 300_000  # a pixel of blur at this size harms matching and the fit
_WHITE, _BLACK = 254, 1
_N_BESIDE = 12  # photos that a lost one is compared with


class PhotoFigures(NamedTuple):
    """Figures of one photo's pixels."""

    sharpness: float
    """Gradients before over gradients after one more blur: 1 is blurred already, 2 and more is sharp."""
    brightness: float
    """Mean linear luminance in [0, 1]."""
    clipped: float
    """Fraction of pixels that are pure white or black."""


class Flags(NamedTuple):
    """Whether a photo stands out from the others of its capture."""

    blurred: bool
    exposure: bool
    clipped: bool


def measure(image: UInt8[np.ndarray, "h w 3"]) -> PhotoFigures:
    """Measure one photo.

    Sharpness is Σ|∇I| / Σ|∇(I * box)| (Crete et al. 2007: a blurred photo loses little by another blur): it
    depends on the content far less than the variance of the Laplacian. A photo without any gradient counts as 1.
    """
    luminance = image.astype(np.float32) @ np.array([0.2126, 0.7152, 0.0722], np.float32) / 255
    again = uniform_filter(luminance, BLUR_WIDTH)
    before, after = _total_variation(luminance), _total_variation(again)
    extremes = (image.min(-1) >= _WHITE) | (image.max(-1) <= _BLACK)
    return PhotoFigures(
        before / after if after > 1e-6 else 1.0, float((luminance**2.2).mean()), float(extremes.mean())
    )


def stops_apart(brightness: float, others: Sequence[float]) -> float:
    """Compute how much brighter a photo is than the median of the others, in stops; black counts as 2⁻¹⁶ of white."""
    return float(np.log2(max(brightness, 2.0**-16) / max(float(np.median(others)), 2.0**-16)))


def exposures(figures: Sequence[PhotoFigures], fitted: Sequence[float]) -> list[float]:
    """Estimate each photo's exposure against the others, in stops: by the fit, unless the photo is far off.

    The fit's maps learn slowly, so that a short fit does not follow a photo that is FAR_EXPOSURE away.
    """
    brightness = [photo.brightness for photo in figures]
    seen = [stops_apart(value, brightness) for value in brightness]
    return [own if abs(own) > FAR_EXPOSURE else fit for own, fit in zip(seen, fitted, strict=True)]


def flag(figures: Sequence[PhotoFigures], stops: Sequence[float]) -> list[Flags]:
    """Flag the photos that stand out.

    Args:
        stops: exposure of every photo against the others, in powers of two.
    """
    if not figures:
        return []
    sharpness, clipped = (np.array([getattr(f, name) for f in figures]) for name in ("sharpness", "clipped"))
    blurred = sharpness < BLURRED * np.median(sharpness)
    bleached = clipped > np.median(clipped) + CLIPPED
    off = np.abs(np.array(stops) - np.median(stops)) > OFF_EXPOSURE
    return [Flags(bool(b), bool(e), bool(c)) for b, e, c in zip(blurred, off, bleached, strict=True)]


def fitted_stops(maps: Float[np.ndarray, "n 3 4"]) -> Float[np.ndarray, "n"]:
    """Compute how much brighter than the mean photo the fit found each one, in stops, at middle grey.

    `maps` are A − 1 | b of c ↦ A c + b, taken at c = ½ (sRGB; 2.2 stops of light to one of values): a photo that
    shows the dark side of the object does not count as underexposed.
    """
    grey = 0.5 + (maps[:, :, :3].sum(-1) * 0.5 + maps[:, :, 3]).mean(-1)
    return 2.2 * np.log2(np.clip(grey, 1e-3, None) / 0.5)


def find_copies(paths: Sequence[Path]) -> dict[Path, Path]:
    """Find files with the same bytes as another one, the original being the one of the shortest name.

    A copy of a held-out photo among those fitted would spoil the measurement. Files that cannot be read are ignored.
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
                first = firsts.setdefault(blake2b(path.read_bytes()).digest(), path)
                copies.update({path: first} if path != first else {})
    return copies


def explain(
    reasons: Mapping[int, str], used: Sequence[int], look: Callable[[int], UInt8[np.ndarray, "_ _ 3"]]
) -> dict[int, str]:
    """Add to `reasons` what is wrong with the photo itself, measured against photos that were used.

    Args:
        reasons: why each lost photo is lost, as structure from motion sees it.
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


def _total_variation(values: Float[np.ndarray, "h w"]) -> float:
    return float(np.abs(np.diff(values, axis=0)).mean() + np.abs(np.diff(values, axis=1)).mean())
