"""Scores of images against images and of surfaces against surfaces.

    accuracy       mean distance from the predicted surface to the true one
    completeness   mean distance from the true surface to the predicted one
    chamfer        their mean
    F-score at d   harmonic mean of the fractions of predicted and of true points closer than d to the other surface
    normals        mean |cos| between a point's normal and the normal at its nearest point, both ways averaged

Distances are to triangles, not to points sampled on them, and in percent of the diagonal of the truth's box. Sample
points are uniform in area and the same in every run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.ndimage import correlate1d
from scipy.spatial import KDTree

N_SAMPLES = 200_000  # the mean distance of two such draws differs by about 0.1 %
_SEEDS_PER_FACE, _MIN_SEEDS, _MAX_SEEDS = 3, 50_000, 400_000
_N_PROPOSALS = 8  # the nearest triangle is missed so rarely that means are off by less than 0.001 %
_CHUNK = 50_000  # queries at a time: bounds memory at about 200 MB

Points = Float[np.ndarray, "n 3"]


def psnr(image: Float[np.ndarray, "*shape"], truth: Float[np.ndarray, "*shape"]) -> float:
    """Compute the peak signal to noise ratio of images in [0, 1] in dB, −10 log₁₀ MSE; infinite if they are equal."""
    error = float(np.mean((np.asarray(image, np.float64) - truth) ** 2))
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def ssim(image: Float[np.ndarray, "h w c"], truth: Float[np.ndarray, "g v d"]) -> float:
    """Compute the structural similarity of images in [0, 1] (Wang et al. 2004), mean over pixels and channels.

    Gaussian window of 11 × 11, σ = 1.5, K₁ = 0.01, K₂ = 0.03, at places where the whole window fits.

    Raises:
        ValueError: if the shapes differ or a side is shorter than 11 pixels.
    """
    if image.shape != truth.shape or min(image.shape[:2]) < 11:
        raise ValueError(
            f"SSIM needs two images of one shape, 11 pixels or more: {image.shape}, {truth.shape}"
        )
    x, y = np.asarray(image, np.float64), np.asarray(truth, np.float64)
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    var_x, var_y = _window_mean(x * x) - mean_x**2, _window_mean(y * y) - mean_y**2
    covariance = _window_mean(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float(np.mean(similarity / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))))


def _window_mean(image: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "g v c"]:
    weights = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    weights /= weights.sum()
    return correlate1d(correlate1d(image, weights, 0), weights, 1)[5:-5, 5:-5]


class SurfaceSamples(NamedTuple):
    """Points on a surface and the unit normals there (NaN where unknown)."""

    points: Points
    normals: Points


class Nearest(NamedTuple):
    """The nearest point of a surface for each query."""

    distances: Float[np.ndarray, "n"]
    normals: Points


class MeshSurface:
    """A surface of triangles, without faces of no area or with a NaN vertex."""

    def __init__(self, vertices: Float[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"]) -> None:
        triangles = np.asarray(vertices, np.float64)[np.asarray(faces).reshape(-1, 3)]
        across = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        areas = 0.5 * np.linalg.norm(across, axis=1)
        valid = np.isfinite(areas) & (areas > 0)
        self.triangles, self.areas = triangles[valid], areas[valid]
        self.normals = across[valid] / (2 * self.areas[:, None])
        self._tree: KDTree | None = None

    def __len__(self) -> int:
        return len(self.triangles)

    def diagonal(self) -> float:
        """Compute the length of the diagonal of the axis-aligned box."""
        return float(np.linalg.norm(np.ptp(self.triangles.reshape(-1, 3), axis=0)))

    def sample(self, n: int, seed: int = 0) -> SurfaceSamples:
        """Sample `n` points, uniform in area."""
        points, owners = self._scatter(n, seed)
        return SurfaceSamples(points, self.normals[owners])

    def nearest(self, points: Points) -> Nearest:
        """Compute the distance to the nearest triangle, among those of the nearest scattered points, and its normal."""
        if self._tree is None:
            n_seeds = min(_MIN_SEEDS + _SEEDS_PER_FACE * len(self), _MAX_SEEDS)
            seeds, owners = self._scatter(n_seeds, seed=1)
            self._tree = KDTree(np.concatenate([self.triangles.mean(1), seeds]))
            self._owners = np.concatenate([np.arange(len(self)), owners])
        parts = [self._nearest(self._tree, points[i : i + _CHUNK]) for i in range(0, len(points), _CHUNK)]
        return Nearest(*(np.concatenate(values) for values in zip(*parts, strict=True)))

    def _nearest(self, tree: KDTree, points: Points) -> Nearest:
        proposed = self._owners[tree.query(points, k=_N_PROPOSALS, workers=-1)[1]]
        distances = np.empty(proposed.shape)
        for column in range(_N_PROPOSALS):
            distances[:, column] = triangle_distances(points, self.triangles[proposed[:, column]])
        best = distances.argmin(1)[:, None]
        owner = np.take_along_axis(proposed, best, 1)[:, 0]
        return Nearest(np.take_along_axis(distances, best, 1)[:, 0], self.normals[owner])

    def _scatter(self, n: int, seed: int) -> tuple[Points, Int64[np.ndarray, "n"]]:
        random = np.random.default_rng(seed)
        upper = np.cumsum(self.areas)
        owners = np.searchsorted(upper, random.random(n) * upper[-1]).clip(0, len(self) - 1)
        root, fraction = np.sqrt(random.random((n, 1))), random.random((n, 1))
        weights = np.concatenate([1 - root, root * (1 - fraction), root * fraction], 1)
        return np.einsum("nk,nki->ni", weights, self.triangles[owners]), owners


class CloudSurface:
    """A point cloud as a surface: distances are to its points, normals are NaN where it has none."""

    def __init__(self, points: Points, normals: Points | None = None) -> None:
        finite = np.isfinite(points).all(axis=1)
        self.points = np.asarray(points, np.float64)[finite]
        known = (
            np.full_like(self.points, np.nan) if normals is None else np.asarray(normals, np.float64)[finite]
        )
        self.normals = known / np.maximum(np.linalg.norm(known, axis=1, keepdims=True), 1e-30)
        self._tree = KDTree(self.points)

    def __len__(self) -> int:
        return len(self.points)

    def diagonal(self) -> float:
        """Compute the length of the diagonal of the axis-aligned box."""
        return float(np.linalg.norm(np.ptp(self.points, axis=0)))

    def sample(self, n: int, seed: int = 0) -> SurfaceSamples:
        """Sample at most `n` of the points, each equally likely."""
        keep = np.random.default_rng(seed).permutation(len(self))[:n]
        return SurfaceSamples(self.points[keep], self.normals[keep])

    def nearest(self, points: Points) -> Nearest:
        """Compute the distance to the nearest point and its normal."""
        distances, index = self._tree.query(points, workers=-1)
        return Nearest(np.asarray(distances), self.normals[index])


def triangle_distances(points: Points, triangles: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n"]:
    """Compute the distance of point i to triangle i: to its plane if the projection lies inside, else to a side."""
    sides = np.roll(triangles, -1, axis=1) - triangles
    offsets = points[:, None] - triangles
    length2 = np.maximum(np.einsum("nki,nki->nk", sides, sides), 1e-300)
    along = np.clip(np.einsum("nki,nki->nk", offsets, sides) / length2, 0, 1)
    to_sides = np.linalg.norm(offsets - along[..., None] * sides, axis=2).min(1)
    normal = np.cross(sides[:, 0], sides[:, 1])
    inward = np.cross(normal[:, None], sides)
    inside = (np.einsum("nki,nki->nk", inward, offsets) >= 0).all(axis=1)
    height = np.abs(np.einsum("ni,ni->n", offsets[:, 0], normal))
    return np.where(inside, height / np.maximum(np.linalg.norm(normal, axis=1), 1e-300), to_sides)


class ObjectRegion(NamedTuple):
    """Region in which an object on a table is scored: its ball, 1 % of its diagonal above the table."""

    center: tuple[float, float, float]
    radius: float
    up: tuple[float, float, float]
    table_z: float
    diagonal: float

    def contains(self, points: Points) -> Bool[np.ndarray, "n"]:
        """Tell which points lie inside; the ball is 3 % larger, so that surface slightly outside it counts, too."""
        near = np.linalg.norm(points - np.asarray(self.center), axis=1) <= 1.03 * self.radius
        return near & (points @ np.asarray(self.up) > self.table_z + 0.01 * self.diagonal)


@dataclass(frozen=True)
class SurfaceScores:
    """Scores as defined above: lengths in percent of `diagonal`, fractions from 0 to 1."""

    accuracy: float
    accuracy_median: float
    completeness: float
    completeness_median: float
    chamfer: float
    fscore_half: float
    """F-score at 0.5 %."""
    fscore_one: float
    """F-score at 1 %."""
    normal_consistency: float
    """NaN for a cloud without normals."""
    normals_outward: float
    """Fraction of predicted points whose normal points to the same side as the truth's; NaN likewise."""
    diagonal: float
    n_predicted: int
    n_truth: int


