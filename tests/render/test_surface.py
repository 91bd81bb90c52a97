"""Surface search on fields with a known surface, and the native search against its twin."""

import back_ends
import pytest
import torch
from tolerances import BOUNDARY

from quicksurf import kernels
from quicksurf.fields.grid import OccupancyGrid
from quicksurf.geometry.rays import Interval, Rays, unit_ball_span
from quicksurf.kernels import _native
from quicksurf.kernels.gpu import search
from quicksurf.kernels.modules import LogitNetwork
from quicksurf.kernels.reference.rays import traverse_grids

RADIUS = 0.4
INTERVAL = Interval(0.1, 0.03, 8, 4)
ENCODING = {
    "otype": "Composite",
    "nested": [
        {"otype": "Identity", "n_dims_to_encode": 3},
        {
            "otype": "HashGrid",
            "n_levels": 4,
            "log2_hashmap_size": 12,
            "base_resolution": 4,
            "per_level_scale": 2.0,
        },
    ],
}


def ball(backend):
    """A network of zeros: what is left is a ball."""
    network = backend.modules.NetworkWithInputEncoding(
        6, 4, ENCODING, {"n_neurons": 16, "n_hidden_layers": 1}
    )
    network.params.data.zero_()
    return LogitNetwork(network, RADIUS, 0.5)


def bumpy(backend):
    """A ball with an uneven surface, the same on every back end."""
    surface = ball(backend)
    values = torch.randn(surface.network.layout.n_params, generator=torch.Generator().manual_seed(4))
    surface.network.params.data.copy_(0.25 * values)
    return surface


def grid_of(surface, resolution=32):
    grid = OccupancyGrid(resolution, 0.01, torch.device("cpu"))
    with torch.no_grad():
        for step in range(0, 96, 16):
            grid.update(
                step, lambda points: surface.query(points)[0], lambda logits: torch.sigmoid(60.0 * logits)
            )
    return grid


def sample(backend, surface, grid, rays, step, interval=INTERVAL):
    """The surface and samples, jittered the same way on every back end."""
    shape = len(rays.near), interval.n_interval + interval.n_front
    jitter = torch.rand(shape, generator=torch.Generator().manual_seed(5))
    estimator = grid.estimator
    return backend.unisurf.sample_surface(
        surface, rays, estimator.binaries, estimator.aabbs, step, interval, jitter
    )


def find(backend, surface, grid, rays, step, level=0.0):
    return sample(backend, surface, grid, rays, step, INTERVAL._replace(level=level))[0]


def camera_rays(n):
    generator = torch.Generator().manual_seed(0)
    origins = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1) * 3
    targets = 0.6 * (2 * torch.rand(n, 3, generator=generator) - 1)
    directions = torch.nn.functional.normalize(targets - origins, dim=-1)
    return Rays(origins, directions, *unit_ball_span(origins, directions))


def true_depth(rays):
    b = (rays.origins * rays.directions).sum(-1)
    inside = b * b - (rays.origins.square().sum(-1) - RADIUS**2)
    return torch.where(inside > 0, -b - inside.clamp_min(0).sqrt(), torch.inf)


@pytest.mark.parametrize("n", [0, 1, 7, 700])
def test_depths_are_those_of_the_ball(backend, n):
    surface, rays = ball(backend), camera_rays(n)
    found = find(backend, surface, grid_of(surface), rays, 0.03)
    truth = true_depth(rays)
    clear = (torch.cross(rays.origins, rays.directions, dim=-1).norm(dim=-1) - RADIUS).abs() > 0.01
    assert torch.equal(found.hits & clear, truth.isfinite() & clear)
    index = found.hits & clear
    assert torch.allclose(found.ts[index], truth[index], atol=1e-4)


def test_the_search_leaves_a_ray_at_its_surface_and_skips_empty_cells(backend):
    surface, rays = ball(backend), camera_rays(300)
    grid = grid_of(surface)
    found = find(backend, surface, grid, rays, 0.02)
    everywhere = int(((rays.far - rays.near).clamp_min(0) / 0.02).sum())
    grids = grid.estimator.binaries, grid.estimator.aabbs
    steps = traverse_grids(rays.origins, rays.directions, *grids, rays.near, rays.far, 0.02)
    occupied = len(steps.t_mids)
    assert found.n_evaluations < occupied < 0.7 * everywhere
    assert found.n_evaluations < 0.3 * everywhere


def test_a_full_batch_leaves_every_ray_its_last_steps():
    chosen = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 1], [1, 1, 1, 1]]).bool()
    last_two = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 1], [0, 0, 1, 1]]).bool()
    assert torch.equal(search._last_of_each(chosen, 8), chosen)
    assert torch.equal(search._last_of_each(chosen, 5), last_two)
    assert not search._last_of_each(chosen, 2).any()


