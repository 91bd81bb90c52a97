"""The network kernels behind torch's autograd: native code for values, parameter gradients and input gradients."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from quicksurf.kernels import _native
from quicksurf.kernels.layout import NetworkLayout


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
    """See `quicksurf.kernels.reference.networks.run_network`."""
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