def compare_surfaces(
    predicted: MeshSurface,
    truth: MeshSurface | CloudSurface,
    counts: Callable[[np.ndarray], np.ndarray] | None = None,
    truth_samples: SurfaceSamples | None = None,
    n_samples: int = N_SAMPLES,
) -> SurfaceScores:
    """Score `predicted` against `truth`, on both sides only at points for which `counts` is true.

    `truth_samples` are the true points to score, such as those that cameras saw; by default samples of the truth.

    Raises:
        ValueError: if either surface is empty, or nothing of it counts.
    """
    if not len(predicted) or not len(truth):
        raise ValueError(
            "a surface without area cannot be scored: check that both files hold a mesh or cloud"
        )
    of_predicted = _counting(predicted.sample(n_samples), counts, "predicted")
    of_truth = _counting(truth_samples or truth.sample(n_samples), counts, "true")
    to_truth, to_predicted = truth.nearest(of_predicted.points), predicted.nearest(of_truth.points)
    percent = 100 / truth.diagonal()
    a, c = percent * to_truth.distances, percent * to_predicted.distances
    cosines = np.einsum("ni,ni->n", of_predicted.normals, to_truth.normals)
    back = np.einsum("ni,ni->n", of_truth.normals, to_predicted.normals)
    return SurfaceScores(
        accuracy=float(a.mean()),
        accuracy_median=float(np.median(a)),
        completeness=float(c.mean()),
        completeness_median=float(np.median(c)),
        chamfer=float(a.mean() + c.mean()) / 2,
        fscore_half=_fscore(a, c, 0.5),
        fscore_one=_fscore(a, c, 1.0),
        normal_consistency=float(np.abs(cosines).mean() + np.abs(back).mean()) / 2,
        normals_outward=float("nan") if np.isnan(cosines).any() else float((cosines > 0).mean()),
        diagonal=truth.diagonal(),
        n_predicted=len(a),
        n_truth=len(c),
    )


def _counting(
    samples: SurfaceSamples, counts: Callable[[np.ndarray], np.ndarray] | None, which: str
) -> SurfaceSamples:
    keep = np.ones(len(samples.points), bool) if counts is None else counts(samples.points)
    if not keep.any():
        raise ValueError(f"nothing of the {which} surface lies in the region that is scored")
    return SurfaceSamples(samples.points[keep], samples.normals[keep])


def _fscore(a: Float[np.ndarray, "n"], c: Float[np.ndarray, "m"], limit: float) -> float:
    precision, recall = float((a < limit).mean()), float((c < limit).mean())
    return 2 * precision * recall / max(precision + recall, 1e-12)
