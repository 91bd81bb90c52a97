"""What the photos say of each vertex: who saw it, from where, and whether they agree with the fitted colour.

With θ_i the angle between normal and line of sight of photo i, and r_i the distance of its colour there (exposure
undone, mean of the channels, in [0, 1]) from the vertex's own:

    agreement_i = exp(−r_i² / 2σ²)        evidence = Σ_i cos θ_i · agreement_i

The vertex's colour is the field's, a mean over views (quicksurf.mesh.build.color_vertices), so highlights and
passers-by that one photo alone shows, and things in front that are no part of the mesh, do not agree. Photos
are compared at the size of the z-buffers: finer detail than the vertices stand apart would be no
disagreement.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64

from quicksurf.mesh.photos import Photo, Photos
from quicksurf.mesh.types import Mesh
from quicksurf.mesh.visibility import MAX_SIDE, seen_by

SIGMA = 0.1  # of the colour's range: a residual of the fit is 0.03, a highlight or another thing 0.3


class Observations(NamedTuple):
    """What the photos say of each vertex."""

    n_views: Int64[np.ndarray, "v"]
    """How many photos see it."""
    cosines: Float32[np.ndarray, "v"]
    """cos θ of the most frontal one; 0 where none sees it."""
    residuals: Float32[np.ndarray, "v"]
    """Mean r_i of the photos that see it; 0 where none does."""
    evidence: Float32[np.ndarray, "v"]


class Comparison(NamedTuple):
    """One photo beside the vertices that it sees."""

    indices: Int64[np.ndarray, "s"]
    cosines: Float32[np.ndarray, "s"]
    footprints: Float32[np.ndarray, "s"]
    """Width of a pixel there, facing the camera."""
    pixels: Float32[np.ndarray, "s 2"]
    colors: Float32[np.ndarray, "s 3"]
    """Of the scene, exposure undone."""
    residuals: Float32[np.ndarray, "s"]


def observe(mesh: Mesh, photos: Photos) -> Observations:
    """Compare `mesh`, in the frame of the photos' cameras, with every photo.

    Raises:
        ImageError: if a photo's file is gone or damaged.
    """
    n_vertices = len(mesh.vertices)
    n_views = np.zeros(n_vertices, np.int64)
    cosines, residuals, evidence = (np.zeros(n_vertices, np.float32) for _ in range(3))
    for index in range(len(photos)):
        photo = photos.open(index, MAX_SIDE * MAX_SIDE)
        found = compare(mesh, photo)
        seen, cosine, residual = found.indices, found.cosines, found.residuals
        agreement = np.exp(-0.5 * (residual / SIGMA) ** 2)
        n_views[seen] += 1
        cosines[seen] = np.maximum(cosines[seen], cosine)
        residuals[seen] += residual
        evidence[seen] += cosine * agreement
    residuals /= np.maximum(n_views, 1)
    return Observations(n_views, cosines, residuals, evidence)


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
    return Comparison(indices, cosines, footprints, pixels, found, residuals)
