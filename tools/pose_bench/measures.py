"""Errors of poses against true ones, independent of frame and scale.

Errors of a pair are the angle of R_ij R_ij*ᵀ and the angle between the directions of t_ij and t_ij*, both in the
frame of camera i. A photo is placed right if the medians of its errors over the other photos are below 5°: wrong
cameras among the others do not count against it as long as they are fewer than half. AUC@5° is the area under the
recall curve of the larger error of each pair up to 5°, divided by 5° (as in the image matching challenges). Centres
are compared after the similarity of least squares (Umeyama 1991), in percent of the true centres' extent.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

LIMIT_DEGREES = 5.0
_SAME_PLACE = 1e-6  # of the extent of the centres: no direction leads from a camera to one at its own place

Poses = Mapping[str, Float[np.ndarray, "3 4"]]
"""c2w by the photo's name without suffix."""


def compare(found: Poses, true: Poses) -> dict[str, float]:
    """Compute figures of the photos in both; only `compared` and `right` where these are too few."""
    names = sorted(found.keys() & true.keys())
    if len(names) < 3:
        return {"compared": len(names), "right": 0}
    c2w, true_c2w = (np.stack([poses[name] for name in names]) for poses in (found, true))
    rotations, directions = pair_errors(c2w, true_c2w)
    once = np.triu_indices(len(names), 1)
    residuals = aligned_residuals(c2w[:, :, 3], true_c2w[:, :, 3]) / extent(true_c2w[:, :, 3])
    return {
        "compared": len(names),
        "right": int(placed_right(c2w, true_c2w).sum()),
        "auc": 100 * area_under_recall(np.maximum(rotations, directions)[once], LIMIT_DEGREES),
        "rms": 100 * float(np.sqrt((residuals**2).mean())),
        "median": 100 * float(np.median(residuals)),
        "rotation": float(np.median(rotations[once])),
        "direction": float(np.median(directions[once])),
    }


def placed_right(
    c2w: Float[np.ndarray, "n 3 4"], true_c2w: Float[np.ndarray, "n 3 4"], limit: float = LIMIT_DEGREES
) -> Bool[np.ndarray, "n"]:
    """Mark the cameras that are right relative to most of the others; a single camera is not."""
    if len(c2w) < 2:
        return np.zeros(len(c2w), bool)
    rotations, directions = pair_errors(c2w, true_c2w)
    centers = true_c2w[:, :, 3]
    apart = np.linalg.norm(centers[:, None] - centers, axis=2) > _SAME_PLACE * extent(centers)
    turned = np.ma.masked_array(rotations, np.eye(len(c2w), dtype=bool))
    astray = np.ma.masked_array(directions, ~apart)
    return np.all([np.ma.median(errors, axis=1).filled(0) < limit for errors in (turned, astray)], axis=0)


def pair_errors(
    c2w: Float[np.ndarray, "n 3 4"], true_c2w: Float[np.ndarray, "n 3 4"]
) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "n n"]]:
    """Measure degrees for every ordered pair: of relative rotations, and of directions (90 where ours has none)."""
    (turn, way), (true_turn, true_way) = _relative(c2w), _relative(true_c2w)
    cosines = (np.einsum("abij,abij->ab", turn, true_turn) - 1) / 2
    lengths = np.linalg.norm(way, axis=2) * np.linalg.norm(true_way, axis=2)
    dots = np.einsum("abi,abi->ab", way, true_way) / np.maximum(lengths, 1e-300)
    return np.degrees(np.arccos(np.clip(cosines, -1, 1))), np.degrees(np.arccos(np.clip(dots, -1, 1)))


def area_under_recall(errors: Float[np.ndarray, "p"], limit: float) -> float:
    """Compute ∫₀^limit (fraction of errors ≤ x) dx / limit."""
    return float(np.clip(limit - errors, 0, None).mean() / limit)


def aligned_residuals(
    points: Float[np.ndarray, "n 3"], targets: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n"]:
    """Measure the distances after the best similarity from `points` to `targets` (Umeyama 1991, eq. 40 to 43)."""
    source, target = points - points.mean(0), targets - targets.mean(0)
    u, singular, vt = np.linalg.svd(target.T @ source)
    signs = np.array([1, 1, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(signs) @ vt
    scale = (singular * signs).sum() / (source**2).sum()
    return np.linalg.norm(scale * source @ rotation.T - target, axis=1)


def extent(centers: Float[np.ndarray, "n 3"]) -> float:
    """Return the largest distance of a centre from their mean."""
    return float(np.linalg.norm(centers - centers.mean(0), axis=1).max())


def _relative(
    c2w: Float[np.ndarray, "n 3 4"],
) -> tuple[Float[np.ndarray, "n n 3 3"], Float[np.ndarray, "n n 3"]]:
    """Rotation and translation of every camera b in the frame of every camera a."""
    rotations, centers = c2w[:, :, :3], c2w[:, :, 3]
    turn = np.einsum("aji,bjk->abik", rotations, rotations)
    return turn, np.einsum("aji,abj->abi", rotations, centers[None] - centers[:, None])
