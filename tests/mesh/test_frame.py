"""Scale and axes: similarities keep shapes, up is found where it is known."""

import numpy as np
import pytest
import torch
import trimesh

from quicksurf.errors import ConfigError
from quicksurf.mesh import frame
from quicksurf.mesh.types import Mesh

TINY = 1e-9  # rounding of float64 products


def mesh_of(shape):
    vertices = np.asarray(shape.vertices, np.float64)
    normals = np.asarray(shape.vertex_normals, np.float64)
    return Mesh(vertices, np.asarray(shape.faces, np.int64), np.zeros((len(vertices), 3), np.uint8), normals)


def unit(vector):
    return np.array(vector, np.float64) / np.linalg.norm(vector)


UPS = [unit(v) for v in ([0, 0, 1], [0, 0, -1], [1, 2, -3], [1e-12, 0, -1], [0, 1, 0])]


@pytest.mark.parametrize("up", UPS)
def test_upright_is_a_rotation_that_takes_up_to_z(up):
    rotation = frame.upright(up)
    assert np.allclose(rotation @ up, [0, 0, 1], atol=TINY)
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=TINY)
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_the_smallest_rotation_is_taken():
    up = unit([1, 2, 3])
    turn = np.degrees(np.arccos((np.trace(frame.upright(up)) - 1) / 2))
    assert turn == pytest.approx(np.degrees(np.arccos(up[2])))


def test_files_with_y_up_get_z_turned_to_y():
    similarity = frame.Similarity(2.0, frame.upright(unit([1, 2, 3])))
    for suffix, axis in (("ply", 2), ("stl", 2), ("glb", 1), ("obj", 1)):
        turned = frame.to_file_axes(similarity, suffix, True)
        found = turned.points(unit([1, 2, 3])[None])[0]
        assert np.allclose(found, 2 * np.eye(3)[axis], atol=TINY)
        assert np.linalg.det(turned.rotation) == pytest.approx(1)
    assert frame.to_file_axes(similarity, "glb", False) is similarity


def test_move_agrees_with_the_matrix():
    mesh = mesh_of(trimesh.creation.icosphere(1))
    similarity = frame.Similarity(0.3, frame.upright(unit([3, -1, 2])))
    moved = frame.move(mesh, similarity)
    matrix = np.array(similarity.matrix())
    expected = (matrix @ np.c_[mesh.vertices, np.ones(len(mesh.vertices))].T).T[:, :3]
    assert np.allclose(moved.vertices, expected, atol=TINY)
    assert np.allclose(np.linalg.norm(moved.normals, axis=1), 1)


def test_two_points_give_the_scale():
    assert frame.metres_per_unit(np.zeros(3), np.array([3.0, 4.0, 0.0]), 0.5) == pytest.approx(0.1)


@pytest.mark.parametrize(("far", "metres"), [(0.0, 1.0), (1.0, 0.0), (1.0, -2.0), (1.0, float("nan"))])
def test_scales_that_mean_nothing_are_refused(far, metres):
    with pytest.raises(ConfigError, match="--scale-from"):
        frame.metres_per_unit(np.zeros(3), np.array([far, 0.0, 0.0]), metres)


@pytest.mark.parametrize("text", ["1,2", "a,b,c", "1,2,nan", ""])
def test_points_that_are_none_are_refused(text):
    with pytest.raises(ConfigError, match="x,y,z"):
        frame.scale_point(text)


def test_cameras_all_around_tell_the_horizon(ring):
    """They look down at 20° and 50°, yet their x axes are level (but for 0.06° of the fixture's up)."""
    assert frame.up_from_cameras(ring).direction[2] > 0.9999


def test_cameras_of_one_side_tell_their_mean_up(make_cameras):
    side = make_cameras(torch.tensor([[3.0, 0, 0], [3.0, 0.01, 0.0], [3.0, 0, 0.01]]))
    assert frame.up_from_cameras(side).direction[2] > 0.99


def test_up_is_the_table_s_normal(ring):
    """A ball on a tilted table; the tilt is within what cameras above still look down on."""
    tilted = trimesh.transformations.rotation_matrix(np.radians(10), [1, 0, 0])
    ball = trimesh.creation.icosphere(3, 0.25).apply_translation([0, 0, 0.25])
    table = trimesh.creation.cylinder(0.9, 0.02, sections=64).apply_translation([0, 0, -0.01])
    table = table.subdivide().subdivide()
    both = trimesh.util.concatenate([ball, table]).apply_transform(tilted)
    found = frame.up_from_plane(mesh_of(both), ring)
    assert found is not None and found.source == "plane"
    assert found.direction @ tilted[:3, 2] > 0.999
    assert frame.up_from_plane(mesh_of(trimesh.creation.icosphere(3, 0.5)), ring) is None


def test_gravity_is_believed_where_photos_agree(ring):
    """The same vector in each camera's axes gives it back; random ones give nothing."""
    up = unit([0.1, -0.2, 1])
    rotations = ring.c2w[:, :, :3].double().numpy()
    ups = [None if i == 0 else rotation.T @ up for i, rotation in enumerate(rotations)]
    found = frame.up_from_gravity(ring, ups)
    assert found is not None and found.direction @ up > 1 - 1e-6  # the poses are in float32
    noise = list(np.random.default_rng(0).normal(size=(len(ring), 3)))
    assert frame.up_from_gravity(ring, noise) is None
    assert frame.up_from_gravity(ring, [None] * len(ring)) is None


def test_a_pixel_meets_the_mesh_where_its_ray_does(ring):
    """The middle of each photo shows the point of the ball that is nearest to the camera."""
    ball = mesh_of(trimesh.creation.icosphere(4))
    center = ring.centers()[3].numpy()
    found = frame.point_in_photo(ball, ring, 3, (80.0, 60.0))
    assert found is not None and np.linalg.norm(found - center / np.linalg.norm(center)) < 0.005
    assert frame.point_in_photo(ball, ring, 3, (0.5, 0.5)) is None
