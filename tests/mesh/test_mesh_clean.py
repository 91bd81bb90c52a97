"""Which parts are kept, what compaction and decimation leave."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from quicksurf.errors import ConfigError
from quicksurf.mesh.clean import compact, decimate, inside_ball, select_parts


def balls(*radii_and_centers):
    vertices, faces, n = [], [], 0
    for radius, center in radii_and_centers:
        ball = trimesh.creation.icosphere(2, radius)
        vertices.append(ball.vertices + np.array(center))
        faces.append(ball.faces + n)
        n += len(ball.vertices)
    return np.concatenate(vertices), np.concatenate(faces).astype(np.int64)


def kept_radii(vertices, faces, parts, centers):
    used = vertices[np.unique(faces[parts.kept])]
    return [bool((np.linalg.norm(used - np.array(c), axis=1) < 0.3).any()) for c in centers]


def test_floaters_go_and_parts_of_the_object_stay():
    centers = [(0, 0, 0), (0.4, 0, 0), (0, 0.6, 0.2)]
    vertices, faces = balls((0.25, centers[0]), (0.1, centers[1]), (0.02, centers[2]))
    parts = select_parts(vertices, faces, np.full(len(vertices), 10))
    assert kept_radii(vertices, faces, parts, [(0, 0, 0)]) == [True]
    assert (parts.n_kept, parts.n_dropped) == (2, 1)
    assert parts.kept.sum() == 640  # two icospheres of 320 faces


def test_a_large_part_that_few_cameras_see_loses_to_the_object():
    vertices, faces = balls((0.2, (0, 0, 0)), (0.3, (0, 0, -0.6)))
    n_views = np.where(vertices[:, 2] < -0.25, 0, 20)
    parts = select_parts(vertices, faces, n_views)
    assert (parts.n_kept, parts.n_dropped) == (1, 1)
    assert vertices[faces[parts.kept]][..., 2].min() > -0.25


def test_a_part_at_the_border_of_the_roi_loses_to_one_at_the_centre():
    vertices, faces = balls((0.1, (0, 0, 0)), (0.12, (0.995, 0, 0)))
    parts = select_parts(vertices, faces, np.full(len(vertices), 5))
    assert vertices[faces[parts.kept]][..., 0].max() < 0.2


def test_vertices_of_no_face_are_no_part():
    vertices, faces = balls((0.2, (0, 0, 0)))
    stray = np.concatenate([np.full((7, 3), 0.5), vertices])
    parts = select_parts(stray, faces + 7, np.ones(len(stray), np.int64))
    assert (parts.n_kept, parts.n_dropped) == (1, 0) and parts.kept.all()


def test_no_faces_give_no_parts():
    parts = select_parts(np.zeros((0, 3)), np.zeros((0, 3), np.int64), np.zeros(0, np.int64))
    assert parts.kept.shape == (0,) and parts.n_kept == parts.n_dropped == 0


def test_only_faces_wholly_inside_the_ball_stay():
    vertices = np.array([[0, 0, 0], [0.9, 0, 0], [0, 0.9, 0], [1.1, 0, 0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    np.testing.assert_array_equal(inside_ball(vertices, faces, 1.0), [True, False])


def test_compaction_drops_degenerate_faces_and_stray_vertices():
    vertices = np.array([[9, 9, 9], [0, 0, 0], [1, 0, 0], [0, 1, 0], [2, 0, 0], [0, 0, 0]], float)
    faces = np.array([[1, 2, 3], [1, 2, 4], [1, 5, 3], [2, 2, 3]])
    kept, triangles, old = compact(vertices, faces)
    np.testing.assert_array_equal(triangles, [[0, 1, 2]])
    np.testing.assert_array_equal(old, [1, 2, 3])
    np.testing.assert_array_equal(kept, vertices[[1, 2, 3]])


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-6, 1e6))
def test_compaction_does_not_depend_on_the_unit(scale):
    vertices, faces = balls((0.2, (0, 0, 0)))
    assert len(compact(scale * vertices, faces)[1]) == len(faces)


@pytest.mark.parametrize("n_faces", [4, 50, 400, 100_000])
def test_decimation_reaches_its_count_and_keeps_the_orientation(n_faces):
    ball = trimesh.creation.icosphere(4, 0.5)
    vertices, faces = decimate(np.asarray(ball.vertices), np.asarray(ball.faces, np.int64), n_faces)
    assert 4 <= len(faces) <= max(n_faces, 4) and faces.max() == len(vertices) - 1
    assert trimesh.Trimesh(vertices, faces, process=False).volume > 0
    if n_faces >= 400:
        assert np.abs(np.linalg.norm(vertices, axis=1) - 0.5).max() < 0.02


def test_decimation_keeps_a_small_mesh_far_from_the_origin():
    ball = trimesh.creation.icosphere(4, 1e-3)
    offset = np.array([500.0, -300.0, 20.0])
    vertices, _ = decimate(ball.vertices + offset, np.asarray(ball.faces, np.int64), 500)
    assert np.abs(np.linalg.norm(vertices - offset, axis=1) - 1e-3).max() < 1e-4


@pytest.mark.parametrize("n_faces", [3, 0, -5])
def test_fewer_than_four_faces_are_refused(n_faces):
    ball = trimesh.creation.icosphere(1)
    with pytest.raises(ConfigError, match="--faces"):
        decimate(np.asarray(ball.vertices), np.asarray(ball.faces, np.int64), n_faces)
