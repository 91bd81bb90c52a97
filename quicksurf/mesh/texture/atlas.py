"""A mesh cut open and laid flat, and the texels that lie on it.

Coordinates (u, v) are in [0, 1], u to the right and v downwards, so that column = u · size and row = v · size; texel
(column, row) has its centre at +0.5, as pixels have. Charts are made and packed by xatlas; this module reads no photo.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xatlas
from jaxtyping import Float32, Float64, Int32, Int64

from quicksurf.kernels.host import rasterize

MIN_SIZE, MAX_SIZE = 64, 8192  # texels a side: what graphics cards of ten years can hold
_PADDING = 4  # texels between charts: two levels of a mip-map before neighbours mix
_BATCH = 1 << 18  # texels at a time: bounds what their weights take in double precision
_PIECE = 1250  # faces given to xatlas at once


class Atlas(NamedTuple):
    """Where each face lies in the texture. A vertex on a cut stands there once for each side."""

    origins: Int64[np.ndarray, "w"]
    """The mesh's vertex that each vertex of the atlas is a copy of."""
    faces: Int64[np.ndarray, "f 3"]
    """In the order of the mesh's faces."""
    uvs: Float32[np.ndarray, "w 2"]


class Texels(NamedTuple):
    """The texels whose centres lie on a face, ordered by face."""

    cells: Int64[np.ndarray, "t"]
    """row · size + column."""
    faces: Int32[np.ndarray, "t"]
    weights: Float32[np.ndarray, "t 3"]
    """Barycentric: the point of a texel is Σ_k weights_k · corner_k."""

    def interpolate(
        self, values: Float32[np.ndarray, "v k"], faces: Int64[np.ndarray, "f 3"]
    ) -> Float32[np.ndarray, "t k"]:
        """Return values of vertices at the texels."""
        total = np.zeros((len(self.faces), values.shape[1]), np.float32)
        for k in range(3):
            total += self.weights[:, k : k + 1] * values.take(faces[:, k].take(self.faces), 0)
        return total

    def select(self, index: Int64[np.ndarray, "s"] | slice) -> "Texels":
        """Return the texels at `index`."""
        return Texels(
            *(values[index] if isinstance(index, slice) else values.take(index, 0) for values in self)
        )


def unwrap(
    vertices: Float64[np.ndarray, "v 3"],
    faces: Int64[np.ndarray, "f 3"],
    size: int,
    widths: Float64[np.ndarray, "v"] | None = None,
) -> Atlas:
    """Cut the mesh into charts and pack them into one square of about `size` texels a side.

    A piece of the mesh has texels in proportion to `widths`, the size of the smallest detail at its vertices; without,
    the same everywhere.

    xatlas grows charts in more than linear time, so it is given the mesh in pieces of some thousand faces,
    the cells of a coarse grid: 10,000 faces take 1.3 s of processor time instead of 2.6, 50,000 take 6.5
    (30,000 whole: 11). It cannot be interrupted: decimate before.
    """
    low, extent = vertices.min(0), float(np.ptp(vertices, axis=0).max())
    unit = (vertices - low) / extent
    cells = _cells(unit, faces)
    scales = np.ones(len(vertices)) if widths is None else np.median(widths) / widths
    order = np.argsort(cells, kind="stable")
    pieces = np.split(order, np.flatnonzero(np.diff(cells[order])) + 1)
    atlas, olds = xatlas.Atlas(), []
    for piece in pieces:
        old, triangles = np.unique(faces[piece], return_inverse=True)
        scaled = float(np.median(scales[old])) * unit[old]
        atlas.add_mesh(scaled.astype(np.float32), triangles.reshape(-1, 3).astype(np.uint32))
        olds.append(old)
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding, packing.bilinear = size, _PADDING, True
    atlas.generate(xatlas.ChartOptions(), packing)
    return _gather([atlas[index] for index in range(len(pieces))], pieces, olds, len(faces))


def _cells(unit: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"]) -> Int64[np.ndarray, "f"]:
    """Cell of each face's centre in a grid whose cells hold about _PIECE faces: a surface meets some 1.6 n² of n³."""
    n = max(1, round((len(faces) / (1.6 * _PIECE)) ** 0.5))
    x, y, z = np.minimum(unit[faces].mean(1) * n, n - 1).astype(np.int64).T
    return (x * n + y) * n + z


def _gather(
    laid: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    pieces: Sequence[Int64[np.ndarray, "_"]],
    olds: Sequence[Int64[np.ndarray, "_"]],
    n_faces: int,
) -> Atlas:
    """One atlas of the pieces, each with its mapping, triangles and coordinates as xatlas gives them."""
    faces, first = np.empty((n_faces, 3), np.int64), 0
    for (mapping, triangles, _), piece in zip(laid, pieces, strict=True):
        faces[piece] = triangles.astype(np.int64) + first
        first += len(mapping)
    origins = np.concatenate([old[mapping] for (mapping, _, _), old in zip(laid, olds, strict=True)])
    uvs = np.concatenate([uvs for _, _, uvs in laid])
    return Atlas(origins, faces, np.clip(uvs, 0, 1).astype(np.float32))


def find_texels(atlas: Atlas, size: int, rows: slice | None = None) -> Texels:
    """Return the texels, of some rows or of all, that show a piece of the mesh; faces without area in the atlas have
    none.
    """
    top, bottom, _ = (rows or slice(None)).indices(size)
    flat = np.concatenate([atlas.uvs * np.float32(size), np.ones_like(atlas.uvs[:, :1])], 1)
    flat[:, 1] -= top
    shown = rasterize(flat, atlas.faces, size, bottom - top)[1].ravel()
    cells = np.flatnonzero(shown >= 0)
    faces = shown[cells]
    order = np.argsort(faces, kind="stable")
    cells, faces = cells[order], faces[order]
    weights = np.empty((len(cells), 3), np.float32)
    for first in range(0, len(cells), _BATCH):
        batch = slice(first, first + _BATCH)
        centers = np.stack([cells[batch] % size, cells[batch] // size], 1) + 0.5
        weights[batch] = _barycentric(flat[atlas.faces[faces[batch]], :2], centers)
    return Texels(cells + top * size, faces, weights)


def _barycentric(
    triangles: Float32[np.ndarray, "t 3 2"], points: Float64[np.ndarray, "t 2"]
) -> Float32[np.ndarray, "t 3"]:
    """Weights of the corners of plane triangles, cut to [0, 1]: a texel's centre may lie on an edge."""
    a, b, c = (triangles[:, k].astype(np.float64) for k in range(3))
    ab, ac, ap = b - a, c - a, points - a
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    second = (ap[:, 0] * ac[:, 1] - ap[:, 1] * ac[:, 0]) / area
    third = (ab[:, 0] * ap[:, 1] - ab[:, 1] * ap[:, 0]) / area
    second, third = np.clip(second, 0, 1), np.clip(third, 0, 1)
    return np.stack([np.clip(1 - second - third, 0, 1), second, third], 1).astype(np.float32)
