"""How a `NetworkLayout` is described to tiny-cuda-nn, and where its parameters lie there.

Facts, from tiny-cuda-nn's network_with_input_encoding.h, composite.h, identity.h, spherical_harmonics.h and grid.h:
weights come first, then the tables of the encoding's parts in their order; matrices are row-major with both sides
padded to multiples of 16. Parts of a composite lie one behind the other; before a grid they are padded to a multiple of
its features per level, and the last one until the whole is a multiple of 16. Identity pads behind its values with ones,
spherical harmonics in front with ones, grids behind with zeros. Values are stored by feature, which grids are faster
with, if a grid is the first part.

So tables and matrices are those of `layout.py` but for the columns of the first matrix: there the encoded values lie in
the order of the parts, with ones behind. This module imports no tinycudann and computes nothing on a device.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from quicksurf.kernels.layout import NetworkLayout, PartLayout

_ALIGNMENT = 16  # of FullyFusedMLP
_ONE, _ZERO = -1, -2  # columns that hold no value of ours
_RANK = {"Grid": 0, "SphericalHarmonics": 1, "Identity": 2}  # so that what pads is ones wherever possible


class TinycudannNetwork(NamedTuple):
    """A network in tiny-cuda-nn's words, with some of the grids' levels."""

    encoding: dict[str, Any]
    network: dict[str, Any] | None
    """None for an encoding alone."""
    inputs: tuple[int, ...]
    """Our input that each of its inputs is; `n_input` stands for the constant 1."""
    n_grid_inputs: int
    """Inputs of grids; they come first."""
    columns: tuple[int, ...]
    """Our encoded value that each of its encoded values is, or `_ONE` or `_ZERO`."""
    splits: tuple[tuple[int, bool], ...]
    """Our parameters behind the first matrix: sizes of stretches, and whether it has them."""

    def values(self) -> tuple[list[int], list[int]]:
        """Return our encoded values that it computes, and where."""
        pairs = [(ours, theirs) for theirs, ours in enumerate(self.columns) if ours >= 0]
        return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]

    def selection(self, layout: NetworkLayout) -> Float[Tensor, "ours theirs"]:
        """Return s with W_theirs = W_ours S for the first matrix: all our columns of ones share its first one."""
        matrix = torch.zeros(layout.matrices()[0][1], len(self.columns))
        matrix[self.values()] = 1
        if len(matrix) > layout.n_encoded:
            matrix[layout.n_encoded :, self.columns.index(_ONE)] = 1
        return matrix


class _Placed(NamedTuple):
    part: PartLayout
    row: int
    """First of its encoded values."""
    n_levels: int
    """Active levels of a grid."""


def tinycudann_network(layout: NetworkLayout, n_active_levels: int) -> TinycudannNetwork:
    """Return the network that gives `layout`'s output with the first `n_active_levels` of its grids' levels.

    The binding cannot mask levels. The features of inactive ones are zero, and so are the gradients of their entries
    and of their columns: a smaller network without them has the same output, and costs less.
    """
    parts = _parts(layout, n_active_levels)
    nested = [_config(placed) for placed in parts]
    inputs = [i for p in parts for i in range(p.part.input_begin, p.part.input_begin + p.part.n_dims)]
    columns: list[int] = []
    for placed in parts:
        grid = placed.part.kind == "Grid"
        n_rows = placed.n_levels * placed.part.n_features if grid else placed.part.n_rows
        columns += [_ZERO] * (-len(columns) % placed.part.n_features if grid else 0)
        columns += range(placed.row, placed.row + n_rows)
    if layout.n_hidden_layers:
        last = parts[-1].part if parts else None
        if last is None or (last.kind == "Grid" and layout.n_encoded % _ALIGNMENT):
            nested.append({"otype": "Identity", "n_dims_to_encode": 1})
            inputs.append(layout.n_input)
            columns.append(_ONE)
            last = None
        columns = _padded(columns, last)
    return TinycudannNetwork(
        {"otype": "Composite", "nested": nested},
        _network(layout) if layout.n_hidden_layers else None,
        tuple(inputs),
        sum(placed.part.n_dims for placed in parts if placed.part.kind == "Grid"),
        tuple(columns),
        _splits(layout, n_active_levels),
    )


def _parts(layout: NetworkLayout, n_active_levels: int) -> list[_Placed]:
    """Parts in tiny-cuda-nn's order; a grid without active levels is left out."""
    row, placed = 0, []
    for part in layout.parts:
        placed.append(_Placed(part, row, min(n_active_levels, len(part.levels))))
        row += part.n_rows
    present = [p for p in placed if p.part.kind != "Grid" or p.n_levels]
    return sorted(present, key=lambda p: _RANK[p.part.kind])


def _padded(columns: list[int], last: PartLayout | None) -> list[int]:
    """Columns with the padding of the last part; None is the constant 1."""
    n = -len(columns) % _ALIGNMENT
    if last is not None and last.kind == "SphericalHarmonics":
        return [*columns[: -last.n_rows], *[_ONE] * n, *columns[-last.n_rows :]]
    return columns + [_ZERO if last is not None and last.kind == "Grid" else _ONE] * n


def _splits(layout: NetworkLayout, n_active_levels: int) -> tuple[tuple[int, bool], ...]:
    first = math.prod(layout.matrices()[0]) if layout.n_hidden_layers else 0
    splits = [(layout.n_network_params - first, True)]
    for part in layout.parts:
        n_active = part.n_features * sum(level.size for level in part.levels[:n_active_levels])
        splits += [(n_active, True), (part.n_params - n_active, False)]
    return tuple(splits)


def _config(placed: _Placed) -> dict[str, Any]:
    part = placed.part
    config: dict[str, Any] = {"otype": part.kind, "n_dims_to_encode": part.n_dims}
    if part.kind == "SphericalHarmonics":
        return config | {"degree": part.degree}
    if part.kind == "Identity":
        return config
    first, second = part.levels[0], part.levels[min(1, len(part.levels) - 1)]
    hashed = [level.size for level in part.levels if level.hashed]
    return config | {
        "otype": "HashGrid" if hashed else "DenseGrid",
        "n_levels": placed.n_levels,
        "n_features_per_level": part.n_features,
        "log2_hashmap_size": int(math.log2(hashed[0])) if hashed else 28,
        "base_resolution": round(first.scale + 1),
        "per_level_scale": (second.scale + 1) / (first.scale + 1),
    }


def _network(layout: NetworkLayout) -> dict[str, Any]:
    return {
        "otype": "FullyFusedMLP",
        "activation": layout.hidden_activation,
        "output_activation": layout.output_activation,
        "n_neurons": layout.width,
        "n_hidden_layers": layout.n_hidden_layers,
    }
