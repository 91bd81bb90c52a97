"""The native kernels behind torch's autograd: networks, sums along rays, the optimiser's step, UNISURF's operations.

`reference/` says what each computes.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from quicksurf.geometry.rays import Interval, Rays, Samples, Surface
from quicksurf.kernels import _native
from quicksurf.kernels.layout import NetworkLayout
from quicksurf.kernels.modules import MAX_SLOPE, LogitNetwork
from quicksurf.kernels.reference.unisurf import ABSORPTION, N_SECANT, SHIFT


@lru_cache(maxsize=64)
def native_network(layout: NetworkLayout) -> Any:
    """Return the kernels' description of a layout."""
    parts = [
        (
            part.kind,
            part.input_begin,
            part.n_dims,
            part.degree,
            part.n_features,
            [(level.scale, level.resolution, level.size, level.hashed) for level in part.levels],
        )
        for part in layout.parts
    ]
    return _native.Network.make(
        layout.n_input,
        parts,
        layout.width,
        layout.n_hidden_layers,
        layout.n_output if layout.n_hidden_layers else 0,
        layout.hidden_activation,
        layout.output_activation,
    )


def run_network(layout: NetworkLayout, params: Tensor, x: Tensor, n_active_levels: int) -> Tensor:
    """See `reference.networks.run_network`."""
    return _RunNetwork.apply(native_network(layout), params, x, n_active_levels)  # type: ignore[return-value]


class _RunNetwork(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, network: Any, params: Tensor, x: Tensor, n_active_levels: int) -> Tensor:
        params, x = params.detach(), x.detach()
        output = params.new_empty(network.n_output, x.shape[0])
        training = any(ctx.needs_input_grad)
        saved = params.new_empty(network.n_saved, x.shape[0]) if training else None
        network.forward(params, n_active_levels, x, output, saved)
        if training:
            ctx.network, ctx.n_active_levels = network, n_active_levels
            ctx.save_for_backward(params, x, saved)
        return output.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[None, Tensor | None, Tensor | None, None]:  # type: ignore[override]
        params, x, saved = ctx.saved_tensors
        grad_params = torch.empty_like(params) if ctx.needs_input_grad[1] else None
        grad_x = params.new_empty(x.shape[1], x.shape[0]) if ctx.needs_input_grad[2] else None
        grad_output = grad_output.T.contiguous()
        ctx.network.backward(params, ctx.n_active_levels, x, saved, grad_output, grad_params, grad_x)
        return None, grad_params, None if grad_x is None else grad_x.T, None


def _offsets_of(packed_info: Tensor) -> Tensor:
    """Return [n + 1] first samples of the rays, and the number of samples at the end."""
    return torch.cat([packed_info.new_zeros(1), packed_info.sum(1)])


def accumulate_along_rays(weights: Tensor, values: Tensor | None, packed_info: Tensor) -> Tensor:
    """See `reference.rays.accumulate_along_rays`; differentiable in `weights` and `values`."""
    return _Accumulate.apply(weights, values, _offsets_of(packed_info))  # type: ignore[return-value]


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
    """See `reference.rays.adam_step`."""
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


def sample_surface(
    surface: LogitNetwork,
    rays: Rays,
    binaries: Tensor,
    aabbs: Tensor,
    step_size: float,
    interval: Interval,
    jitter: Tensor,
) -> tuple[Surface, Samples]:
    """See `reference.unisurf.sample_surface`: one call that marches once and leaves a ray behind its interval."""
    network, n_rays = surface.network, len(rays.near)
    hits, t_surface = torch.empty(n_rays, dtype=torch.bool), torch.empty(n_rays)
    packed_info = torch.empty(n_rays, 2, dtype=torch.long)
    room = n_rays * (interval.n_interval + interval.n_front)
    ts, deltas, ray_indices = torch.empty(room), torch.empty(room), torch.empty(room, dtype=torch.long)
    n_samples, n_evaluations = _native.sample_surface(
        native_network(network.layout),
        network.params.detach(),
        network.n_active_levels,
        rays.origins.contiguous(),
        rays.directions.contiguous(),
        binaries,
        aabbs,
        rays.near,
        rays.far,
        step_size,
        surface.radius,
        surface.scale,
        MAX_SLOPE,
        N_SECANT,
        *interval,
        jitter,
        hits,
        t_surface,
        packed_info,
        ts,
        deltas,
        ray_indices,
    )
    samples = Samples(ts[:n_samples], deltas[:n_samples], ray_indices[:n_samples], packed_info)
    return Surface(hits, t_surface, n_evaluations), samples


def render_weight_from_logits(
    logits: Tensor, deltas: Tensor, packed_info: Tensor, sharpness: float, opacity: str
) -> tuple[Tensor, Tensor]:
    """See `reference.unisurf.render_weight_from_logits`; differentiable in `logits`."""
    transmittance = opacity == "transmittance"
    medium = (ABSORPTION * sharpness, SHIFT) if transmittance else (0.0, 0.0)
    return _LogitWeights.apply(  # type: ignore[return-value]
        logits, deltas, _offsets_of(packed_info), (sharpness, transmittance, *medium)
    )


class _LogitWeights(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, deltas: Tensor, offsets: Tensor, spec: tuple[float, bool, float, float]
    ) -> tuple[Tensor, Tensor]:
        logits, deltas = logits.detach().contiguous(), deltas.contiguous()
        depths, alphas, weights = (torch.empty_like(logits) for _ in range(3))
        opacities = logits.new_empty(len(offsets) - 1)
        _native.logit_weights_forward(offsets, logits, deltas, *spec, depths, alphas, weights, opacities)
        ctx.save_for_backward(offsets, deltas, depths, alphas)
        ctx.spec = spec
        return weights, opacities

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, grad_weights: Tensor, grad_opacities: Tensor
    ) -> tuple[Tensor, None, None, None]:
        offsets, deltas, depths, alphas = ctx.saved_tensors
        grad_logits = torch.empty_like(depths)
        grads = grad_weights.contiguous(), grad_opacities.contiguous()
        _native.logit_weights_backward(offsets, deltas, depths, alphas, *ctx.spec, *grads, grad_logits)  # type: ignore[call-overload]
        return grad_logits, None, None, None
