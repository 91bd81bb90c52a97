"""Comparison with the torch twin, within the tolerances of the tests."""

import torch
from tolerances import FORWARD32, GRADIENT32, relative
from torch import Tensor, nn

from quicksurf.kernels.modules import EncodedNetwork

# At scale 2047 a position in cells is known to 2^-14: one rounding (fused multiply-add) or two (the twin) move the
# weights of the finest of 16 levels by 3.5e-5 rms, all levels together by 1.3e-5. The tests' grids end at scale 57.
FINE_GRID32 = 2e-5


class Mismatch(Exception):
    """A kernel does not compute what its twin computes: its time means nothing."""


def same(what: str, found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Raise Mismatch unless the relative L2 distance is below `tolerance`."""
    distance = relative(found.detach(), expected.detach())
    if not distance < tolerance:
        raise Mismatch(f"{what}: differs from the torch twin by {distance:.2g}, allowed is {tolerance:.2g}")


def same_network(what: str, native: nn.Module, twin: EncodedNetwork, x: Tensor) -> None:
    """Compare values and gradients by parameters (in their modules' order) and, if x requires them, by x."""
    results = []
    for network in (native, twin):
        points = x.detach().clone().requires_grad_(x.requires_grad)
        inputs = [*network.parameters(), *([points] if x.requires_grad else [])]
        values = network(points)
        grad = torch.rand(values.shape, generator=torch.Generator().manual_seed(3))
        grads = torch.autograd.grad(values, inputs, grad)
        n_params = len(grads) - x.requires_grad
        results.append((values, torch.cat([g.reshape(-1) for g in grads[:n_params]]), *grads[n_params:]))
    forward = FINE_GRID32 if any(part.levels for part in twin.layout.parts) else FORWARD32
    names = ("values", "gradient by parameters", "gradient by inputs")
    tolerances = (forward, GRADIENT32, GRADIENT32)
    for name, tolerance, found, expected in zip(names, tolerances, *results, strict=False):
        same(f"{what}, {name}", found, expected, tolerance)
