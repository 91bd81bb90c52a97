"""The UNISURF kernels; see `torch_unisurf` for what each computes."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from quicksurf import _native
from quicksurf.backends.cpu_networks import native_network
from quicksurf.backends.cpu_rays import offsets_of
from quicksurf.backends.modules import LogitNetwork
from quicksurf.backends.torch_unisurf import N_SECANT
from quicksurf.rays import Interval, Rays, Samples, Surface


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
    ts, lengths, ray_indices = torch.empty(room), torch.empty(room), torch.empty(room, dtype=torch.long)
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
        N_SECANT,
        *interval,
        jitter,
        hits,
        t_surface,
        packed_info,
        ts,
        lengths,
        ray_indices,
    )
    samples = Samples(ts[:n_samples], lengths[:n_samples], ray_indices[:n_samples], packed_info)
    return Surface(hits, t_surface, n_evaluations), samples


def render_weight_from_logits(
    logits: Tensor, packed_info: Tensor, sharpness: float, opacity: str
) -> tuple[Tensor, Tensor]:
    """See `torch_unisurf.render_weight_from_logits`; differentiable in `logits`."""
    return _LogitWeights.apply(logits, offsets_of(packed_info), sharpness, opacity == "transmittance")  # type: ignore[return-value]


class _LogitWeights(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, offsets: Tensor, sharpness: float, transmittance: bool
    ) -> tuple[Tensor, Tensor]:
        logits = logits.detach().contiguous()
        depths, alphas, weights = (torch.empty_like(logits) for _ in range(3))
        opacities = logits.new_empty(len(offsets) - 1)
        spec = sharpness, transmittance
        _native.logit_weights_forward(offsets, logits, *spec, depths, alphas, weights, opacities)
        ctx.save_for_backward(offsets, depths, alphas)
        ctx.spec = spec
        return weights, opacities

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, grad_weights: Tensor, grad_opacities: Tensor
    ) -> tuple[Tensor, None, None, None]:
        offsets, depths, alphas = ctx.saved_tensors
        grad_logits = torch.empty_like(depths)
        grads = grad_weights.contiguous(), grad_opacities.contiguous()
        _native.logit_weights_backward(offsets, depths, alphas, *ctx.spec, *grads, grad_logits)
        return grad_logits, None, None, None
