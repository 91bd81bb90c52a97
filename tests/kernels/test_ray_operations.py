"""Ray operations of every back end against independent expectations, and the native ones against their twin."""

import pytest
import torch
from tolerances import SCAN32, relative

from quicksurf import kernels
from quicksurf.geometry.rays import Interval, Rays, Steps, Surface, pack_counts
from quicksurf.kernels import _native
from quicksurf.kernels.modules import LogitNetwork
from quicksurf.kernels.reference import rays as torch_rays
from quicksurf.kernels.reference import unisurf as torch_unisurf

BOX = torch.tensor([[-1.0, -1, -1, 1, 1, 1], [-2, -2, -2, 2, 2, 2]])


def rays(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    return -3 * directions + 0.3 * torch.randn(n, 3, generator=generator), directions


def march(origins, directions, occupied, step=0.05, near=0.0, far=10.0):
    n = len(origins)
    return torch_rays.traverse_grids(
        origins,
        directions,
        occupied,
        BOX[: len(occupied)],
        torch.full((n,), near),
        torch.full((n,), far),
        step,
    )


def test_a_full_box_is_covered_from_face_to_face():
    origins, directions = torch.tensor([[-3.0, 0.1, 0.2]]), torch.tensor([[1.0, 0, 0]])
    steps = march(origins, directions, torch.ones(1, 4, 4, 4, dtype=torch.bool), step=0.1)
    assert abs(float((steps.t_ends - steps.t_starts).sum()) - 2) < 0.11
    assert torch.allclose(steps.t_starts[1:], steps.t_ends[:-1])


def test_only_occupied_cells_are_kept():
    occupied = torch.zeros(1, 4, 4, 4, dtype=torch.bool)
    occupied[0, 2, 2, 2] = True  # x, y and z in [0, 0.5]
    origins, directions = torch.tensor([[-3.0, 0.1, 0.2], [-3.0, -0.1, 0.2]]), torch.tensor([[1.0, 0, 0]] * 2)
    steps = march(origins, directions, occupied, step=0.02)
    assert steps.packed_info[1, 1] == 0 and len(steps.t_starts) == steps.packed_info[0, 1] == 25
    x = steps.t_mids - 3
    assert bool(((x > 0) & (x < 0.5)).all())


@pytest.mark.parametrize("n", [0, 1, 7])
def test_zero_steps_are_legal(backend, n):
    origins, directions = rays(n)
    steps = march(origins, directions, torch.zeros(1, 4, 4, 4, dtype=torch.bool))
    assert len(steps.t_starts) == 0 and steps.packed_info.shape == (n, 2)
    weights, _ = torch_rays.render_weight_from_alpha(steps.t_starts, steps.packed_info)
    assert backend.rays.accumulate_along_rays(weights, None, steps.packed_info).shape == (n, 1)


def test_steps_stay_between_near_and_far():
    origins, directions = rays(9)
    steps = march(origins, directions, torch.ones(1, 4, 4, 4, dtype=torch.bool), near=2.7, far=3.2)
    assert len(steps.t_starts) and steps.t_starts.min() >= 2.7 - 1e-6 and steps.t_ends.max() <= 3.2 + 1e-6


def stretches(counts, seed=0):
    """Random steps of length 0.1 with gaps."""
    generator = torch.Generator().manual_seed(seed)
    starts = []
    for count in counts:
        slots = torch.randperm(3 * count + 1, generator=generator)[:count].sort().values
        starts.append(0.1 * slots.float() + 1)
    t_starts = torch.cat(starts)
    packed = pack_counts(torch.tensor(counts))
    return Steps(
        t_starts, t_starts + 0.1, torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)), packed
    )


def staircase(thresholds, values):
    """A logit by depth along x: the value of the last threshold that is passed."""

    class Staircase(LogitNetwork):
        def query(self, points):
            passed = torch.searchsorted(torch.tensor(thresholds), points[:, 0].contiguous(), right=True)
            return torch.tensor([0.0, *values])[passed], points[:, :0]

    return Staircase(None, 0.0, 0.0)