def test_the_order_of_rays_does_not_matter_where_the_batch_is_full(monkeypatch):
    backend = back_ends.present("triton")
    surface, rays = bumpy(backend), camera_rays(400)
    grid, backwards = grid_of(surface), Rays(*(part.flip(0) for part in rays))
    whole = find(backend, surface, grid, rays, 0.01)
    monkeypatch.setattr(search, "_FINE_STEPS", 2)
    found, other = (find(backend, surface, grid, r, 0.01) for r in (rays, backwards))
    assert torch.equal(found.hits, other.hits.flip(0))
    assert torch.allclose(found.ts, other.ts.flip(0), atol=1e-6)
    assert not torch.equal(found.ts, whole.ts)  # it was full


@pytest.mark.parametrize("level", [0.0, 0.05])
@pytest.mark.parametrize("name", _native.instruction_sets())
def test_native_search_equals_its_twin(name, level):
    before = _native.instruction_set()
    _native.set_instruction_set(name)
    rays, results = camera_rays(900), []
    for backend in (kernels.load("cpu"), kernels.load("torch")):
        surface = bumpy(backend)
        results.append(find(backend, surface, grid_of(surface), rays, 0.05, level))
    _native.set_instruction_set(before)
    native, twin = results
    assert 0.2 < float(twin.hits.float().mean()) < 0.9
    assert float((native.hits != twin.hits).float().mean()) < 0.01  # steps on the edge of a cell
    both = native.hits & twin.hits
    assert float(((native.ts - twin.ts).abs()[both] < 1e-3).float().mean()) > 0.99


def test_the_first_of_two_crossings_is_found(backend):
    """A ray through the ball crosses its front and its back; one that starts inside has its surface at the start."""
    surface = ball(backend)
    rays = Rays(
        torch.tensor([[-3.0, 0, 0], [0.1, 0, 0]]),
        torch.tensor([[1.0, 0, 0]] * 2),
        torch.tensor([2.0, 0.0]),
        torch.tensor([4.0, 0.9]),
    )
    found = find(backend, surface, grid_of(surface), rays, 0.02)
    assert abs(float(found.ts[0]) - (3 - RADIUS)) < 1e-4 and bool(found.hits.all())
    assert float(found.ts[1]) < 0.02


def test_rays_pass_matter_thinner_than_the_level_and_enter_the_rest_where_its_logit_is_0(backend):
    """At distance b from the centre the logit of the ball rises to R - b, and is 0 where the ball begins."""
    surface, offsets = ball(backend), torch.tensor([0.0, 0.2, 0.32, 0.36])
    origins = torch.stack([torch.full((4,), -3.0), offsets, torch.zeros(4)], 1)
    rays = Rays(origins, torch.tensor([[1.0, 0, 0]] * 4), torch.full((4,), 2.0), torch.full((4,), 4.0))
    found = find(backend, surface, grid_of(surface), rays, 0.02, level=RADIUS - 0.3)
    assert found.hits.tolist() == [True, True, False, False]
    assert torch.allclose(found.ts[:2], 3 - (RADIUS**2 - offsets[:2] ** 2).sqrt(), atol=1e-3)


def test_bits_do_not_depend_on_the_number_of_threads():
    backend, rays = kernels.load("cpu"), camera_rays(3000)
    surface = bumpy(backend)
    grid, before, results = grid_of(surface), _native.num_threads(), []
    for n_threads in (1, 2, 5):
        _native.set_num_threads(n_threads)
        results.append(find(backend, surface, grid, rays, 0.03))
    _native.set_num_threads(before)
    assert all(torch.equal(result.ts, results[0].ts) for result in results)
    assert len({result.n_evaluations for result in results}) == 1


def test_grid_keeps_every_cell_the_surface_passes():
    grid = grid_of(ball(kernels.load("cpu")), resolution=24)
    directions = torch.nn.functional.normalize(
        torch.randn(2000, 3, generator=torch.Generator().manual_seed(1)), dim=-1
    )
    cells = ((RADIUS * directions + 1) / 2 * 24).long()
    assert bool(grid.occupied[cells[:, 0], cells[:, 1], cells[:, 2]].all())
    assert float(grid.occupied.float().mean()) < 0.2  # and not the empty ones


@pytest.mark.parametrize("name", _native.instruction_sets())
def test_native_samples_equal_their_twins(name):
    before = _native.instruction_set()
    _native.set_instruction_set(name)
    rays, results = camera_rays(400), []
    for backend in (kernels.load("cpu"), kernels.load("torch")):
        surface = bumpy(backend)
        results.append(sample(backend, surface, grid_of(surface), rays, 0.05))
    _native.set_instruction_set(before)
    (native_surface, native), (twin_surface, twin) = results
    same = native_surface.hits == twin_surface.hits
    same &= (native_surface.ts - twin_surface.ts).abs() < BOUNDARY
    same &= native.packed_info[:, 1] == twin.packed_info[:, 1]
    assert float(same.float().mean()) > 0.95  # the others hit on another step at the edge of a cell
    a, b = same[native.ray_indices], same[twin.ray_indices]
    assert torch.equal(native.ray_indices[a], twin.ray_indices[b])
    close = (native.ts[a] - twin.ts[b]).abs() < 1e2 * BOUNDARY
    close &= (native.deltas[a] - twin.deltas[b]).abs() < 1e2 * BOUNDARY
    assert float(close.float().mean()) > 0.98  # a step more or less at a cell's edge moves the strata


