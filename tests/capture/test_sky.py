"""Sky is found in photos, and empties what several of them see it through, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_capture import look_at, ring

from quicksurf.geometry.cameras import Cameras, project, resize
from quicksurf.train.sky import find_sky, room_below_sky, sky_rays

NO_POINTS = np.zeros((0, 2))


def photo(horizon: int = 60, sky: float = 220.0) -> np.ndarray:
    """Bright calm sky above a darker, textured wall."""
    rng = np.random.default_rng(0)
    image = rng.uniform(20, 120, (120, 160, 3))
    image[:horizon] = sky + np.linspace(0, 10, 160)[None, :, None]
    return image.astype(np.uint8)


def test_the_sky_is_calm_bright_and_reaches_the_upper_edge():
    sky = find_sky(photo(), NO_POINTS)
    assert sky is not None
    assert sky[:54].mean() > 0.98
    assert not sky[62:].any()


@pytest.mark.parametrize(
    "image",
    [photo(0), photo(sky=10.0), photo()[::-1], photo(2)],
    ids=["no sky", "a dark ceiling", "a bright floor", "a strip"],
)
def test_no_sky(image):
    assert find_sky(np.ascontiguousarray(image), NO_POINTS) is None


def test_a_verified_point_keeps_a_bright_wall_from_being_sky():
    everywhere = np.stack(np.meshgrid(np.arange(0, 160, 6.0), np.arange(0, 60, 6.0)), -1).reshape(-1, 2)
    assert find_sky(photo(), everywhere) is None


def row_of_cameras(n: int = 6) -> Cameras:
    """Level cameras south of the region, that see it in the middle of the frame."""
    poses = [
        look_at(np.array([x, -3.0, 0.0]), np.zeros(3), np.array([0, 0, 1.0])) for x in np.linspace(-1, 1, n)
    ]
    cameras = replace(ring((0, 0, 0), n), c2w=torch.from_numpy(np.stack(poses)))
    return resize(cameras, torch.tensor([[160, 120]] * n))


def sky_above(cameras: Cameras, view: int, height: float) -> np.ndarray:
    """What lies above the line that the plane z = `height` at y = 0 has in the view."""
    width, rows = cameras.sizes[view].tolist()
    pixel = project(cameras, view, torch.tensor([[0.0, 0.0, height]], dtype=torch.float64))[0][0, 1]
    return np.broadcast_to((np.arange(rows) < float(pixel))[:, None], (rows, width)).copy()


def test_what_several_photos_see_sky_through_is_empty():
    cameras, points = row_of_cameras(), torch.tensor([[0.0, 0.0, 0.9]])
    skies = [sky_above(cameras, view, 0.3) for view in range(6)]
    room = room_below_sky(cameras, skies, points, 32)
    heights = torch.linspace(-1, 1, 32)
    column = room[16, 16]
    assert column[heights < 0.2].all()
    assert not column[(heights > 0.45) & (heights < 0.75)].any()
    assert column[heights > 0.85].all()  # a verified point
    origins, directions = sky_rays(cameras, skies, room)
    assert len(origins) > 100
    assert (directions[:, 2] > 0).all()


def test_what_two_photos_take_for_sky_stays():
    cameras = row_of_cameras()
    skies = [sky_above(cameras, view, 0.3) if view < 2 else None for view in range(6)]
    room = room_below_sky(cameras, skies, torch.zeros(0, 3), 32)
    assert room.all()
    assert not len(sky_rays(cameras, skies, room)[0])
