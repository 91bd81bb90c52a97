"""The networks on a CUDA GPU through Triton's kernels: no tiny-cuda-nn, no CUDA toolkit, no compiler to install.

Triton comes with torch's CUDA wheels on Linux and needs compute capability 8.0. The same kernels run on CPU tensors
under Triton's interpreter (TRITON_INTERPRET=1 before the first import): so they are checked where there is no GPU.
Encoding and network are two kernels with the encoded rows in memory between them (124 bytes a point): one kernel would
go through all levels tile by tile, and a level's table would not stay in the second-level cache.

float32 throughout; first order only.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from quicksurf.errors import ConfigError
from quicksurf.kernels.gpu import encoding as triton_encoding
from quicksurf.kernels.gpu import mlp as triton_mlp
from quicksurf.kernels.layout import GridLevelLayout, NetworkLayout, PartLayout
from quicksurf.kernels.reference import networks as torch_networks

POINTS_ALIGNMENT = 128  # columns of inner buffers: a multiple of every tile
GRID_TILE = 256  # points; two a thread of 4 warps, registers for all eight corners' loads in flight
# Three products for 21 of a factor's 24 bits: differences of a logit at 1e-3 are normals. At 128
# units their factors do not fit the registers (16 KB of spills a thread when compiled for 8.0): one product of 11 bits.
FORWARD_PRECISION = {16: "tf32x3", 32: "tf32x3", 64: "tf32x3", 128: "tf32"}
FEATURES = (1, 2, 4, 8)  # values of an entry that one load can take


def run_network(
    layout: NetworkLayout, params: Float[Tensor, "p"], x: Float[Tensor, "n d"], n_active_levels: int
) -> Float[Tensor, "n c"]:
    """See `quicksurf.kernels.reference.networks.run_network`.

    Raises:
        ConfigError: if a grid has neither 1, 2, 4 nor 8 features a level.
    """
    for part in layout.parts:
        if part.kind == "Grid" and part.n_features not in FEATURES:
            raise ConfigError(f"n_features_per_level is {part.n_features}: this back end takes 1, 2, 4 or 8")
    if torch.is_grad_enabled() and (params.requires_grad or x.requires_grad):
        return _RunNetwork.apply(layout, params, x, n_active_levels)  # type: ignore[return-value]
    return evaluate(layout, params, x, n_active_levels, keep=False).output.T


class Evaluation(NamedTuple):
    """What a forward pass leaves: rows of one value of all points, and what its gradient needs."""

    output: Float[Tensor, "c n"]
    encoded: Float[Tensor, "r m"]
    hidden: Float[Tensor, "l m w"]


class _RunNetwork(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layout: NetworkLayout, params: Tensor, x: Tensor, n_active_levels: int) -> Tensor:
        found = evaluate(layout, params.detach(), x.detach(), n_active_levels, keep=True)
        ctx.layout, ctx.n_active_levels = layout, n_active_levels
        ctx.save_for_backward(params, x, *found)
        return found.output.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[None, Tensor | None, Tensor | None, None]:  # type: ignore[override]
        params, x, *kept = ctx.saved_tensors
        _, want_params, want_x, _ = ctx.needs_input_grad
        layout, found = ctx.layout, Evaluation(*kept)
        grad_params = torch.zeros_like(params) if want_params else None
        grad_encoded = grad_output.T.contiguous()
        if layout.n_hidden_layers:
            grad_encoded = _network_backward(layout, params, found, grad_output, grad_params, want_x)
        grad_x = x.new_zeros(x.shape[1], x.shape[0]) if want_x else None
        encode_backward(layout, params, x, ctx.n_active_levels, grad_encoded, grad_params, grad_x)
        return None, grad_params, None if grad_x is None else grad_x.T, None


def evaluate(
    layout: NetworkLayout, params: Tensor, x: Float[Tensor, "n d"], n_active_levels: int, *, keep: bool
) -> Evaluation:
    """Run the forward pass; `keep` holds hidden activations for the gradient."""
    n, width, n_hidden = x.shape[0], layout.width, layout.n_hidden_layers
    if not n_hidden:
        encoded = params.new_empty(layout.n_encoded, n)
        encode(layout, params, x, n_active_levels, encoded)
        return Evaluation(encoded, encoded, params.new_empty(0, n, 0))
    pitch = -(-n // POINTS_ALIGNMENT) * POINTS_ALIGNMENT
    encoded = params.new_empty(layout.matrices()[0][1], pitch)
    encode(layout, params, x, n_active_levels, encoded)
    output = params.new_empty(layout.n_output, n)
    hidden = params.new_empty(n_hidden if keep else 0, pitch, width)
    constants = launch_constants(layout)
    precision = FORWARD_PRECISION[width]
    with torch.cuda.device_of(params):
        triton_mlp.network_forward[(pitch // constants["TILE"],)](
            params, encoded, hidden, output, n, pitch, **constants, KEEP=keep, PRECISION=precision
        )
    return Evaluation(output, encoded, hidden)


def launch_constants(layout: NetworkLayout) -> dict[str, Any]:
    """Return constants of both network kernels, and warps: a thread has 32 accumulators at most.

    Twice as many points fill a thread's 255 registers and leave 8 warps to a multiprocessor (compiled for 9.0).
    """
    return {
        "N_INPUT": layout.matrices()[0][1],
        "WIDTH": layout.width,
        "N_HIDDEN": layout.n_hidden_layers,
        "N_OUTPUT": layout.n_output,
        "ACTIVATION": layout.hidden_activation,
        "OUTPUT_ACTIVATION": layout.output_activation,
        "TILE": 128 if layout.width <= 32 else 64,
        "num_warps": 8 if layout.width == 128 else 4,
    }


def encode(
    layout: NetworkLayout, params: Tensor, x: Tensor, n_active_levels: int, encoded: Float[Tensor, "r m"]
) -> None:
    """Write the encoding's rows; rows behind them are ones, and every column that stands for no point is finite."""
    n, row, table_begin = x.shape[0], 0, layout.n_network_params
    encoded[layout.n_encoded :] = 1.0
    for part in layout.parts:
        rows = encoded[row : row + part.n_rows]
        inputs = x[:, part.input_begin : part.input_begin + part.n_dims]
        if part.kind == "Grid":
            n_active = min(n_active_levels, len(part.levels))
            rows[n_active * part.n_features :] = 0.0
            table = params[table_begin : table_begin + part.n_params]
            _launch(triton_encoding.encode_grid_forward, part, n_active, (table,), inputs, rows)
        else:
            rows[:, :n] = torch_networks.encode(part, params, inputs, n_active_levels).T
            rows[:, n:] = 0.0
        row, table_begin = row + part.n_rows, table_begin + part.n_params


