"""Which photos colour which vertices of a mesh, and how finely they show it.

With θ_i the angle between normal and line of sight of photo i, p_i the size of its pixel there, and r_i the distance
of its colour (exposure undone, mean of the channels) from the median of all photos that see the vertex:

    agreement_i = exp(−r_i² / 2σ²)        a_i = cos θ_i / p_i²        score_i = agreement_i · a_i²

The median tells what is there from what stood in front of it in a few photos; two photos that differ are decided
by the fitted colour, which votes as well. The best views are weighted by the score's excess over that of the best one
that is left out (Buehler et al. 2001, Unstructured lumigraph rendering, section 4.2): a view fades to nothing
before it is dropped. For the same reason a_i falls to 0 towards the photo's border.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from quicksurf.mesh.observe import SIGMA, compare
from quicksurf.mesh.photos import Photos
from quicksurf.mesh.types import Mesh
from quicksurf.mesh.visibility import MAX_SIDE

N_BEST = 5
_DETAIL = 2.0  # the power of a_i
_BATCH = 1 << 14  # vertices: 40 MB for 200 photos


class Views(NamedTuple):
    """What each photo has in the colour of each vertex."""

    weights: Float32[np.ndarray, "n v"]
    """Those of a vertex add up to 1, or to 0 where no photo sees it."""
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
        areas[index, found.indices] = found.areas
        colors[index, found.indices] = found.colors
        reduced = photo.camera.intrinsics[0, 0] / photos.cameras.intrinsics[index, 0]
        spans = float(reduced) * found.footprints / np.sqrt(found.cosines)
        widths[found.indices] = np.minimum(widths[found.indices], spans)
    seen = np.isfinite(widths)
    widths[~seen] = np.median(widths[seen]) if seen.any() else 1.0
    weights = np.empty(shape, np.float32)
    for first in range(0, shape[1], _BATCH):
        batch = slice(first, first + _BATCH)
        weights[:, batch] = _weights(areas[:, batch], colors[:, batch], mesh.colors[batch] / np.float32(255))
    return Views(weights, widths)


def _weights(
    areas: Float32[np.ndarray, "n v"], colors: np.ndarray, fitted: Float32[np.ndarray, "v 3"]
) -> Float32[np.ndarray, "n v"]:
    """The weights of all photos at some vertices."""
    shown = colors.astype(np.float32)
    middle = np.nanmedian(np.concatenate([shown, fitted[None].astype(np.float32)]), 0)
    residuals = np.nan_to_num(np.abs(shown - middle).mean(2), nan=np.inf)
    scores = np.exp(-0.5 * (residuals / SIGMA) ** 2) * areas**_DETAIL
    if len(scores) > N_BEST:
        scores = np.maximum(scores - np.partition(scores, -N_BEST - 1, 0)[-N_BEST - 1], 0)
    return scores / np.maximum(scores.sum(0), 1e-30)
