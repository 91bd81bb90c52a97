"""The whole road from an analytic field to a mesh: what is kept, where it faces, how it is coloured."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from quicksurf.errors import SurfaceError
from quicksurf.mesh import cost as mesh_cost
from quicksurf.mesh import extract
from quicksurf.mesh.build import MeshOptions, build_mesh, expected_cost
from quicksurf.mesh.cost import MeshCost

BOX = torch.tensor([-1.0, -1, -1, 1, 1, 1])
EVERYWHERE = torch.ones(32, 32, 32, dtype=torch.bool)
COARSE = MeshOptions(resolution=64)
COARSE_ERROR = 0.03  # in the fillet between ball and table a vertex of the 1/32 lattice lies beside both


def ball(points, radius, center=(0.0, 0.0, 0.0)):
    return radius - (points - torch.tensor(center)).norm(dim=-1)


def table_scene(points):
    """A ball on a thin table top; under it a blob, in the ball a shell, a floater in the air."""
    hollow = torch.minimum(ball(points, 0.4), -ball(points, 0.3))
    z = points[:, 2]
    table = torch.minimum(-0.3 - z, z + 0.4)
    blob = ball(points, 0.3, (0.1, 0.0, -0.7))
    floater = ball(points, 0.05, (0.5, 0.4, 0.5))
    return torch.stack([hollow, table, blob, floater]).max(0).values


def test_a_sphere_comes_out_whole_outward_and_coloured(make_field, all_around):
    mesh, report = build_mesh(make_field(lambda p: ball(p, 0.5)), all_around, EVERYWHERE, BOX, COARSE)
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert solid.is_watertight and solid.volume > 0
    assert report.faces == len(mesh.faces) == report.faces_extracted
    assert (report.faces_unseen, report.parts_kept, report.parts_dropped) == (0, 1, 0)
    assert (mesh.normals * 2 * mesh.vertices).sum(1).min() > 0.998  # within 4° of the sphere's
    np.testing.assert_allclose(mesh.colors / 255, (mesh.vertices + 1) / 2, atol=1 / 255)


def test_blob_shell_and_floater_go_and_ball_and_table_stay(make_field, ring):
    scene = replace(COARSE, keep="scene")
    mesh, report = build_mesh(make_field(table_scene), ring, EVERYWHERE, BOX, scene)
    z = mesh.vertices[:, 2]
    radius = np.linalg.norm(mesh.vertices, axis=1)
    assert z.min() > -0.41, "the blob under the table is still there"
    assert not ((radius < 0.35) & (z > -0.28)).any(), "the shell inside the ball is still there"
    assert not (np.linalg.norm(mesh.vertices - [0.5, 0.4, 0.5], axis=1) < 0.1).any(), (
        "the floater is still there"
    )
    assert ((np.abs(radius - 0.4) < 0.01) & (z > 0.3)).any() and ((z < -0.29) & (radius > 0.7)).any()
    assert report.faces_unseen > 0 and report.parts_dropped >= 1 and report.faces_beyond_roi > 0


def test_the_table_is_cut_off_and_the_ball_stays(make_field, ring):
    finer = replace(COARSE, resolution=128)
    mesh, report = build_mesh(make_field(table_scene), ring, EVERYWHERE, BOX, finer)
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 0.4).max() < COARSE_ERROR
    assert -0.3 < mesh.vertices[:, 2].min() < -0.3 + 0.03, "the cut lies a little above the table"
    assert report.faces_of_support > 0 and len(report.hole_lengths) == 1
    rim = 2 * np.pi * np.sqrt(0.4**2 - mesh.vertices[:, 2].min() ** 2)
    assert report.hole_lengths[0] == pytest.approx(rim, rel=0.1)
    assert "the table is cut off; 1 hole" in report.describe()


def test_a_watertight_ball_stands_on_a_flat_lid(make_field, ring):
    closed = replace(COARSE, watertight=True)
    mesh, report = build_mesh(make_field(table_scene), ring, EVERYWHERE, BOX, closed)
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert solid.is_watertight and solid.is_winding_consistent and report.watertight
    height = 0.4 - mesh.vertices[:, 2].min()
    cap = np.pi * height**2 * (3 * 0.4 - height) / 3  # volume of the ball above the cut
    assert solid.volume == pytest.approx(cap, rel=0.01)
    assert report.faces_invented > 0 and "all closed, which no camera saw" in report.describe()


def test_a_closed_surface_reports_no_holes(make_field, all_around):
    _, report = build_mesh(make_field(lambda p: ball(p, 0.5)), all_around, EVERYWHERE, BOX, COARSE)
    assert (report.hole_lengths, report.open_fraction, report.watertight) == ([], 0.0, True)
    assert report.describe() == "no holes"


def test_the_roi_does_not_close_the_mesh(make_field, ring):
    """A half-space: only its plane inside the ball is a surface."""
    mesh, _ = build_mesh(make_field(lambda p: -0.1 - p[:, 2]), ring, EVERYWHERE, BOX, COARSE)
    np.testing.assert_allclose(mesh.vertices[:, 2], -0.1, atol=1e-4)
    np.testing.assert_allclose(mesh.normals, np.broadcast_to([0, 0, 1.0], mesh.normals.shape), atol=1e-3)


def test_view_dependent_colors_are_averaged_over_frontal_views(make_field, all_around):
    """The colour is the direction itself: its mean over the best views points back along the normal."""

    class Glossy(make_field):
        def colors(self, points, normals, directions):
            return (1 - directions) / 2

    mesh, _ = build_mesh(Glossy(lambda p: ball(p, 0.5)), all_around, EVERYWHERE, BOX, COARSE)
    facing = mesh.colors / 255 * 2 - 1
    assert (facing * mesh.normals).sum(1).min() > 0.5


def test_decimation_keeps_colors_and_orientation(make_field, all_around):
    options = MeshOptions(resolution=64, n_faces=500)
    mesh, report = build_mesh(make_field(lambda p: ball(p, 0.5)), all_around, EVERYWHERE, BOX, options)
    assert len(mesh.faces) == report.faces <= 500
    assert (mesh.normals * mesh.vertices).sum(1).min() > 0
    np.testing.assert_allclose(mesh.colors / 255, (mesh.vertices + 1) / 2, atol=1 / 255)


def test_an_empty_field_says_so(make_field, ring):
    with pytest.raises(SurfaceError, match="no surface"):
        build_mesh(make_field(lambda p: -1 - 0 * p[:, 0]), ring, EVERYWHERE, BOX, COARSE)


def test_a_surface_that_no_camera_sees_says_so(make_field, make_cameras):
    beside = make_cameras(torch.tensor([[0.0, -3.0, 0.0]]))
    beside = replace(beside, intrinsics=torch.tensor([[150.0, 150, 4000, 60]]))
    with pytest.raises(SurfaceError, match="seen by the cameras"):
        build_mesh(make_field(lambda p: ball(p, 0.5)), beside, EVERYWHERE, BOX, COARSE)


def test_less_time_gives_a_lower_resolution():
    cost = MeshCost(evaluation_seconds=0.05, march_seconds=0.03, n_cameras=50)
    chosen = [cost.affordable(512, seconds) for seconds in (1e-3, 4.0, 1e6)]
    assert chosen[0] == 96 and chosen[2] == 512 and 96 < chosen[1] < 512
    assert cost.seconds(chosen[1]) <= 4.0 < cost.seconds(chosen[1] + 32)


def test_a_hurried_mesh_is_coarser(make_field, all_around):
    field = make_field(lambda p: ball(p, 0.5))
    _, report = build_mesh(field, all_around, EVERYWHERE, BOX, MeshOptions(resolution=160, seconds=1e-3))
    assert report.resolution == 96


def test_a_large_surface_is_expected_to_take_longer(make_field, all_around, monkeypatch):
    """A sheet through the whole region and a ball with a fifth of its area, on which a cell has 1.5 times the faces;
    the clock tells the faces made so far.
    """
    now = 0.0

    def march_cubes(values, blocks):
        nonlocal now
        vertices, faces = extract.march_cubes(values, blocks)
        now += len(faces)
        return vertices, faces

    monkeypatch.setattr(mesh_cost, "march_cubes", march_cubes)
    monkeypatch.setattr(mesh_cost.time, "perf_counter", lambda: now)
    small, large = (
        expected_cost(make_field(logits), all_around, EVERYWHERE, BOX, False)
        for logits in (lambda p: ball(p, 0.252), lambda p: 0.013 - p[:, 2])
    )
    assert large.seconds(384) == pytest.approx(5 / 1.5 * small.seconds(384), rel=0.1)
    assert small.evaluation_seconds == 0 and small.n_cameras == len(all_around)
    assert small._replace(refined=True).seconds(384) > small.seconds(384)
