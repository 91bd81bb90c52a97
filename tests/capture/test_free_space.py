"""Rays to verified points empty what they cross, well before the points."""

import torch

from quicksurf.train.free_space import room_before_points

RESOLUTION = 32


def rays_to_a_wall(n: int = 2000) -> tuple[torch.Tensor, torch.Tensor]:
    """From a place below the region to a wall at z = 0.4."""
    ends = torch.rand(n, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    ends[:, 2] = 0.4
    return torch.tensor([[0.0, 0.0, -3.0]]).expand(n, 3).contiguous(), ends


def cell_of(z: float) -> int:
    return int((z + 1) * RESOLUTION / 2)


def test_what_lies_before_a_wall_is_empty_and_the_wall_and_what_is_behind_stay():
    room = room_before_points(*rays_to_a_wall(), RESOLUTION)
    middle = room[12:20, 12:20]
    assert not middle[:, :, cell_of(-0.6) : cell_of(0.0)].any()
    assert middle[:, :, cell_of(0.3) :].all()
    assert room[:6].all()  # no ray comes there


def test_a_lone_ray_empties_nothing():
    origins, ends = rays_to_a_wall()
    assert room_before_points(origins[:1], ends[:1], RESOLUTION).all()


def test_a_point_in_front_keeps_its_surroundings():
    origins, ends = rays_to_a_wall()
    ends[0] = torch.tensor([0.02, 0.02, -0.3])
    room = room_before_points(origins, ends, RESOLUTION)
    assert room[16, 16, cell_of(-0.3)]
    assert not room[20, 16, cell_of(-0.3)]
