"""Native networks against their torch twin: values, gradients, every instruction set, awkward shapes."""

import pytest
import torch
from tolerances import EXACT64, FORWARD32, GRADIENT32, INPUT_GRADIENT32, relative

from quicksurf import kernels
from quicksurf.kernels import _native, cpu
from quicksurf.kernels.layout import network_layout
from quicksurf.kernels.modules import initial_params
from quicksurf.kernels.reference import networks as torch_networks

GRID = {
    "otype": "HashGrid",
    "n_levels": 6,
    "n_features_per_level": 2,
    "log2_hashmap_size": 12,
    "base_resolution": 4,
    "per_level_scale": 1.7,
}
NESTED = [
    {"n_dims_to_encode": 2, "otype": "Identity"},
    {"n_dims_to_encode": 3, "otype": "SphericalHarmonics"},
    GRID,
]
ENCODING = {"otype": "Composite", "nested": NESTED}  # 2 + 3 + 3 inputs
N_INPUT = 8


@pytest.fixture(params=_native.instruction_sets())
def instruction_set(request):
    before = _native.instruction_set()
    _native.set_instruction_set(request.param)
    yield request.param
    _native.set_instruction_set(before)


def problem(n, dtype, network, n_output=5, encoding=ENCODING):
    layout = network_layout(N_INPUT, n_output, encoding, network)
    params = initial_params(layout, 0)
    params[layout.n_network_params :] *= 3000  # tables that count beside the other inputs
    x = torch.rand(n, N_INPUT, generator=torch.Generator().manual_seed(1))
    return layout, params.to(dtype), x.to(dtype)


def run(engine, layout, params, x, levels=99, fraction=1.0):
    """Output, and gradients of a weighted sum over a fraction of the points."""
    params, x = params.clone().requires_grad_(), x.clone().requires_grad_()
    y = engine(layout, params, x, levels)
    generator = torch.Generator().manual_seed(2)
    weights = torch.rand(y.shape, generator=generator) * (
        torch.rand(len(y), 1, generator=generator) < fraction
    )
    (y * weights.to(y)).sum().backward()
    return y.detach(), params.grad, x.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("activation", "output"),
    [("ReLU", "None"), ("ReLU", "Sigmoid"), ("Softplus", "Softplus"), ("Sigmoid", "ReLU")],
)
@pytest.mark.parametrize("width", [16, 32, 64, 128])
def test_values_and_gradients_equal_the_twin(instruction_set, dtype, activation, output, width):
    network = {
        "n_neurons": width,
        "n_hidden_layers": 2,
        "activation": activation,
        "output_activation": output,
    }
    layout, params, x = problem(333, dtype, network)
    native, twin = (run(e, layout, params, x) for e in (cpu.run_network, torch_networks.run_network))
    bounds = (FORWARD32, GRADIENT32, INPUT_GRADIENT32) if dtype == torch.float32 else (EXACT64,) * 3
    for found, expected, bound in zip(native, twin, bounds, strict=True):
        assert relative(found, expected) < bound


@pytest.mark.parametrize("n", [0, 1, 7, 63, 64, 65, 5000])
@pytest.mark.parametrize("hidden", [1, 4])
def test_any_number_of_points(n, hidden):
    layout, params, x = problem(n, torch.float32, {"n_hidden_layers": hidden})
    native, twin = (run(e, layout, params, x) for e in (cpu.run_network, torch_networks.run_network))
    assert native[0].shape == (n, 5)
    for found, expected, bound in zip(native, twin, (FORWARD32, GRADIENT32, INPUT_GRADIENT32), strict=True):
        assert relative(found, expected) < bound or not expected.any()


@pytest.mark.parametrize("features", [1, 2, 4, 8])
@pytest.mark.parametrize("levels", [0, 3, 6])
def test_inactive_levels_are_silent_and_get_no_gradient(instruction_set, features, levels):
    encoding = {"otype": "Composite", "nested": [*NESTED[:2], GRID | {"n_features_per_level": features}]}
    layout, params, x = problem(100, torch.float32, {}, encoding=encoding)
    native, twin = (run(e, layout, params, x, levels) for e in (cpu.run_network, torch_networks.run_network))
    assert relative(native[0], twin[0]) < FORWARD32
    assert relative(native[1], twin[1]) < GRADIENT32
    first_silent = (
        layout.n_network_params + features * layout.parts[2].levels[levels].offset if levels < 6 else None
    )
    if first_silent is not None:
        assert not native[1][first_silent:].any()


