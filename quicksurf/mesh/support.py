"""The table that a thing stands on: found as the one plane that carries it, and cut away.

A plane n·x = d carries the object if

    it is seen from above:  nearly all cameras have n·x > d
    it is the bottom:       next to nothing of the surface lies below it
    it is larger:           in most directions it reaches farther out than what stands on it
    something stands on it: one part holds most of what is above, is not flat, and lies within the region of interest

A facade fails the last two (its wall goes on beyond the region), a box's lid the second, a thing that floats all.
Whatever fails is kept whole: a table too many is a nuisance, half an object is a loss.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from quicksurf.mesh.clean import components
from quicksurf.mesh.types import Faces, Triangles, Vertices

_N_POINTS = 3000  # of the surface, by area: shares are known to 1 %
_N_PLANES = 1500  # through three of them: a plane that is a tenth of the surface is met fifty times
_ALIKE = 0.9  # cosine between the normals of the three
_NEAR = 0.02  # of the ROI's radius: a table at the end of a short fit is rough to about 1 %
_LEAST_FRACTION = 0.05  # of the surface lies in the plane
_ALIGNED = 0.7  # cosine between the plane's normal and the surface's
_CAMERAS_ABOVE = 0.9
_BELOW = 0.2  # of what is not in the plane may lie below: undersides and noise
_WIDER = 0.6  # of the directions in which the plane reaches beyond the object
_MAIN_PART = 0.6  # of the area above the plane belongs to the object
_BORDER = 0.95  # radius from which the region cuts things
_AT_BORDER = 0.02  # fraction of an object there
_LEAST_HEIGHT = 0.15  # of the ROI's radius, and of the object's own width
_N_SECTORS = 24
_MARGIN = 0.008, 0.025  # the cut is at least and at most this high above the plane


class Support(NamedTuple):
    """The plane normal · x = offset, the object above."""

    normal: Float64[np.ndarray, "3"]
    offset: float
    margin: float
    """How high above it to cut so that no crust of the table stays."""

    def heights(self, points: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n"]:
        """Return the heights above the plane."""
        return points @ self.normal - self.offset


def find_support(vertices: Vertices, faces: Faces, eyes: Float64[np.ndarray, "c 3"]) -> Support | None:
    """Return the plane that carries what stands on it, seen from `eyes`; None unless all of the module's text holds."""
    points, normals = _sample(vertices, faces)
    support = _largest_plane(points, normals, eyes)
    main = None if support is None else _main_part(vertices, faces, support)
    if support is None or main is None:
        return None
    flat = points[np.abs(support.heights(points)) < _NEAR]
    return support if _is_carried(main, flat, support) else None


def cut_below(vertices: Vertices, faces: Faces, heights: Float64[np.ndarray, "v"]) -> Triangles:
    """Return the surface where `heights` > 0; crossing faces are cut, and neighbours share the cut's vertices."""
    above = heights > 0
    n_above = above[faces].sum(1)
    crossing = faces[(n_above == 1) | (n_above == 2)]
    one, two = (crossing[above[crossing].sum(1) == n] for n in (1, 2))
    a, b, c = _turned(one, above).T  # a alone is above
    p, q, r = _turned(two, ~above).T  # p alone is below
    edges = np.sort(np.concatenate([np.stack(e, 1) for e in ((a, b), (a, c), (p, q), (p, r))]), axis=1)
    unique, inverse = np.unique(edges, axis=0, return_inverse=True)
    low, high = unique.T
    fraction = (heights[low] / (heights[low] - heights[high]))[:, None]
    added = vertices[low] + fraction * (vertices[high] - vertices[low])
    sizes = np.cumsum([0, len(a), len(a), len(p), len(p)])
    ab, ac, pq, pr = (len(vertices) + inverse.ravel()[start:end] for start, end in itertools.pairwise(sizes))
    pieces = [
        faces[n_above == 3],
        np.stack([a, ab, ac], 1),
        np.stack([pq, q, r], 1),
        np.stack([pq, r, pr], 1),
    ]
    return np.concatenate([vertices, added]), np.concatenate(pieces)


def _turned(faces: Faces, first: Bool[np.ndarray, "v"]) -> Faces:
    """Faces turned so that their one vertex in `first` comes first."""
    start = first[faces].argmax(1)[:, None]
    return np.take_along_axis(faces, (start + np.arange(3)) % 3, axis=1)


