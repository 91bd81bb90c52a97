"""Ray operations of every back end against independent expectations, and the native ones against their twin."""

import pytest
import torch
from tolerances import SCAN32, relative

from quicksurf import _native, backends
from quicksurf.backends import cpu_rays, torch_rays, torch_unisurf
from quicksurf.rays import Interval, Steps, pack_counts

BOX = torch.tensor([[-1.0, -1, -1, 1, 1, 1], [-2, -2, -2, 2, 2, 2]])


def rays(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    return -3 * directions + 0.3 * torch.randn(n, 3, generator=generator), directions


def march(ops, origins, directions, occupied, step=0.05, cone=0.0, near=0.0, far=10.0):
    n = len(origins)
    return ops.traverse_grids(
        origins,
        directions,
        occupied,
        BOX[: len(occupied)],
        torch.full((n,), near),
        torch.full((n,), far),
        step,
        cone,
    )


def test_a_full_box_is_covered_from_face_to_face(backend):
    origins, directions = torch.tensor([[-3.0, 0.1, 0.2]]), torch.tensor([[1.0, 0, 0]])
    steps = march(backend.rays, origins, directions, torch.ones(1, 4, 4, 4, dtype=torch.bool), step=0.1)
    assert abs(float((steps.t_ends - steps.t_starts).sum()) - 2) < 0.11
    assert torch.allclose(steps.t_starts[1:], steps.t_ends[:-1])


def test_only_occupied_cells_are_kept(backend):
    occupied = torch.zeros(1, 4, 4, 4, dtype=torch.bool)
    occupied[0, 2, 2, 2] = True  # x, y and z in [0, 0.5]
    origins, directions = torch.tensor([[-3.0, 0.1, 0.2], [-3.0, -0.1, 0.2]]), torch.tensor([[1.0, 0, 0]] * 2)
    steps = march(backend.rays, origins, directions, occupied, step=0.02)
    assert steps.packed_info[1, 1] == 0 and len(steps.t_starts) == steps.packed_info[0, 1] == 25
    x = steps.t_mids - 3
    assert bool(((x > 0) & (x < 0.5)).all())


@pytest.mark.parametrize("n", [0, 1, 7])
def test_zero_steps_are_legal(backend, n):
    origins, directions = rays(n)
    steps = march(backend.rays, origins, directions, torch.zeros(1, 4, 4, 4, dtype=torch.bool))
    assert len(steps.t_starts) == 0 and steps.packed_info.shape == (n, 2)
    weights, _ = backend.rays.render_weight_from_alpha(steps.t_starts, steps.packed_info)
    assert backend.rays.accumulate_along_rays(weights, None, steps.packed_info).shape == (n, 1)


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("cone", [0.0, 0.02])
def test_traversal_equals_its_twin(levels, cone):
    occupied = torch.rand(levels, 9, 8, 7, generator=torch.Generator().manual_seed(3)) < 0.3
    origins, directions = rays(40)
    native, twin = (march(ops, origins, directions, occupied, cone=cone) for ops in (cpu_rays, torch_rays))
    # A midpoint within rounding of a cell's face may fall on either side.
    assert abs(len(native.t_starts) - len(twin.t_starts)) <= 0.005 * len(twin.t_starts)
    a = set(zip(native.ray_indices.tolist(), (native.t_starts / 1e-3).round().tolist(), strict=True))
    b = set(zip(twin.ray_indices.tolist(), (twin.t_starts / 1e-3).round().tolist(), strict=True))
    assert len(a & b) >= 0.98 * len(b)


def test_axis_aligned_rays_in_the_plane_of_a_face_do_not_hang():
    origins = torch.tensor([[-3.0, 1.0, 0.0], [-3.0, 0.0, 0.0], [0.0, 0.0, 5.0]])
    directions = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 0, -1.0]])
    steps = march(cpu_rays, origins, directions, torch.ones(2, 8, 8, 8, dtype=torch.bool))
    assert bool((steps.packed_info[1:, 1] > 70).all())


def test_steps_stay_between_near_and_far(backend):
    origins, directions = rays(9)
    steps = march(
        backend.rays, origins, directions, torch.ones(1, 4, 4, 4, dtype=torch.bool), near=2.7, far=3.2
    )
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


