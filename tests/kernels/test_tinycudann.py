"""The adapter of tiny-cuda-nn on a double of its binding: layout, padding, precision, and what is refused."""

import subprocess
import sys
from types import SimpleNamespace

import back_ends
import pytest
import tinycudann_double
import torch
from test_networks import GRID, NESTED, run
from tolerances import HALF, HALF_GRADIENT, HALF_IMAGE, relative

from quicksurf import kernels
from quicksurf.config import ModelConfig, UnisurfConfig
from quicksurf.errors import BackendError
from quicksurf.fields.background import SolidBackground
from quicksurf.fields.grid import OccupancyGrid
from quicksurf.fields.surface import SurfaceField
from quicksurf.geometry.rays import Interval, Rays, unit_ball_span
from quicksurf.kernels.gpu import choose as gpu
from quicksurf.kernels.layout import encoding_layout, network_layout
from quicksurf.kernels.modules import initial_params
from quicksurf.kernels.reference import networks as torch_networks
from quicksurf.methods.unisurf import Unisurf, UnisurfSchedule
from quicksurf.render.renderer import Renderer

CUDA = back_ends.adapter()
SIGMOID = {"output_activation": "Sigmoid", "n_hidden_layers": 2}
COLOR = {"otype": "Composite", "nested": [{"otype": "Identity", "n_dims_to_encode": 18}, NESTED[1]]}
TWO_GRIDS = [
    {"otype": "Identity", "n_dims_to_encode": 5},
    GRID | {"n_features_per_level": 1, "n_levels": 3, "n_dims_to_encode": 3},
    GRID | {"n_features_per_level": 8, "n_levels": 1},
]
LAYOUTS = {
    "three parts": network_layout(8, 5, {"otype": "Composite", "nested": NESTED}, {}),
    "grid, ones behind": network_layout(3, 4, GRID, {"n_neurons": 32, "n_hidden_layers": 1}),
    "colour": network_layout(21, 3, COLOR, SIGMOID),
    "harmonics, ones in front": network_layout(3, 3, {"otype": "SphericalHarmonics", "degree": 3}, {}),
    "two grids, zeros between": network_layout(11, 3, {"otype": "Composite", "nested": TWO_GRIDS}, {}),
    "no padding": network_layout(16, 16, {"otype": "Identity"}, {}),
    "encoding alone": encoding_layout(8, {"otype": "Composite", "nested": NESTED}),
}


def problem(layout, n=300):
    params = initial_params(layout, 0)
    params[layout.n_network_params :] *= 3000
    return params, torch.rand(n, layout.n_input, generator=torch.Generator().manual_seed(1))


def both(layout, params, x, levels=99):
    return (
        run(engine, layout, params, x, levels) for engine in (CUDA.run_network, torch_networks.run_network)
    )


@pytest.mark.parametrize("levels", [1, 99])
@pytest.mark.parametrize("name", LAYOUTS)
def test_values_and_gradients_are_those_of_the_twin(name, levels):
    found, expected = both(LAYOUTS[name], *problem(LAYOUTS[name]), levels)
    assert found[0].dtype == torch.float32 and found[0].shape == expected[0].shape
    for a, b, bound in zip(found, expected, (HALF, HALF_GRADIENT, HALF_GRADIENT), strict=True):
        assert b is None or not b.any() or relative(a, b) < bound


def test_inactive_levels_get_no_gradient_and_cost_nothing():
    layout = LAYOUTS["three parts"]
    _, grads, _ = run(CUDA.run_network, layout, *problem(layout), 2)
    silent = layout.n_network_params + 2 * layout.parts[2].levels[2].offset
    assert grads[layout.n_network_params : silent].any() and not grads[silent:].any()
    words = CUDA.tinycudann_network(layout, 2)
    assert [part.get("n_levels") for part in words.encoding["nested"]] == [2, None, None]


@pytest.mark.parametrize("n", [0, 1, 255, 256, 257])
def test_batches_are_padded_and_cut(n):
    layout = LAYOUTS["colour"]
    params, x = problem(layout, n)
    found, expected = both(layout, params, x)
    assert found[0].shape == (n, 3) and found[2].shape == (n, 21)
    assert n == 0 or relative(found[0], expected[0]) < HALF


