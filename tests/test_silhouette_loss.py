"""Masks in the fit: the loss on opacity, and the grid that stays empty where they leave no room."""

import math

import pytest
import torch

from quicksurf.fields.grid import OccupancyGrid
from quicksurf.train import losses


@pytest.mark.parametrize("logit", [-20.0, -2.0, 0.0, 2.0, 8.0])
@pytest.mark.parametrize("inside", [0.0, 1.0])
def test_the_loss_is_softplus_of_the_logit(logit, inside):
    value = losses.silhouette_loss(torch.tensor([logit]).sigmoid(), torch.tensor([inside]))
    expected = math.log1p(math.exp(-logit if inside else logit))
    assert value.item() == pytest.approx(expected, rel=1e-3, abs=1e-6)  # 1 − O keeps four digits at 8


def test_a_far_miss_pulls_as_much_as_a_near_one():
    logits = torch.tensor([-18.0, -6.0], requires_grad=True)
    losses.silhouette_loss(logits.sigmoid(), torch.ones(2)).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.full((2,), -0.5), rtol=0.01, atol=0.0)


def test_no_rays_and_full_opacity_give_finite_gradients():
    nothing = torch.zeros(0, requires_grad=True)
    assert losses.silhouette_loss(nothing, torch.zeros(0)).item() == 0
    opaque = torch.tensor([1.0, 0.0], requires_grad=True)
    losses.silhouette_loss(opaque, torch.tensor([0.0, 1.0])).backward()
    assert opaque.grad is not None and torch.isfinite(opaque.grad).all()


def test_a_restricted_grid_stays_empty_outside_through_updates():
    grid = OccupancyGrid(8, 0.01, torch.device("cpu"))
    room = torch.zeros(8, 8, 8, dtype=torch.bool)
    room[2:5, 3:6, 1:4] = True
    grid.restrict(room)
    assert torch.equal(grid.occupied, room)
    for step in (0, 32, 128):
        grid.update(step, lambda points: torch.ones(len(points)), torch.sigmoid)
        assert torch.equal(grid.occupied, room)
