"""Analytic scenes for the mesh tests: fields whose surface is known exactly, and cameras around them."""

from dataclasses import dataclass

import pytest
import torch

from quicksurf.geometry.cameras import Cameras


@dataclass(frozen=True)
class AnalyticField:
    """A field from a signed distance (inside > 0); its colour is a fixed function of the point."""

    distance: object

    def logits(self, points):
        return self.distance(points)

    def normals(self, points):
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.distance(points).sum(), points)
        return torch.nn.functional.normalize(-gradient, dim=1)

    def shading_normals(self, points):
        return self.normals(points)

    def colors(self, points, normals, directions):
        return (points + 1) / 2 if len(points) else points


def look_at(centers, size=(160, 120), focal=150.0, distortion=None, fisheye=False):
    """Cameras at `centers` that look at the origin, z up in the world."""
    forward = torch.nn.functional.normalize(-centers, dim=1)
    up = torch.tensor([0.0, 0.0, 1.0]) + 1e-3 * torch.tensor([1.0, 0.0, 0.0])
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up.expand_as(forward)), dim=1)
    down = torch.linalg.cross(forward, right)
    n = len(centers)
    return Cameras(
        c2w=torch.stack([right, down, forward, centers], -1),
        intrinsics=torch.tensor([focal, focal, size[0] / 2, size[1] / 2]).repeat(n, 1),
        distortion=torch.tensor(distortion or [0.0] * 6).repeat(n, 1),
        fisheye=torch.full((n,), fisheye),
        sizes=torch.tensor(size).repeat(n, 1),
    )


@pytest.fixture
def ring():
    """Twelve cameras on two rings above the horizon, at 3 radii."""
    azimuth = torch.arange(12) * torch.pi / 6
    elevation = torch.where(torch.arange(12) % 2 == 0, 0.35, 0.9)
    flat = elevation.cos()
    return look_at(3 * torch.stack([flat * azimuth.cos(), flat * azimuth.sin(), elevation.sin()], -1))


@pytest.fixture
def all_around():
    """Fourteen cameras on the axes and the diagonals of a cube."""
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3) / 3**0.5
    return look_at(3 * torch.cat([signs, torch.eye(3), -torch.eye(3)]))


@pytest.fixture
def make_field():
    return AnalyticField


@pytest.fixture
def make_cameras():
    return look_at
