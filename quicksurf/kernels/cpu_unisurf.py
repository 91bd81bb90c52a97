"""The UNISURF kernels; see `torch_unisurf` for what each computes."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from quicksurf.geometry.rays import Interval, Rays, Samples, Surface
from quicksurf.kernels import _native
from quicksurf.kernels.cpu_networks import native_network
from quicksurf.kernels.cpu_rays import offsets_of
from quicksurf.kernels.modules import MAX_SLOPE, LogitNetwork
from quicksurf.kernels.reference.unisurf import ABSORPTION, N_SECANT, SHIFT


def sample_surface(
    surface: LogitNetwork,
    rays: Rays,
    binaries: Tensor,
    aabbs: Tensor,
    step_size: float,
    interval: Interval,
    jitter: Tensor,
) -> tuple[Surface, Samples]:
    """See `torch_unisurf.sample_surface`: one call that marches once and leaves a ray behind its interval."""
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
    """See `torch_unisurf.render_weight_from_logits`; differentiable in `logits`."""
    transmittance = opacity == "transmittance"
    medium = (ABSORPTION * sharpness, SHIFT) if transmittance else (0.0, 0.0)
    return _LogitWeights.apply(  # type: ignore[return-value]
        logits, deltas, offsets_of(packed_info), (sharpness, transmittance, *medium)
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
