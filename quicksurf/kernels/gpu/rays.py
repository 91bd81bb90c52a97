"""Sums along rays, and the optimiser's step as one Triton kernel.

As operations of torch a step takes 14 launches for a group and passes over its values as often; a fit has six groups.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Bool
from torch import Tensor

from quicksurf.kernels.gpu.search import accumulate_along_rays

__all__ = ["accumulate_along_rays", "adam_step"]
ADAM_TILE = 1024  # values


def adam_step(
    param: Tensor,
    grad: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float,
    step: int,
    skip_zero: bool,
    sound: Bool[Tensor, ""] | None = None,
) -> None:
    """See `reference.rays.adam_step`, of contiguous tensors; the truth of `sound` is read on the device alone."""
    rate = learning_rate / (1 - betas[0] ** step)
    root = (1 - betas[1] ** step) ** 0.5
    sound = grad.new_ones((), dtype=torch.bool) if sound is None else sound
    truth = sound.view(torch.uint8)
    with torch.cuda.device_of(param):
        adam[(-(-len(param) // ADAM_TILE),)](
            param, grad, first, second, truth, rate, root, *betas, epsilon, len(param), skip_zero, ADAM_TILE
        )


@triton.jit
@no_type_check
def adam(
    param,
    grad,
    first,
    second,
    sound,
    rate,
    root,
    beta_first,
    beta_second,
    epsilon,
    n,
    SKIP_ZERO: tl.constexpr,
    TILE: tl.constexpr,
):
    """Move one tile of values and their moments; what does not move is neither read nor written."""
    if tl.load(sound) != 0:
        at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
        moves = at < n
        slope = tl.load(grad + at, mask=moves, other=0.0)
        if SKIP_ZERO:
            moves = moves & (slope != 0)
        mean = tl.load(first + at, mask=moves, other=0.0)
        square = tl.load(second + at, mask=moves, other=0.0)
        mean = beta_first * mean + (1 - beta_first) * slope
        square = beta_second * square + (1 - beta_second) * slope * slope
        value = tl.load(param + at, mask=moves, other=0.0)
        value -= rate * mean / (tl.sqrt(square) / root + epsilon)
        tl.store(first + at, mean, mask=moves)
        tl.store(second + at, square, mask=moves)
        tl.store(param + at, value, mask=moves)
