"""Which photos colour which vertices of a mesh, and how finely they show it.

With θ_i the angle between normal and line of sight of photo i, p_i the size of its pixel there, and r_i the distance
of its colour (exposure undone, mean of the channels) from the median of all photos that see the vertex:

    agreement_i = exp(−r_i² / 2σ²)        a_i = cos θ_i / p_i²        score_i = agreement_i · a_i²

The median tells what is there from what stood in front of it in a few photos; two photos that differ are decided
by the fitted colour, which votes as well. The best views are weighted by the score's excess over that of the best one
that is left out (Buehler et al. 2001, Unstructured lumigraph rendering, section 4.2): a view fades to nothing
before it is dropped. For the same reason a_i falls to 0 towards the photo's border.

The offset of photo i at a vertex is the weighted mean of all colours there less its own, smoothed over the part of the
mesh that it sees: differences of exposure, shade and gloss, which would show as a seam between photos.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float16, Float32, Float64, Int64

from quicksurf.mesh.observe import SIGMA, Comparison, compare
from quicksurf.mesh.photos import Photo, Photos
from quicksurf.mesh.types import Mesh
from quicksurf.mesh.visibility import MAX_SIDE

N_BEST = 5
_DETAIL = 2.0  # the power of a_i in the weights: 4 with three views changes abruptly where surfaces shine
_MARGIN = 0.05  # of the photo's shorter side
_FOOTPRINT = 2e-3  # of the region's radius: a usual pixel; keeps powers of a_i within float32
_SMOOTHINGS = 4  # with the vertices around, of some ten pixels each
_BATCH = 1 << 14  # vertices: 40 MB for 200 photos


class Views(NamedTuple):
    """What each photo has in the colour of each vertex."""

    weights: Float32[np.ndarray, "n v"]
    """Those of a vertex add up to 1, or to 0 where no photo sees it."""
    offsets: Float16[np.ndarray, "n v 3"]
    """To be added to the scene's colours as the photo shows them, in [0, 1]."""
    widths: Float64[np.ndarray, "v"]
    """Of the surface within a pixel of the photo that shows it most finely; the median where none does."""


def choose_views(mesh: Mesh, photos: Photos) -> Views:
    """Compare `mesh`, in the frame of the photos' cameras, with every photo.

    Raises:
        ImageError: if a photo's file is gone or damaged.
    """
    shape = len(photos), len(mesh.vertices)
    areas, colors = np.zeros(shape, np.float32), np.full((*shape, 3), np.nan, np.float16)
    widths = np.full(len(mesh.vertices), np.inf)
    for index in range(len(photos)):
        photo = photos.open(index, MAX_SIDE * MAX_SIDE)
        found = compare(mesh, photo)
        areas[index, found.indices] = _areas(found, photo)
        colors[index, found.indices] = found.colors
        enlarged = float(photo.camera.intrinsics[0, 0] / photos.cameras.intrinsics[index, 0])
        spans = enlarged * found.footprints / np.sqrt(found.cosines)
        widths[found.indices] = np.minimum(widths[found.indices], spans)
    seen = np.isfinite(widths)
    widths[~seen] = np.median(widths[seen]) if seen.any() else 1.0
    weights = np.empty(shape, np.float32)
    for first in range(0, shape[1], _BATCH):
        batch = slice(first, first + _BATCH)
        weights[:, batch] = _weights(areas[:, batch], colors[:, batch], mesh.colors[batch] / np.float32(255))
    return Views(weights, _offsets(weights, colors, mesh.faces), widths)


def _offsets(
    weights: Float32[np.ndarray, "n v"], colors: Float16[np.ndarray, "n v 3"], faces: Int64[np.ndarray, "f 3"]
) -> Float16[np.ndarray, "n v 3"]:
    """See the module's text; 0 where a photo sees nothing near."""
    mean = np.zeros(colors.shape[1:], np.float32)
    for weight, shown in zip(weights, colors, strict=True):
        mean += weight[:, None] * np.nan_to_num(shown.astype(np.float32))
    offsets, neighbors = np.zeros_like(colors), _neighbors(faces, colors.shape[1])
    for index, shown in enumerate(colors):
        counts = (np.isfinite(shown[:, :1]) & (weights.sum(0) > 0)[:, None]).astype(np.float32)
        total = counts * np.nan_to_num(mean - shown.astype(np.float32))
        for _ in range(_SMOOTHINGS):
            total, counts = neighbors @ total, neighbors @ counts
        offsets[index] = total / np.maximum(counts, 1e-6)
    return offsets


def _neighbors(faces: Int64[np.ndarray, "f 3"], n_vertices: int) -> scipy.sparse.csr_array:
    """The matrix that averages each vertex with those around it."""
    own = np.arange(n_vertices)
    rows = np.concatenate([faces.ravel(), faces[:, [1, 2, 0]].ravel(), own])
    columns = np.concatenate([faces[:, [1, 2, 0]].ravel(), faces.ravel(), own])
    ones, shape = np.ones(len(rows), np.float32), (n_vertices, n_vertices)
    matrix = scipy.sparse.coo_array((ones, (rows, columns)), shape).tocsr()
    counts = np.diff(matrix.indptr)
    matrix.data = np.repeat(1 / counts, counts).astype(np.float32)  # edges of two faces count once
    return matrix


def _areas(found: Comparison, photo: Photo) -> Float32[np.ndarray, "s"]:
    """Pixels that _FOOTPRINT² of the surface covers, less towards the photo's border."""
    height, width = photo.colors.shape[:2]
    inside = np.minimum(found.pixels, np.array([width, height], np.float32) - found.pixels).min(1)
    fade = np.clip(inside / (_MARGIN * min(height, width)), 0, 1)
    return fade * found.cosines * (_FOOTPRINT / found.footprints) ** 2


def _weights(
    areas: Float32[np.ndarray, "n v"],
    colors: Float16[np.ndarray, "n v 3"],
    fitted: Float32[np.ndarray, "v 3"],
) -> Float32[np.ndarray, "n v"]:
    """The weights of all photos at some vertices."""
    shown = colors.astype(np.float32)
    middle = np.nanmedian(np.concatenate([shown, fitted[None].astype(np.float32)]), 0)
    residuals = np.nan_to_num(np.abs(shown - middle).mean(2), nan=np.inf)
    scores = np.exp(-0.5 * (residuals / SIGMA) ** 2) * areas**_DETAIL
    if len(scores) > N_BEST:
        scores = np.maximum(scores - np.partition(scores, -N_BEST - 1, 0)[-N_BEST - 1], 0)
    return scores / np.maximum(scores.sum(0), 1e-30)
