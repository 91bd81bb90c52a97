"""What `_native.match_patches` holds against a plane, in numpy: the specification of csrc/stereo.h."""

import numpy as np

WINDOW, STEP, UNSEEN = 5, 2, 2.0
OFFSETS = [(STEP * (k % WINDOW - WINDOW // 2), STEP * (k // WINDOW - WINDOW // 2)) for k in range(WINDOW**2)]


def costs_twin(reference, sources, transforms, planes, similarity, least_contrast, n_best):
    """The mean of the n_best least costs of each pixel, float64 [h, w]."""
    v, u = np.mgrid[: reference.shape[0], : reference.shape[1]]
    values = np.stack([bilinear(reference, u + i, v + j) for i, j in OFFSETS])
    weights = np.exp(-np.abs(values - reference) / similarity)
    weights /= weights.sum(0)
    costs = np.stack(
        [
            cost(values, weights, source, transform, planes, u + 0.5, v + 0.5, least_contrast)
            for source, transform in zip(sources, transforms, strict=True)
        ]
    )
    return np.sort(costs, 0)[:n_best].mean(0)


def cost(values, weights, source, transform, planes, u, v, least_contrast):
    """1 − NCC of the windows of one source."""
    w, a, b = planes.astype(float)
    h = np.tensordot(transform, np.stack([u, v, np.ones_like(u), w]), 1)
    x, y = h[:2] / h[2]
    across, along = (
        transform[:, k, None, None] + transform[:, 3, None, None] * s for k, s in ((0, a), (1, b))
    )
    samples = np.stack(
        [
            bilinear(
                source,
                x - 0.5 + (i * (across[0] - x * across[2]) + j * (along[0] - x * along[2])) / h[2],
                y - 0.5 + (i * (across[1] - y * across[2]) + j * (along[1] - y * along[2])) / h[2],
            )
            for i, j in OFFSETS
        ]
    )
    own, other = (part - (weights * part).sum(0) for part in (values, samples))
    deviations = [np.sqrt((weights * part**2).sum(0)) for part in (own, other)]
    ncc = (weights * own * other).sum(0) / np.maximum(deviations[0] * deviations[1], 1e-9)
    seen = (h[2] > 1e-6) & (x > 0) & (y > 0) & (x < source.shape[1]) & (y < source.shape[0])
    return np.where(seen & (np.minimum(*deviations) >= least_contrast), 1 - ncc, UNSEEN)


def bilinear(image, x, y):
    """Grey at (x, y), whole numbers at the centres of pixels; the border goes on outside."""
    height, width = image.shape
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    column, row = x.astype(int), y.astype(int)
    right, below = np.minimum(column + 1, width - 1), np.minimum(row + 1, height - 1)
    p, q = x - column, y - row
    top = (1 - p) * image[row, column] + p * image[row, right]
    return (1 - q) * top + q * ((1 - p) * image[below, column] + p * image[below, right])
