"""What Triton's kernels must compute: values and gradients of the torch twin, awkward shapes, bad layouts.

Not collected by itself: under TRITON_INTERPRET=1 it runs on CPU tensors (test_triton.py does that in a
process of its own, because the variable must be set before Triton's first import), without it on a GPU:
`pytest tests/kernels/triton_contract.py`. The interpreter takes milliseconds an operation, so shapes are small.
"""

import os

import pytest
import torch
import triton_double
from tolerances import FORWARD32, GRADIENT32, INPUT_GRADIENT32, SCAN32, TF32, relative

from quicksurf.errors import ConfigError
from quicksurf.geometry.rays import Interval, Rays, Surface, pack_counts
from quicksurf.kernels.gpu import choose as gpu
from quicksurf.kernels.gpu import networks as triton_networks
from quicksurf.kernels.gpu import rays as triton_rays
from quicksurf.kernels.gpu import unisurf as triton_unisurf
from quicksurf.kernels.layout import encoding_layout, network_layout
from quicksurf.kernels.modules import LogitNetwork, initial_params
from quicksurf.kernels.reference import networks as torch_networks
from quicksurf.kernels.reference import rays as torch_rays
from quicksurf.kernels.reference import unisurf as torch_unisurf

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
# The interpreter multiplies in float32; on a GPU the factors of most products are rounded to tf32.
BOUNDS = (FORWARD32, GRADIENT32, INPUT_GRADIENT32) if INTERPRETED else (TF32, TF32, TF32)

GRID = {
    "otype": "HashGrid",
    "n_levels": 3,
    "n_features_per_level": 2,
    "log2_hashmap_size": 9,  # the first level is dense, the others are hashed
    "base_resolution": 6,
    "per_level_scale": 1.7,
}
NESTED = [
    {"n_dims_to_encode": 2, "otype": "Identity"},
    {"n_dims_to_encode": 3, "otype": "SphericalHarmonics"},
    GRID,
]
N_INPUT = 8  # 2 + 3 + 3


def composite(grid=GRID):
    return {"otype": "Composite", "nested": [*NESTED[:2], grid]}


def problem(n, layout):
    params = initial_params(layout, 0)
    params[layout.n_network_params :] *= 3000  # tables that count beside the other inputs
    x = torch.rand(n, layout.n_input, generator=torch.Generator().manual_seed(1))
    return params.to(DEVICE), x.to(DEVICE)


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


def assert_equals_the_twin(layout, params, x, **arguments):
    found = run(triton_networks.run_network, layout, params, x, **arguments)
    expected = run(torch_networks.run_network, layout, params, x, **arguments)
    for ours, theirs, bound in zip(found, expected, BOUNDS, strict=True):
        assert ours.shape == theirs.shape
        assert relative(ours, theirs) < bound or not (ours.any() or theirs.any())
    return found


@pytest.mark.parametrize(
    ("width", "hidden", "activation", "output"),
    [
        (16, 1, "ReLU", "None"),
        (32, 3, "Softplus", "Softplus"),
        (64, 2, "ReLU", "Sigmoid"),
        (128, 2, "Sigmoid", "ReLU"),
        (16, 2, "None", "None"),
    ],
)
def test_values_and_gradients_equal_the_twin(width, hidden, activation, output):
    network = {
        "n_neurons": width,
        "n_hidden_layers": hidden,
        "activation": activation,
        "output_activation": output,
    }
    layout = network_layout(N_INPUT, 5, composite(), network)
    assert_equals_the_twin(layout, *problem(150, layout))


@pytest.mark.parametrize("n", [0, 1, 7, 128, 129])
def test_any_number_of_points(n):
    layout = network_layout(N_INPUT, 17, composite(), {"n_neurons": 16})  # two blocks of 16 outputs
    params, x = problem(n, layout)
    assert_equals_the_twin(layout, params, x)
    assert triton_networks.run_network(layout, params, x, 99).shape == (n, 17)


