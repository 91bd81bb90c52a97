"""SIFT features of a photo: OpenCV's detector on the doubled image, RootSIFT descriptors in 8 bits.

Many features are what connects photos (8192 of a 1.7 megapixel photo place photos that 1500 lose), and of more
than that those of large scale are kept, which are seen from farther away, not those of high contrast.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from quicksurf.capture.images import read_pixels
from quicksurf.errors import ImageError

# OpenCV divides it by the layers of an octave: a third of COLMAP's threshold, so that plain surfaces have features, and
# a tenth where a photo has few of them even so.
_CONTRAST, _LOW_CONTRAST = 0.01, 0.003
_FEW, _SMALL = 2000, 500_000  # features, and pixels
_LAYERS = 3  # of an octave, OpenCV's default
_DESCRIPTOR_SCALE = 512.0  # as in COLMAP: components above half the norm are clipped at 255


class Features(NamedTuple):
    """Features of one photo, those of the largest scale first."""

    points: Float[np.ndarray, "n 2"]
    """Pixels; the centre of the upper left one is at (0.5, 0.5)."""
    scales: Float[np.ndarray, "n"]
    """Diameters in pixels."""
    descriptors: UInt8[np.ndarray, "n 128"]
    colors: UInt8[np.ndarray, "n 3"]
    size: tuple[int, int]
    """Width and height of the photo as it was looked at."""


def extract(
    paths: Sequence[Path],
    max_pixels: int,
    n_features: int,
    n_threads: int,
    upright: Sequence[bool] | None = None,
) -> Iterator[Features | ImageError]:
    """Yield the features of each photo in order, or why it cannot be read.

    Args:
        upright: whether to turn each photo as EXIF says; all are if None.
    """
    cv2.setNumThreads(1)  # a photo for each thread keeps all of them busy; OpenCV's own threads do not

    def one(path: Path, turn: bool) -> Features | ImageError:
        try:
            image = read_pixels(path, max_pixels, turn).rgb
        except ImageError as error:
            return error
        return detect(image, n_features)

    pool = ThreadPoolExecutor(n_threads)
    try:
        yield from pool.map(one, paths, upright or [True] * len(paths))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def spread(n_images: int) -> list[int]:
    """Every fourth photo first, then those between.

    So what is missing when time runs out is missing everywhere alike, not all on one side of the object.
    """
    return [index for offset in (0, 2, 1, 3) for index in range(offset, n_images, 4)]


def detect(image: UInt8[np.ndarray, "h w 3"], n_features: int) -> Features:
    """Find the `n_features` features of largest scale."""
    size = image.shape[1], image.shape[0]
    gray = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    small = gray.size < _SMALL  # such photos rarely have enough: one look at both thresholds
    sift = _sift(_LOW_CONTRAST if small else _CONTRAST)
    found = sift.detect(gray, None)
    strong = [feature for feature in found if _LAYERS * feature.response >= _CONTRAST]
    if len(strong) >= _FEW:
        found = strong
    elif not small:
        found = _sift(_LOW_CONTRAST).detect(gray, None)
    found = sorted(found, key=lambda feature: -feature.size)[:n_features]
    found, descriptors = sift.compute(gray, found)
    if not found:
        return nothing(size)
    points = np.array([feature.pt for feature in found]) + 0.5
    columns, rows = points.astype(int).clip(0, np.array(size) - 1).T
    scales = np.array([feature.size for feature in found])
    return Features(points, scales, root_sift(descriptors), image[rows, columns], size)


def _sift(contrast: float) -> cv2.SIFT:
    # OpenCV's default doubles the image with a shift that puts every feature a quarter of a pixel right and down.
    return cv2.SIFT.create(contrastThreshold=contrast, enable_precise_upscale=True)


def nothing(size: tuple[int, int] = (0, 0)) -> Features:
    """Features of a photo that has none, or was not looked at."""
    return Features(
        np.zeros((0, 2)), np.zeros(0), np.zeros((0, 128), np.uint8), np.zeros((0, 3), np.uint8), size
    )


def root_sift(descriptors: Float[np.ndarray, "n 128"]) -> UInt8[np.ndarray, "n 128"]:
    """Return square roots of histograms at unit sum: their distance is Hellinger's (Arandjelović & Zisserman 2012)."""
    share = descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-6)
    return np.minimum(np.rint(_DESCRIPTOR_SCALE * np.sqrt(share)), 255).astype(np.uint8)
