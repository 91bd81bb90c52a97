"""Rows of the ray operations: scans, Adam, surface search, traversal and interval sampler.

Scans and Adam are held against a copy that moves the same bytes, the search against the rate at which the network alone
answers. Rays run from a camera through a shell of occupied cells around the default field's first surface, a ball.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from tolerances import BOUNDARY, GRADIENT32, SCAN32
from torch import Tensor

from kernel_bench import counts, limits
from kernel_bench.check import Mismatch, same
from kernel_bench.kernel import Kernel
from quicksurf import backends
from quicksurf.config import Config
from quicksurf.model.field import INITIAL_RADIUS, SurfaceField
from quicksurf.optimizer import BETAS, EPSILON
from quicksurf.rays import Rays, pack_counts, unit_ball_span

_N_RAYS, _PER_RAY = 1 << 15, 24
_SCAN = _N_RAYS * _PER_RAY
_ADAM_VALUES = 1 << 22  # a table of 16 levels of 2^17 entries of 2 features
_CHECK_RAYS = 64  # the marching twins are loops in Python
_STEP = 0.02
_SHELL = 0.15  # two dozen steps on a ray before it meets the ball
_HALF_WIDTH = 0.03


def kernels() -> list[Kernel]:
    """All rows of this file."""
    march = _march()
    return [*_weights(), *_accumulate(), _adam(), _search(march), _traverse(march), _intervals(march)]


class March(NamedTuple):
    """Rays through the shell of occupied cells."""

    rays: Rays
    binaries: Bool[Tensor, "1 r r r"]
    aabbs: Float[Tensor, "1 6"]

    def first(self, n: int) -> "March":
        """The same with the first `n` rays only."""
        return self._replace(rays=Rays(*(part[:n] for part in self.rays)))

    def geometry(self) -> tuple:
        """Arguments of traverse_grids."""
        rays = self.rays
        return rays.origins, rays.directions, self.binaries, self.aabbs, rays.near, rays.far, _STEP


def _march() -> March:
    generator = torch.Generator().manual_seed(0)
    origins = torch.nn.functional.normalize(torch.randn(_N_RAYS, 3, generator=generator), dim=-1) * 3
    targets = 1.2 * (torch.rand(_N_RAYS, 3, generator=generator) - 0.5)
    directions = torch.nn.functional.normalize(targets - origins, dim=-1)
    rays = Rays(origins, directions, *unit_ball_span(origins, directions))
    resolution = Config().render.grid_resolution
    middles = (torch.arange(resolution) + 0.5) * (2 / resolution) - 1
    distance = torch.stack(torch.meshgrid(middles, middles, middles, indexing="ij")).norm(dim=0)
    binaries = ((distance - INITIAL_RADIUS).abs() < _SHELL)[None]
    return March(rays, binaries, torch.tensor([[-1.0, -1, -1, 1, 1, 1]]))


def _packed(n_rays: int) -> Int[Tensor, "n 2"]:
    return pack_counts(torch.full((n_rays,), _PER_RAY))


def _weights() -> list[Kernel]:
    rays, packed = backends.load("cpu").rays, _packed(_N_RAYS)
    alphas = (0.3 * torch.rand(_SCAN)).requires_grad_()
    outputs, grads = rays.render_weight_from_alpha(alphas, packed), (torch.rand(_SCAN), torch.rand(_SCAN))

    def run() -> object:
        return rays.render_weight_from_alpha(alphas.detach(), packed)

    def back() -> object:
        return torch.autograd.grad(outputs, alphas, grads, retain_graph=True)

    return [
        _scan("render_weight_from_alpha, forward", run, _check_weights, counts.WEIGHTS_FORWARD * _SCAN),
        _scan("render_weight_from_alpha, backward", back, _check_weights, counts.WEIGHTS_BACKWARD * _SCAN),
    ]


def _accumulate() -> list[Kernel]:
    rays, packed = backends.load("cpu").rays, _packed(_N_RAYS)
    weights, values = torch.rand(_SCAN).requires_grad_(), torch.rand(_SCAN, 3).requires_grad_()
    output, grad = rays.accumulate_along_rays(weights, values, packed), torch.rand(_N_RAYS, 3)

    def run() -> object:
        return rays.accumulate_along_rays(weights.detach(), values.detach(), packed)

    def back() -> object:
        return torch.autograd.grad(output, (weights, values), grad, retain_graph=True)

    shape = _SCAN, _N_RAYS, 3
    forward, backward = counts.accumulate_forward_bytes(*shape), counts.accumulate_backward_bytes(*shape)
    return [
        _scan("accumulate_along_rays (scan), forward", run, _check_accumulate, forward),
        _scan("accumulate_along_rays (scan), backward", back, _check_accumulate, backward),
    ]


def _scan(name: str, run, check, n_bytes: float) -> Kernel:
    """A row in GB/s beside a copy of as many bytes."""
    return Kernel(name, run, n_bytes, "GB/s", 1e9, check, limits=((limits.copy(n_bytes), n_bytes),))


def _check_weights() -> None:
    alphas, packed = torch.rand(1000 * _PER_RAY), _packed(1000)
    alphas[::7] = 1.0
    grads = torch.rand_like(alphas), torch.rand_like(alphas)
    _same_scans(
        "render_weight_from_alpha", (alphas,), grads, lambda rays, a: rays.render_weight_from_alpha(a, packed)
    )


def _check_accumulate() -> None:
    inputs, packed = (torch.rand(1000 * _PER_RAY), torch.rand(1000 * _PER_RAY, 3)), _packed(1000)

    def run(rays, weights: Tensor, values: Tensor) -> tuple[Tensor]:
        return (rays.accumulate_along_rays(weights, values, packed),)

    _same_scans("accumulate_along_rays", inputs, (torch.rand(1000, 3),), run)


def _same_scans(what: str, inputs: tuple[Tensor, ...], grads: tuple[Tensor, ...], run) -> None:
    """Compare values and gradients of a scan on both back ends."""
    results = []
    for name in ("cpu", "torch"):
        leaves = [part.clone().requires_grad_() for part in inputs]
        outputs = run(backends.load(name).rays, *leaves)
        results.append([*outputs, *torch.autograd.grad(outputs, leaves, grads)])
    for found, expected in zip(*results, strict=True):
        same(what, found, expected, SCAN32)


def _adam() -> Kernel:
    rays, n_bytes = backends.load("cpu").rays, float(counts.ADAM * _ADAM_VALUES)
    state = _adam_state(_ADAM_VALUES)

    def run() -> None:
        _adam_step(rays, state)

    return _scan("Adam over a table of 2^22 values", run, _check_adam, n_bytes)


def _adam_state(n: int) -> list[Tensor]:
    """Value, gradient and moments."""
    generator = torch.Generator().manual_seed(0)
    values, grad, first, second = torch.randn(4, n, generator=generator)
    return [values, grad, 0.1 * first, 0.1 + second.square()]


def _adam_step(rays, state: list[Tensor]) -> None:
    rays.adam_step(*state, learning_rate=1e-2, betas=BETAS, epsilon=EPSILON, step=100, skip_zero=True)


def _check_adam() -> None:
    native, twin = _adam_state(10_000), _adam_state(10_000)
    for name, state in (("cpu", native), ("torch", twin)):
        state[1][::3] = 0
        _adam_step(backends.load(name).rays, state)
    for found, expected in zip(native, twin, strict=True):
        same("Adam", found, expected, GRADIENT32)


def _search(march: March) -> Kernel:
    """Evaluations of the search, beside as many points of the same kind evaluated by the network alone."""
    rays, fields = (
        backends.load("cpu").rays,
        {n: SurfaceField(Config().model, backends.load(n), 0) for n in ("cpu", "torch")},
    )
    args = march.rays, march.binaries, march.aabbs, _STEP
    n_evaluations = rays.find_surface(fields["cpu"].surface, *args).n_evaluations
    steps = rays.traverse_grids(*march.geometry())
    points = march.rays.at(steps.ray_indices, steps.t_mids)[:n_evaluations]
    x = torch.cat([points.T, 0.5 * points.T + 0.5]).T

    @torch.no_grad()
    def network() -> Tensor:
        return fields["cpu"].geometry(x)

    return Kernel(
        "surface search",
        lambda: rays.find_surface(fields["cpu"].surface, *args),
        n_evaluations,
        "M evaluations/s",
        1e6,
        lambda: _check_search(march.first(_CHECK_RAYS), fields),
        rivals={"share of the network's own rate": (network, len(x) / n_evaluations)},
    )


def _check_search(march: March, fields: dict[str, SurfaceField]) -> None:
    found, expected = (
        backends.load(name).rays.find_surface(field.surface, march.rays, march.binaries, march.aabbs, _STEP)
        for name, field in fields.items()
    )
    if not torch.equal(found.hits, expected.hits):
        raise Mismatch("surface search: other rays hit than in the torch twin")
    same("surface search", found.ts, expected.ts, BOUNDARY)


def _traverse(march: March) -> Kernel:
    rays = backends.load("cpu").rays
    n_steps = len(rays.traverse_grids(*march.geometry()).t_starts)
    return Kernel(
        "traverse_grids",
        lambda: rays.traverse_grids(*march.geometry()),
        n_steps,
        "M steps/s",
        1e6,
        lambda: _check_traverse(march.first(_CHECK_RAYS)),
        limits=_copied(counts.TRAVERSE * n_steps),
    )


def _copied(n_bytes: float):
    return ((limits.copy(n_bytes), n_bytes),)


def _check_traverse(march: March) -> None:
    found, expected = (
        backends.load(name).rays.traverse_grids(*march.geometry()) for name in ("cpu", "torch")
    )
    if not torch.equal(found.packed_info, expected.packed_info):
        raise Mismatch("traverse_grids: other steps than in the torch twin")
    same("traverse_grids", found.t_mids, expected.t_mids, BOUNDARY)


def _intervals(march: March) -> Kernel:
    rays, run = backends.load("cpu").rays, _interval_run(march)
    n_steps, n_samples = len(rays.traverse_grids(*march.geometry()).t_starts), len(run("cpu").ts)
    return Kernel(
        "interval_samples",
        lambda: run("cpu"),
        n_samples,
        "M samples/s",
        1e6,
        lambda: _check_intervals(march.first(_CHECK_RAYS)),
        limits=_copied(counts.interval_bytes(n_steps, n_samples)),
    )


def _interval_run(march: March):
    """The sampler on the march's steps with the ball of the first surface as what the search found."""
    render = Config().render
    rays = march.rays
    steps = backends.load("cpu").rays.traverse_grids(*march.geometry())
    b = (rays.origins * rays.directions).sum(-1)
    root = b * b - rays.origins.square().sum(-1) + INITIAL_RADIUS**2
    hits, ts = root > 0, -b - root.clamp_min(0).sqrt()
    numbers = render.n_interval_samples, render.n_front_samples
    jitter = torch.rand(len(b), sum(numbers), generator=torch.Generator().manual_seed(1))
    return lambda name: backends.load(name).rays.interval_samples(
        steps, hits, ts, _HALF_WIDTH, *numbers, jitter
    )


def _check_intervals(march: March) -> None:
    run = _interval_run(march)
    found, expected = run("cpu"), run("torch")
    if not torch.equal(found.packed_info, expected.packed_info):
        raise Mismatch("interval_samples: other numbers of samples than in the torch twin")
    same("interval_samples, depths", found.ts, expected.ts, BOUNDARY)
    same("interval_samples, lengths", found.lengths, expected.lengths, SCAN32)