@pytest.mark.parametrize(
    ("features", "levels", "kind"), [(1, 0, "HashGrid"), (4, 2, "HashGrid"), (8, 3, "DenseGrid")]
)
def test_inactive_levels_are_silent_and_get_no_gradient(features, levels, kind):
    grid = GRID | {"otype": kind, "n_features_per_level": features}
    layout = network_layout(N_INPUT, 3, composite(grid), {"n_neurons": 16, "n_hidden_layers": 1})
    _, grad_params, _ = assert_equals_the_twin(layout, *problem(40, layout), levels=levels)
    offsets = [level.offset for level in layout.parts[2].levels]
    silent = (
        layout.n_network_params + features * offsets[levels] if levels < len(offsets) else len(grad_params)
    )
    assert not grad_params[silent:].any()


@pytest.mark.parametrize("encoding", [GRID, composite()], ids=["grid", "composite"])
def test_an_encoding_alone(encoding):
    layout = encoding_layout(3 if encoding is GRID else N_INPUT, encoding)
    assert_equals_the_twin(layout, *problem(70, layout), levels=2)


def test_a_network_on_raw_inputs():
    layout = network_layout(19, 4, {"otype": "Identity"}, {"n_neurons": 16})
    assert_equals_the_twin(layout, *problem(20, layout))


@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_points_without_gradient_take_no_part(fraction):
    layout = network_layout(N_INPUT, 3, composite(), {"n_neurons": 16})
    assert_equals_the_twin(layout, *problem(60, layout), fraction=fraction)


def test_points_on_and_beyond_the_faces_and_nan():
    layout = encoding_layout(3, GRID)
    params, x = problem(8, layout)
    x[0], x[1], x[2], x[3], x[4, 1] = 0.0, 1.0, -7.0, 1e9, torch.nan
    assert_equals_the_twin(layout, params, x)


def test_strided_inputs_and_gradients_equal_contiguous_ones():
    layout = network_layout(N_INPUT, 3, composite(), {"n_neurons": 16, "n_hidden_layers": 1})
    params, x = problem(30, layout)
    plain = triton_networks.run_network(layout, params, x, 99)
    by_feature = triton_networks.run_network(layout, params, x.T.contiguous().T, 99)
    assert torch.equal(plain, by_feature)
    assert plain.T.is_contiguous()
    params.requires_grad_()
    grads = []
    for weights in (torch.ones(30, 3, device=DEVICE), torch.ones(1, 1, device=DEVICE).expand(30, 3)):
        y = triton_networks.run_network(layout, params, x, 99)
        grads.append(torch.autograd.grad(y, params, weights)[0])
    assert relative(grads[1], grads[0]) < GRADIENT32  # a gradient without memory of its own, as `sum` gives


