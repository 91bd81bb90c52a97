"""Weights of samples from their logits as two Triton kernels, forward and backward.

A thread takes a ray and goes through its samples, forwards for the weights, backwards for the gradient:

    g_i = min(max(0, s_i − s_{i−1}) + a κ δ_i s_i, −ln(1 − MAX_ALPHA)),   s_i = softplus(κ l_i − b)
    w_i = (1 − e^(−g_i)) T_i,   T_i = e^(−Σ_{j<i} g_j)
    dL/dg_i = G_i e^(−g_i) T_i − Σ_{j>i} G_j w_j,   G_i = dL/dw_i + dL/d(Σ w)

The specification is `reference.unisurf.render_weight_from_logits`. Samples of negative delta weigh nothing, and the one
behind them counts as the first of its ray.
"""

import math
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from quicksurf.kernels.reference.unisurf import ABSORPTION, MAX_ALPHA, SHIFT

TILE, WARPS = 64, 2  # rays, a thread each
_ABSORPTION, _SHIFT = tl.constexpr(ABSORPTION), tl.constexpr(SHIFT)
_MOST = tl.constexpr(-math.log(1 - MAX_ALPHA))


def render_weight_from_logits(
    logits: Float[Tensor, "m"],
    deltas: Float[Tensor, "m"],
    packed_info: Int[Tensor, "n 2"],
    sharpness: float,
    opacity: str,
) -> tuple[Float[Tensor, "m"], Float[Tensor, "n"]]:
    """See `reference.unisurf.render_weight_from_logits`; differentiable in `logits`."""
    return _Weights.apply(logits, deltas, packed_info, sharpness, opacity == "occupancy")  # type: ignore[return-value]


class _Weights(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, deltas: Tensor, packed_info: Tensor, sharpness: float, paper: bool
    ) -> tuple[Tensor, Tensor]:
        known = logits.detach().contiguous(), deltas.contiguous(), packed_info.contiguous()
        weights, opacities = torch.empty_like(known[0]), logits.new_empty(len(packed_info))
        _launch(weights_forward, known, (weights, opacities), sharpness, paper)
        ctx.save_for_backward(*known)
        ctx.options = sharpness, paper
        return weights, opacities

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_weights: Tensor, grad_opacities: Tensor
    ) -> tuple[Tensor, None, None, None, None]:  # type: ignore[override]
        known = ctx.saved_tensors
        grad = torch.empty_like(known[0])
        given = grad_weights.contiguous(), grad_opacities.contiguous()
        _launch(weights_backward, known, (*given, grad), *ctx.options)
        return grad, None, None, None, None


def _launch(
    kernel: Any, known: tuple[Tensor, ...], others: tuple[Tensor, ...], sharpness: float, paper: bool
) -> None:
    n = len(known[2])
    with torch.cuda.device_of(known[0]):
        kernel[(-(-n // TILE),)](*known, *others, sharpness, n, paper, TILE, num_warps=WARPS)


@triton.jit
@no_type_check
def weights_forward(
    logits, deltas, packed_info, weights, opacities, sharpness, n, PAPER: tl.constexpr, TILE: tl.constexpr
):
    """Compute weights of a tile's rays, and their sums."""
    ray = tl.program_id(0) * TILE + tl.arange(0, TILE)
    begin = tl.load(packed_info + 2 * ray, mask=ray < n, other=0)
    count = tl.load(packed_info + 2 * ray + 1, mask=ray < n, other=0)
    zeros = tl.zeros([TILE], tl.float32)
    before, passed, total = zeros, zeros, zeros
    for i in range(tl.max(count, 0)):
        here = i < count
        depth, delta, _ = load_depth(logits, deltas, begin + i, here, sharpness, PAPER)
        gained = capped(gain(depth, before, delta, sharpness, PAPER))
        weight = (1 - tl.exp(-gained)) * tl.exp(-passed)
        tl.store(weights + begin + i, weight, mask=here)
        total += tl.where(here, weight, 0.0)
        passed += tl.where(here, gained, 0.0)
        before = depth
    tl.store(opacities + ray, total, mask=ray < n)


@triton.jit
@no_type_check
def weights_backward(
    logits,
    deltas,
    packed_info,
    grad_weights,
    grad_opacities,
    grad_logits,
    sharpness,
    n,
    PAPER: tl.constexpr,
    TILE: tl.constexpr,
):
    """Write the gradients by the logits of a tile's rays."""
    ray = tl.program_id(0) * TILE + tl.arange(0, TILE)
    begin = tl.load(packed_info + 2 * ray, mask=ray < n, other=0)
    count = tl.load(packed_info + 2 * ray + 1, mask=ray < n, other=0)
    grad_sum = tl.load(grad_opacities + ray, mask=ray < n, other=0.0)
    zeros = tl.zeros([TILE], tl.float32)
    before, passed, behind, rise = zeros, zeros, zeros, zeros
    n_most = tl.max(count, 0)
    for i in range(n_most):
        here = i < count
        depth, delta, _ = load_depth(logits, deltas, begin + i, here, sharpness, PAPER)
        gained = capped(gain(depth, before, delta, sharpness, PAPER))
        passed += tl.where(here, gained, 0.0)
        before = depth
    for j in range(n_most):
        at = count - 1 - j
        here = at >= 0
        depth, delta, slope = load_depth(logits, deltas, begin + at, here, sharpness, PAPER)
        before, _, _ = load_depth(logits, deltas, begin + at - 1, at > 0, sharpness, PAPER)
        uncut = gain(depth, before, delta, sharpness, PAPER)
        gained = capped(uncut)
        passed -= tl.where(here, gained, 0.0)
        clear = tl.exp(-passed)
        grad = tl.load(grad_weights + begin + at, mask=here, other=0.0) + grad_sum
        grad_gained = tl.where(uncut <= _MOST, grad * tl.exp(-gained) * clear - behind, 0.0)
        behind += tl.where(here, grad * (1 - tl.exp(-gained)) * clear, 0.0)
        if PAPER:
            grad_depth = grad_gained
        else:
            own = tl.where(depth > before, grad_gained, 0.0)
            grad_depth = own - rise + _ABSORPTION * sharpness * delta * grad_gained
            rise = own
        tl.store(grad_logits + begin + at, grad_depth * slope, mask=here)


@triton.jit
@no_type_check
def load_depth(logits, deltas, at, mask, sharpness, PAPER: tl.constexpr):
    """Return s of a sample, its delta, and ds/dl; zeros where it stands for nothing."""
    delta = tl.load(deltas + at, mask=mask, other=-1.0)
    x = sharpness * tl.load(logits + at, mask=mask, other=0.0)
    if not PAPER:
        x -= _SHIFT
    decay = tl.exp(-tl.abs(x))
    depth = tl.maximum(x, 0.0) + tl.log(1 + decay)
    slope = sharpness * tl.where(x > 0, 1.0, decay) / (1 + decay)
    stands = delta >= 0
    return (tl.where(stands, depth, 0.0), tl.where(stands, delta, 0.0), tl.where(stands, slope, 0.0))


@triton.jit
@no_type_check
def gain(depth, before, delta, sharpness, PAPER: tl.constexpr):
    """Return g of a sample, before it is capped."""
    if PAPER:
        gained = depth
    else:
        gained = tl.maximum(depth - before, 0.0) + _ABSORPTION * sharpness * delta * depth
    return gained


@triton.jit
@no_type_check
def capped(gained):
    """Cap an optical depth at that of MAX_ALPHA; what is no number stays none."""
    return tl.where(gained > _MOST, _MOST, gained)
