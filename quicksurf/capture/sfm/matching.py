"""SIFT features of photos, which pairs to match, their matches, and whether inliers are more than chance.

Features come from OpenCV's detector on the doubled image, as RootSIFT descriptors in 8 bits. Many features connect
photos: 8192 of a 1.7 megapixel photo place photos that 1500 lose. Of more than that the largest scales are kept, which
are seen from farther away, not the highest contrasts.

Few photos are matched exhaustively. Otherwise each is matched with the photos most similar by their features of largest
scale, and with its neighbors in order.

A geometry that some seven of n matches define has k inliers within e pixels of its epipolar lines. A random match is an
inlier with probability p = 2 e D / A (D the diagonal, A the area of the photo), so that among n random matches

    NFA = n (n choose k) (k choose 7) p^(k - 7)

geometries as good are expected (Moisan & Stival 2004, eq. 15). Twenty inliers of forty matches are significant, twenty
of two hundred are not. A geometry that is known beforehand needs no seven: NFA = (n choose k) p^k.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import lgamma, log
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from quicksurf.capture.images import read_pixels
from quicksurf.errors import ImageError
from quicksurf.kernels.host import match_descriptors

# OpenCV divides it by the layers of an octave: a third of COLMAP's threshold, so that plain surfaces have features, and
# a tenth where a photo has few of them even so.
_CONTRAST, _LOW_CONTRAST = 0.01, 0.003
_FEW, _SMALL = 2000, 500_000  # features, and pixels
_LAYERS = 3  # of an octave, OpenCV's default
_DESCRIPTOR_SCALE = 512.0  # as in COLMAP: components above half the norm are clipped at 255

RATIO, MAX_ANGLE = 0.8, 0.7  # Lowe's test on angles of descriptors, and the largest angle in radians
_COARSE_WORK = 2e12  # products of components in the coarse pass: about 5 s on two cores
_COARSE_FEATURES = 64, 768  # least and most of a photo's features in it
_BLOCK = 32  # pairs between two checks of the clock

MAX_ERROR = 4.0  # pixels between a feature and its epipolar line, COLMAP's default
MIN_INLIERS = 15
_LOG_CHANCE = log(1e-4)  # of the expected false alarms

Matches = Int[np.ndarray, "_ 2"]


class Features(NamedTuple):
    """Features of one photo, those of the largest scale first."""

    points: Float[np.ndarray, "n 2"]
    """Pixels; the centre of the upper left one is at (0.5, 0.5)."""
    scales: Float[np.ndarray, "n"]
    """Diameters in pixels."""
    descriptors: UInt8[np.ndarray, "n 128"]
    colors: UInt8[np.ndarray, "n 3"]
    size: tuple[int, int]
    """Width and height of the image that was searched."""


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
    cv2.setNumThreads(1)  # one photo per thread keeps all threads busy; OpenCV's own threads do not

    def one(path: Path, turn: bool) -> Features | ImageError:
        try:
            return detect(read_pixels(path, max_pixels, turn).rgb, n_features)
        except ImageError as error:
            return error

    pool = ThreadPoolExecutor(n_threads)
    try:
        yield from pool.map(one, paths, upright or [True] * len(paths))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def interleave(n_images: int) -> list[int]:
    """Order every fourth photo first, then those between, so that a timeout leaves gaps spread over the object."""
    return [index for offset in (0, 2, 1, 3) for index in range(offset, n_images, 4)]


def detect(image: UInt8[np.ndarray, "h w 3"], n_features: int) -> Features:
    """Find the `n_features` features of largest scale."""

    def sift(contrast: float) -> cv2.SIFT:
        # OpenCV's default doubles the image with a shift that puts every feature a quarter of a pixel right and down.
        return cv2.SIFT.create(contrastThreshold=contrast, enable_precise_upscale=True)

    size = image.shape[1], image.shape[0]
    gray = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    small = gray.size < _SMALL  # such photos rarely have enough: one pass serves both thresholds
    detector = sift(_LOW_CONTRAST if small else _CONTRAST)
    found = detector.detect(gray, None)
    strong = [feature for feature in found if _LAYERS * feature.response >= _CONTRAST]
    if len(strong) >= _FEW:
        found = strong
    elif not small:
        found = sift(_LOW_CONTRAST).detect(gray, None)
    found = sorted(found, key=lambda feature: -feature.size)[:n_features]
    found, descriptors = detector.compute(gray, found)
    if not found:
        return no_features(size)
    points = np.array([feature.pt for feature in found]) + 0.5
    columns, rows = points.astype(int).clip(0, np.array(size) - 1).T
    scales = np.array([feature.size for feature in found])
    return Features(points, scales, root_sift(descriptors), image[rows, columns], size)


def no_features(size: tuple[int, int] = (0, 0)) -> Features:
    """Return the features of a photo that has none, or that was not searched."""
    return Features(
        np.zeros((0, 2)), np.zeros(0), np.zeros((0, 128), np.uint8), np.zeros((0, 3), np.uint8), size
    )


def root_sift(descriptors: Float[np.ndarray, "n 128"]) -> UInt8[np.ndarray, "n 128"]:
    """Return square roots of histograms at unit sum: their distance is Hellinger's (Arandjelović & Zisserman 2012)."""
    fractions = descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-6)
    return np.minimum(np.rint(_DESCRIPTOR_SCALE * np.sqrt(fractions)), 255).astype(np.uint8)


