"""The last step of a mesh: vertices move along their normals to the points that stereo has found around them.

The field is smooth at the size of its finest cells, and its priors round what photos show. Stereo places each point
within a third of a pixel. With o the offsets of the points around a vertex along its normal, d their distances beside
it and p the size of a pixel there, the vertex moves by the mean of o with weights exp(−(d / 2p)² / 2), of points
within 4p, and then of those within p of that mean. Moves are smoothed over the mesh by their certainty; where there
are no points, what is around decides, or nothing moves.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float32, Float64, Int64
from scipy.spatial import KDTree

from quicksurf.mesh.extract import vertex_normals

_NEIGHBORS = 16
_REACH = 4.0  # pixels along the normal
_WIDTH = 2.0  # pixels beside it: the standard deviation of the weights
_ALIKE = 1.0  # pixels from the mean that points may be
_LEAST, _CERTAIN = (
    2.0,
    4.0,
)  # sums of weights: below, a vertex has no move of its own; at which it counts in full
_SMOOTHINGS = 3
_BATCH = 1 << 16  # vertices: 100 MB


class SurfacePoints(NamedTuple):
    """Points on the surface, in the frame of the mesh."""

    positions: Float32[np.ndarray, "n 3"]
    pixels: Float32[np.ndarray, "n"]
    """Size of a pixel at each."""


def refine_vertices(
    vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"], points: SurfacePoints
) -> Float64[np.ndarray, "v 3"]:
    """Move the vertices of a mesh to the points around them, as the module's docstring describes."""
    if len(points.positions) < _NEIGHBORS or not len(faces):
        return vertices
    normals, tree = vertex_normals(vertices, faces), KDTree(points.positions)
    moves, sums = np.zeros(len(vertices)), np.zeros(len(vertices))
    for first in range(0, len(vertices), _BATCH):
        batch = slice(first, first + _BATCH)
        moves[batch], sums[batch] = _moves(vertices[batch], normals[batch], points, tree)
    certainty = np.where(sums > _LEAST, (sums / _CERTAIN).clip(max=1), 0.0)
    return vertices + _smoothed(moves, certainty, faces)[:, None] * normals


def _moves(
    vertices: Float64[np.ndarray, "v 3"],
    normals: Float64[np.ndarray, "v 3"],
    points: SurfacePoints,
    tree: KDTree,
) -> tuple[Float64[np.ndarray, "v"], Float64[np.ndarray, "v"]]:
    """How far vertices lie behind the points around them, and the sums of the weights that this is known with."""
    distances, nearest = tree.query(vertices, k=_NEIGHBORS, workers=-1)
    offsets = np.einsum("vkc,vc->vk", points.positions[nearest] - vertices[:, None], normals)
    pixels = points.pixels[nearest]
    beside = (distances**2 - offsets**2).clip(min=0) / (_WIDTH * pixels) ** 2
    weights = np.exp(-0.5 * beside) * (np.abs(offsets) < _REACH * pixels)
    weights *= np.abs(offsets - _mean(offsets, weights)[:, None]) < _ALIKE * pixels
    return _mean(offsets, weights), weights.sum(1)


def _mean(
    values: Float64[np.ndarray, "v k"], weights: Float64[np.ndarray, "v k"]
) -> Float64[np.ndarray, "v"]:
    return (weights * values).sum(1) / weights.sum(1).clip(min=1e-12)


def _smoothed(
    moves: Float64[np.ndarray, "v"], certainty: Float64[np.ndarray, "v"], faces: Int64[np.ndarray, "f 3"]
) -> Float64[np.ndarray, "v"]:
    """Average each move with those of its neighbours, weighted by certainty, which spreads by half at a time."""
    rows = np.concatenate([faces, faces[:, [1, 2, 0]]]).ravel()
    columns = np.concatenate([faces[:, [1, 2, 0]], faces]).ravel()
    ones = np.ones(len(rows), np.float32)
    neighbors = scipy.sparse.coo_array((ones, (rows, columns)), (len(moves), len(moves))).tocsr()
    degrees = neighbors.sum(1).clip(min=1)
    for _ in range(_SMOOTHINGS):
        around = neighbors @ certainty / degrees
        moves = (certainty * moves + neighbors @ (certainty * moves) / degrees) / (certainty + around).clip(
            min=1e-6
        )
        certainty = np.maximum(certainty, 0.5 * around)
    return moves
