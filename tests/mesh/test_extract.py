"""Marching cubes over blocks: orientation, seams, lids, accuracy."""

import numpy as np
import pytest
import torch
import trimesh

from quicksurf.errors import ConfigError
from quicksurf.mesh.extract import extract_surface

BOX = torch.tensor([-1.0, -1, -1, 1, 1, 1])
EVERYWHERE = torch.ones(16, 16, 16, dtype=torch.bool)


def sphere(radius, center=(0.0, 0.0, 0.0)):
    return lambda points: radius - (points - torch.tensor(center)).norm(dim=-1)


def curved_sphere(radius):
    """A sphere whose logits are far from linear across a cell, as sharp fields' are."""
    return lambda points: torch.expm1(12 * (radius - points.norm(dim=-1)))


def cells_near(radius, width, n=32):
    centers = (torch.arange(n) + 0.5) / n * 2 - 1
    grid = torch.stack(torch.meshgrid(centers, centers, centers, indexing="ij"), -1)
    return (grid.norm(dim=-1) - radius).abs() < width


def is_closed(faces):
    """Every directed edge is matched by its opposite: closed and consistently wound."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return np.array_equal(np.unique(edges, axis=0), np.unique(edges[:, ::-1], axis=0))


@pytest.mark.parametrize("resolution", [20, 64, 97])
def test_a_sphere_is_closed_outward_and_round(resolution):
    vertices, faces = extract_surface(sphere(0.71), EVERYWHERE, BOX, resolution)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert is_closed(faces)
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.71**3, rel=8 / resolution**2)  # > 0: facing outward
    assert np.abs(np.linalg.norm(vertices, axis=1) - 0.71).max() < 0.02 * 2 / resolution


def test_blocks_leave_no_duplicate_vertices():
    vertices, faces = extract_surface(sphere(0.8), EVERYWHERE, BOX, 100)
    assert len(np.unique(np.round(vertices, 9), axis=0)) == len(vertices)
    assert len(vertices) - len(faces) * 3 // 2 + len(faces) == 2  # Euler number of a sphere


def test_values_of_exactly_zero_on_the_lattice_still_close():
    vertices, faces = extract_surface(lambda p: 0.5 - p.abs().sum(-1), EVERYWHERE, BOX, 64)
    assert is_closed(faces) and trimesh.Trimesh(vertices, faces).volume > 0


def test_refinement_lowers_the_error_where_logits_are_curved():
    """Linear interpolation alone is off by step² · l''/l' / 8; a secant step gains at least 5 times."""
    vertices, _ = extract_surface(curved_sphere(0.7), EVERYWHERE, BOX, 40)
    linear = (2 / 40) ** 2 * 12 / 8  # expm1(12 x) has l''/l' = 12 at 0
    error = np.abs(np.linalg.norm(vertices, axis=1) - 0.7)
    assert error.mean() < linear / 5


def test_only_points_near_occupied_cells_are_evaluated():
    seen = []

    def logits(points):
        seen.append(points)
        return sphere(0.6)(points)

    occupied = cells_near(0.6, 0.06)
    vertices, faces = extract_surface(logits, occupied, BOX, 96)
    assert is_closed(faces)
    points = torch.cat(seen)
    assert (points.norm(dim=-1) - 0.6).abs().max() < 0.06 + 3 * 2 / 32
    assert max(len(p) for p in seen) <= 1 << 18
    dense, _ = extract_surface(sphere(0.6), EVERYWHERE, BOX, 96)
    assert len(dense) == len(vertices)


def test_the_box_does_not_close_the_surface():
    """A ball that sticks out of the box: nothing lies on the box's sides, and the mesh is open there."""
    vertices, faces = extract_surface(sphere(0.8, (0.0, 0.0, 0.9)), EVERYWHERE, BOX, 64)
    assert np.abs(np.linalg.norm(vertices - [0, 0, 0.9], axis=1) - 0.8).max() < 1e-3
    assert len(faces) > 1000 and not is_closed(faces)


def test_the_grids_border_does_not_close_the_surface():
    occupied = EVERYWHERE.clone()
    occupied[:, :, 8:] = False
    vertices, _ = extract_surface(sphere(0.7), occupied, BOX, 64)
    assert np.abs(np.linalg.norm(vertices, axis=1) - 0.7).max() < 1e-3
    assert vertices[:, 2].max() < 0.2


def test_a_thin_box_keeps_cubic_cells():
    aabb = torch.tensor([-1.0, -0.3, -1, 1, 0.3, 1])
    occupied = torch.ones(10, 3, 10, dtype=torch.bool)
    vertices, faces = extract_surface(
        lambda p: 1 - (p / torch.tensor([0.8, 0.2, 0.8])).norm(dim=-1), occupied, aabb, 80
    )
    assert is_closed(faces)
    np.testing.assert_allclose(np.ptp(vertices, axis=0), [1.6, 0.4, 1.6], rtol=0.01)


@pytest.mark.parametrize("logit", [-1.0, 1.0, float("nan")])
def test_a_field_without_a_crossing_gives_an_empty_mesh(logit):
    vertices, faces = extract_surface(lambda p: torch.full_like(p[:, 0], logit), EVERYWHERE, BOX, 40)
    assert vertices.shape == (0, 3) and faces.shape == (0, 3)


def test_no_occupied_cells_give_an_empty_mesh():
    vertices, faces = extract_surface(sphere(0.5), ~EVERYWHERE, BOX, 40)
    assert vertices.shape == (0, 3) and faces.shape == (0, 3)


@pytest.mark.parametrize("resolution", [0, 1, 5000])
def test_a_resolution_out_of_range_is_refused(resolution):
    with pytest.raises(ConfigError, match="resolution"):
        extract_surface(sphere(0.5), EVERYWHERE, BOX, resolution)
