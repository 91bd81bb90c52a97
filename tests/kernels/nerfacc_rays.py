"""Rays for the tests of nerfacc's functions."""

import torch
from torch import Tensor


def rays(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rays from around a sphere of radius 5 to near its centre; the first three along an axis."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    directions[:3] = torch.eye(3)[:n]
    return -5 * directions + 0.4 * torch.randn(n, 3, generator=generator), directions