def test_samples_lie_in_occupied_cells_in_order_and_most_of_them_in_the_interval(backend):
    surface, rays, interval = ball(backend), camera_rays(60), Interval(0.05, 0.0, 16, 8)
    grid = grid_of(surface)
    found, samples = sample(backend, surface, grid, rays, 0.02, interval)
    assert bool((samples.packed_info[found.hits, 1] >= 16).all())
    points = rays.at(samples.ray_indices, samples.ts)
    cells = ((points + 1) / 2 * 32).long().clamp(0, 31)
    # half a step may reach over a cell's face
    assert float(grid.occupied[cells[:, 0], cells[:, 1], cells[:, 2]].float().mean()) > 0.9
    for ray, (begin, count) in enumerate(samples.packed_info.tolist()):
        ts = samples.ts[begin : begin + count]
        assert bool((ts[1:] >= ts[:-1]).all())
        if found.hits[ray]:
            inside = (ts - found.ts[ray]).abs() <= 0.05 + BOUNDARY
            assert inside.sum() == 16 and bool((ts[~inside] < found.ts[ray]).all())


def test_rays_in_the_plane_of_a_face_end_and_those_that_are_not_finite_meet_nothing():
    backend = kernels.load("cpu")
    surface = ball(backend)
    origins = torch.tensor([[-3.0, 1, 0], [-3, 0, 0], [torch.nan, 0, 0], [0, torch.inf, 0], [-3, 0, 0]])
    directions = torch.tensor([[1.0, 0, 0]] * 4 + [[torch.nan, 0, 0]])
    rays = Rays(origins, directions, torch.zeros(5), torch.full((5,), 10.0))
    found, samples = sample(backend, surface, grid_of(surface), rays, 0.02)
    assert found.hits.tolist() == [False, True, False, False, False]
    assert not samples.packed_info[2:, 1].any()


@pytest.mark.parametrize("step", [0.0, -1.0, float("nan"), float("inf"), 1e-9])
def test_steps_that_would_not_end_are_refused(step):
    backend = kernels.load("cpu")
    surface = ball(backend)
    with pytest.raises(ValueError, match="step_size"):
        find(backend, surface, grid_of(surface), camera_rays(2), step)


def test_the_interval_is_wider_where_a_ray_grazes_the_surface(backend):
    """Rays at distance b from the centre cross the ball with dl/dt = √(1 − b²/R²): the logit reaches ± reach on all."""
    surface = ball(backend)
    offsets = torch.tensor([0.0, 0.2, 0.3, 0.36])
    origins = torch.stack([torch.full((4,), -3.0), offsets, torch.zeros(4)], 1)
    rays = Rays(origins, torch.tensor([[1.0, 0, 0]] * 4), torch.full((4,), 2.0), torch.full((4,), 4.0))
    interval = Interval(0.001, 0.03, 16, 0)
    found, samples = sample(backend, surface, grid_of(surface), rays, 0.02, interval)
    slopes = (1 - (offsets / RADIUS) ** 2).sqrt()
    assert bool(found.hits.all())
    for ray, (begin, count) in enumerate(samples.packed_info.tolist()):
        part = slice(begin, begin + count)
        half_width = 0.5 * float(samples.ts[part][-1] - samples.ts[part][0]) * count / (count - 1)
        assert half_width == pytest.approx(0.03 / float(slopes[ray]), rel=0.12)  # of a chord over one step
        assert float(samples.deltas[part].sum()) == pytest.approx(
            0.06, rel=1e-3
        )  # of the logit, at any angle


def test_a_surface_behind_a_gap_of_empty_cells_is_where_they_end(backend):
    surface = ball(backend)
    grid = grid_of(surface)
    grid.occupied[7:12] = False  # −0.56 < x < −0.25: the front of the ball
    line = torch.tensor([[-3.0, 0.01, 0.01]]), torch.tensor([[1.0, 0, 0]])
    rays = Rays(*line, torch.tensor([2.0]), torch.tensor([4.0]))
    found, samples = sample(backend, surface, grid, rays, 0.02, Interval(0.05, 0.03, 8, 4))
    assert bool(found.hits[0]) and float(found.ts[0]) == pytest.approx(2.75, abs=0.021)
    assert bool(((samples.ts - found.ts[0]).abs() < 0.051).sum() >= 8)


def test_jitter_next_to_one_leaves_samples_in_order():
    backend, rays = kernels.load("cpu"), camera_rays(300)
    surface = bumpy(backend)
    grid = grid_of(surface)
    grid.occupied[::5] = False
    interval = Interval(0.19, 0.0, 11, 13)
    jitter = torch.full((300, 24), 1 - 2.0**-24)
    grids = grid.estimator.binaries, grid.estimator.aabbs
    _, samples = backend.unisurf.sample_surface(surface, rays, *grids, 0.01, interval, jitter)
    later = samples.ts[1:] >= samples.ts[:-1]
    assert bool((later | (samples.ray_indices[1:] != samples.ray_indices[:-1])).all())
