"""Blur and exposure of photos, from their pixels alone, at the size that the fit looks at.

Figures of one photo mean little by themselves, so what is flagged is measured against the others of the capture.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import uniform_filter

BLUR_WIDTH = 5  # pixels of the box that a photo is blurred by once more
BLURRED = 0.75  # of the capture's median sharpness: one pixel of blur leaves 0.4 to 0.7, content alone varies from 0.83
OFF_EXPOSURE = 0.5  # stops from the capture's median: the eye sees a third
FAR_EXPOSURE = 2.0  # stops of a photo's own brightness: content alone makes 1.2 at most in the captures tried
CLIPPED = 0.1  # share of clipped pixels beyond the median's: white backdrops are clipped in every photo
_WHITE, _BLACK = 254, 1


class PhotoFigures(NamedTuple):
    """What one photo's pixels say."""

    sharpness: float
    """Gradients before over gradients after one more blur: 1 is blurred already, 2 and more is sharp."""
    brightness: float
    """Mean linear luminance in [0, 1]."""
    clipped: float
    """Share of pixels that are pure white or black."""


class Flags(NamedTuple):
    """What is wrong with a photo beside the others of its capture."""

    blurred: bool
    exposure: bool
    clipped: bool


def measure(image: UInt8[np.ndarray, "h w 3"]) -> PhotoFigures:
    """The figures of one photo.

    Sharpness is Σ|∇I| / Σ|∇(I * box)| (Crete et al. 2007: what is blurred already loses little by another blur): it
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
    """How much brighter a photo is than the middle one of the others, in stops; black counts as 2⁻¹⁶ of white."""
    return float(np.log2(max(brightness, 2.0**-16) / max(float(np.median(others)), 2.0**-16)))


def exposures(figures: Sequence[PhotoFigures], fitted: Sequence[float]) -> list[float]:
    """Exposure of every photo against the others, in stops: as the fit found it, unless the photo is far off.

    The fit's maps learn slowly, so that a short fit does not follow a photo that is FAR_EXPOSURE away.
    """
    brightness = [photo.brightness for photo in figures]
    seen = [stops_apart(value, brightness) for value in brightness]
    return [own if abs(own) > FAR_EXPOSURE else fit for own, fit in zip(seen, fitted, strict=True)]


def flag(figures: Sequence[PhotoFigures], stops: Sequence[float]) -> list[Flags]:
    """Which photos stand out.

    Args:
        figures: of every photo.
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
    """How much brighter than the mean photo the fit found each one, in stops, at middle grey.

    `maps` are A − 1 | b of c ↦ A c + b, taken at c = ½ (sRGB; 2.2 stops of light to one of values): a photo that
    shows the dark side of the object does not count as underexposed.
    """
    grey = 0.5 + (maps[:, :, :3].sum(-1) * 0.5 + maps[:, :, 3]).mean(-1)
    return 2.2 * np.log2(np.clip(grey, 1e-3, None) / 0.5)


def _total_variation(values: Float[np.ndarray, "h w"]) -> float:
    return float(np.abs(np.diff(values, axis=0)).mean() + np.abs(np.diff(values, axis=1)).mean())
