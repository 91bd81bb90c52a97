"""What masks leave room for holds the object, is not much larger, and survives bad masks."""

from dataclasses import replace

import numpy as np
import torch
from synthetic_capture import ball_mask, look_at, ring

from quicksurf.train.hull import distance_outside, room_for_object

CENTER, RADIUS, RESOLUTION, N_VIEWS = (0.1, -0.2, 0.15), 0.5, 32, 24
CELL = 2 / RESOLUTION
PIXEL = 3 / 60  # of the test cameras, at the object
CAMERAS = replace(ring((0.0, 0.0, 0.0), N_VIEWS), sizes=torch.tensor([[48, 40]] * N_VIEWS))


def masks_of(cameras=CAMERAS):
    return [ball_mask(cameras, index, CENTER, RADIUS) for index in range(len(cameras))]


def distances():
    """Of the cells' centres from the ball's."""
    ticks = (torch.arange(RESOLUTION) + 0.5) * CELL - 1
    grid = torch.stack(torch.meshgrid(ticks, ticks, ticks, indexing="ij"), -1)
    return (grid - torch.tensor(CENTER)).norm(dim=-1)


def room(masks, cameras=CAMERAS):
    return room_for_object(cameras.to(torch.float32), masks, RESOLUTION)


def test_every_cell_that_touches_the_object_stays():
    touched = distances() < RADIUS + np.sqrt(3) / 2 * CELL
    assert room(masks_of())[touched].all()


def test_cells_beside_the_object_are_carved():
    """In the plane of the ring, where the outlines bound the ball; twice the cell's ball and three pixels beyond it."""
    beyond = distances() > RADIUS + 2 * np.sqrt(3) * CELL / 2 + 3 * PIXEL
    level = RESOLUTION // 2
    assert not room(masks_of())[:, :, level][beyond[:, :, level]].any()


def test_one_bad_mask_in_twenty_punches_no_hole():
    masks = masks_of()
    bad = [*masks[:5], np.zeros_like(masks[0]), *masks[6:]]
    bad[5][:3, :3] = 255  # nearly black: an empty one would not count at all
    assert room(bad)[distances() < RADIUS].all()


def test_masks_that_bound_nothing_carve_nothing():
    full = np.full((40, 48), 255, np.uint8)
    assert room([full, 0 * full] * (N_VIEWS // 2)).all()


def test_what_a_camera_does_not_have_in_its_frame_it_does_not_carve():
    """One close camera that sees a part of the object only, beside those that see all."""
    close = torch.from_numpy(look_at(np.array([1.2, 0, 0.0]), np.array([0.2, 0, 0]), np.array([0, 0, 1.0])))
    c2w = CAMERAS.c2w.clone()
    c2w[:6] = close
    cameras = replace(CAMERAS, c2w=c2w)
    assert room(masks_of(cameras), cameras)[distances() < RADIUS].all()


def test_distance_outside_is_measured_in_pixels():
    mask = np.zeros((5, 9), np.uint8)
    mask[:, 0] = 255
    np.testing.assert_allclose(distance_outside(mask)[2], np.arange(9.0))
