"""The differentiable hit and the mask loss, against finite differences and loops that say what they are."""

import pytest
import torch
from tolerances import BOUNDARY, GRADIENT32, SCAN32, relative

from quicksurf import kernels
from quicksurf.config import IdrConfig, ModelConfig
from quicksurf.fields.grid import OccupancyGrid
from quicksurf.fields.surface import Geometry
from quicksurf.geometry.rays import Rays, Samples, pack_counts, unit_ball_span
from quicksurf.methods.idr import Idr, eikonal, hit_offsets, mask_loss

DIFFERENCES = 2e-2  # relative: taps of a ball bend by their step, and hits move by a thousandth


class Ball(Geometry):
    """A ball whose radius is its parameter."""

    def __init__(self, radius):
        torch.nn.Module.__init__(self)
        self.radius = torch.nn.Parameter(torch.tensor(radius))

    def logits(self, points):
        return self.radius - points.norm(dim=1)

    def tap_step(self):
        return 0.01


def depth_of(rays, radius):
    b = (rays.origins * rays.directions).sum(1)
    return -b - (b * b - rays.origins.square().sum(1) + radius**2).sqrt()


def rays_towards(offsets):
    origins = torch.stack([torch.full_like(offsets, -3.0), offsets, 0 * offsets], 1)
    directions = torch.tensor([[1.0, 0, 0]]).repeat(len(offsets), 1)
    return Rays(origins, directions, *unit_ball_span(origins, directions))


def test_a_hit_moves_as_the_surface_does():
    """Its derivative by the radius, beside that of the exact depth."""
    rays = rays_towards(torch.tensor([0.0, 0.1, 0.3]))
    ball, h = Ball(0.5), 1e-3
    hits = rays.at(torch.arange(3), depth_of(rays, 0.5))
    offsets = hit_offsets(ball, hits, rays.directions)
    assert not offsets.detach().any()
    exact = (depth_of(rays, 0.5 + h) - depth_of(rays, 0.5 - h)) / (2 * h)
    for row, derivative in zip(offsets[:, 0], exact, strict=True):
        (found,) = torch.autograd.grad(row, ball.radius, retain_graph=True)
        assert float(found) == pytest.approx(float(derivative), rel=DIFFERENCES)


def test_samples_are_the_hit_and_the_place_of_the_largest_logit():
    backend = kernels.load("cpu")
    geometry = Geometry(ModelConfig(n_levels=4, log2_hashmap_size=10, n_neurons=16), backend, 0)
    geometry.network.params.data.zero_()  # a ball of half the region
    rays = rays_towards(torch.tensor([0.1, 0.8, 4.0]))
    method, grid = Idr(IdrConfig(), 2 / 32), OccupancyGrid(32, 0.01, torch.device("cpu"))
    schedule = method.schedule(0.3)
    generator = torch.Generator().manual_seed(0)
    samples, surface = method.sample(backend, geometry, grid, rays, schedule, generator)
    assert samples.packed_info[:, 1].tolist() == [2, 1, 0] and surface.hits.tolist() == [True, False, False]
    assert samples.deltas.tolist() == [1.0, 0.0, 0.0]
    assert float(samples.ts[0]) == pytest.approx(float(depth_of(rays, 0.5)[0]), abs=BOUNDARY)
    assert samples.ts[1:].tolist() == pytest.approx([3.0, 3.0], abs=0.1)
    weights, opacities = method.weights(backend, torch.zeros(3), samples, schedule)
    assert weights.tolist() == [1.0, 0.0, 0.0] and opacities.tolist() == [1.0, 0.0, 0.0]
    rendered, _ = method.sample(backend, geometry, grid, rays, schedule, None)
    assert rendered.packed_info[:, 1].tolist() == [1, 0, 0]


def test_the_mask_loss_is_of_rays_that_are_wrong_or_beside_the_object():
    """A hit on the object, one beside it, a miss on it, one beside it, a hit and a miss that no mask knows."""
    hits, inside = [1, 1, 0, 0, 1, 0], torch.tensor([1.0, 0.0, 1.0, 0.0, 0.5, 0.5])
    counts = torch.tensor([1 + hit for hit in hits])
    deltas = torch.cat([torch.tensor([1.0, 0.0]) if hit else torch.tensor([0.0]) for hit in hits])
    samples = Samples(torch.ones(9), deltas, torch.arange(6).repeat_interleave(counts), pack_counts(counts))
    results, alpha = [], 100.0
    for formula in (plain_mask_loss, mask_loss):
        logits = (0.02 * torch.randn(9, generator=torch.Generator().manual_seed(0))).requires_grad_()
        loss = formula(logits, samples, inside, alpha)
        loss.backward()
        results.append((loss.detach(), logits.grad))
    assert float(results[1][0]) == pytest.approx(float(results[0][0]), rel=SCAN32)
    assert relative(results[1][1], results[0][1]) < GRADIENT32
    assert torch.nonzero(results[1][1])[:, 0].tolist() == [3, 4, 5]


def plain_mask_loss(logits, samples, inside, alpha):
    total = torch.zeros(())
    for ray, (begin, count) in enumerate(samples.packed_info.tolist()):
        on_object = float(inside[ray]) == 1.0
        if float(inside[ray]) == 0.5 or (on_object and count == 2):
            continue
        opacity = torch.sigmoid(alpha * logits[begin + count - 1])
        total = total - (opacity.log() if on_object else (1 - opacity).log())
    return total / alpha / len(inside)


def test_colours_teach_on_the_object_where_it_is_hit():
    method = Idr(IdrConfig(), 0.1)
    hits, inside = torch.tensor([True, True, False, True]), torch.tensor([1.0, 0.0, 1.0, 0.5])
    assert method.taught(hits, inside).tolist() == [True, False, False, True]
    assert method.taught(hits, None) is None


def test_alpha_doubles_and_the_rate_halves():
    method = Idr(IdrConfig(), 0.1)
    assert [method.schedule(p).sharpness for p in (0.0, 0.2, 0.4, 1.0)] == [50.0, 100.0, 400.0, 1600.0]
    assert [method.schedule(p).geometry_rate for p in (0.0, 0.4, 0.6, 0.8)] == [0.1, 1.0, 0.5, 0.25]


def test_eikonal_is_zero_for_a_distance_and_for_nothing():
    unit = torch.nn.functional.normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    assert float(eikonal(unit)) < SCAN32
    assert float(eikonal(3 * unit)) == pytest.approx(4.0, rel=SCAN32)
    assert float(eikonal(unit[:0])) == 0
