"""Holes are found, measured and closed, whatever their shape."""

import numpy as np
import pytest
import trimesh

from quicksurf.mesh.holes import boundary_loops, close_holes, find_holes, is_closed
from quicksurf.mesh.support import cut_below


def sphere(subdivisions=4):
    solid = trimesh.creation.icosphere(subdivisions)
    return np.asarray(solid.vertices, np.float64), np.asarray(solid.faces, np.int64)


def without(vertices, faces, drop):
    """The faces whose centres `drop` does not hold for."""
    return faces[~drop(vertices[faces].mean(1))]


def as_solid(vertices, faces):
    return trimesh.Trimesh(vertices, faces, process=False)


def test_a_cap_cut_off_a_sphere_is_one_round_hole():
    vertices, faces = sphere()
    report = find_holes(*cut_below(vertices, faces, 0.8 - vertices[:, 2]))
    (length,) = report.lengths
    assert length == pytest.approx(2 * np.pi * 0.6, rel=0.01)
    lid = np.pi * 0.6**2
    assert report.fraction == pytest.approx(lid / (lid + 2 * np.pi * 1.8), rel=0.01)


def test_a_closed_sphere_has_none():
    vertices, faces = sphere()
    assert is_closed(faces) and boundary_loops(faces) == []
    assert find_holes(vertices, faces) == ([], 0.0)


def test_loops_run_along_their_faces():
    (loop,) = boundary_loops(np.array([[0, 1, 2], [0, 2, 3]]))
    start = int(np.argmin(loop))
    assert np.roll(loop, -start).tolist() == [0, 1, 2, 3]


def test_a_pinched_loop_comes_apart():
    bow = np.array([[0, 1, 2], [0, 3, 4]])  # two faces that share a vertex
    loops = boundary_loops(bow)
    assert sorted(sorted(loop.tolist()) for loop in loops) == [[0, 1, 2], [0, 3, 4]]


@pytest.mark.parametrize(
    "drop",
    [
        lambda c: c[:, 2] > 0.5,
        lambda c: np.abs(c[:, 2]) < 0.3,  # two parts, a hole in each
        lambda c: (c[:, 0] * c[:, 1] > 0) & (c[:, 2] > 0),  # two that meet at the pole
        lambda c: np.random.default_rng(0).random(len(c)) < 0.3,  # crumbs, pinches, hanging faces
    ],
    ids=["cap", "belt", "meeting", "crumbs"],
)
def test_closing_gives_a_watertight_oriented_solid(drop):
    vertices, faces = sphere()
    kept = without(vertices, faces, drop)
    assert not is_closed(kept)
    points, closed = close_holes(vertices, kept)
    solid = as_solid(points, closed)
    assert is_closed(closed) and solid.is_watertight and solid.is_winding_consistent and solid.volume > 0
    np.testing.assert_array_equal(points[: len(vertices)], vertices)


def test_a_lid_is_flat_and_bounds_the_right_volume():
    vertices, faces = sphere()
    points, closed = close_holes(*cut_below(vertices, faces, 0.5 - vertices[:, 2]))
    volume = np.pi * 1.5**2 * (3 - 1.5) / 3  # a ball of radius 1 cut at 0.5
    assert as_solid(points, closed).volume == pytest.approx(volume, rel=0.01)
    assert points[np.unique(closed), 2].max() < 0.5 + 1e-9


def test_a_horseshoe_hole_is_closed_without_covering_its_inside():
    """A loop that is not convex: a flat plate with a U cut out; the lid's area is the U's."""
    ticks = np.arange(13.0)
    grid = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), -1).reshape(-1, 2)
    vertices = np.concatenate([grid, np.zeros((len(grid), 1))], 1)
    a = (np.arange(12)[:, None] * 13 + np.arange(12)).ravel()
    faces = np.concatenate([np.stack([a, a + 13, a + 14], 1), np.stack([a, a + 14, a + 1], 1)])

    def in_u(c):
        inside = (c[:, 0] > 2) & (c[:, 0] < 10) & (c[:, 1] > 2) & (c[:, 1] < 10)
        return inside & ~((c[:, 0] > 5) & (c[:, 0] < 7) & (c[:, 1] > 5))

    kept = without(vertices, faces, in_u)
    inner = min(boundary_loops(kept), key=len)
    assert len(inner) == 8 * 4 + 2 * 5
    points, closed = close_holes(vertices, kept)
    lids = closed[len(kept) :]
    cross = np.cross(points[lids[:, 1]] - points[lids[:, 0]], points[lids[:, 2]] - points[lids[:, 0]])[:, 2]
    upward = cross[cross > 0].sum() / 2  # the outer loop's lid faces down
    assert upward == pytest.approx(8 * 8 - 2 * 5, rel=0.02)


def test_an_edge_of_three_faces_is_resolved():
    vertices, faces = sphere(2)
    fin = np.array([[faces[0, 0], faces[0, 1], len(vertices)]])  # runs along an edge like the face there
    points, closed = close_holes(np.concatenate([vertices, [[2.0, 2, 2]]]), np.concatenate([faces, fin]))
    assert is_closed(closed) and as_solid(points, closed).is_watertight


def test_nothing_has_no_holes():
    assert not is_closed(np.zeros((0, 3), np.int64))
    assert find_holes(np.zeros((0, 3)), np.zeros((0, 3), np.int64)) == ([], 0.0)