def _sample(
    vertices: Vertices, faces: Faces
) -> tuple[Float64[np.ndarray, "n 3"], Float64[np.ndarray, "n 3"]]:
    """Points and unit normals of faces drawn by their area, always the same ones."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    crosses = np.cross(b - a, c - a)
    doubled = np.linalg.norm(crosses, axis=1)
    chosen = np.random.default_rng(0).choice(len(faces), _N_POINTS, p=doubled / doubled.sum())
    return (a + b + c)[chosen] / 3, crosses[chosen] / doubled[chosen, None]


def _largest_plane(
    points: Float64[np.ndarray, "n 3"], normals: Float64[np.ndarray, "n 3"], eyes: Float64[np.ndarray, "c 3"]
) -> Support | None:
    """The plane near which the most points with like normals lie, of those below the cameras and the rest (RANSAC)."""
    a, b, c = _like_triples(points, normals)
    crosses = np.cross(b - a, c - a)
    lengths = np.linalg.norm(crosses, axis=1)
    valid = lengths > 1e-3
    directions = crosses[valid] / lengths[valid, None]
    directions, offsets = (
        np.concatenate([directions, -directions]),
        np.einsum("pi,pi->p", directions, a[valid]),
    )
    offsets = np.concatenate([offsets, -offsets])
    eligible = (directions @ eyes.T > offsets[:, None]).mean(1) >= _CAMERAS_ABOVE
    directions, offsets = directions[eligible], offsets[eligible]
    heights = directions @ points.T - offsets[:, None]
    n_near = ((np.abs(heights) < _NEAR) & (directions @ normals.T > _ALIGNED)).sum(1)
    n_above, n_below = (heights > _NEAR).sum(1), (heights < -2 * _NEAR).sum(1)
    n_near = np.where(n_below <= _BELOW * (n_above + n_below), n_near, 0)
    if n_near.max(initial=0) < _LEAST_FRACTION * len(points):
        return None
    best = int(n_near.argmax())
    return _fitted(Support(directions[best], float(offsets[best]), 0.0), points, normals)


def _like_triples(
    points: Float64[np.ndarray, "n 3"], normals: Float64[np.ndarray, "n 3"]
) -> tuple[Float64[np.ndarray, "p 3"], Float64[np.ndarray, "p 3"], Float64[np.ndarray, "p 3"]]:
    """Random points, each with two others that face the same way: a small table is met as often as a large one."""
    random = np.random.default_rng(1)
    first = random.integers(len(points), size=_N_PLANES)
    alike = normals[first] @ normals.T > _ALIKE
    second, third = ((alike * random.random(alike.shape, np.float32)).argmax(1) for _ in range(2))
    return points[first], points[second], points[third]


def _fitted(
    support: Support, points: Float64[np.ndarray, "n 3"], normals: Float64[np.ndarray, "n 3"]
) -> Support:
    """The plane of least squares through the points near it; the cut clears three standard deviations of them."""
    for _ in range(3):
        near = (np.abs(support.heights(points)) < _NEAR) & (normals @ support.normal > _ALIGNED)
        middle = points[near].mean(0)
        normal = np.linalg.svd(points[near] - middle, full_matrices=False)[2][2]
        normal = normal * np.sign(normal @ support.normal)
        rest = np.abs((points[near] - middle) @ normal)
        margin = float(np.clip(3 * 1.4826 * np.median(rest), *_MARGIN))
        support = Support(normal, float(normal @ middle), margin)
    return support


def _main_part(vertices: Vertices, faces: Faces, support: Support) -> Float64[np.ndarray, "m 3"] | None:
    """Vertices of the largest part above the plane, None if it does not hold most of what is there."""
    above = faces[(support.heights(vertices) > support.margin)[faces].all(1)]
    if not len(above):
        return None
    label = components(above, len(vertices))[above[:, 0]]
    n_faces = np.bincount(label)  # marching cubes makes faces of about one size
    if n_faces.max() < _MAIN_PART * len(above):
        return None
    return vertices[np.unique(above[label == n_faces.argmax()])]


def _is_carried(main: Float64[np.ndarray, "m 3"], flat: Float64[np.ndarray, "n 3"], support: Support) -> bool:
    """Whether `main` is not flat nor cut by the region, and the plane's points reach beyond it in most directions."""
    axes = np.linalg.svd(support.normal[None])[2][1:]
    footprint, table = main @ axes.T, flat @ axes.T
    middle = (footprint.min(0) + footprint.max(0)) / 2
    width = float((footprint.max(0) - footprint.min(0)).max())
    if support.heights(main).max() < _LEAST_HEIGHT * max(1.0, width):
        return False
    if (np.linalg.norm(main, axis=1) > _BORDER).mean() > _AT_BORDER:
        return False
    reach, table_reach = (_reach_by_sector(part - middle) for part in (footprint, table))
    return float((table_reach > reach).mean()) >= _WIDER


def _reach_by_sector(offsets: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "s"]:
    """The farthest of `offsets` in each of the sectors around 0; 0 where there is none."""
    turns = np.arctan2(offsets[:, 1], offsets[:, 0]) / (2 * np.pi) + 0.5
    sectors = (turns * _N_SECTORS).astype(np.int64) % _N_SECTORS
    reach = np.zeros(_N_SECTORS)
    np.maximum.at(reach, sectors, np.linalg.norm(offsets, axis=1))
    return reach