def test_gradients_far_below_half_precision_arrive():
    """Of a mean over a million values; 1e-9 is a sixtieth of half's smallest number."""
    layout = LAYOUTS["three parts"]
    params, x = problem(layout)

    def grads(engine, factor):
        leaf = params.clone().requires_grad_()
        (factor * engine(layout, leaf, x, 99).square().sum()).backward()
        return leaf.grad

    for factor in (1e-9, 1e6):
        found, expected = grads(CUDA.run_network, factor), grads(torch_networks.run_network, factor)
        assert relative(found, expected) < HALF_GRADIENT


def test_points_outside_the_grid_and_nan_are_clamped_before_they_reach_it():
    layout = LAYOUTS["three parts"]
    params, x = problem(layout, 8)
    x[0, 5], x[1, 6], x[2, 7] = -7.0, 1e9, torch.nan
    found, expected = (e(layout, params, x, 99) for e in (CUDA.run_network, torch_networks.run_network))
    assert relative(found, expected) < HALF


def test_a_build_with_another_layout_is_refused():
    class Wider(tinycudann_double.NetworkWithInputEncoding):
        def __init__(self, *args):
            super().__init__(*args)
            self.params = torch.nn.Parameter(torch.zeros(len(self.params) + 8))

    adapter = back_ends.adapter(
        SimpleNamespace(NetworkWithInputEncoding=Wider, Encoding=tinycudann_double.Encoding)
    )
    layout = LAYOUTS["colour"]
    with pytest.raises(BackendError, match=f"has {layout.n_params + 8} parameters where {layout.n_params}"):
        adapter.run_network(layout, *problem(layout), 99)


def test_an_engine_is_tried_out_before_it_is_chosen():
    gpu.try_out_networks(CUDA.run_network, torch.device("cpu"))
    with pytest.raises(RuntimeError, match="no numbers"):
        gpu.try_out_networks(lambda layout, params, x, levels: params.sum() / 0 * x, torch.device("cpu"))


def rendered(backend, state, occupied):
    """Colours that rays see of a field with the parameters `state`."""
    model = ModelConfig(n_levels=6, log2_hashmap_size=12, finest_resolution=64)
    field = SurfaceField(model, backend, seed=0)
    if state is not None:
        field.load_state_dict(state)
    grid = OccupancyGrid(16, 0.01, torch.device("cpu"))
    grid.estimator.binaries.copy_(occupied)
    directions = torch.nn.functional.normalize(
        torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    origins = 0.2 * directions.roll(1, 0) - 3 * directions
    rays = Rays(origins, directions, *unit_ball_span(origins, directions))
    schedule, method = (
        UnisurfSchedule(Interval(0.05, 0.01, 8, 4), 200.0, 0.05, 0.0, 1.0),
        Unisurf(UnisurfConfig(), 0.1),
    )
    with torch.no_grad():
        renderer = Renderer(backend, method, field, grid, SolidBackground(torch.ones(3)), 4)
        colors = renderer.render(rays, schedule).colors
    return colors, field.state_dict()


def test_a_field_looks_the_same_on_every_back_end():
    """Written on one, loaded on the others: single precision against half."""
    occupied = torch.ones(1, 16, 16, 16, dtype=torch.bool)
    expected, state = rendered(kernels.load("cpu"), None, occupied)
    for name in ("triton", "double"):
        found, same = rendered(back_ends.present(name), state, occupied)
        assert float((found - expected).abs().mean()) < HALF_IMAGE
        assert all(torch.equal(same[key], state[key]) for key in state)
    assert float(expected.std()) > 0.02  # there is something to see


@pytest.mark.slow
def test_without_a_gpu_nothing_of_cuda_is_imported(tmp_path):
    code = (
        "import sys, torch\n"
        "torch.cuda.is_available = lambda: False\n"
        "from quicksurf import kernels\n"
        "assert kernels.load('auto').name == 'cpu'\n"
        "try: kernels.load('cuda')\n"
        "except kernels.BackendError as error: assert '--device cpu' in str(error)\n"
        "else: raise SystemExit('cuda was loaded')\n"
        "ours = ['gpu.networks', 'gpu.rays', 'gpu.unisurf', 'gpu.weights', 'gpu.tiny_cuda_nn']\n"
        "named = ['tinycudann', *('quicksurf.kernels.' + name for name in ours)]\n"
        "print([name for name in named if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]", done.stderr