def test_parameters_alone_and_points_alone_get_their_gradients():
    layout = network_layout(N_INPUT, 3, composite(), {"n_neurons": 16, "n_hidden_layers": 1})
    params, x = problem(20, layout)
    _, grad_params, grad_x = run(torch_networks.run_network, layout, params, x)
    weights = torch.rand(20, 3, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    for wanted, expected in ((params, grad_params), (x, grad_x)):
        wanted.requires_grad_()
        y = triton_networks.run_network(layout, params, x, 99)
        assert relative(torch.autograd.grad(y, wanted, weights)[0], expected) < BOUNDS[2]
        wanted.requires_grad_(False)


def test_an_odd_number_of_features_is_refused():
    layout = encoding_layout(3, GRID | {"n_features_per_level": 3})
    with pytest.raises(ConfigError, match="1, 2, 4 or 8"):
        triton_networks.run_network(layout, *problem(4, layout), 99)


@pytest.mark.parametrize("n", [0, 1, triton_rays.ADAM_TILE, triton_rays.ADAM_TILE + 5])
@pytest.mark.parametrize("skip_zero", [True, False])
@pytest.mark.parametrize("sound", [True, False, None])
def test_the_optimisers_step_equals_the_twin(n, skip_zero, sound):
    generator = torch.Generator().manual_seed(n)
    param, grad, first, second = torch.randn(4, n + 1, generator=generator)[:, 1:]  # as a group's slice
    grad[::3] = 0
    if sound is False:
        grad[1::3] = torch.nan
    known = {"learning_rate": 1e-2, "betas": (0.9, 0.99), "epsilon": 1e-15, "step": 7, "skip_zero": skip_zero}
    results = []
    for engine, device in ((torch_rays, torch.device("cpu")), (triton_rays, DEVICE)):
        tensors = [x.to(device, copy=True) for x in (param, grad, first, second.square())]
        engine.adam_step(
            *tensors, **known, sound=None if sound is None else torch.tensor(sound, device=device)
        )
        results.append([tensors[i].cpu() for i in (0, 2, 3)])
    for start, expected, found in zip((param, first, second.square()), *results, strict=True):
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-7)
        assert not skip_zero or torch.equal(found[::3], start[::3])
        assert sound is not False or torch.equal(found, start)


class Ball(LogitNetwork):
    """A logit whose surface is a ball, as searched by the back ends; steep, so that false position has to work."""

    def query(self, points):
        return (self.radius - points.norm(dim=1)) * (1 + 3 * points.square().sum(1)), None


BALL = Ball(None, 0.6, 0.0)


def problem_of_rays():
    """Rays from all around, one along a face, one that misses; two nested grids, half of whose cells count."""
    generator = torch.Generator().manual_seed(3)
    directions = torch.nn.functional.normalize(torch.randn(24, 3, generator=generator), dim=-1)
    origins = -3 * directions + 0.5 * torch.randn(24, 3, generator=generator)
    origins[0], directions[0] = torch.tensor([-3.0, 0.1, 1.0]), torch.tensor([1.0, 0.0, 0.0])
    origins[1], directions[1] = torch.tensor([-3.0, 5.0, 0.0]), torch.tensor([1.0, 0.0, 0.0])
    near, far = torch.rand(24, generator=generator), torch.full((24,), 4.5)
    cells = torch.rand(2, 5, 6, 7, generator=generator) < 0.5
    boxes = torch.tensor([[-0.7, -0.8, -0.9, 0.7, 0.8, 0.9], [-1.1, -1, -1, 1, 1, 1.2]])
    jitter = torch.rand(24, 13, generator=generator)
    return Rays(*(part.to(DEVICE) for part in (origins, directions, near, far))), *(
        part.to(DEVICE) for part in (cells, boxes, jitter)
    )


def test_the_march_equals_the_twin():
    rays, cells, boxes, _ = problem_of_rays()
    for n_boxes in (1, 2):
        found, expected = (
            engine.traverse_lattice(rays, cells[:n_boxes], boxes[:n_boxes], 0.07)
            for engine in (triton_unisurf, triton_double)
        )
        assert 0.1 < float(expected.occupied.float().mean()) < 0.6
        assert (found.occupied ^ expected.occupied).float().mean() <= (0 if INTERPRETED else 1e-3)
        both = found.occupied & expected.occupied
        for ours, theirs in zip(found[:3], expected[:3], strict=True):
            assert torch.allclose(ours[both], theirs[both], atol=1e-5)


def test_roots_equal_the_twin():
    rays, *_ = problem_of_rays()
    index = torch.tensor([5, 2, 9, 23], device=DEVICE)
    middle = -(rays.origins * rays.directions).sum(1)[index]
    low, high = middle - 2.0, middle
    ends = [BALL.query(rays.at(index, t))[0] for t in (low, high)]
    expected = torch_unisurf.secant(BALL, rays, index, low, high, *ends)
    found = triton_unisurf.secant(BALL, rays, index, low, high, *ends)
    assert torch.allclose(found, expected, atol=1e-5) and not torch.allclose(found, high)


