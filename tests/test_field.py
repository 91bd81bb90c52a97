"""The fields: start, gradients, contraction, appearance; equal on every back end."""

import dataclasses

import pytest
import torch
from tolerances import relative

from quicksurf import kernels
from quicksurf.config import ModelConfig
from quicksurf.fields.appearance import Appearance
from quicksurf.fields.background import BackgroundField, contract
from quicksurf.fields.surface import INITIAL_RADIUS, Geometry, SurfaceField
from quicksurf.geometry.rays import Rays, unit_ball_span

SMALL = dataclasses.replace(
    ModelConfig(), n_levels=4, log2_hashmap_size=12, finest_resolution=64, n_neurons=16
)


def points_in_ball(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1) * torch.rand(
        n, 1, generator=generator
    )


def test_a_fresh_field_is_about_the_initial_ball(backend):
    field = SurfaceField(SMALL, backend, 0)
    points = points_in_ball(500)
    assert (field.logits(points) - (INITIAL_RADIUS - points.norm(dim=-1))).abs().max() < 0.5
    centre, rim = field.logits(torch.zeros(1, 3)), field.logits(torch.eye(3))
    assert bool(centre > 0) and bool((rim < 0).all())


def test_gradients_by_taps_approach_autograd(backend):
    field = SurfaceField(SMALL, backend, 0)
    points = points_in_ball(200).requires_grad_()
    field.logits(points).sum().backward()
    cosine = torch.nn.functional.cosine_similarity(
        field.geometry.gradients(points.detach(), 1e-3), points.grad
    )
    assert float(cosine.detach().mean()) > 0.98  # ReLU and trilinear kinks lie between some taps
    assert torch.allclose(field.normals(points.detach()).norm(dim=-1), torch.ones(200), atol=1e-4)


def test_taps_are_exact_for_linear_fields():
    class Linear(Geometry):
        def __init__(self):
            torch.nn.Module.__init__(self)

        def logits(self, points):
            return points @ torch.tensor([1.0, -2.0, 3.0]) + 0.5

    assert torch.allclose(
        Linear().gradients(points_in_ball(9), 0.1), torch.tensor([1.0, -2.0, 3.0]).expand(9, 3), atol=1e-5
    )


def test_colours_see_a_blurred_normal_through_which_nothing_is_learned(backend):
    field = SurfaceField(SMALL, backend, 0)
    points, directions = points_in_ball(100), torch.nn.functional.normalize(points_in_ball(100, 1), dim=-1)
    normals = field.shading_normals(points)
    assert torch.allclose(normals.norm(dim=-1), torch.ones(100), atol=1e-4) and not normals.requires_grad

    class Bumpy(Geometry):
        def __init__(self):
            torch.nn.Module.__init__(self)

        def logits(self, points):
            return 0.5 - points.norm(dim=-1) + 0.01 * torch.sin(100 * points).sum(1)

    outward = torch.nn.functional.normalize(points, dim=-1)
    away = points.norm(dim=-1) > 0.3
    sharp, blurred = Bumpy().gradients(points, 1e-3), Bumpy().shading_normals(points)
    assert (torch.nn.functional.normalize(-sharp, dim=-1) * outward).sum(1)[away].min() < 0.8
    assert (blurred * outward).sum(1)[away].min() > 0.9
    colors = field.color(points, field.geometry.query(points)[1], directions, normals)
    assert colors.shape == (100, 3) and bool(((colors >= 0) & (colors <= 1)).all())


def test_back_ends_give_the_same_logits_colours_and_gradients():
    cpu, twin = (SurfaceField(SMALL, kernels.load(name), 0) for name in ("cpu", "torch"))
    points, directions = points_in_ball(300), torch.nn.functional.normalize(points_in_ball(300, 1), dim=-1)
    results = []
    for field in (cpu, twin):
        logits, features = field.geometry.query(points)
        colors = field.color(points, features, directions, field.shading_normals(points))
        (logits.square().sum() + colors.square().sum()).backward()
        results.append(
            (
                logits.detach(),
                colors.detach(),
                field.geometry.network.params.grad,
                field.color.network.params.grad,
            )
        )
    for found, expected in zip(*results, strict=True):
        assert relative(found, expected) < 1e-4


def test_contraction_is_the_identity_inside_and_ends_at_two():
    inside = points_in_ball(100)
    assert torch.allclose(contract(inside), inside)
    far = 1e6 * torch.nn.functional.normalize(
        torch.randn(9, 3, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    assert torch.allclose(contract(far).norm(dim=-1), torch.full((9,), 2.0), atol=1e-4)
    edge = torch.nn.functional.normalize(far, dim=-1)
    assert torch.allclose(contract(edge * 1.0001), edge, atol=1e-3)


@pytest.mark.parametrize("n", [0, 1, 50])
def test_background_is_a_mean_of_colours(backend, n):
    field = BackgroundField(backend, torch.full((3,), 0.5), 0)
    origins = 3 * torch.nn.functional.normalize(points_in_ball(n), dim=-1) if n else torch.zeros(0, 3)
    directions = torch.nn.functional.normalize(points_in_ball(n, 1) - origins, dim=-1)
    rays = Rays(origins, directions, *unit_ball_span(origins, directions))
    colors = field.render(rays, torch.full((n, 8), 0.5))
    assert colors.shape == (n, 3) and bool(((colors >= 0) & (colors <= 1 + 1e-4)).all())
    colors.sum().backward()
    assert field.network.params.grad.isfinite().all()


def test_background_begins_as_the_colour_of_the_border(backend):
    """Black included: grey behind an object on black makes the surface grow over the whole region, to hide it."""
    for color in (torch.tensor([0.9, 0.5, 0.1]), torch.zeros(3), torch.ones(3)):
        field = BackgroundField(backend, color, 0)
        _, colors = field.query(contract(5 * points_in_ball(200)))
        assert (colors - color).abs().max() < 0.1  # the network adds a little


def test_noise_blurs_the_background_by_its_standard_deviation(backend, monkeypatch):
    """A wall, white where x > 0: noise of deviation s shows at x the fraction Φ(x/s) of white."""

    def wall(contracted, codes=None):
        return torch.full_like(contracted[:, 0], 1e6), (contracted[:, :1] > 0).float().expand(-1, 3)

    field = BackgroundField(backend, torch.full((3,), 0.5), 0)
    monkeypatch.setattr(field, "query", wall)
    n, deviation = 20000, 0.1
    directions = torch.tensor([0.0, 0.0, 1.0]).expand(n, 3)
    noise = deviation * torch.randn(n, 4, 3, generator=torch.Generator().manual_seed(0))
    for x in (-0.1, 0.0, 0.05):
        origins = torch.tensor([x, 0.0, -0.5]).expand(n, 3)
        rays = Rays(origins, directions, torch.zeros(n), torch.full((n,), 0.7))
        seen = field.render(rays, torch.full((n, 4), 0.5), noise).mean()
        fraction = torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(x / deviation))
        assert abs(seen - fraction) < 0.02  # five deviations of the mean


def test_appearance_starts_as_identity_and_keeps_its_gauge():
    appearance = Appearance(torch.zeros(4, dtype=torch.bool))
    colors = torch.rand(10, 3)
    images = torch.arange(10) % 4
    assert torch.equal(appearance(colors, images), colors)
    appearance.offsets.data += torch.randn(3, 4)  # the same change of every photo is not a change
    assert torch.allclose(appearance(colors, images), colors, atol=1e-5)