def crossing(surface, level=0.0, n_rays=2):
    """Of rays along x through steps at 1.0, 1.1, 1.2 (ray 0) and 1.0, 1.1, 2.0 (ray 1)."""
    starts = torch.tensor([1.0, 1.1, 1.2, 1.0, 1.1, 2.0])
    steps = Steps(starts, starts + 0.1, torch.tensor([0, 0, 0, 1, 1, 1]), pack_counts(torch.tensor([3, 3])))
    x = torch.tensor([[1.0, 0, 0]] * n_rays)
    rays = Rays(torch.zeros(n_rays, 3), x, torch.zeros(n_rays), torch.full((n_rays,), 9.0))
    return torch_unisurf.first_crossing(surface, rays, steps, level)


def test_first_crossing_finds_the_first_change_of_sign():
    hits, bracket, n_evaluations = crossing(staircase([1.0, 1.1, 1.2], [-0.2, -0.1, 0.3]))
    assert hits.tolist() == [True, True] and n_evaluations == 6
    assert torch.allclose(bracket[:, 0], torch.tensor([1.15, 1.25, -0.1, 0.3]))
    assert torch.allclose(bracket[:2, 1], torch.tensor([2.0, 2.0]))  # behind a gap: the stretch's start


def test_steps_that_the_distance_clears_are_passed_over():
    hits, bracket, n_evaluations = crossing(staircase([1.0, 1.1, 1.2], [-0.79, -0.1, 0.3]))
    assert hits.tolist() == [True, True] and n_evaluations == 4
    assert torch.allclose(bracket[:, 0], torch.tensor([1.05, 1.25, -0.79, 0.3]))


def test_a_semi_transparent_region_does_not_end_the_search():
    """Logits 0.1, -0.1, 0.3 by depth; the gap of ray 1 is outside, too."""
    hits, bracket, _ = crossing(staircase([1.0, 1.1, 1.2], [0.1, -0.1, 0.3]), level=0.2)
    assert hits.tolist() == [True, True]
    assert torch.allclose(bracket[:, 0], torch.tensor([1.15, 1.25, -0.1, 0.3]))
    hits, bracket, _ = crossing(staircase([1.0, 1.1, 1.2], [0.1, 0.1, 0.3]), level=0.2)
    assert torch.allclose(
        bracket[:, 0], torch.tensor([1.0, 1.0, 0.0, 0.1])
    )  # where it was entered, not where opaque
    assert torch.allclose(bracket[:2, 1], torch.tensor([2.0, 2.0]))
    assert not crossing(staircase([1.0, 1.1, 1.2], [0.1, -0.1, 0.3]), level=0.4)[0].any()


def test_samples_are_sorted_inside_steps_and_inside_the_interval():
    steps = stretches([30, 30])
    surface = torch.tensor([5.0, 4.0])
    hits = torch.tensor([True, False])
    jitter = torch.rand(2, 24, generator=torch.Generator().manual_seed(0))
    samples = torch_unisurf.interval_samples(
        steps,
        Surface(hits, surface, 0),
        torch.full((2,), 0.6),
        torch.ones(2),
        Interval(0.6, 0.0, 16, 8),
        jitter,
    )
    assert samples.packed_info[:, 1].tolist() == [24, 24]
    for ray in range(2):
        ts = samples.ts[samples.ray_indices == ray]
        own = steps.ray_indices == ray
        assert bool((ts[1:] >= ts[:-1]).all())
        covered = (ts[:, None] >= steps.t_starts[own] - 1e-4) & (ts[:, None] <= steps.t_ends[own] + 1e-4)
        assert bool(covered.any(1).all())
    inside = (samples.ts[samples.ray_indices == 0] - 5.0).abs() <= 0.6 + 1e-4
    assert inside.sum() == 16


