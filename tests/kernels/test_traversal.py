"""nerfacc's boxes and walk through nested grids on CPU tensors against their twin; bad arguments; fuzz."""

import nerfacc
import pytest
import scans_twin
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nerfacc_rays import rays
from tolerances import BOUNDARY
from torch import Tensor

from quicksurf import kernels
from quicksurf.kernels import _native
from quicksurf.kernels import nerfacc as nerfacc_cpu
from quicksurf.kernels.reference import rays as torch_rays

MARCH = 20 * BOUNDARY  # a hundred roundings of t, each at most half of 2e-6
BOX = torch.tensor([-1.0, -1, -1, 1, 1, 1])
BOXES = torch.stack([BOX, 2 * BOX, 4 * BOX])


@pytest.fixture(autouse=True)
def installed():
    nerfacc_cpu.install()


def grids(levels: int, seed: int = 3) -> Tensor:
    return torch.rand(levels, 9, 8, 7, generator=torch.Generator().manual_seed(seed)) < 0.3


def steps_of(intervals: nerfacc.RayIntervals, ray: int) -> list[tuple[float, float]]:
    mine = intervals.ray_indices == ray
    starts = intervals.vals[mine & intervals.is_left]
    ends = intervals.vals[mine & intervals.is_right]
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


@pytest.mark.parametrize("n", [0, 1, 7, 600])
def test_boxes_equal_their_twin(n):
    origins, directions = rays(n)
    boxes = BOXES + torch.tensor([0.3, -0.2, 0.1] * 2)
    found = nerfacc.ray_aabb_intersect(origins, directions, boxes)
    for a, b in zip(found, torch_rays.ray_aabb_intersect(origins, directions, boxes), strict=True):
        assert a.shape == b.shape == (n, 3) and torch.allclose(a.float(), b.float(), atol=BOUNDARY)


def test_boxes_with_planes_and_a_value_for_misses():
    origins, directions = torch.tensor([[-3.0, 0, 0], [-3, 5, 0], [3, 0, 0]]), torch.eye(3)[[0, 0, 0]]
    t_mins, t_maxs, hits = nerfacc.ray_aabb_intersect(origins, directions, BOX[None], 2.5, 3.5, -7.0)
    assert t_mins[:, 0].tolist() == [2.5, -7, -7] and t_maxs[:, 0].tolist() == [3.5, -7, -7]
    assert hits[:, 0].tolist() == [True, False, False]


def test_a_ray_in_the_plane_of_a_face_meets_the_box_and_one_that_is_not_finite_does_not():
    origins = torch.tensor([[-3.0, 1.0, 0], [-3, -1, -1], [-3, torch.nan, 0], [torch.inf, 0, 0]])
    t_mins, t_maxs, hits = nerfacc.ray_aabb_intersect(origins, torch.eye(3)[[0] * 4], BOX[None])
    assert hits[:, 0].tolist() == [True, True, False, False]
    assert t_mins[:2, 0].tolist() == [2, 2] and t_maxs[:2, 0].tolist() == [4, 4]


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("step_size, cone_angle", [(0.05, 0.0), (0.03, 0.02), (0.0, 0.0)])
@pytest.mark.parametrize("limit", [None, 7])
def test_traversal_equals_its_twin(levels, step_size, cone_angle, limit):
    n, near, far = 25, 0.7, 8.0
    (origins, directions), occupied = rays(n), grids(levels)
    intervals, samples, ends = nerfacc.traverse_grids(
        origins, directions, occupied, BOXES[:levels], torch.full((n,), near), torch.full((n,), far),
        step_size, cone_angle, limit,
    )  # fmt: skip
    differing = n_steps = 0
    for ray in range(n):
        cells = scans_twin.ray_cells(origins[ray], directions[ray], occupied, BOXES[:levels], near, far)
        expected, end = scans_twin.march_cells(cells, near, step_size, cone_angle, limit or 0)
        found = steps_of(intervals, ray)
        n_steps += len(expected)
        same = len(found) == len(expected) and torch.allclose(
            torch.tensor([*sum(found, ()), float(ends[ray])]),
            torch.tensor([*sum(expected, ()), end]),
            atol=MARCH,
        )
        differing += not same
    assert n_steps > 80 and differing <= 1  # a middle within rounding of a face may fall on either side
    assert torch.equal(samples.packed_info[:, 1], samples.ray_indices.bincount(minlength=n))
    mids = (intervals.vals[intervals.is_left] + intervals.vals[intervals.is_right]) / 2
    assert torch.allclose(samples.vals, mids) and bool(samples.is_valid.all())