@pytest.mark.parametrize("n_front", [0, 5])
def test_samples_equal_the_twin(n_front):
    rays, cells, boxes, jitter = problem_of_rays()
    steps = triton_double.traverse_lattice(rays, cells, boxes, 0.07)
    middle = -(rays.origins * rays.directions).sum(1)
    found = Surface(torch.arange(24, device=DEVICE) % 3 > 0, middle - 0.4, 0)
    widths, slopes = torch.linspace(0.05, 2, 24, device=DEVICE), torch.linspace(0, 2, 24, device=DEVICE)
    known = steps, found, widths, slopes, Interval(0.1, 0.0, 13 - n_front, n_front), jitter
    (ts, lengths), (expected, expected_lengths) = (
        engine.interval_samples(*known) for engine in (triton_unisurf, triton_double)
    )
    assert torch.allclose(lengths, expected_lengths, atol=1e-5) and bool((lengths > 0).any())
    stands = expected_lengths > 0
    assert torch.allclose(ts[stands], expected[stands], atol=1e-4)


def test_search_and_samples_equal_the_twin():
    rays, cells, boxes, jitter = problem_of_rays()
    known = rays, cells | True, boxes, 0.07, Interval(0.1, 0.3, 8, 5, 0.05), jitter
    (surface, samples), (expected, of_expected) = (
        engine.sample_surface(BALL, *known) for engine in (triton_unisurf, triton_double)
    )
    assert torch.equal(surface.hits, expected.hits) and bool(surface.hits.any())
    assert torch.allclose(surface.ts, expected.ts, atol=1e-5)
    assert torch.equal(samples.packed_info, of_expected.packed_info)
    assert torch.allclose(samples.deltas, of_expected.deltas, atol=1e-4)


@pytest.mark.parametrize("opacity", ["transmittance", "occupancy"])
@pytest.mark.parametrize("counts", [[3, 0, 1, 12, 7] * 15, [0, 0], []])
def test_weights_and_their_gradients_equal_the_twin(opacity, counts):
    packed = pack_counts(torch.tensor(counts, dtype=torch.long)).to(DEVICE)
    generator = torch.Generator().manual_seed(4)
    n = sum(counts)
    logits = (0.15 * torch.randn(n, generator=generator)).to(DEVICE)
    deltas = (0.03 * torch.rand(n, generator=generator)).to(DEVICE)
    deltas[::5] = -1.0
    pulls = (
        torch.randn(n, generator=generator).to(DEVICE),
        torch.randn(len(counts), generator=generator).to(DEVICE),
    )
    results = []
    for engine in (triton_unisurf, triton_double):
        leaf = logits.clone().requires_grad_()
        weights, sums = engine.render_weight_from_logits(leaf, deltas, packed, 30.0, opacity)
        ((weights * pulls[0]).sum() + (sums * pulls[1]).sum()).backward()
        results.append((weights.detach(), sums.detach(), leaf.grad))
    for found, expected in zip(*results, strict=True):
        assert found.shape == expected.shape
        assert not n or (relative(found, expected) < SCAN32 and bool(expected.any()))


def test_a_logit_that_is_no_number_shows_in_its_ray_alone():
    logits = torch.tensor([torch.nan, 0.1, 0.2, 0.1], device=DEVICE)
    packed = pack_counts(torch.tensor([3, 1])).to(DEVICE)
    weights, sums = triton_unisurf.render_weight_from_logits(
        logits, torch.full_like(logits, 0.01), packed, 30.0, "transmittance"
    )
    assert bool(sums[0].isnan()) and bool(weights[0].isnan()) and 0.85 < float(sums[1]) < 1


def test_it_is_chosen_where_it_works():
    assert gpu.rays(DEVICE) == (triton_rays, triton_unisurf)
