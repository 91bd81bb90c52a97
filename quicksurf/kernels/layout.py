"""tiny-cuda-nn's JSON vocabulary turned into a layout that every back end understands.

Sources: tiny-cuda-nn's DOCUMENTATION.md for names and defaults; Müller et al. 2022, section 3, for the grid. A grid
level l has scale s_l = base_resolution · per_level_scale^l − 1, ceil(s_l) + 1 points along an axis, and a table of
min(points³ rounded up to 8, 2^log2_hashmap_size) entries: dense if all points fit, hashed otherwise. This module
allocates nothing and computes no values.
"""

import itertools
import math
from typing import Any, NamedTuple

from quicksurf.errors import ConfigError


class GridLevelLayout(NamedTuple):
    """One level of a grid; `offset` counts entries from the start of the grid's table."""

    scale: float
    resolution: int
    size: int
    hashed: bool
    offset: int


class PartLayout(NamedTuple):
    """One part of a (composite) encoding: inputs `input_begin : input_begin + n_dims` give `n_rows` outputs."""

    kind: str
    input_begin: int
    n_dims: int
    n_rows: int
    degree: int = 0
    n_features: int = 0
    levels: tuple[GridLevelLayout, ...] = ()

    @property
    def n_params(self) -> int:
        """Values in the tables of a grid, else 0."""
        return self.n_features * sum(level.size for level in self.levels)


class NetworkLayout(NamedTuple):
    """An encoding and, unless `n_hidden_layers` is 0, the network behind it."""

    n_input: int
    parts: tuple[PartLayout, ...]
    width: int
    n_hidden_layers: int
    n_output: int
    hidden_activation: str
    output_activation: str

    @property
    def n_encoded(self) -> int:
        """Outputs of the encoding, before padding."""
        return sum(part.n_rows for part in self.parts)

    def matrices(self) -> list[tuple[int, int]]:
        """Return shapes (outputs, inputs) of the weight matrices, padded to multiples of 16 as tiny-cuda-nn does."""
        if self.n_hidden_layers == 0:
            return []
        widths = [_padded(self.n_encoded)] + [self.width] * self.n_hidden_layers + [_padded(self.n_output)]
        return [(outputs, inputs) for inputs, outputs in itertools.pairwise(widths)]

    @property
    def n_network_params(self) -> int:
        """Weights of the network; they come before the tables."""
        return sum(outputs * inputs for outputs, inputs in self.matrices())

    @property
    def n_params(self) -> int:
        """All trainable values."""
        return self.n_network_params + sum(part.n_params for part in self.parts)


def encoding_layout(n_input: int, encoding: dict[str, Any]) -> NetworkLayout:
    """Return the layout of an encoding alone.

    Raises:
        ConfigError: for an unknown `otype` or key, or a value out of range.
    """
    parts = _parts(encoding, 0, n_input)
    return NetworkLayout(n_input, parts, 0, 0, sum(part.n_rows for part in parts), "None", "None")


def network_layout(
    n_input: int, n_output: int, encoding: dict[str, Any], network: dict[str, Any]
) -> NetworkLayout:
    """Return the layout of an encoding followed by a fully fused network.

    Raises:
        ConfigError: for an unknown `otype` or key, or a value out of range.
    """
    defaults = {"activation": "ReLU", "output_activation": "None", "n_neurons": 64, "n_hidden_layers": 2}
    options = _options(network, defaults, ("FullyFusedMLP", "CutlassMLP"))
    for key in ("activation", "output_activation"):
        if options[key] not in ("ReLU", "Softplus", "Sigmoid", "None"):
            raise ConfigError(f"{key} '{options[key]}' is unknown: choose ReLU, Softplus, Sigmoid or None")
    if options["n_neurons"] not in (16, 32, 64, 128):
        raise ConfigError(f"n_neurons is {options['n_neurons']}, expected 16, 32, 64 or 128")
    if not 1 <= options["n_hidden_layers"] <= 8:
        raise ConfigError(f"n_hidden_layers is {options['n_hidden_layers']}, expected 1 to 8")
    return NetworkLayout(
        n_input,
        _parts(encoding, 0, n_input),
        options["n_neurons"],
        options["n_hidden_layers"],
        n_output,
        options["activation"],
        options["output_activation"],
    )


