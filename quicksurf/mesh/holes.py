"""Holes of a surface: their loops, how much of the surface they leave open, and how to close them.

A boundary edge is a directed edge (a, b) of a face whose reverse belongs to no face. Boundary edges join to loops; a
loop that touches itself at a vertex is taken apart there.

A loop is closed by a strip to a ring of new vertices, one beside each of the loop's, and the ring by cutting off its
sharpest corner until a triangle is left. The strip is there because a corner cut off the loop itself may need an edge
that the surface already has, and would then belong to three faces.
"""

import heapq
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from quicksurf.mesh.clean import face_areas
from quicksurf.mesh.types import Faces, Triangles, Vertices

_MAX_ROUNDS = 4  # of dropping faces that share an edge with two others and closing what that opens


class HoleReport(NamedTuple):
    """What is open in a surface."""

    lengths: list[float]
    """Of the loops, longest first."""
    fraction: float
    """Of the surface, were every loop closed by a flat lid: lids / (surface + lids)."""


def find_holes(vertices: Vertices, faces: Faces) -> HoleReport:
    """Measure the holes."""
    loops = boundary_loops(faces)
    lengths = sorted((_length(vertices[loop]) for loop in loops), reverse=True)
    lids = sum(float(np.linalg.norm(_vector_area(vertices[loop]))) for loop in loops)
    surface = float(face_areas(vertices, faces).sum())
    return HoleReport(lengths, lids / max(surface + lids, 1e-30))


def boundary_loops(faces: Faces) -> list[Int64[np.ndarray, "_"]]:
    """Return the loops of boundary edges, each vertex once a loop, in the direction of the faces along them."""
    follows: dict[int, list[int]] = {}
    for start, end in _boundary_edges(faces).tolist():
        follows.setdefault(start, []).append(end)
    loops = []
    for start in list(follows):
        while follows[start]:
            loops += _walk(start, follows)
    return loops


def close_holes(vertices: Vertices, faces: Faces) -> Triangles:
    """Close every hole; the old vertices stay in front, faces that three or more share an edge with are replaced.

    Two faces at every edge, in opposite directions, is what comes out of a surface of one face at least, but for
    knots that are still there after a few rounds: `is_closed` tells.
    """
    for _ in range(_MAX_ROUNDS):
        faces = _without_shared_edges(faces)
        for loop in boundary_loops(faces):
            vertices, faces = _close(vertices, faces, loop)
        if is_closed(faces):
            break
    return vertices, faces


def is_closed(faces: Faces) -> bool:
    """Tell whether every edge belongs to two faces that run along it in opposite directions."""
    edges = _edges(faces)
    return bool(len(faces)) and len(np.unique(_keys(edges))) == len(edges) and not len(_boundary_edges(faces))


def _edges(faces: Faces) -> Int64[np.ndarray, "e 2"]:
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def _keys(edges: Int64[np.ndarray, "e 2"]) -> Int64[np.ndarray, "e"]:
    """One number for each directed edge; vertices are fewer than 2³¹."""
    return (edges[:, 0] << 31) | edges[:, 1]


def _boundary_edges(faces: Faces) -> Int64[np.ndarray, "e 2"]:
    edges = _edges(faces)
    return edges[~np.isin(_keys(edges), _keys(edges[:, ::-1]))]


def _without_shared_edges(faces: Faces) -> Int64[np.ndarray, "g 3"]:
    """Faces none of whose directed edges belongs to another face, too."""
    _, inverse, counts = np.unique(_keys(_edges(faces)), return_inverse=True, return_counts=True)
    return faces[(counts[inverse.ravel()] == 1).reshape(3, -1).all(0)]


def _walk(start: int, follows: dict[int, list[int]]) -> list[Int64[np.ndarray, "_"]]:
    """Follow boundary edges from `start`, using them up; a loop is taken off whenever a vertex comes again."""
    path, position, loops = [start], {start: 0}, []
    while follows.get(path[-1]):
        vertex = follows[path[-1]].pop()
        if vertex not in position:
            position[vertex] = len(path)
            path.append(vertex)
            continue
        first = position[vertex]
        loops.append(np.array(path[first:]))
        for left in path[first + 1 :]:
            del position[left]
        del path[first + 1 :]
    return loops


def _close(vertices: Vertices, faces: Faces, loop: Int64[np.ndarray, "n"]) -> Triangles:
    """Add the faces that close one loop, and the ring's vertices behind the others."""
    loop = loop[::-1]  # the lid's faces run the other way along the edges
    if len(loop) <= 3:
        return vertices, np.concatenate([faces, loop[None]]) if len(loop) == 3 else faces
    points = _beside(vertices[loop])
    ring = len(vertices) + np.arange(len(loop))
    following, ring_following = np.roll(loop, -1), np.roll(ring, -1)
    strip = [np.stack([loop, following, ring], 1), np.stack([following, ring_following, ring], 1)]
    lid = ring[_cut_corners(points)]
    return np.concatenate([vertices, points]), np.concatenate([faces, *strip, lid])


def _beside(points: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
    """A smoother loop, half an edge to the inner side of the loop about its normal."""
    smooth = points
    for _ in range(2):
        smooth = 0.5 * smooth + 0.25 * (np.roll(smooth, 1, 0) + np.roll(smooth, -1, 0))
    inward = np.cross(_vector_area(points), np.roll(smooth, -1, 0) - np.roll(smooth, 1, 0))
    inward /= np.maximum(np.linalg.norm(inward, axis=1, keepdims=True), 1e-30)
    return smooth + 0.5 * _length(points) / len(points) * inward


def _cut_corners(points: Float64[np.ndarray, "n 3"]) -> Int64[np.ndarray, "m 3"]:
    """Triangulate a loop: the corner of the smallest angle about the loop's normal goes first, reflex ones last."""
    normal = _vector_area(points)
    normal = normal / max(float(np.linalg.norm(normal)), 1e-30)
    n = len(points)
    before, after = list(range(-1, n - 1)), list(range(1, n + 1))
    before[0], after[-1] = n - 1, 0

    def angle(i: int) -> float:
        to_next, to_last = points[after[i]] - points[i], points[before[i]] - points[i]
        turn = float(np.arctan2(normal @ np.cross(to_next, to_last), to_next @ to_last))
        return turn % (2 * np.pi)

    queue = [(angle(i), i, before[i], after[i]) for i in range(n)]
    heapq.heapify(queue)
    triangles = []
    while len(triangles) < n - 2:
        _, i, last, following = heapq.heappop(queue)
        if before[i] != last or after[i] != following or before[i] < 0:
            continue  # a neighbour was cut off since
        triangles.append((last, i, following))
        after[last], before[following], before[i] = following, last, -1
        for neighbour in (last, following):
            heapq.heappush(queue, (angle(neighbour), neighbour, before[neighbour], after[neighbour]))
    return np.array(triangles)


def _vector_area(points: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "3"]:
    """½ Σ p_i × p_{i+1}: normal of the loop, as long as the area of its flat lid."""
    centered = points - points.mean(0)
    return 0.5 * np.cross(centered, np.roll(centered, -1, 0)).sum(0)


def _length(points: Float64[np.ndarray, "n 3"]) -> float:
    return float(np.linalg.norm(points - np.roll(points, -1, 0), axis=1).sum())