def test_first_crossing_finds_the_first_change_of_sign():
    steps = Steps(
        torch.tensor([1.0, 1.1, 1.2, 1.0, 1.1, 2.0]),
        torch.tensor([1.1, 1.2, 1.3, 1.1, 1.2, 2.1]),
        torch.tensor([0, 0, 0, 1, 1, 1]),
        pack_counts(torch.tensor([3, 3])),
    )
    hits, bracket = torch_unisurf.first_crossing(steps, torch.tensor([-2.0, -1.0, 3.0, -1.0, -1.0, 1.0]))
    assert hits.tolist() == [True, True]
    assert torch.allclose(bracket[:, 0], torch.tensor([1.15, 1.25, -1.0, 3.0]))
    assert torch.allclose(bracket[:2, 1], torch.tensor([2.0, 2.0]))  # behind a gap: the stretch's start


def test_samples_are_sorted_inside_steps_and_inside_the_interval():
    steps = stretches([30, 30])
    surface = torch.tensor([5.0, 4.0])
    hits = torch.tensor([True, False])
    jitter = torch.rand(2, 24, generator=torch.Generator().manual_seed(0))
    samples = torch_unisurf.interval_samples(steps, hits, surface, Interval(0.6, 16, 8), jitter)
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
    weights, transmittance = backend.rays.render_weight_from_alpha(alphas, packed)
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


def test_gradients_of_scans_also_at_alpha_one(backend):
    packed = pack_counts(torch.tensor([4, 0, 1, 5]))
    alphas = torch.rand(10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alphas[2], alphas[7] = 1.0, 0.0
    values = torch.rand(10, 3, dtype=torch.float64)
    ops = backend.rays

    def colors(alphas, values):
        weights, transmittance = ops.render_weight_from_alpha(alphas, packed)
        return ops.accumulate_along_rays(weights + transmittance, values, packed)

    inputs = alphas.requires_grad_(), values.requires_grad_()
    if (
        ops is torch_rays
    ):  # cumprod's own gradient at an exact zero is right only inside autograd, not by differences
        inputs[0].data.clamp_(0.01, 0.99)
    assert torch.autograd.gradcheck(colors, inputs)


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


def test_bad_arguments_of_ray_kernels_are_refused():
    offsets = torch.tensor([0, 2, 4])
    values = torch.rand(4)
    for bad in (
        torch.tensor([0, 5, 4]),
        torch.tensor([0, 2, 5]),
        torch.tensor([1, 4]),
        torch.zeros(0, dtype=torch.long),
    ):
        with pytest.raises(ValueError):
            _native.weights_forward(bad, values, torch.empty(4), torch.empty(4))
    with pytest.raises(ValueError):
        _native.weights_forward(offsets, values, torch.empty(3), torch.empty(4))
    with pytest.raises(TypeError):
        _native.weights_forward(offsets.int(), values, torch.empty(4), torch.empty(4))
    origins, directions = rays(2)
    occupied = torch.ones(1, 4, 4, 4, dtype=torch.bool)
    for step in (0.0, -1.0, float("nan"), float("inf"), 1e-9):
        with pytest.raises(ValueError):
            march(cpu_rays, origins, directions, occupied, step=step)


def test_back_ends_are_named_when_unknown():
    with pytest.raises(backends.BackendError, match="choose auto, cpu"):
        backends.load("cudnn")


def test_rays_that_are_not_finite_take_no_steps():
    origins, directions = rays(3)
    origins[0, 0], directions[1, 2], origins[2, 1] = torch.nan, torch.inf, -torch.inf
    steps = march(cpu_rays, origins, directions, torch.ones(1, 4, 4, 4, dtype=torch.bool))
    assert len(steps.t_starts) == 0


def test_offsets_of_other_rays_are_refused():
    origins, directions = rays(2)
    occupied = torch.ones(1, 4, 4, 4, dtype=torch.bool)
    planes = torch.zeros(2), torch.full((2,), 10.0)
    with pytest.raises(ValueError, match="traverse_count"):
        _native.traverse_fill(
            *(origins, directions, occupied, BOX[:1], *planes, 0.05, 0.0, torch.tensor([0, 1, 2])),
            *(torch.empty(2), torch.empty(2), torch.empty(2, dtype=torch.long)),
        )
