"""Opacity from occupancy: sums, independence from sampling, and what each reading does to depth."""

import pytest
import torch
import triton_double
from tolerances import GRADIENT32, SCAN32, relative

from quicksurf.geometry.rays import pack_counts
from quicksurf.kernels import _native, cpu
from quicksurf.kernels.reference import unisurf as torch_unisurf
from quicksurf.kernels.reference.unisurf import SHIFT, alphas_from_logits


def packed(*counts):
    return pack_counts(torch.tensor(counts))


def alphas_of(logits, packed_info, sharpness, kind, delta=0.0):
    return alphas_from_logits(logits, torch.full_like(logits, delta), packed_info, sharpness, kind)


def opacity(alphas):
    return float(1 - (1 - alphas).prod())


def test_a_rise_sums_to_the_occupancy_it_reaches_and_a_fall_adds_nothing():
    logits = torch.tensor([-0.2, -0.05, 0.01, 0.03, -0.1, -0.4, -0.4, -0.1])
    alphas = alphas_of(logits, packed(6, 0, 2), 50.0, "transmittance")  # samples without delta
    occupancy = torch.sigmoid(50 * logits - SHIFT)
    assert opacity(alphas[:4]) == pytest.approx(float(occupancy[3]), abs=1e-5)
    assert not alphas[4:6].any()
    assert opacity(alphas[6:]) == pytest.approx(float(occupancy[7]), abs=1e-5)


@pytest.mark.parametrize("factor", [2, 8])
def test_transmittance_does_not_depend_on_the_number_of_samples(factor):
    """Opacity of a soft wall seen through n and factor · n samples; the paper's formula differs."""
    found = {}
    for kind in ("transmittance", "occupancy"):
        for n in (20, 20 * factor):
            ts = torch.linspace(-0.1, -0.03, n)  # ends half-way in: neither reading is saturated
            found[kind, n] = opacity(alphas_of(ts, packed(n), 40.0, kind, 0.07 / n))
    assert found["transmittance", 20] == pytest.approx(found["transmittance", 20 * factor], abs=2e-3)
    assert abs(found["occupancy", 20] - found["occupancy", 20 * factor]) > 0.1


def test_the_papers_formula_is_the_occupancy():
    logits = torch.tensor([-0.1, 0.0, 0.1])
    assert torch.allclose(alphas_of(logits, packed(3), 10.0, "occupancy", 0.5), torch.sigmoid(10 * logits))


@pytest.mark.parametrize("kind", ["transmittance", "occupancy"])
def test_huge_logits_stay_finite_and_below_one(kind):
    logits = torch.tensor([-1e4, -1.0, 1.0, 1e4, 1e4], requires_grad=True)
    alphas = alphas_of(logits, packed(5), 600.0, kind, 0.1)
    alphas.sum().backward()
    assert bool((alphas < 1).all()) and bool(logits.grad.isfinite().all())


def test_light_ends_at_the_surface_on_the_mean_and_none_leaks_through_a_plateau():
    """A wall met frontally, finely sampled, and then matter whose logit stops rising."""
    z = torch.linspace(-12, 12, 1601)
    step = float(z[1] - z[0]) / 100
    alphas = alphas_of(z / 100, packed(len(z)), 100.0, "transmittance", step)
    weights = alphas * torch.cat([torch.ones(1), (1 - alphas).cumprod(0)[:-1]])
    mean = float((weights * z).sum() / weights.sum())
    assert mean == pytest.approx(SHIFT - 0.5, abs=0.05)  # absorption alone moves it out by 0.5
    plateau = torch.full((32,), 1.0 / 100)
    assert opacity(alphas_of(plateau, packed(32), 100.0, "transmittance", 0.01)) > 0.998
    assert opacity(alphas_of(plateau, packed(32), 100.0, "transmittance", 0.0)) < 0.7


def test_no_samples():
    assert len(alphas_of(torch.zeros(0), packed(0, 0), 10.0, "transmittance")) == 0


