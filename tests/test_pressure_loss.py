"""The balloon force on a surface against its definition."""

import pytest
import torch

from quicksurf.methods import unisurf


def test_it_falls_by_how_far_the_surface_moves_out():
    gradients = torch.tensor([[0.0, 0.0, -4.0], [1.0, 0.0, 0.0]])
    moved = torch.tensor([0.01, 0.03])
    before = unisurf.balloon_force(torch.zeros(2), gradients)
    after = unisurf.balloon_force(moved * gradients.norm(dim=-1), gradients)
    assert float(after - before) == pytest.approx(-0.02)


def test_the_gradient_itself_is_not_pulled():
    gradients = torch.ones(3, 3, requires_grad=True)
    unisurf.balloon_force(torch.ones(3, requires_grad=True), gradients).backward()
    assert gradients.grad is None


def test_no_points_give_no_loss():
    assert unisurf.balloon_force(torch.zeros(0), torch.zeros(0, 3)).item() == 0
