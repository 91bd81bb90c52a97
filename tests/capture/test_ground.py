"""The ground is found where a level plane carries points and nothing lies below it."""

import pytest
import torch

from quicksurf.train.ground import find_ground

UP = torch.tensor([0.0, 0.0, 1.0])
EYES = torch.tensor([[x, 0.0, -0.1] for x in (-0.5, 0.0, 0.5)])


def random(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) - 0.5


def walls_above(height: float, n: int = 600) -> torch.Tensor:
    points = random(n, 3)
    points[:, 0] = torch.where(points[:, 0] > 0, 0.6, -0.6)
    points[:, 2] = height + (points[:, 2] + 0.5)
    return points


def floor_at(height: float, n: int = 80) -> torch.Tensor:
    points = random(n, 3)
    points[:, 2] = height + 0.002 * points[:, 2]
    return points


def test_the_ground_is_found_below_the_walls():
    ground = find_ground(torch.cat([walls_above(-0.4), floor_at(-0.4)]), EYES, UP)
    assert ground is not None
    assert ground.normal @ UP > 0.99
    assert ground.height == pytest.approx(-0.4, abs=0.01)
    assert len(ground.points) >= 80


@pytest.mark.parametrize(
    "points",
    [
        walls_above(-0.4),
        torch.cat([walls_above(-0.9), floor_at(-0.2)]),
        torch.cat([walls_above(-0.05), floor_at(-0.05)]),
        floor_at(-0.4, 20),
    ],
    ids=["walls alone", "a balcony", "above the cameras", "too few points"],
)
def test_no_ground(points):
    assert find_ground(points, EYES, UP) is None
