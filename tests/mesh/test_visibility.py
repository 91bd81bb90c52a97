"""Which cameras see which vertices, against closed forms on spheres."""

import numpy as np
import pytest
import torch
import trimesh

from quicksurf.mesh.visibility import count_views, faces_seen


def sphere(radius, center=(0.0, 0.0, 0.0), subdivisions=4):
    mesh = trimesh.creation.icosphere(subdivisions, radius)
    return mesh.vertices + np.array(center), mesh.faces.astype(np.int64), mesh.vertices / radius


def test_one_camera_sees_the_cap_that_faces_it(make_cameras):
    vertices, faces, normals = sphere(0.5)
    views = count_views(vertices, faces, normals, make_cameras(torch.tensor([[0.0, -3.0, 0.0]])))
    to_camera = np.array([0, -3.0, 0]) - vertices
    cosines = (normals * to_camera).sum(1) / np.linalg.norm(to_camera, axis=1)
    np.testing.assert_array_equal(views.n_views, cosines > 0.1)
    np.testing.assert_array_equal(views.best_cameras.max(1), np.where(cosines > 0.1, 0, -1))


@pytest.mark.parametrize(
    "lens", [([0.1, -0.05, 0.0, 0.0, 1e-3, -1e-3], False), ([0.05, 0.0, 0.0, 0.0, 0.0, 0.0], True)]
)
def test_distorted_lenses_see_the_same_cap(make_cameras, lens):
    vertices, faces, normals = sphere(0.5)
    center = torch.tensor([[0.0, -3.0, 0.0]])
    plain = count_views(vertices, faces, normals, make_cameras(center)).n_views
    bent = count_views(
        vertices, faces, normals, make_cameras(center, distortion=lens[0], fisheye=lens[1])
    ).n_views
    np.testing.assert_array_equal(plain, bent)


def test_a_lens_that_folds_does_not_see_what_is_beside_the_frame(make_cameras):
    """r (1 - 0.9 r²) turns back at r = 0.61: a ball at r = 1 would land in the frame by itself."""
    vertices, faces, normals = sphere(0.2, (3.0, 0.0, 0.0))
    cameras = make_cameras(torch.tensor([[0.0, -3.0, 0.0]]), focal=300.0, distortion=[-0.9, 0, 0, 0, 0, 0])
    assert not count_views(vertices, faces, normals, cameras).n_views.any()


def test_a_ball_in_front_hides_the_ball_behind(make_cameras):
    front, faces, normals = sphere(0.5, (0.0, -1.0, 0.0))
    back, _, _ = sphere(0.2, (0.0, 1.0, 0.0))
    vertices = np.concatenate([front, back])
    views = count_views(
        vertices,
        np.concatenate([faces, faces + len(front)]),
        np.concatenate([normals, normals]),
        make_cameras(torch.tensor([[0.0, -4.0, 0.0]])),
    )
    assert views.n_views[: len(front)].any() and not views.n_views[len(front) :].any()


def test_an_inner_shell_is_not_seen_from_any_side(all_around):
    outer, faces, normals = sphere(0.6)
    inner, _, _ = sphere(0.5)
    views = count_views(
        np.concatenate([outer, inner]),
        np.concatenate([faces, faces[:, ::-1] + len(outer)]),
        np.concatenate([normals, -normals]),
        all_around,
    )
    assert views.n_views[: len(outer)].min() >= 2
    assert not views.n_views[len(outer) :].any()


def test_what_is_behind_or_outside_the_frame_is_not_seen(make_cameras):
    vertices, faces, normals = sphere(0.3, (0.0, -6.0, 0.0))
    beside, _, _ = sphere(0.3, (4.0, 0.0, 0.0))
    cameras = make_cameras(torch.tensor([[0.0, -3.0, 0.0]]))
    assert not count_views(vertices, faces, normals, cameras).n_views.any()
    assert not count_views(beside, faces, normals, cameras).n_views.any()


def test_best_cameras_are_the_most_frontal(all_around):
    vertices, faces, normals = sphere(0.5)
    views = count_views(vertices, faces, normals, all_around)
    to_camera = all_around.centers().numpy()[None] - vertices[:, None]
    cosines = (normals[:, None] * to_camera).sum(-1) / np.linalg.norm(to_camera, axis=-1)
    expected = np.sort(np.take_along_axis(cosines, np.argsort(-cosines, 1)[:, :3], 1))
    found = np.sort(np.take_along_axis(cosines, views.best_cameras, 1))
    np.testing.assert_allclose(found, expected, atol=1e-5)  # ties between symmetric cameras may go either way


def test_large_images_are_reduced_to_the_same_answer(make_cameras):
    vertices, faces, normals = sphere(0.5)
    center = torch.tensor([[0.0, -3.0, 0.0]])
    small = count_views(vertices, faces, normals, make_cameras(center)).n_views
    large = count_views(
        vertices, faces, normals, make_cameras(center, size=(3200, 2400), focal=3000.0)
    ).n_views
    np.testing.assert_array_equal(small, large)


def test_an_empty_mesh_has_no_views(ring):
    views = count_views(np.zeros((0, 3)), np.zeros((0, 3), np.int64), np.zeros((0, 3)), ring)
    assert views.n_views.shape == (0,) and views.best_cameras.shape == (0, 3)


def test_gaps_between_what_was_seen_are_kept_and_rims_are_not_grown():
    """A strip of 20 triangles: vertices 7 to 10 are a gap, those from 15 on the rim. One ring reaches two vertices."""
    faces = np.stack([np.arange(20), np.arange(20) + 1, np.arange(20) + 2], -1)
    seen = np.isin(np.arange(22), [*range(7), *range(11, 15)])
    assert np.flatnonzero(~faces_seen(faces, seen, 0)).tolist() == [7, 8, *range(15, 20)]
    assert np.flatnonzero(~faces_seen(faces, seen, 1)).tolist() == [*range(15, 20)]
    assert not faces_seen(faces, np.zeros(22, bool), 3).any()