def test_weights_sum_to_opacity(backend):
    packed = pack_counts(torch.tensor([3, 0, 1, 6]))
    alphas = torch.rand(10, generator=torch.Generator().manual_seed(0))
    weights, transmittance = torch_rays.render_weight_from_alpha(alphas, packed)
    opacity = backend.rays.accumulate_along_rays(weights, None, packed)[:, 0]
    for ray, (begin, count) in enumerate(packed.tolist()):
        clear = 1.0
        for i in range(begin, begin + count):
            assert (
                abs(float(transmittance[i]) - clear) < SCAN32
                and abs(float(weights[i] - alphas[i] * clear)) < SCAN32
            )
            clear *= 1 - float(alphas[i])
        assert abs(float(opacity[ray]) - (1 - clear)) < SCAN32


def test_gradients_of_sums_along_rays(backend):
    packed = pack_counts(torch.tensor([4, 0, 1, 5]))
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(10, dtype=torch.float64, generator=generator).requires_grad_()
    values = torch.rand(10, 3, dtype=torch.float64, generator=generator).requires_grad_()

    def sums(weights, values):
        return backend.rays.accumulate_along_rays(weights, values, packed)

    assert torch.autograd.gradcheck(sums, (weights, values))
    assert torch.autograd.gradcheck(lambda w: sums(w, None), (weights,))


def test_adam_equals_torch_and_leaves_untouched_entries(backend):
    generator = torch.Generator().manual_seed(0)
    param = torch.randn(1000, generator=generator)
    reference = torch.nn.Parameter(param.clone())
    adam = torch.optim.Adam([reference], lr=1e-2, betas=(0.9, 0.99), eps=1e-15)
    first, second = torch.zeros(1000), torch.zeros(1000)
    for step in range(1, 6):
        grad = torch.randn(1000, generator=generator)
        reference.grad = grad.clone()
        adam.step()
        options = {"learning_rate": 1e-2, "betas": (0.9, 0.99), "epsilon": 1e-15, "step": step}
        backend.rays.adam_step(param, grad, first, second, skip_zero=False, **options)
    assert relative(param, reference.detach()) < 1e-6
    before = param.clone()
    grad = torch.zeros(1000)
    grad[::2] = 1.0
    backend.rays.adam_step(param, grad, first, second, skip_zero=True, **options)
    assert torch.equal(param[1::2], before[1::2]) and not torch.equal(param[::2], before[::2])


@pytest.mark.parametrize("skip_zero", [True, False])
def test_adam_leaves_everything_alone_where_the_loss_was_no_number(backend, skip_zero):
    start, grad = torch.linspace(-1, 1, 40), torch.linspace(-1, 2, 40)
    options = {"learning_rate": 1e-2, "betas": (0.9, 0.99), "epsilon": 1e-15, "step": 3}
    results = []
    for value, sound in ((grad, True), (torch.full_like(grad, torch.nan), False)):
        tensors = start.clone(), value.clone(), 0.1 * start, start.square()
        backend.rays.adam_step(*tensors, **options, skip_zero=skip_zero, sound=torch.tensor(sound))
        results.append(tensors)
    (moved, _, _, _), (kept, _, first, second) = results
    assert not torch.equal(moved, start) and torch.equal(kept, start)
    assert torch.equal(first, 0.1 * start) and torch.equal(second, start.square())


def test_bad_arguments_of_ray_kernels_are_refused():
    offsets = torch.tensor([0, 2, 4])
    weights, out = torch.rand(4), torch.empty(2, 1)
    for bad in (
        torch.tensor([0, 5, 4]),
        torch.tensor([0, 2, 5]),
        torch.tensor([1, 4]),
        torch.zeros(0, dtype=torch.long),
    ):
        with pytest.raises(ValueError):
            _native.accumulate_forward(bad, weights, None, out)
    with pytest.raises(ValueError):
        _native.accumulate_forward(offsets, weights, None, torch.empty(3, 1))
    with pytest.raises(TypeError):
        _native.accumulate_forward(offsets.int(), weights, None, out)


def test_back_ends_are_named_when_unknown():
    with pytest.raises(kernels.BackendError, match="choose auto, cpu"):
        kernels.load("cudnn")
