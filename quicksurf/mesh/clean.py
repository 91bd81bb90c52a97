"""Keep the object: drop faces beyond the ROI, floaters, degenerate faces; reduce the number of faces.

What no camera saw is found in quicksurf.mesh.visibility; quicksurf.mesh.build says in which order all of it is done.
"""

from typing import NamedTuple

import fast_simplification
import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from quicksurf.errors import ConfigError
from quicksurf.mesh.types import Faces, Triangles, Vertices

MIN_FACES = 4
# Of the main part's score: a wheel or a handle is more, a floater of the fit is well below 1 %.
KEEP_FRACTION = 0.02


class Parts(NamedTuple):
    """Which faces belong to the object, and what the others were."""

    kept: Bool[np.ndarray, "f"]
    n_kept: int
    """Connected parts kept."""
    n_dropped: int
    """Connected parts dropped."""


def inside_ball(vertices: Vertices, faces: Faces, radius: float) -> Bool[np.ndarray, "f"]:
    """Return faces wholly within `radius` of the origin; walls that the fit builds on the ROI's border are not."""
    return (np.einsum("vi,vi->v", vertices, vertices) < radius**2)[faces].all(1)


def select_parts(vertices: Vertices, faces: Faces, n_views: Int64[np.ndarray, "v"]) -> Parts:
    """Keep the connected part of the highest score, and all that reach `KEEP_FRACTION` of it.

    score = area · mean number of views per face · nearness, with nearness = 1 for a part whose centroid lies
    within half of the ROI's radius (1 in the fit's frame), falling to 0 at its border. An object may well be
    several parts, so size decides and not number. No faces give no parts.
    """
    if not len(faces):
        return Parts(np.zeros(0, bool), 0, 0)
    label = components(faces, len(vertices))[faces[:, 0]]
    label = np.unique(label, return_inverse=True)[1]
    areas = face_areas(vertices, faces)
    seen_area = np.bincount(label, areas * n_views[faces].mean(1))
    total = np.maximum(np.bincount(label, areas), 1e-30)
    centers = vertices[faces].mean(1)
    centroid = np.stack([np.bincount(label, areas * centers[:, k]) for k in range(3)], -1) / total[:, None]
    score = seen_area * np.clip(2 * (1 - np.linalg.norm(centroid, axis=1)), 0, 1)
    keep = score >= KEEP_FRACTION * score.max()
    return Parts(keep[label], int(keep.sum()), int((~keep).sum()))


def components(faces: Faces, n_vertices: int) -> Int64[np.ndarray, "v"]:
    """Number the connected parts of a surface; a vertex of no face is a part of its own."""
    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = coo_matrix((np.ones(len(edges), np.int8), edges.T), shape=(n_vertices, n_vertices))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def face_areas(vertices: Vertices, faces: Faces) -> Float64[np.ndarray, "f"]:
    """Return the areas of the faces."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)


def compact(
    vertices: Vertices, faces: Faces
) -> tuple[Float64[np.ndarray, "w 3"], Int64[np.ndarray, "g 3"], Int64[np.ndarray, "w"]]:
    """Drop faces without area and vertices of no face; also returns the old index of each vertex."""
    edges = vertices[faces] - vertices[np.roll(faces, 1, axis=1)]
    longest2 = np.einsum("fki,fki->fk", edges, edges).max(1, initial=0.0)
    faces = faces[face_areas(vertices, faces) > 1e-12 * longest2]
    used, renumbered = np.unique(faces, return_inverse=True)
    return vertices[used], renumbered.reshape(-1, 3), used


def decimate(vertices: Vertices, faces: Faces, n_faces: int) -> Triangles:
    """Collapse edges by quadric error until about `n_faces` are left; a smaller mesh is returned as it is.

    Raises:
        ConfigError: if `n_faces` is below 4, the faces of a tetrahedron.
    """
    if n_faces < MIN_FACES:
        raise ConfigError(f"--faces is {n_faces}: a solid has at least {MIN_FACES} faces")
    if len(faces) <= n_faces:
        return vertices, faces
    middle = vertices.mean(0)  # quadrics of points far from the origin lose their digits
    simplified = fast_simplification.simplify(vertices - middle, faces.astype(np.int32), target_count=n_faces)
    reduced, triangles = simplified[0], simplified[1]
    vertices, faces, _ = compact(reduced.astype(np.float64) + middle, triangles.astype(np.int64))
    return vertices, faces
