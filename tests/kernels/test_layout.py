"""tiny-cuda-nn's vocabulary: sizes, defaults and refusals."""

import pytest

from quicksurf.errors import ConfigError
from quicksurf.kernels.layout import encoding_layout, network_layout

GRID = {
    "otype": "HashGrid",
    "n_levels": 4,
    "log2_hashmap_size": 12,
    "base_resolution": 8,
    "per_level_scale": 2.0,
}
NETWORK = {"otype": "FullyFusedMLP", "n_neurons": 32, "n_hidden_layers": 2}


def test_levels_are_dense_until_the_table_is_full():
    levels = encoding_layout(3, GRID).parts[0].levels
    assert [level.resolution for level in levels] == [8, 16, 32, 64]
    assert [level.size for level in levels] == [8**3, 16**3, 4096, 4096]
    assert [level.hashed for level in levels] == [False, False, True, True]
    assert [level.offset for level in levels] == [0, 512, 512 + 4096, 512 + 8192]


def test_dense_size_is_rounded_up_to_eight():
    level = encoding_layout(3, GRID | {"base_resolution": 5, "n_levels": 1}).parts[0].levels[0]
    assert level.size == 128  # 5³ = 125


def test_weights_are_padded_to_sixteen_and_come_first():
    layout = network_layout(3, 3, GRID, NETWORK)
    assert layout.matrices() == [(32, 16), (32, 32), (16, 32)]
    assert layout.n_params == 32 * 16 + 32 * 32 + 16 * 32 + 2 * (512 + 3 * 4096)


def test_composite_takes_dimensions_in_order():
    nested = [{"n_dims_to_encode": 2, "otype": "Identity"}, {"otype": "SphericalHarmonics", "degree": 3}]
    parts = encoding_layout(5, {"otype": "Composite", "nested": nested}).parts
    assert [(part.kind, part.input_begin, part.n_rows) for part in parts] == [
        ("Identity", 0, 2),
        ("SphericalHarmonics", 2, 9),
    ]


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ({"otype": "TriplaneGrid"}, "TriplaneGrid"),
        (GRID | {"n_level": 3}, "n_level"),
        (GRID | {"n_levels": 64}, "n_levels is 64"),
        ({"otype": "SphericalHarmonics", "degree": 9}, "degree is 9"),
        (
            {"otype": "Composite", "nested": [{"otype": "Identity", "n_dims_to_encode": 5}]},
            "n_dims_to_encode",
        ),
        ({"otype": "Composite", "nested": [{"otype": "Identity", "n_dims_to_encode": 2}]}, "2 of 3"),
    ],
)
def test_bad_encodings_are_named(encoding, message):
    with pytest.raises(ConfigError, match=message):
        encoding_layout(3, encoding)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"n_neurons": 48}, "48"),
        ({"activation": "Tanh"}, "Tanh"),
        ({"n_hidden_layers": 0}, "n_hidden_layers is 0"),
        ({"neurons": 64}, "neurons"),
    ],
)
def test_bad_networks_are_named(network, message):
    with pytest.raises(ConfigError, match=message):
        network_layout(3, 3, GRID, network)
