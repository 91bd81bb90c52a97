"""tiny-cuda-nn behind the seam: the only file that imports tinycudann, and it is imported on machines that have it.

Parameters stay flat float32 in `layout.py`'s order, so that checkpoints and moments are those of the other back ends;
each call hands tiny-cuda-nn a copy in its own order and precision. Its binding's rules: inputs contiguous float32 in
batches of a multiple of 256, parameters and gradients in half precision, gradients scaled.
"""

from functools import lru_cache
from typing import Any

import tinycudann  # pyright: ignore[reportMissingImports]
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from quicksurf.errors import BackendError
from quicksurf.kernels.gpu.tinycudann_layout import TinycudannNetwork, tinycudann_network
from quicksurf.kernels.layout import NetworkLayout

_BATCH = 256  # tiny-cuda-nn's BATCH_SIZE_GRANULARITY since version 2; 128 before
# Σ |scaled gradient| of an output: 1/64 of what half holds, 2^24 times its smallest number
_GRADIENT_SUM = 1024.0


def run_network(
    layout: NetworkLayout, params: Float[Tensor, "p"], x: Float[Tensor, "n d"], n_active_levels: int
) -> Float[Tensor, "n c"]:
    """See `quicksurf.kernels.reference.networks.run_network`; in half precision where there is a network.

    Raises:
        BackendError: if tiny-cuda-nn was built with another layout of parameters.
    """
    n_levels = max((len(part.levels) for part in layout.parts), default=0)
    native = _native(layout, min(max(n_active_levels, 0), n_levels), params.device)
    if layout.n_hidden_layers:
        return native(params, x)[:, : layout.n_output]
    encoded = x.new_zeros(len(x), layout.n_encoded)
    if native.words.columns:
        encoded = encoded.index_copy(1, native.ours, native(params, x)[:, native.words.values()[1]])
    return encoded


class _Native:
    """One network of tiny-cuda-nn; its own parameters are not kept."""

    def __init__(self, layout: NetworkLayout, words: TinycudannNetwork, device: torch.device) -> None:
        self.words, self._layout, self._selection = words, layout, None
        self.ours = torch.tensor(words.values()[0], dtype=torch.long, device=device)
        n_input = len(words.inputs)
        if not words.columns:
            return
        if words.network is None:
            module = tinycudann.Encoding(n_input, words.encoding, dtype=torch.float32)
        else:
            module = tinycudann.NetworkWithInputEncoding(
                n_input, layout.n_output, words.encoding, words.network
            )
        self.dtype, self.native = module.dtype, module.native_tcnn_module
        expected = sum(size for size, kept in words.splits if kept)
        if words.network is not None:
            self._selection = words.selection(layout).to(device)
            expected += layout.width * len(words.columns)
        if (found := module.params.numel()) != expected:
            raise BackendError(
                f"tinycudann has {found} parameters where {expected} are expected: it was built without half precision "
                "(GPUs before Turing), or is of another version; use --device cpu, or install tiny-cuda-nn again"
            )

    def __call__(self, params: Float[Tensor, "p"], x: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Outputs, padded as tiny-cuda-nn pads them; differentiable in both."""
        return _Run.apply(self, self._their_params(params), self._their_inputs(x))  # type: ignore[return-value]

    def _their_params(self, params: Float[Tensor, "p"]) -> Float[Tensor, "q"]:
        sizes = [size for size, _ in self.words.splits]
        first, *rest = params.split([len(params) - sum(sizes), *sizes])
        kept = [part for part, (_, kept) in zip(rest, self.words.splits, strict=True) if kept]
        if self._selection is None:
            return torch.cat(kept)
        return torch.cat([(first.view(self._layout.width, -1) @ self._selection).view(-1), *kept])

    def _their_inputs(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n i"]:
        """Inputs in its order, those of grids in [0, 1]: outside, tiny-cuda-nn wraps around instead of clamping."""
        columns = *x.unbind(1), torch.ones_like(x[:, 0])
        chosen = [columns[i] for i in self.words.inputs]
        n_grid = self.words.n_grid_inputs
        grid = [torch.nan_to_num(column, nan=0.0).clamp(0, 1) for column in chosen[:n_grid]]
        return torch.stack([*grid, *chosen[n_grid:]], 1)


@lru_cache(maxsize=256)
def _native(layout: NetworkLayout, n_active_levels: int, device: torch.device) -> _Native:
    return _Native(layout, tinycudann_network(layout, n_active_levels), device)


class _Run(torch.autograd.Function):
    """tiny-cuda-nn's forward and backward: what its own autograd function does, but with gradients scaled to fit.

    The binding multiplies all gradients by 128 and divides those of parameters in half precision, where what is below
    6e-8 vanishes: gradients of means over thousands of rays do, and Adam with its tiny ε would miss them. Here the
    scale is 1024 over the largest sum of absolute gradients of an output, found on the device, and divided out in
    float32.
    """

    @staticmethod
    def forward(ctx: Any, module: _Native, params: Tensor, x: Tensor) -> Tensor:
        n_output = module.native.n_output_dims()
        if len(x) == 0:
            ctx.saved = None
            ctx.shapes = params, x
            return x.new_zeros(0, n_output)
        padded = torch.nn.functional.pad(x.detach(), (0, 0, 0, -len(x) % _BATCH)).contiguous()
        padded.requires_grad_(ctx.needs_input_grad[2])
        theirs = params.detach().to(module.dtype, copy=True).requires_grad_(ctx.needs_input_grad[1])
        context, output = module.native.fwd(padded, theirs)
        ctx.module, ctx.n = module, len(x)
        ctx.saved = context, padded, theirs, output
        return output[: len(x)].to(torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[None, Tensor | None, Tensor | None]:  # type: ignore[override]
        if ctx.saved is None:
            params, x = ctx.shapes
            return None, torch.zeros_like(params), torch.zeros_like(x)
        context, padded, theirs, output = ctx.saved
        scale = _GRADIENT_SUM / grad_output.abs().sum(0).amax().clamp_min(1e-30)
        scaled = torch.nn.functional.pad(grad_output * scale, (0, 0, 0, len(padded) - ctx.n))
        grad_x, grad_params = ctx.module.native.bwd(
            context, padded, theirs, output, scaled.to(output.dtype).contiguous()
        )
        return (
            None,
            _unscaled(grad_params, scale),
            _unscaled(None if grad_x is None else grad_x[: ctx.n], scale),
        )


def _unscaled(grad: Tensor | None, scale: Float[Tensor, ""]) -> Tensor | None:
    """In float32; what overflowed half is left out, as a gradient scaler leaves out such a step."""
    return None if grad is None else torch.nan_to_num(grad.float() / scale, nan=0.0, posinf=0.0, neginf=0.0)
