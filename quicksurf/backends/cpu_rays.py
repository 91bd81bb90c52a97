"""The ray kernels behind nerfacc's names and packed layout; see `torch_rays` for what each computes."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from quicksurf import _native
from quicksurf.rays import Steps, pack_counts


def offsets_of(packed_info: Tensor) -> Tensor:
    """[n + 1] first samples of the rays, and the number of samples at the end."""
    return torch.cat([packed_info.new_zeros(1), packed_info.sum(1)])


def traverse_grids(
    rays_o: Tensor,
    rays_d: Tensor,
    binaries: Tensor,
    aabbs: Tensor,
    near_planes: Tensor,
    far_planes: Tensor,
    step_size: float,
    cone_angle: float = 0.0,
) -> Steps:
    """See `torch_rays.traverse_grids`."""
    geometry = (
        rays_o.contiguous(),
        rays_d.contiguous(),
        binaries,
        aabbs,
        near_planes,
        far_planes,
        step_size,
        cone_angle,
    )
    counts = torch.empty(rays_o.shape[0], dtype=torch.long)
    _native.traverse_count(*geometry, counts)
    packed_info = pack_counts(counts)
    offsets = offsets_of(packed_info)
    n_steps = int(offsets[-1])
    steps = Steps(
        torch.empty(n_steps), torch.empty(n_steps), torch.empty(n_steps, dtype=torch.long), packed_info
    )
    _native.traverse_fill(*geometry, offsets, steps.t_starts, steps.t_ends, steps.ray_indices)
    return steps


def render_weight_from_alpha(alphas: Tensor, packed_info: Tensor) -> tuple[Tensor, Tensor]:
    """See `torch_rays.render_weight_from_alpha`; differentiable in `alphas`, also at α = 1."""
    return _Weights.apply(alphas, offsets_of(packed_info))  # type: ignore[return-value]


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
) -> None:
    """See `torch_rays.adam_step`."""
    _native.adam(param, grad, first, second, learning_rate, betas[0], betas[1], epsilon, step, skip_zero)


class _Weights(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, alphas: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        alphas = alphas.detach().contiguous()
        weights, transmittance = torch.empty_like(alphas), torch.empty_like(alphas)
        _native.weights_forward(offsets, alphas, weights, transmittance)
        ctx.save_for_backward(alphas, transmittance, offsets)
        return weights, transmittance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_weights: Tensor, grad_transmittance: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        alphas, transmittance, offsets = ctx.saved_tensors
        grad_alphas = torch.empty_like(alphas)
        grads = grad_weights.contiguous(), grad_transmittance.contiguous()
        _native.weights_backward(offsets, alphas, transmittance, *grads, grad_alphas)
        return grad_alphas, None


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