def _padded(n: int) -> int:
    return (n + 15) // 16 * 16


def _options(config: dict[str, Any], defaults: dict[str, Any], types: tuple[str, ...]) -> dict[str, Any]:
    unknown = set(config) - set(defaults) - {"otype", "n_dims_to_encode"}
    if config.get("otype", types[0]) not in types:
        raise ConfigError(f"otype '{config.get('otype')}' is unknown here: choose {' or '.join(types)}")
    if unknown:
        raise ConfigError(
            f"{types[0]} has no option '{min(unknown)}': it takes {', '.join(sorted(defaults))}"
        )
    return {**defaults, **{key: value for key, value in config.items() if key in defaults}}


def _parts(config: dict[str, Any], begin: int, n_dims: int) -> tuple[PartLayout, ...]:
    kind = config.get("otype", "Identity")
    if kind == "Composite":
        return _composite(config, begin, n_dims)
    if kind == "Identity":
        _options(config, {}, ("Identity",))
        return (PartLayout("Identity", begin, n_dims, n_dims),)
    if n_dims != 3:
        raise ConfigError(f"{kind} encodes 3 dimensions, found {n_dims}")
    if kind == "SphericalHarmonics":
        degree = _options(config, {"degree": 4}, ("SphericalHarmonics",))["degree"]
        if not 1 <= degree <= 4:
            raise ConfigError(f"SphericalHarmonics: degree is {degree}, expected 1 to 4")
        return (PartLayout("SphericalHarmonics", begin, 3, degree * degree, degree=degree),)
    return (_grid(config, begin),)


def _composite(config: dict[str, Any], begin: int, n_dims: int) -> tuple[PartLayout, ...]:
    nested = config.get("nested", [])
    parts: tuple[PartLayout, ...] = ()
    at = begin
    for index, child in enumerate(nested):
        rest = begin + n_dims - at
        take = child.get("n_dims_to_encode", rest if index == len(nested) - 1 else None)
        if take is None or not 0 < take <= rest:
            raise ConfigError(
                f"Composite: part {index} needs n_dims_to_encode between 1 and {rest}, found {take}"
            )
        parts += _parts(child, at, take)
        at += take
    if at != begin + n_dims:
        raise ConfigError(f"Composite: its parts take {at - begin} of {n_dims} dimensions")
    return parts


def _grid(config: dict[str, Any], begin: int) -> PartLayout:
    defaults = {
        "n_levels": 16,
        "n_features_per_level": 2,
        "log2_hashmap_size": 19,
        "base_resolution": 16,
        "per_level_scale": 2.0,
    }
    options = _options(config, defaults, ("HashGrid", "DenseGrid"))
    bounds = {"n_levels": (1, 32), "n_features_per_level": (1, 8), "log2_hashmap_size": (4, 28)}
    for key, (low, high) in (bounds | {"base_resolution": (1, 4096), "per_level_scale": (1, 8)}).items():
        if not low <= options[key] <= high:
            raise ConfigError(f"{config['otype']}: {key} is {options[key]}, expected {low} to {high}")
    levels: list[GridLevelLayout] = []
    for index in range(options["n_levels"]):
        levels.append(_level(config["otype"] == "HashGrid", options, index, levels))
    features = options["n_features_per_level"]
    return PartLayout("Grid", begin, 3, features * len(levels), n_features=features, levels=tuple(levels))


def _level(
    hashed: bool, options: dict[str, Any], index: int, before: list[GridLevelLayout]
) -> GridLevelLayout:
    scale = options["base_resolution"] * options["per_level_scale"] ** index - 1
    resolution = math.ceil(scale - 1e-9) + 1
    points = (resolution**3 + 7) // 8 * 8
    limit = 1 << options["log2_hashmap_size"] if hashed else 1 << 28
    if not hashed and points > limit:
        raise ConfigError(
            f"DenseGrid: level {index} has {resolution}³ points, at most 2^28 are held; lower the resolution"
        )
    offset = before[-1].offset + before[-1].size if before else 0
    return GridLevelLayout(scale, resolution, min(points, limit), points > limit, offset)
