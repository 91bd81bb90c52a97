"""The slow twin of the network kernels in plain torch: the specification of values and gradients.

Formulas are those of csrc/encoding.h and csrc/network.h. Works in the dtype of its parameters, on any device.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from quicksurf.kernels.layout import GridLevelLayout, NetworkLayout, PartLayout

PRIMES = (1, 2654435761, 805459861)
SOFTPLUS_SHARPNESS = 10.0  # tiny-cuda-nn's K_ACT


def run_network(
    layout: NetworkLayout, params: Float[Tensor, "p"], x: Float[Tensor, "n d"], n_active_levels: int
) -> Float[Tensor, "n c"]:
    """Evaluate the encoding and the network behind it."""
    values, table_begin = [], layout.n_network_params
    for part in layout.parts:
        table = params[table_begin : table_begin + part.n_params]
        values.append(
            encode(part, table, x[:, part.input_begin : part.input_begin + part.n_dims], n_active_levels)
        )
        table_begin += part.n_params
    hidden = torch.cat(values, -1)
    at, matrices = 0, layout.matrices()
    for index, (outputs, inputs) in enumerate(matrices):
        weights = params[at : at + outputs * inputs].view(outputs, inputs)
        at += outputs * inputs
        hidden = torch.nn.functional.pad(hidden, (0, inputs - hidden.shape[1]), value=1.0) @ weights.T
        last = index == len(matrices) - 1
        hidden = activate(layout.output_activation if last else layout.hidden_activation, hidden)
    return hidden[:, : layout.n_output]


def activate(name: str, x: Tensor) -> Tensor:
    """Return tiny-cuda-nn's activations by name."""
    if name == "ReLU":
        return torch.relu(x)
    if name == "Softplus":
        return torch.nn.functional.softplus(x, SOFTPLUS_SHARPNESS, threshold=1e9)
    return torch.sigmoid(x) if name == "Sigmoid" else x


def encode(
    part: PartLayout, table: Tensor, x: Float[Tensor, "n d"], n_active_levels: int
) -> Float[Tensor, "n r"]:
    """Return one part of an encoding; grid levels from `n_active_levels` on give zeros."""
    if part.kind == "Identity":
        return x
    if part.kind == "SphericalHarmonics":
        return spherical_harmonics(part.degree, x * 2 - 1)
    entries = table.view(-1, part.n_features)
    rows = [
        grid_level(level, entries[level.offset : level.offset + level.size], x)
        if index < n_active_levels
        else x.new_zeros(x.shape[0], part.n_features)
        for index, level in enumerate(part.levels)
    ]
    return torch.cat(rows, -1)


def grid_level(
    level: GridLevelLayout, entries: Float[Tensor, "s f"], x: Float[Tensor, "n 3"]
) -> Float[Tensor, "n f"]:
    """Interpolate trilinearly the table's entries at x · scale + 0.5; NaN counts as 0."""
    position = torch.nan_to_num(x, nan=0.0).clamp(0, 1) * level.scale + 0.5
    cell = position.detach().floor()
    frac, cell = position - cell, cell.long()
    out = x.new_zeros(x.shape[0], entries.shape[1])
    for corner in range(8):
        bits = corner >> torch.arange(3, device=x.device) & 1
        weight = torch.where(bits.bool(), frac, 1 - frac).prod(-1)
        out = out + weight[:, None] * entries[entry_index(level, cell + bits)]
    return out


def entry_index(level: GridLevelLayout, cell: Tensor) -> Tensor:
    """Index of a grid point's entry: row-major if the level is dense, Teschner's hash (32 bits) otherwise."""
    ix, iy, iz = cell.unbind(-1)
    if not level.hashed:
        return (ix + level.resolution * (iy + level.resolution * iz)) % level.size
    mask = 0xFFFFFFFF
    return ((ix * PRIMES[0]) ^ (iy * PRIMES[1] & mask) ^ (iz * PRIMES[2] & mask)) & (level.size - 1)


def spherical_harmonics(degree: int, v: Float[Tensor, "n 3"]) -> Float[Tensor, "n r"]:
    """Return real spherical harmonics of bands 0 … degree − 1 as polynomials of a unit direction."""
    x, y, z = v.unbind(-1)
    one, xx, yy, zz = torch.ones_like(x), x * x, y * y, z * z
    basis = [
        0.28209479177387814 * one,
        -0.48860251190291987 * y,
        0.48860251190291987 * z,
        -0.48860251190291987 * x,
        1.0925484305920792 * x * y,
        -1.0925484305920792 * y * z,
        0.94617469575755997 * zz - 0.31539156525251999,
        -1.0925484305920792 * x * z,
        0.54627421529603959 * (xx - yy),
        0.59004358992664352 * y * (yy - 3 * xx),
        2.8906114426405538 * x * y * z,
        0.45704579946446572 * y * (1 - 5 * zz),
        0.3731763325901154 * z * (5 * zz - 3),
        0.45704579946446572 * x * (1 - 5 * zz),
        1.4453057213202769 * z * (xx - yy),
        0.59004358992664352 * x * (3 * yy - xx),
    ]
    return torch.stack(basis[: degree * degree], -1)
