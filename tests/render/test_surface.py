"""Surface search on fields with a known surface."""

import pytest
import torch

from quicksurf.rays import Rays, unit_ball_span
from quicksurf.render.grid import OccupancyGrid
from quicksurf.render.surface import find_surface

RADIUS = 0.4


def ball(points):
    """Distance inside a ball."""
    return RADIUS - points.norm(dim=-1)


def shell_grid(logits, resolution=32):
    grid = OccupancyGrid(resolution, 0.01, torch.device("cpu"))
    for step in range(0, 96, 16):
        grid.update(step, logits, sharpness=60.0)
    return grid


def camera_rays(n):
    generator = torch.Generator().manual_seed(0)
    origins = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1) * 3
    targets = 0.6 * (2 * torch.rand(n, 3, generator=generator) - 1)
    directions = torch.nn.functional.normalize(targets - origins, dim=-1)
    return Rays(origins, directions, *unit_ball_span(origins, directions))


def true_depth(rays):
    b = (rays.origins * rays.directions).sum(-1)
    inside = b * b - (rays.origins.square().sum(-1) - RADIUS**2)
    return torch.where(inside > 0, -b - inside.clamp_min(0).sqrt(), torch.inf)


@pytest.mark.parametrize("n", [0, 1, 400])
def test_depths_are_those_of_the_ball(backend, n):
    grid, rays = shell_grid(ball), camera_rays(n)
    surface = find_surface(backend, ball, rays, grid.march(backend, rays, 0.03))
    truth = true_depth(rays)
    grazing = (truth.isfinite() & (truth + 0.05 > rays.far)) | (rays.near >= rays.far)
    clear = (torch.cross(rays.origins, rays.directions, dim=-1).norm(dim=-1) - RADIUS).abs() > 0.01
    assert torch.equal((surface.hits & clear & ~grazing), truth.isfinite() & clear & ~grazing)
    index = surface.hits & truth.isfinite() & clear
    assert torch.allclose(surface.ts[index], truth[index], atol=1e-4)


def test_the_search_stops_at_the_surface_and_skips_empty_cells(backend):
    """Evaluations a ray: fewer than a march over the whole ball, and than one through the whole inside."""
    grid, rays = shell_grid(ball), camera_rays(300)
    steps = grid.march(backend, rays, 0.02)
    surface = find_surface(backend, ball, rays, steps)
    everywhere = int(((rays.far - rays.near).clamp_min(0) / 0.02).sum())
    assert surface.n_evaluations < len(steps.t_mids)
    assert surface.n_evaluations < 0.5 * everywhere


def test_the_first_of_two_surfaces_is_found(backend):
    def two_balls(points):
        return torch.maximum(ball(points * 2 + 0.9) / 2, ball(points * 2 - 0.9) / 2)

    rays = Rays(
        torch.tensor([[-3.0, -0.45, -0.45]]),
        torch.tensor([[1.0, 0, 0]]),
        torch.tensor([2.0]),
        torch.tensor([4.0]),
    )
    grid = OccupancyGrid(32, 0.01, torch.device("cpu"))
    surface = find_surface(backend, two_balls, rays, grid.march(backend, rays, 0.02))
    assert abs(float(surface.ts[0]) - (3 - 0.45 - 0.2)) < 1e-3


def test_grid_keeps_every_cell_the_surface_passes():
    grid = shell_grid(ball, resolution=24)
    directions = torch.nn.functional.normalize(
        torch.randn(2000, 3, generator=torch.Generator().manual_seed(1)), dim=-1
    )
    cells = ((RADIUS * directions + 1) / 2 * 24).long()
    assert bool(grid.occupied[cells[:, 0], cells[:, 1], cells[:, 2]].all())
    assert float(grid.occupied.float().mean()) < 0.2  # and not the empty ones