def test_neighbouring_steps_share_an_edge():
    intervals, samples, _ = nerfacc.traverse_grids(
        torch.tensor([[-3.0, 0.1, 0.1]]), torch.eye(3)[:1], torch.ones(1, 4, 4, 4, dtype=torch.bool), BOX[None],
        step_size=0.1,
    )  # fmt: skip
    n = len(samples.vals)
    assert abs(n - 20) <= 1 and len(intervals.vals) == n + 1 == intervals.packed_info[0, 1]
    assert intervals.is_left.tolist() == [True] * n + [False]
    assert intervals.is_right.tolist() == [False] + [True] * n


def test_over_allocation_changes_the_room_and_not_the_steps():
    (origins, directions), occupied = rays(9), grids(3)
    mask = torch.arange(9) != 4
    exact, loose = (
        nerfacc.traverse_grids(
            origins, directions, occupied, BOXES, step_size=0.05, traverse_steps_limit=12,
            over_allocate=over, rays_mask=mask,
        )
        for over in (False, True)
    )  # fmt: skip
    assert len(loose[1].vals) == 8 * 12 and len(loose[0].vals) == 8 * 24
    for layer in (0, 1):
        assert torch.equal(exact[layer].packed_info, loose[layer].packed_info)
    assert torch.equal(exact[1].vals, loose[1].vals[loose[1].is_valid])
    assert all(steps_of(exact[0], ray) == steps_of(loose[0], ray) for ray in range(9))
    assert exact[1].packed_info[4, 1] == 0 and torch.equal(exact[2], loose[2])


def test_a_march_goes_on_where_its_limit_stopped_it():
    (origins, directions), occupied = rays(1, seed=1), grids(1)
    at_once, _, _ = nerfacc.traverse_grids(origins, directions, occupied, BOX[None], step_size=0.04)
    near, steps = torch.zeros(1), []
    for _ in range(40):
        part, _, near = nerfacc.traverse_grids(
            origins, directions, occupied, BOX[None], near, step_size=0.04, traverse_steps_limit=3
        )
        steps += steps_of(part, 0)
    assert len(steps) == len(steps_of(at_once, 0)) > 6
    assert torch.allclose(torch.tensor(steps), torch.tensor(steps_of(at_once, 0)), atol=MARCH)


def test_no_step_lies_between_boxes_that_are_apart():
    boxes = torch.stack([BOX, BOX + torch.tensor([6.0, 0, 0] * 2)])
    intervals, _, _ = nerfacc.traverse_grids(
        torch.tensor([[-3.0, 0.1, 0.1]]), torch.eye(3)[:1], torch.ones(2, 4, 4, 4, dtype=torch.bool), boxes,
        step_size=0.1,
    )  # fmt: skip
    mids = torch.tensor(steps_of(intervals, 0)).mean(1)
    assert abs(len(mids) - 40) <= 2 and bool(((mids < 4.01) | (mids > 7.99)).all())


def test_traversal_does_not_depend_on_the_number_of_threads():
    (origins, directions), occupied = rays(2000), grids(3)
    before, results = _native.num_threads(), []
    for n in (1, 2, 5):
        kernels.set_num_threads(n)
        intervals, samples, _ = nerfacc.traverse_grids(origins, directions, occupied, BOXES, step_size=0.05)
        results.append((intervals.vals, samples.vals, samples.ray_indices))
    kernels.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


BAD = {
    "step_size": {"step_size": float("nan")},
    "million": {"step_size": 1e-9},
    "subnormal": {"step_size": 1e-40},
    "cone_angle": {"cone_angle": -1.0},
    "at most": {"traverse_steps_limit": 2**30, "over_allocate": True},
    "t_indices": {
        "t_sorted": torch.tensor([[1.0, 2.0]] * 3),
        "t_indices": torch.tensor([[0, 2]] * 3),
        "hits": torch.ones(3, 1, dtype=torch.bool),
    },
}


@pytest.mark.parametrize("match", BAD)
def test_bad_options_are_refused(match):
    origins, directions = rays(3)
    with pytest.raises(ValueError, match=match):
        nerfacc.traverse_grids(
            origins, directions, torch.ones(1, 4, 4, 4, dtype=torch.bool), BOX[None], **BAD[match]
        )