def encode_backward(
    layout: NetworkLayout,
    params: Tensor,
    x: Tensor,
    n_active_levels: int,
    grad_encoded: Float[Tensor, "r m"],
    grad_params: Tensor | None,
    grad_x: Float[Tensor, "d n"] | None,
) -> None:
    """Add to the gradients of the tables and of the points, those that are wanted."""
    row, table_begin = 0, layout.n_network_params
    for part in layout.parts:
        grads = grad_encoded[row : row + part.n_rows]
        dims = slice(part.input_begin, part.input_begin + part.n_dims)
        span = slice(table_begin, table_begin + part.n_params)
        if part.kind == "Grid":
            n_active = min(n_active_levels, len(part.levels))
            if grad_params is not None:
                _launch(
                    triton_encoding.encode_grid_backward,
                    part,
                    n_active,
                    (grad_params[span],),
                    x[:, dims],
                    grads,
                )
            if grad_x is not None:
                wanted = (grad_x[dims], params[span])
                _launch(triton_encoding.encode_grid_backward_input, part, n_active, wanted, x[:, dims], grads)
        elif grad_x is not None:
            grad_x[dims] += _pointwise_backward(part, x[:, dims], grads[:, : x.shape[0]])
        row, table_begin = row + part.n_rows, table_begin + part.n_params


def _pointwise_backward(part: PartLayout, x: Tensor, grads: Tensor) -> Tensor:
    """Of the identity and spherical harmonics, through the twin: no part of the model learns from the latter."""
    if part.kind == "Identity":
        return grads
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        rows = torch_networks.encode(part, x.new_empty(0), x, 0).T
    return torch.autograd.grad(rows, x, grads)[0].T


def _launch(
    kernel: Any, part: PartLayout, n_active: int, tables: tuple[Tensor, ...], x: Tensor, rows: Tensor
) -> None:
    """Run a grid kernel on the tiles of all active levels."""
    levels, scales = _level_tensors(part.levels, x.device)
    n, pitch = x.shape[0], rows.shape[1]
    grid = (-(-pitch // GRID_TILE), n_active)
    with torch.cuda.device_of(x):
        kernel[grid](*tables, x, rows, levels, scales, n, pitch, *x.stride(), part.n_features, GRID_TILE)


@lru_cache(maxsize=64)
def _level_tensors(levels: tuple[GridLevelLayout, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """What the kernels read of each level: (resolution, size, hashed, offset) and the scale."""
    fields = [[level.resolution, level.size, int(level.hashed), level.offset] for level in levels]
    scales = [level.scale for level in levels]
    return torch.tensor(fields, device=device), torch.tensor(scales, dtype=torch.float32, device=device)


def _network_backward(
    layout: NetworkLayout,
    params: Tensor,
    found: Evaluation,
    grad_output: Float[Tensor, "n c"],
    grad_params: Tensor | None,
    want_x: bool,
) -> Float[Tensor, "r m"]:
    """Gradient by the encoded rows; the weights' part of `grad_params` is overwritten."""
    n, pitch, constants = grad_output.shape[0], found.encoded.shape[1], launch_constants(layout)
    hidden_deltas = torch.empty_like(found.hidden)
    output_deltas = params.new_empty(pitch, layout.matrices()[-1][0])
    want_encoded = want_x or any(part.n_params for part in layout.parts)
    grad_encoded = torch.empty_like(found.encoded)
    outer = (found.hidden, found.output, grad_output, hidden_deltas, output_deltas, grad_encoded)
    with torch.cuda.device_of(params):
        triton_mlp.network_backward[(pitch // constants["TILE"],)](
            params, *outer, n, pitch, *grad_output.stride(), **constants, WANT_ENCODED=want_encoded
        )
    if grad_params is not None:
        inputs = [found.encoded.T, *found.hidden]
        at = 0
        for delta, values in zip([*hidden_deltas, output_deltas], inputs, strict=True):
            size = delta.shape[1] * values.shape[1]
            torch.mm(delta.T, values, out=grad_params[at : at + size].view(delta.shape[1], -1))
            at += size
    return grad_encoded