def choose_pairs(features: Sequence[Features], n_partners: int, n_neighbors: int) -> list[tuple[int, int]]:
    """Return the pairs to match, those that most likely overlap first.

    Args:
        features: of each photo; one without features is matched with none.
        n_partners: photos each one is matched with; as many as there are others means all.
        n_neighbors: photos after each in order that it is matched with in any case.
    """
    n_images = len(features)
    rows, columns = np.triu_indices(n_images, 1)
    near = columns - rows <= n_neighbors
    if n_partners < n_images - 1:
        similarity = coarse_similarity(features)
        alike = best_partners(similarity, n_partners)[rows, columns]
        priority = np.where(near, np.inf, similarity[rows, columns])
    else:
        alike = np.ones(len(rows), bool)
        priority = rows.astype(float) - columns
    usable = np.array([len(item.points) > 0 for item in features], bool)
    chosen = (near | alike) & usable[rows] & usable[columns]
    order = np.argsort(-priority[chosen], kind="stable")
    return list(zip(rows[chosen][order].tolist(), columns[chosen][order].tolist(), strict=True))


def best_partners(similarity: Float[np.ndarray, "n n"], n_partners: int) -> Bool[np.ndarray, "n n"]:
    """Mark, symmetrically, pairs where j is among the `n_partners` most similar to i, or i among those of j."""
    ranked = np.argsort(-similarity, axis=1, kind="stable")[:, :n_partners]
    chosen = np.zeros(similarity.shape, bool)
    np.put_along_axis(chosen, ranked, True, axis=1)
    chosen |= chosen.T
    np.fill_diagonal(chosen, False)
    return chosen


def coarse_similarity(features: Sequence[Features]) -> Float[np.ndarray, "n n"]:
    """Count matches between the features of largest scale of all pairs; fewer features where photos are many."""
    n_images = len(features)
    rows, columns = np.triu_indices(n_images, 1)
    n_coarse = int(np.clip(np.sqrt(_COARSE_WORK / 128 / max(len(rows), 1)), *_COARSE_FEATURES))
    largest = [np.ascontiguousarray(item.descriptors[:n_coarse]) for item in features]
    similarity = np.full((n_images, n_images), -1.0)
    pairs = np.stack([rows, columns], 1).astype(np.int32)
    for begin in range(0, len(pairs), 4096):
        block = pairs[begin : begin + 4096]
        counts = [len(found) for found in match_descriptors(largest, block, RATIO, MAX_ANGLE)]
        similarity[block[:, 0], block[:, 1]] = similarity[block[:, 1], block[:, 0]] = counts
    return similarity


def match_pairs(
    features: Sequence[Features], pairs: Sequence[tuple[int, int]], expired: Callable[[], bool]
) -> dict[tuple[int, int], Matches]:
    """Match `pairs` in their order until `expired()`; pairs that were not reached are absent."""
    descriptors = [item.descriptors for item in features]
    matches: dict[tuple[int, int], Matches] = {}
    for begin in range(0, len(pairs), _BLOCK):
        if expired():
            break
        block = list(pairs[begin : begin + _BLOCK])
        found = match_descriptors(descriptors, np.array(block, np.int32), RATIO, MAX_ANGLE)
        matches.update(zip(block, found, strict=True))
    return matches


def is_significant(n_inliers: int, n_matches: int, size: tuple[int, int]) -> bool:
    """Return whether so many inliers of an estimated two-view geometry are more than chance."""
    return log_false_alarms(n_inliers, n_matches, 7, _log_probability(size)) < _LOG_CHANCE


def agrees(n_fitting: int, n_matches: int, size: tuple[int, int]) -> bool:
    """Return whether more matches fit two given cameras than would fit cameras of other photos."""
    return _log_choose(n_matches, n_fitting) + n_fitting * _log_probability(size) < _LOG_CHANCE


def log_false_alarms(n_inliers: int, n_matches: int, n_minimal: int, log_p: float) -> float:
    """Compute the log of the NFA of a model that `n_minimal` matches define; `log_p` is that of a random inlier."""
    return (
        log(max(n_matches, 1))
        + _log_choose(n_matches, n_inliers)
        + _log_choose(n_inliers, n_minimal)
        + (n_inliers - n_minimal) * log_p
    )


def _log_probability(size: tuple[int, int]) -> float:
    return min(0.0, log(2 * MAX_ERROR * math.hypot(*size) / (size[0] * size[1])))


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
