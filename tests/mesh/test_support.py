"""A table is recognised under a thing, and only there."""

import numpy as np
import pytest
import trimesh

from quicksurf.mesh.holes import boundary_loops
from quicksurf.mesh.support import cut_below, find_support

HEIGHT = -0.3
FROM_ABOVE = np.array([[2 * np.cos(a), 2 * np.sin(a), 1.0] for a in np.arange(12) * np.pi / 6])


def plate(radius, z=HEIGHT, noise=0.0, seed=0):
    disc = trimesh.creation.cylinder(radius, 1e-3, sections=64)
    disc = disc.submesh([np.flatnonzero(disc.face_normals[:, 2] > 0.9)], append=True)
    for _ in range(3):
        disc = disc.subdivide()
    vertices = np.asarray(disc.vertices) * [1, 1, 0] + [0, 0, z]
    vertices[:, 2] += noise * np.random.default_rng(seed).standard_normal(len(vertices))
    return trimesh.Trimesh(vertices, disc.faces)


def block(extents, z=HEIGHT):
    box = trimesh.creation.box(extents).apply_translation([0, 0, z + extents[2] / 2])
    for _ in range(5):
        box = box.subdivide()
    return box.submesh([np.flatnonzero(box.triangles_center[:, 2] > z + 1e-6)], append=True)


def found(*parts, eyes=FROM_ABOVE, turn=None):
    scene = trimesh.util.concatenate(parts)
    turn = np.eye(3) if turn is None else turn
    return find_support(np.asarray(scene.vertices) @ turn.T, np.asarray(scene.faces, np.int64), eyes @ turn.T)


@pytest.mark.parametrize("noise", [0.0, 0.004])
def test_a_table_under_a_block_is_found_in_any_frame(noise):
    turn = trimesh.transformations.random_rotation_matrix(np.array([0.3, 0.6, 0.1]))[:3, :3]
    support = found(plate(0.8, noise=noise), block([0.4, 0.3, 0.5]), turn=turn)
    assert support is not None
    assert support.normal @ turn[:, 2] > 0.9998
    assert support.offset == pytest.approx(HEIGHT, abs=0.003)
    assert 1.9 * noise < support.margin <= 0.025


@pytest.mark.parametrize(
    "parts",
    [
        [block([0.4, 0.3, 0.5])],
        [plate(0.8)],
        [plate(0.8), block([0.4, 0.3, 0.03])],  # a relief
        [plate(0.25), block([0.6, 0.6, 0.4], z=HEIGHT + 0.1)],  # a foot smaller than the thing
        [plate(0.8, z=0.0), block([0.4, 0.3, 0.5], z=0.0), block([0.5, 0.5, 0.7], z=-0.9)],  # half way up
        [plate(0.9), *(block([0.2, 0.2, 0.3]).apply_translation([x, 0, 0]) for x in (-0.5, 0, 0.5))],  # many
        [plate(0.9), block([0.3, 1.9, 0.5])],  # cut by the region
    ],
    ids=["no table", "only a table", "relief", "foot", "shelf", "several", "larger than the region"],
)
def test_nothing_is_cut_without_a_thing_on_a_table(parts):
    assert found(*parts) is None


def test_a_ceiling_is_no_table():
    assert found(plate(0.8), block([0.4, 0.3, 0.5]), eyes=FROM_ABOVE - [0, 0, 3.0]) is None


def test_the_cut_is_straight_and_shares_its_vertices():
    ball = trimesh.creation.icosphere(3)
    vertices, faces = np.asarray(ball.vertices, np.float64), np.asarray(ball.faces, np.int64)
    points, above = cut_below(vertices, faces, vertices[:, 2] - 0.25)
    (rim,) = boundary_loops(above)
    np.testing.assert_allclose(points[rim, 2], 0.25, atol=1e-12)
    area = trimesh.Trimesh(points, above, process=False).area
    assert area == pytest.approx(2 * np.pi * 0.75, rel=0.01)
    assert points[np.unique(above), 2].min() > 0.25 - 1e-12


def test_cutting_above_or_below_everything():
    ball = trimesh.creation.icosphere(1)
    vertices, faces = np.asarray(ball.vertices, np.float64), np.asarray(ball.faces, np.int64)
    assert len(cut_below(vertices, faces, vertices[:, 2] - 2)[1]) == 0
    np.testing.assert_array_equal(cut_below(vertices, faces, vertices[:, 2] + 2)[1], faces)
