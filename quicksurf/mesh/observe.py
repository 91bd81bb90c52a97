"""What the photos say of each vertex: who saw it, from where, and whether they agree with the fitted colour.

With θ_i the angle between normal and line of sight of photo i, a_i the pixels that a unit of surface covers in it, and
r_i the distance of its colour there (exposure undone, mean of the channels, in [0, 1]) from the vertex's own:

    agreement_i = exp(−r_i² / 2σ²)        evidence = Σ_i cos θ_i · agreement_i        score_i = agreement_i · a_i

The vertex's colour is the field's, a mean over views (quicksurf.mesh.build.color_vertices), so highlights and
passers-by that one photo alone shows, and things in front that are no part of the mesh, do not agree. Photos
are compared at the size of the z-buffers: finer detail than the vertices stand apart would be no
disagreement.

The best views are weighted as in unstructured lumigraph rendering (Buehler et al. 2001, section 4.2): by the
score's excess over that of the best view that is left out, so that a view fades to nothing before it is
dropped and leaves no seam. For the same reason a_i falls to 0 towards the photo's border.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int32, Int64

from quicksurf.mesh.photos import Photo, Photos
from quicksurf.mesh.types import Mesh
from quicksurf.mesh.visibility import MAX_SIDE, seen_by

N_BEST = 5
SIGMA = 0.1  # of the colour's range: a residual of the fit is 0.03, a highlight or another thing 0.3
_DETAIL = 2.0  # the power of a_i in the weights: 4 with three views changes abruptly where surfaces shine
_MARGIN = 0.05  # of the photo's shorter side
_FOOTPRINT = 2e-3  # of the region's radius: a usual pixel; keeps powers of a_i within float32


class Observations(NamedTuple):
    """What the photos say of each vertex."""

    n_views: Int64[np.ndarray, "v"]
    """How many photos see it."""
    cosines: Float32[np.ndarray, "v"]
    """cos θ of the most frontal one; 0 where none sees it."""
    residuals: Float32[np.ndarray, "v"]
    """Mean r_i of the photos that see it; 0 where none does."""
    evidence: Float32[np.ndarray, "v"]
    best: Int32[np.ndarray, "v 5"]
    """The photos that show it best; -1 where fewer than five see it."""
    weights: Float32[np.ndarray, "v 5"]
    """Theirs, adding up to 1; 0 where none sees it."""


class Comparison(NamedTuple):
    """One photo beside the vertices that it sees."""

    indices: Int64[np.ndarray, "s"]
    cosines: Float32[np.ndarray, "s"]
    footprints: Float32[np.ndarray, "s"]
    """Width of a pixel there, facing the camera."""
    colors: Float32[np.ndarray, "s 3"]
    """Of the scene, exposure undone."""
    residuals: Float32[np.ndarray, "s"]
    areas: Float32[np.ndarray, "s"]
    """a_i for a surface unit of _FOOTPRINT², less at the photo's border."""


def observe(mesh: Mesh, photos: Photos) -> Observations:
    """Compare `mesh`, in the frame of the photos' cameras, with every photo.

    Raises:
        ImageError: if a photo's file is gone or damaged.
    """
    n_vertices = len(mesh.vertices)
    n_views = np.zeros(n_vertices, np.int64)
    cosines, residuals, evidence = (np.zeros(n_vertices, np.float32) for _ in range(3))
    best = np.full((n_vertices, N_BEST + 1), -1, np.int32)
    scores = np.zeros((n_vertices, N_BEST + 1), np.float32)
    for index in range(len(photos)):
        photo = photos.open(index, MAX_SIDE * MAX_SIDE)
        seen, cosine, _, _, residual, area = compare(mesh, photo)
        agreement = np.exp(-0.5 * (residual / SIGMA) ** 2)
        n_views[seen] += 1
        cosines[seen] = np.maximum(cosines[seen], cosine)
        residuals[seen] += residual
        evidence[seen] += cosine * agreement
        _keep_best(best, scores, seen, agreement * area**_DETAIL, index)
    residuals /= np.maximum(n_views, 1)
    excess = np.maximum(scores - scores.min(1, keepdims=True), 0)
    weights = excess / np.maximum(excess.sum(1, keepdims=True), 1e-30)
    order = np.argsort(-scores, 1)[:, :N_BEST]
    best, weights = np.take_along_axis(best, order, 1), np.take_along_axis(weights, order, 1)
    return Observations(n_views, cosines, residuals, evidence, best, weights.astype(np.float32))


def compare(mesh: Mesh, photo: Photo) -> Comparison:
    """Compare one photo with the vertices that it sees."""
    points, normals = (torch.from_numpy(a.astype(np.float32)) for a in (mesh.vertices, mesh.normals))
    seen = seen_by(photo.camera, 0, points, np.ascontiguousarray(mesh.faces, np.int32), normals)
    indices, cosines, pixels, footprints = (values.numpy() for values in seen)
    if photo.mask is not None:
        columns, rows = pixels.astype(np.int64).T
        kept = photo.mask[rows, columns]
        indices, cosines, pixels, footprints = indices[kept], cosines[kept], pixels[kept], footprints[kept]
    found = photo.scene_colors(pixels)
    residuals = np.abs(found - mesh.colors[indices].astype(np.float32) / 255).mean(1)
    areas = _fade(pixels, photo) * cosines * (_FOOTPRINT / footprints) ** 2
    return Comparison(indices, cosines, footprints, found, residuals, areas)


def _fade(pixels: Float32[np.ndarray, "s 2"], photo: Photo) -> Float32[np.ndarray, "s"]:
    """1 in the photo, falling to 0 over its margin, where the surface goes on without it."""
    height, width = photo.colors.shape[:2]
    inside = np.minimum(pixels, np.array([width, height], np.float32) - pixels).min(1)
    return np.clip(inside / (_MARGIN * min(height, width)), 0, 1).astype(np.float32)


def _keep_best(
    best: Int32[np.ndarray, "v k"],
    scores: Float32[np.ndarray, "v k"],
    seen: Int64[np.ndarray, "s"],
    score: Float32[np.ndarray, "s"],
    index: int,
) -> None:
    """Let photo `index` take the place of the worst one kept wherever it is better."""
    worst = scores[seen].argmin(1)
    better = score > scores[seen, worst]
    where, slot = seen[better], worst[better]
    best[where, slot], scores[where, slot] = index, score[better]
