"""Sums along rays, and the optimiser's step; see `torch_rays` for what each computes.

nerfacc's own operations are served by `nerfacc_cpu`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from quicksurf.kernels import _native


def offsets_of(packed_info: Tensor) -> Tensor:
    """Return [n + 1] first samples of the rays, and the number of samples at the end."""
    return torch.cat([packed_info.new_zeros(1), packed_info.sum(1)])


def accumulate_along_rays(weights: Tensor, values: Tensor | None, packed_info: Tensor) -> Tensor:
    """See `torch_rays.accumulate_along_rays`; differentiable in `weights` and `values`."""
    return _Accumulate.apply(weights, values, offsets_of(packed_info))  # type: ignore[return-value]


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
    sound: Tensor | None = None,
) -> None:
    """See `torch_rays.adam_step`."""
    if sound is not None and not bool(sound):
        return
    _native.adam(param, grad, first, second, learning_rate, betas[0], betas[1], epsilon, step, skip_zero)


class _Accumulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, values: Tensor | None, offsets: Tensor) -> Tensor:
        weights = weights.detach().contiguous()
        values = None if values is None else values.detach().contiguous()
        out = weights.new_empty(offsets.shape[0] - 1, 1 if values is None else values.shape[1])
        _native.accumulate_forward(offsets, weights, values, out)
        ctx.save_for_backward(weights, values, offsets)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor | None, None]:  # type: ignore[override]
        weights, values, offsets = ctx.saved_tensors
        grad_weights = torch.empty_like(weights)
        grad_values = torch.empty_like(values) if values is not None and ctx.needs_input_grad[1] else None
        _native.accumulate_backward(
            offsets, weights, values, grad_out.contiguous(), grad_weights, grad_values
        )
        return grad_weights, grad_values, None
