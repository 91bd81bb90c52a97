"""Which pairs of photos to match, and their matches.

Few photos are matched in all pairs. Of many, each is matched with those most like it by its features of largest
scale, and with its neighbours in order.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from quicksurf.capture.sfm.features import Features
from quicksurf.kernels.host import match_descriptors

RATIO, MAX_ANGLE = 0.8, 0.7  # Lowe's test on angles of descriptors, and the largest angle in radians
_COARSE_WORK = 2e12  # products of components in the coarse pass: about 5 s on two cores
_COARSE_FEATURES = 64, 768  # least and most of a photo's features in it
_BLOCK = 32  # pairs between two looks at the clock

Matches = Int[np.ndarray, "_ 2"]


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
        likeness = coarse_likeness(features)
        alike = best_partners(likeness, n_partners)[rows, columns]
        priority = np.where(near, np.inf, likeness[rows, columns])
    else:
        alike = np.ones(len(rows), bool)
        priority = rows.astype(float) - columns
    usable = np.array([len(item.points) > 0 for item in features], bool)
    chosen = (near | alike) & usable[rows] & usable[columns]
    order = np.argsort(-priority[chosen], kind="stable")
    return list(zip(rows[chosen][order].tolist(), columns[chosen][order].tolist(), strict=True))


def best_partners(likeness: Float[np.ndarray, "n n"], n_partners: int) -> Bool[np.ndarray, "n n"]:
    """Symmetric matrix: j is among the `n_partners` most like i, or i among those of j."""
    ranked = np.argsort(-likeness, axis=1, kind="stable")[:, :n_partners]
    chosen = np.zeros(likeness.shape, bool)
    np.put_along_axis(chosen, ranked, True, axis=1)
    chosen |= chosen.T
    np.fill_diagonal(chosen, False)
    return chosen


def coarse_likeness(features: Sequence[Features]) -> Float[np.ndarray, "n n"]:
    """Count matches between the features of largest scale of all pairs; fewer features where photos are many."""
    n_images = len(features)
    rows, columns = np.triu_indices(n_images, 1)
    least, most = _COARSE_FEATURES
    n_coarse = int(np.clip(np.sqrt(_COARSE_WORK / 128 / max(len(rows), 1)), least, most))
    largest = [np.ascontiguousarray(item.descriptors[:n_coarse]) for item in features]
    likeness = np.full((n_images, n_images), -1.0)
    pairs = np.stack([rows, columns], 1).astype(np.int32)
    for begin in range(0, len(pairs), 4096):
        block = pairs[begin : begin + 4096]
        counts = [len(found) for found in match_descriptors(largest, block, RATIO, MAX_ANGLE)]
        likeness[block[:, 0], block[:, 1]] = likeness[block[:, 1], block[:, 0]] = counts
    return likeness


def match_pairs(
    features: Sequence[Features],
    pairs: Sequence[tuple[int, int]],
    expired: Callable[[], bool],
    ratio: float = RATIO,
) -> dict[tuple[int, int], Matches]:
    """Match `pairs` in their order until `expired()`; pairs that were not reached are absent."""
    descriptors = [item.descriptors for item in features]
    matches: dict[tuple[int, int], Matches] = {}
    for begin in range(0, len(pairs), _BLOCK):
        if expired():
            break
        block = list(pairs[begin : begin + _BLOCK])
        found = match_descriptors(descriptors, np.array(block, np.int32), ratio, MAX_ANGLE)
        matches.update(zip(block, found, strict=True))
    return matches