def walk_arguments() -> dict[str, Tensor]:
    """What nerfacc hands to the native walk for three rays through one grid."""
    origins, directions = rays(3)
    return {
        "rays_o": origins,
        "rays_d": directions,
        "rays_mask": torch.ones(3, dtype=torch.bool),
        "binaries": torch.ones(1, 4, 4, 4, dtype=torch.bool),
        "aabbs": BOX[None],
        "hits": torch.ones(3, 1, dtype=torch.bool),
        "t_sorted": torch.tensor([[4.0, 6.0]] * 3),
        "t_indices": torch.tensor([[0, 1]] * 3),
        "near_planes": torch.zeros(3),
        "far_planes": torch.full((3,), 9.0),
    }


@pytest.mark.parametrize("name", sorted({*walk_arguments()} - {"rays_o", "binaries"}))
def test_arrays_of_another_length_are_refused(name):
    arguments = walk_arguments()
    arguments[name] = torch.cat([arguments[name]] * 2)
    walks = _native.Walks(*arguments.values(), 0.1, 0.0, 0)
    name = {"rays_d": "directions"}.get(name, name)
    with pytest.raises(ValueError, match=name):
        walks.count(*torch.empty(2, 3, dtype=torch.long))


@pytest.mark.parametrize("name", sorted(walk_arguments()))
def test_arrays_of_another_type_are_refused(name):
    for change in (Tensor.half, lambda x: x.to("meta"), lambda x: x.flatten()[None, None, None, None]):
        arguments = walk_arguments()
        arguments[name] = change(arguments[name])
        with pytest.raises(TypeError, match=name):
            _native.Walks(*arguments.values(), 0.1, 0.0, 0)


def test_grids_that_are_inside_out_are_refused():
    with pytest.raises(ValueError, match="aabbs"):
        nerfacc.traverse_grids(*rays(3), torch.ones(1, 4, 4, 4, dtype=torch.bool), -BOX[None])


def test_walks_outlive_their_arrays_and_keep_to_their_room():
    walks = _native.Walks(*walk_arguments().values(), 0.1, 0.0, 0)
    n_edges, n_mids = torch.empty(2, 3, dtype=torch.long)
    walks.count(n_edges, n_mids)
    assert int(n_mids.min()) > 10
    room, starts = torch.full((3,), 5), torch.arange(3) * 5
    ts, indices, flags = torch.zeros(15), torch.zeros(15, dtype=torch.long), torch.zeros(15, dtype=torch.bool)
    edges = starts, room, ts, indices, flags, flags.clone(), n_edges
    mids = starts, room, ts.clone(), indices.clone(), flags.clone(), n_mids
    with pytest.raises(ValueError, match="room"):
        walks.fill(*edges, *mids, torch.zeros(3))
    with pytest.raises(ValueError, match="edge_ts: chunk"):
        walks.fill(starts + 1, *edges[1:], *mids, torch.zeros(3))


numbers = st.one_of(
    st.floats(width=32), st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-38, 3e38, float("nan"), float("inf")])
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.lists(numbers, min_size=12, max_size=12),
    st.lists(numbers, min_size=8, max_size=8),
    st.lists(st.integers(0, 3), min_size=8, max_size=8),
    st.sampled_from([0.0, -1.0, 0.3, 1e-4, 1e-20, 1e30]),
    st.sampled_from([0.0, 0.01, 1e20]),
)
def test_any_rays_and_crossings_give_a_result_or_an_error(
    coordinates, crossings, indices, step_size, cone_angle
):
    origins, directions = torch.tensor(coordinates, dtype=torch.float32).reshape(2, 2, 3)
    near, far, t_sorted = torch.tensor(crossings, dtype=torch.float32).split((2, 2, 4))
    t_sorted = torch.stack([t_sorted, t_sorted.sort().values])
    try:
        intervals, samples, _ = nerfacc.traverse_grids(
            origins, directions, grids(2), BOXES[:2], near, far, step_size, cone_angle,
            t_sorted=t_sorted, t_indices=torch.tensor(indices).reshape(2, 4),
            hits=torch.ones(2, 2, dtype=torch.bool),
        )  # fmt: skip
        assert intervals.is_left.sum() == intervals.is_right.sum() == len(samples.vals)
    except ValueError as error:
        assert "million" in str(error) or "at most" in str(error)