@pytest.mark.parametrize("sharpness", [30.0, 300.0])  # the second reaches the cap
@pytest.mark.parametrize("kind", ["transmittance", "occupancy"])
@pytest.mark.parametrize("name", _native.instruction_sets())
def test_native_weights_equal_their_twin(name, kind, sharpness):
    before = _native.instruction_set()
    _native.set_instruction_set(name)
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 40, (700,), generator=generator)
    values = 0.1 * torch.randn(int(counts.sum()), generator=generator)
    deltas = 0.05 * torch.rand(len(values), generator=generator)
    results = []
    for ops in (cpu, torch_unisurf):
        logits = values.clone().requires_grad_()
        weights, opacities = ops.render_weight_from_logits(
            logits, deltas, pack_counts(counts), sharpness, kind
        )
        (weights * torch.arange(len(weights)).cos()).sum().backward(retain_graph=True)
        (opacities * torch.arange(len(counts)).sin()).sum().backward()
        results.append((weights.detach(), opacities.detach(), logits.grad))
    _native.set_instruction_set(before)
    (weights, opacities, grads), (twin_weights, twin_opacities, twin_grads) = results
    assert torch.allclose(weights, twin_weights, atol=SCAN32)
    assert torch.allclose(opacities, twin_opacities, atol=SCAN32)
    assert relative(grads, twin_grads) < GRADIENT32


@pytest.mark.parametrize("kind", ["transmittance", "occupancy"])
def test_gradients_of_weights(kind):
    counts = torch.tensor([4, 0, 1, 6])
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(11, dtype=torch.float64, generator=generator).requires_grad_()

    deltas = torch.rand(11, dtype=torch.float64, generator=generator)

    def weights(logits):
        return cpu.render_weight_from_logits(logits, deltas, pack_counts(counts), 1.5, kind)

    assert torch.autograd.gradcheck(weights, (logits,))


@pytest.mark.parametrize("counts", [[], [0, 0], [1], [0, 3, 0]])
def test_weights_sum_to_opacity_for_shapes_that_hurt(backend, counts):
    packed_info = pack_counts(torch.tensor(counts, dtype=torch.long))
    logits = torch.linspace(-0.1, 0.2, sum(counts))
    weights, opacities = backend.unisurf.render_weight_from_logits(
        logits, torch.full_like(logits, 0.01), packed_info, 20.0, "transmittance"
    )
    assert len(weights) == sum(counts) and len(opacities) == len(counts)
    for opacity, part in zip(opacities, weights.split(counts), strict=True):
        assert abs(float(opacity - part.sum())) < SCAN32


def test_a_logit_that_is_no_number_shows_in_the_weights(backend):
    logits = torch.tensor([torch.nan, 0.1, 0.2, 0.1])
    weights, opacities = backend.unisurf.render_weight_from_logits(
        logits, torch.full_like(logits, 0.01), packed(3, 1), 30.0, "transmittance"
    )
    assert bool(opacities[0].isnan()) and bool(weights[0].isnan())
    assert 0.85 < float(opacities[1]) < 1


@pytest.mark.parametrize("kind", ["transmittance", "occupancy"])
def test_samples_that_stand_for_nothing_weigh_nothing_and_leave_the_others_as_they_are(kind):
    logits = torch.linspace(-0.1, 0.2, 7)
    deltas = torch.full((7,), 0.02)
    expected, opacities = triton_double.render_weight_from_logits(logits, deltas, packed(3, 4), 30.0, kind)
    real = torch.tensor(
        [0, 0, 1, 1, 1, 0, 1, 1, 1, 1], dtype=torch.bool
    )  # two, then one, in front of a ray's
    there = torch.full((10,), 0.3), torch.full((10,), -1.0)
    for room, values in zip(there, (logits, deltas), strict=True):
        room[real] = values
    leaf = there[0].requires_grad_()
    found, sums = triton_double.render_weight_from_logits(leaf, there[1], packed(5, 5), 30.0, kind)
    assert torch.allclose(found[real], expected, atol=SCAN32) and torch.allclose(sums, opacities, atol=SCAN32)
    assert not found[~real].any()
    sums.sum().backward()
    assert bool(leaf.grad.isfinite().all()) and not leaf.grad[~real].any()
