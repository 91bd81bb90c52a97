"""Triangulate points from matches of posed photos: tracks of features, each with the rays of its photos.

A point x minimises Σ w |(I − d dᵀ)(x − o)|² over the rays (o, d) that observe it. With w = 1/t², t the depth along the
ray, that is the squared angle between d and x − o; a Cauchy weight in pixels suppresses wrong matches. Cameras stay
fixed.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from quicksurf.geometry.cameras import Cameras, pixel_rays, project

MAX_ERROR = 2.0  # pixels between an observation and its point, as for points of structure from motion
MIN_DEGREES = 1.5  # between two of its rays
_TRIALS = 8  # pairs of rays to initialise a point from: wrong matches join tracks of two points
_ROUNDS = 3  # of reweighting
# Observations that do not fit a track's point may be of another one, joined to it by wrong matches.
_PASSES = 2


class Tracks(NamedTuple):
    """Observations: feature `features[k]` of photo `images[k]` sees the point `points[k]`."""

    points: Int[np.ndarray, "m"]
    images: Int[np.ndarray, "m"]
    features: Int[np.ndarray, "m"]

    def select(self, index: np.ndarray) -> "Tracks":
        """Return the observations at `index`."""
        return Tracks(*(part[index] for part in self))


class Triangulated(NamedTuple):
    """Points and the observations that fit them, one at most of a point in a photo."""

    positions: Float[np.ndarray, "p 3"]
    tracks: Tracks


def join_matches(matches: Mapping[tuple[int, int], np.ndarray], counts: Sequence[int]) -> Tracks:
    """Join features that match, directly or through others.

    Args:
        counts: features of each photo.
    """
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    edges = [starts[list(pair)] + found for pair, found in matches.items() if len(found)]
    table = np.concatenate(edges) if edges else np.zeros((0, 2), np.int64)
    graph = coo_matrix((np.ones(len(table), bool), table.T), shape=(starts[-1], starts[-1]))
    _, labels = connected_components(graph, directed=False)
    used = np.unique(table)
    images = np.searchsorted(starts, used, side="right") - 1
    return Tracks(np.unique(labels[used], return_inverse=True)[1], images, used - starts[images])


def triangulate(tracks: Tracks, pixels: Sequence[Float[np.ndarray, "_ 2"]], cameras: Cameras) -> Triangulated:
    """Triangulate tracks, without observations that do not fit and points with fewer than two.

    Args:
        pixels: of each photo's features.
        cameras: of the photos, float64, at the size at which features were extracted.
    """
    positions, kept = [], []
    left, n_points = tracks, 0
    for _ in range(_PASSES):
        found, fits = _triangulate(left, pixels, cameras)
        positions.append(found.positions)
        kept.append(found.tracks._replace(points=found.tracks.points + n_points))
        n_points += len(found.positions)
        left = left.select(~fits)
        _, points, counts = np.unique(left.points, return_inverse=True, return_counts=True)
        left = left._replace(points=points).select(counts[points] >= 2)
        left = left._replace(points=np.unique(left.points, return_inverse=True)[1])
    joined = Tracks(*(np.concatenate(parts) for parts in zip(*kept, strict=True)))
    return Triangulated(np.concatenate(positions), joined)


def _triangulate(
    tracks: Tracks, pixels: Sequence[Float[np.ndarray, "_ 2"]], cameras: Cameras
) -> tuple[Triangulated, Bool[np.ndarray, "m"]]:
    """One point for each track, and which observations fit it."""
    n_points = int(tracks.points.max(initial=-1)) + 1
    starts = np.cumsum([0, *(len(item) for item in pixels)])
    seen = np.concatenate([*pixels, np.zeros((0, 2))])[starts[tracks.images] + tracks.features]
    rays = rays_of(cameras, tracks.images, seen)
    focal = cameras.intrinsics[:, 0].numpy()[tracks.images]
    positions = _from_pairs(tracks.points, rays, focal, n_points)
    weights = np.ones(len(tracks.points))
    for _ in range(_ROUNDS):
        depths, errors = _deviations(positions[tracks.points], rays, focal)
        weights = 1 / np.maximum(depths, 1e-6) ** 2 / (1 + (errors / MAX_ERROR) ** 2)
        positions = _nearest_to_rays(tracks.points, rays, weights, n_points)
    fits = _fitting(positions, tracks, seen, cameras)
    chosen = np.flatnonzero(fits)
    positions = _nearest_to_rays(
        tracks.points[chosen], [part[chosen] for part in rays], weights[chosen], n_points
    )
    fits &= _fitting(positions, tracks, seen, cameras)
    good = _well_seen(tracks, rays, fits, n_points)
    fits &= good[tracks.points]
    number = np.cumsum(good) - 1
    kept = tracks.select(fits)
    return Triangulated(positions[good], kept._replace(points=number[kept.points])), fits


def _from_pairs(
    points: Int[np.ndarray, "m"], rays: Sequence[Float[np.ndarray, "m 3"]], focal: np.ndarray, n_points: int
) -> Float[np.ndarray, "p 3"]:
    """Initialise each point where two of its rays meet: of _TRIALS random pairs the one with most rays nearby."""
    generator = np.random.default_rng(0)
    starts = np.searchsorted(np.sort(points), np.arange(n_points))
    best, most = np.zeros((n_points, 3)), np.full(n_points, -1)
    for _ in range(_TRIALS if len(points) else 0):
        order = np.lexsort((generator.random(len(points)), points))
        two = np.concatenate([order[starts], order[starts + 1]])
        positions = _nearest_to_rays(points[two], [part[two] for part in rays], np.ones(len(two)), n_points)
        _, errors = _deviations(positions[points], rays, focal)
        near = np.bincount(points, errors < 2 * MAX_ERROR, n_points)
        best[near > most], most = positions[near > most], np.maximum(near, most)
    return best


def rays_of(
    cameras: Cameras, images: Int[np.ndarray, "m"], pixels: Float[np.ndarray, "m 2"]
) -> tuple[Float[np.ndarray, "m 3"], Float[np.ndarray, "m 3"]]:
    """Return origins and unit directions of the rays through pixels, float64."""
    origins, directions = pixel_rays(cameras, torch.from_numpy(images), torch.from_numpy(pixels))
    return origins.numpy(), directions.numpy()


def _nearest_to_rays(
    points: Int[np.ndarray, "m"],
    rays: Sequence[Float[np.ndarray, "m 3"]],
    weights: Float[np.ndarray, "m"],
    n_points: int,
) -> Float[np.ndarray, "p 3"]:
    """The point of least weighted squared distances from its rays; far away where they are parallel."""
    origins, directions = rays
    across = weights[:, None, None] * (np.eye(3) - directions[:, :, None] * directions[:, None])
    rows = np.concatenate([across.reshape(-1, 9), (across @ origins[:, :, None])[:, :, 0]], 1)
    sums = np.stack([np.bincount(points, column, n_points) for column in rows.T], 1)
    scale = np.maximum(np.trace(sums[:, :9].reshape(-1, 3, 3), axis1=1, axis2=2), 1e-300)
    matrices = sums[:, :9].reshape(-1, 3, 3) / scale[:, None, None] + 1e-12 * np.eye(3)
    return np.linalg.solve(matrices, sums[:, 9:, None] / scale[:, None, None])[:, :, 0]


def _deviations(
    positions: Float[np.ndarray, "m 3"], rays: Sequence[Float[np.ndarray, "m 3"]], focal: np.ndarray
) -> tuple[Float[np.ndarray, "m"], Float[np.ndarray, "m"]]:
    """Depths along rays, and about how many pixels the points are beside them."""
    origins, directions = rays
    towards = positions - origins
    depths = (towards * directions).sum(1)
    beside = np.linalg.norm(towards - depths[:, None] * directions, axis=1)
    return depths, focal * beside / np.maximum(np.abs(depths), 1e-12) + np.where(depths > 0, 0.0, 1e3)


def _fitting(
    positions: Float[np.ndarray, "p 3"], tracks: Tracks, seen: Float[np.ndarray, "m 2"], cameras: Cameras
) -> Bool[np.ndarray, "m"]:
    """Observations within MAX_ERROR of their points, the nearest one of a point in each photo."""
    errors = np.full(len(tracks.points), np.inf)
    for image in np.unique(tracks.images):
        mine = np.flatnonzero(tracks.images == image)
        at, depths = project(cameras, int(image), torch.from_numpy(positions[tracks.points[mine]]))
        beside = np.linalg.norm(at.numpy() - seen[mine], axis=1)
        errors[mine] = np.where(depths.numpy() > 0, beside, np.inf)
    order = np.lexsort((errors, tracks.images, tracks.points))
    pairs = np.stack([tracks.points[order], tracks.images[order]])
    first = np.ones(len(order), bool)
    first[1:] = (pairs[:, 1:] != pairs[:, :-1]).any(0)
    nearest = np.zeros(len(order), bool)
    nearest[order[first]] = True
    return nearest & (errors <= MAX_ERROR)


def _well_seen(
    tracks: Tracks, rays: Sequence[Float[np.ndarray, "m 3"]], fits: Bool[np.ndarray, "m"], n_points: int
) -> Bool[np.ndarray, "p"]:
    """Points whose rays are MIN_DEGREES apart: some ray half of that from their mean, as one of any two rays is."""
    points, directions = tracks.points[fits], rays[1][fits]
    mean = np.stack([np.bincount(points, column, n_points) for column in directions.T], 1)
    mean = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    cosines = np.ones(n_points)
    np.minimum.at(cosines, points, (directions * mean[points]).sum(1))
    return (np.bincount(points, minlength=n_points) >= 2) & (cosines <= np.cos(np.radians(MIN_DEGREES / 2)))