def test_points_on_and_beyond_the_faces_and_nan_do_not_crash(instruction_set):
    layout, params, x = problem(64, torch.float32, {})
    x[0, 5:], x[1, 5:], x[2, 5:], x[3, 5:] = 0.0, 1.0, -7.0, 1e9
    x[4, 6] = torch.nan
    native, twin = (e(layout, params, x, 99) for e in (cpu.run_network, torch_networks.run_network))
    assert relative(native, twin) < FORWARD32


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3])
def test_points_without_gradient_take_no_part(instruction_set, fraction):
    layout, params, x = problem(3000, torch.float32, {})
    native, twin = (
        run(e, layout, params, x, fraction=fraction) for e in (cpu.run_network, torch_networks.run_network)
    )
    for found, expected, bound in zip(native, twin, (FORWARD32, GRADIENT32, INPUT_GRADIENT32), strict=True):
        assert relative(found, expected) < bound
    assert torch.equal(native[2].any(1), twin[2].any(1))


def test_gradcheck_in_double():
    layout, params, x = problem(
        3, torch.float64, {"n_neurons": 16, "n_hidden_layers": 1, "activation": "Softplus"}
    )
    grid_free = params[: layout.n_network_params].clone().requires_grad_()

    def network(weights, points):
        return cpu.run_network(layout, torch.cat([weights, params[layout.n_network_params :]]), points, 99)

    assert torch.autograd.gradcheck(network, (grid_free, x.requires_grad_()))


def test_strided_inputs_equal_contiguous_ones():
    layout, params, x = problem(200, torch.float32, {})
    by_row = cpu.run_network(layout, params, x, 99)
    by_feature = cpu.run_network(layout, params, x.T.contiguous().T, 99)
    every_second = cpu.run_network(layout, params, x.repeat_interleave(2, 0)[::2], 99)
    assert torch.equal(by_row, by_feature) and torch.equal(by_row, every_second)


def test_bits_do_not_depend_on_the_number_of_threads():
    layout, params, x = problem(20000, torch.float32, {})
    before = _native.num_threads()
    results = []
    for n_threads in (1, 2, 3, 7):
        _native.set_num_threads(n_threads)
        results.append(run(cpu.run_network, layout, params, x))
    _native.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_modules_share_parameters_between_back_ends():
    cpu, twin = (kernels.load(name).modules for name in ("cpu", "torch"))
    native = cpu.NetworkWithInputEncoding(N_INPUT, 4, ENCODING, {})
    reference = twin.NetworkWithInputEncoding(N_INPUT, 4, ENCODING, {}, seed=7)
    reference.load_state_dict(native.state_dict())
    x = torch.rand(50, N_INPUT)
    assert relative(native(x).detach(), reference(x).detach()) < FORWARD32


@pytest.mark.parametrize("name", ["Encoding", "Network"])
def test_the_other_two_constructors(backend, name):
    make = getattr(backend.modules, name)
    module = make(3, GRID) if name == "Encoding" else make(3, 4, {"n_neurons": 16})
    assert module(torch.rand(9, 3)).shape == (9, module.n_output_dims)
    assert module.n_output_dims == (12 if name == "Encoding" else 4)


@pytest.mark.parametrize(
    "bad",
    [
        {"params": torch.zeros(3)},
        {"x": torch.zeros(4, N_INPUT + 1)},
        {"x": torch.zeros(4, N_INPUT, dtype=torch.float64)},
        {"x": torch.zeros(4)},
        {"output": torch.zeros(5, 3)},
        {"output": torch.zeros(4, 5).T[:, ::2]},
        {"saved": torch.zeros(1, 4)},
    ],
)
def test_wrong_arguments_are_refused(bad):
    layout, params, x = problem(4, torch.float32, {})
    network = cpu.native_network(layout)
    good = {
        "params": params,
        "n_active_levels": 9,
        "x": x,
        "output": torch.zeros(5, 4),
        "saved": torch.zeros(12, 4),
    }
    network.forward(**good)
    with pytest.raises((TypeError, ValueError)):
        network.forward(**(good | bad))


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [("Grid", 0, 3, 0, 3, [(1.0, 2, 8, False)])],
        [("Grid", 0, 3, 0, 2, [(1.0, 64, 8, False)])],
        [("Grid", 0, 3, 0, 2, [(1.0, 64, 9, True)])],
        [("Grid", 4, 3, 0, 2, [(1.0, 2, 8, False)])],
        [("Grid", -1, 3, 0, 2, [(1.0, 2, 8, False)])],
        [("SphericalHarmonics", 0, 3, 5, 0, [])],
        [("Unknown", 0, 3, 5, 0, [])],
    ],
)
def test_layouts_that_would_read_outside_are_refused(parts):
    with pytest.raises(ValueError):
        _native.Network.make(6, parts, 16, 1, 1, "ReLU", "None")
