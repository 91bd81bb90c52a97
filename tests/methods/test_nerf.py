"""Density along rays, against loops that say what it is."""

import pytest
import torch
from tolerances import GRADIENT32, SCAN32, relative

from quicksurf import kernels
from quicksurf.fields.grid import OccupancyGrid
from quicksurf.fields.surface import Geometry
from quicksurf.geometry.rays import Rays, Samples, pack_counts, unit_ball_span
from quicksurf.kernels.nerfacc import install
from quicksurf.methods.nerf import GAIN, STEP, Nerf, density, distortion

COUNTS = 5, 0, 1, 7


def samples_of(counts, seed=0):
    generator = torch.Generator().manual_seed(seed)
    n = sum(counts)
    deltas = 0.02 + 0.1 * torch.rand(n, generator=generator)
    ray_indices = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    ts = torch.cat([part.cumsum(0) - 0.5 * part for part in deltas.split(list(counts))])
    return Samples(1 + ts, deltas, ray_indices, pack_counts(torch.tensor(counts)))


def logits_of(samples):
    return 0.3 * torch.randn(len(samples.ts), generator=torch.Generator().manual_seed(1))


def plain_weights(logits, samples):
    weights = []
    for begin, count in samples.packed_info.tolist():
        light = torch.ones(())
        for i in range(begin, begin + count):
            passed = torch.exp(-torch.exp(GAIN * logits[i]) * samples.deltas[i])
            weights.append(light * (1 - passed))
            light = light * passed
    return torch.stack(weights)


def test_weights_are_those_of_density_and_sum_to_the_opacity():
    samples, nerf = samples_of(COUNTS), Nerf(0.01)
    install()
    results = []
    for formula in (
        plain_weights,
        lambda logits, s: nerf.weights(kernels.load("cpu"), logits, s, nerf.schedule(0))[0],
    ):
        logits = logits_of(samples).requires_grad_()
        weights = formula(logits, samples)
        (weights * torch.arange(len(weights)).cos()).sum().backward()
        results.append((weights.detach(), logits.grad))
    assert torch.allclose(results[0][0], results[1][0], atol=SCAN32)
    assert relative(results[1][1], results[0][1]) < GRADIENT32
    _, opacities = nerf.weights(kernels.load("cpu"), logits_of(samples), samples, nerf.schedule(0))
    sums = torch.stack([part.sum() for part in results[0][0].split(list(COUNTS))])
    assert torch.allclose(opacities, sums, atol=SCAN32)


def test_distortion_is_the_double_sum():
    samples = samples_of(COUNTS)
    install()
    results = []
    for formula in (double_sum, distortion):
        weights = torch.rand(sum(COUNTS), generator=torch.Generator().manual_seed(2)).requires_grad_()
        loss = formula(weights, samples.ts, samples.deltas, samples.packed_info)
        loss.backward()
        results.append((loss.detach(), weights.grad))
    assert results[1][0] == pytest.approx(float(results[0][0]), rel=SCAN32)
    assert relative(results[1][1], results[0][1]) < GRADIENT32


def double_sum(weights, mids, lengths, packed_info):
    total = torch.zeros(())
    for begin, count in packed_info.tolist():
        ray = range(begin, begin + count)
        total = total + sum(weights[i] * weights[j] * (mids[i] - mids[j]).abs() for i in ray for j in ray)
        total = total + sum(weights[i] ** 2 * lengths[i] / 3 for i in ray)
    return total / len(packed_info)


def test_a_huge_density_has_a_finite_gradient():
    logits = torch.tensor([-20.0, 0.0, 20.0], requires_grad=True)
    values = density(logits.clamp(-8, 8))
    values.sum().backward()
    assert bool(logits.grad.isfinite().all())
    assert torch.allclose(density(torch.tensor([0.1])), torch.tensor([0.1 * GAIN]).exp())


class Ball(Geometry):
    """A field of constant density in a ball."""

    def __init__(self, radius, logit):
        torch.nn.Module.__init__(self)
        self.radius, self.logit = radius, logit

    def logits(self, points):
        return torch.where(points.norm(dim=1) < self.radius, self.logit, -2.0)


@pytest.mark.parametrize("jittered", [False, True])
def test_samples_are_the_occupied_steps_that_light_reaches(jittered):
    origins = torch.tensor([[-3.0, 0.01, 0], [-3.0, 0.9, 0], [-3.0, 5.0, 0]])
    directions = torch.tensor([[1.0, 0, 0]]).repeat(3, 1)
    rays = Rays(origins, directions, *unit_ball_span(origins, directions))
    nerf, grid = Nerf(0.01), OccupancyGrid(32, 0.01, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0) if jittered else None
    sigma = 100.0
    ball = Ball(0.5, float(torch.tensor(sigma).log()) / GAIN)
    samples, surface = nerf.sample(kernels.load("cpu"), ball, grid, rays, nerf.schedule(0), generator)
    counts = samples.packed_info[:, 1].tolist()
    assert surface.hits.tolist() == [True, False, False] and counts[2] == 0
    assert float(surface.ts[0]) == pytest.approx(2.5 + 0.693 / sigma, abs=2 * STEP)
    last = float(samples.ts[: counts[0]].max())  # a thousandth of the light is left after 6.9 mean free paths
    assert last == pytest.approx(2.5 + 6.9 / sigma, abs=2 * STEP)
    assert torch.allclose(samples.deltas[: counts[0]], torch.tensor(STEP), atol=SCAN32)
    assert int(samples.packed_info[:, 1].sum()) == len(samples.ts)


def test_the_surface_is_where_the_density_has_its_level():
    nerf = Nerf(0.01)
    for level in (1.0, 50.0, 500.0):
        assert density(torch.tensor([nerf.surface_logit(level)])).item() == pytest.approx(level, rel=SCAN32)
    own = torch.tensor([nerf.surface_logit(0.0)])
    assert nerf.occupancy(own, nerf.schedule(1)).item() == pytest.approx(0.5, abs=SCAN32)
