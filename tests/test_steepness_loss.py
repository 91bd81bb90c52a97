"""The loss on the slope of the logit against its definition."""

import pytest
import torch

from quicksurf.methods import unisurf


def test_only_what_is_steeper_than_allowed_is_pulled():
    gradients = torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.0, 4.0], [6.0, 0.0, 0.0]], requires_grad=True)
    loss = unisurf.gradient_penalty(gradients, 4.0)
    assert loss.item() == pytest.approx(0.5**2 / 3)
    loss.backward()
    assert gradients.grad is not None
    assert torch.equal(gradients.grad[:2], torch.zeros(2, 3)) and gradients.grad[2, 0] > 0


def test_no_gradients_give_no_loss():
    assert unisurf.gradient_penalty(torch.zeros(0, 3), 4.0).item() == 0
