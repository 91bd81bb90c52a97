"""Packed layout and the unit ball."""

import torch

from quicksurf.geometry.rays import Rays, pack_counts, unit_ball_span


def test_pack_counts_starts_where_the_ray_before_ended():
    assert pack_counts(torch.tensor([2, 0, 3])).tolist() == [[0, 2], [2, 0], [2, 3]]


def test_span_ends_on_the_ball_or_is_empty():
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(200, 3, generator=generator), dim=-1)
    origins = -4 * directions + torch.randn(200, 3, generator=generator)
    near, far = unit_ball_span(origins, directions)
    hit = near < far
    assert 20 < hit.sum() < 180
    for t in (near, far):
        points = origins[hit] + t[hit, None] * directions[hit]
        assert torch.allclose(points.norm(dim=-1), torch.ones(int(hit.sum())), atol=1e-5)
    closest = origins + near[:, None] * directions
    assert bool((closest[~hit].norm(dim=-1) >= 1 - 1e-5).all())


def test_a_ray_that_starts_inside_has_near_zero_and_one_past_the_ball_is_empty():
    near, far = unit_ball_span(torch.tensor([[0.0, 0, 0], [3.0, 0, 0]]), torch.tensor([[1.0, 0, 0]] * 2))
    assert near.tolist() == [0, 0] and far.tolist() == [1, 0]


def test_points_at_depths():
    rays = Rays(torch.zeros(2, 3), torch.eye(3)[:2], torch.zeros(2), torch.ones(2))
    assert rays.at(torch.tensor([1, 0]), torch.tensor([2.0, 3.0])).tolist() == [[0, 2, 0], [3, 0, 0]]
