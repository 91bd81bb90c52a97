"""What `_native.match_descriptors` computes, in numpy with the whole matrix of products: the specification.

n, m: descriptors of the first and of the second image; products are exact integers, rounded where float32 says so.
"""

import numpy as np
from numpy.typing import NDArray


def match_twin(
    descriptors: list[NDArray[np.uint8]], pairs: NDArray[np.int32], max_ratio: float, max_distance: float
) -> list[NDArray[np.int32]]:
    """Mutual nearest neighbours that pass Lowe's ratio test from either side, for each pair of images."""
    return [match_pair(descriptors[i], descriptors[j], max_ratio, max_distance) for i, j in pairs]


def match_pair(
    first: NDArray[np.uint8], second: NDArray[np.uint8], max_ratio: float, max_distance: float
) -> NDArray[np.int32]:
    """Matches (i, j) by rising i; none decides between two that are equally near, because no ratio passes there."""
    products = first.astype(np.int32) @ second.astype(np.int32).T
    first_norms, second_norms = inverse_norms(first), inverse_norms(second)
    forth = nearest(products, first_norms, second_norms, max_ratio, max_distance)
    back = nearest(products.T, second_norms, first_norms, max_ratio, max_distance)
    mutual = [(i, j) for i, j in enumerate(forth) if j >= 0 and back[j] == i]
    return np.array(mutual, np.int32).reshape(-1, 2)


def nearest(
    products: NDArray[np.int32],
    row_norms: NDArray[np.float32],
    column_norms: NDArray[np.float32],
    max_ratio: float,
    max_distance: float,
) -> NDArray[np.int64]:
    """The nearest column of each row, -1 where it is too far or hardly nearer than the second nearest."""
    n, _ = products.shape
    none = np.zeros((n, 2), np.float32)  # where there are fewer than two: as if orthogonal
    similar = np.concatenate([products.astype(np.float32) * column_norms, none], 1)
    second, best = np.sort(similar, 1)[:, -2:].T
    angles = [np.arccos(np.minimum(y.astype(np.float64) * row_norms, 1)) for y in (best, second)]
    passes = (best > 0) & (angles[0] <= max_distance) & (angles[0] < max_ratio * angles[1])
    return np.where(passes, similar.argmax(1), -1)


def inverse_norms(descriptors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """1 / |a| of each row a, 0 for rows of zeros."""
    squares = (descriptors.astype(np.int32) ** 2).sum(1).astype(np.float32)
    return np.where(squares > 0, np.float32(1) / np.sqrt(np.maximum(squares, 1)), np.float32(0))
