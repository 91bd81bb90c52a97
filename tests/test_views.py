"""Camera paths look at the object, and what is rendered can be read back from the files."""

import math
from pathlib import Path

import av
import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from quicksurf.camera_paths import look_at, orbit
from quicksurf.cameras import Cameras, project
from quicksurf.film import color_image, depth_image, film, normal_image, write_png

ANGLE = 1e-9  # float64, a few operations


def ring(azimuths: list[float], height: float = 1.0, radius: float = 3.0) -> Cameras:
    """Cameras at `azimuths` around the z axis, looking at (0, 0, 0.2)."""
    angles = torch.tensor(azimuths, dtype=torch.float64)
    centers = torch.stack([radius * angles.cos(), radius * angles.sin(), torch.full_like(angles, height)], -1)
    target, up = torch.tensor([[0.0, 0.0, 0.2], [0.0, 0.0, 1.0]], dtype=torch.float64)
    count = len(azimuths)
    return Cameras(
        c2w=look_at(centers, target, up),
        intrinsics=torch.tensor([500.0, 500.0, 320.0, 240.0], dtype=torch.float64).repeat(count, 1),
        distortion=torch.zeros(count, 6, dtype=torch.float64),
        fisheye=torch.zeros(count, dtype=torch.bool),
        sizes=torch.tensor([640, 480]).repeat(count, 1),
    )


def azimuths_of(cameras: Cameras) -> np.ndarray:
    centers = cameras.centers().numpy()
    return np.arctan2(centers[:, 1], centers[:, 0])


def test_look_at_is_a_rotation_that_sees_the_target_upright() -> None:
    cameras = ring([0.3, 2.0, 4.0])
    rotations = cameras.c2w[:, :, :3]
    assert torch.allclose(
        rotations.transpose(1, 2) @ rotations, torch.eye(3, dtype=torch.float64), atol=ANGLE
    )
    assert torch.allclose(torch.linalg.det(rotations), torch.ones(3, dtype=torch.float64), atol=ANGLE)
    points = torch.tensor([[0.0, 0.0, 0.2], [0.0, 0.0, 0.7]], dtype=torch.float64)
    for index in range(3):
        pixels, depths = project(cameras, index, points)
        assert torch.allclose(pixels[0], torch.tensor([320.0, 240.0], dtype=torch.float64))
        assert pixels[1, 1] < 240
        assert (depths > 0).all()


def test_orbit_of_a_capture_all_around_is_a_closed_turn() -> None:
    capture = ring([2 * math.pi * k / 12 for k in range(12)])
    path = orbit(capture, (0.0, 0.0, 0.2), 0.5, 8, (320, 240))
    steps = np.diff(np.unwrap(azimuths_of(path)))
    assert np.allclose(steps, steps[0])
    assert abs(steps[0]) == pytest.approx(2 * math.pi / 8)
    assert torch.allclose(path.centers()[0], capture.centers()[0])
    center, _ = project(path, 3, torch.tensor([[0.0, 0.0, 0.2]], dtype=torch.float64))
    assert torch.allclose(center, torch.tensor([[160.0, 120.0]], dtype=torch.float64))


def test_orbit_of_a_wall_stays_in_front_of_it() -> None:
    capture = ring([5.9, 6.2, 0.2, 0.4])
    path = orbit(capture, (0.0, 0.0, 0.2), 0.5, 40, (320, 240))
    angles = azimuths_of(path)
    assert angles.min() >= 5.9 - 2 * math.pi - 0.01
    assert angles.max() <= 0.4 + 0.01
    assert angles.max() - angles.min() > 0.7


def test_orbit_keeps_the_field_of_view_of_the_photos() -> None:
    path = orbit(ring([0.0, 2.0, 4.0]), (0.0, 0.0, 0.2), 0.5, 2, (320, 240))
    assert path.intrinsics[0].tolist() == [250, 250, 160, 120]


def test_orbit_shows_the_whole_ball() -> None:
    center, radius = torch.tensor([0.0, 0.0, 0.2], dtype=torch.float64), 1.8
    path = orbit(ring([0.0, 2.0, 4.0]), (0.0, 0.0, 0.2), radius, 2, (320, 240))
    random = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ball = center + radius * torch.nn.functional.normalize(random, dim=-1)
    pixels, depths = project(path, 1, ball)
    assert (depths > 0).all()
    assert 0 <= pixels[:, 1].min() < 3
    assert 237 < pixels[:, 1].max() <= 240


def test_orbit_from_straight_above() -> None:
    above = ring([0.0], height=4.0, radius=1e-12)
    assert torch.isfinite(orbit(above, (0.0, 0.0, 0.0), 0.5, 4, (32, 32)).c2w).all()


def test_png_round_trip(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    color = color_image(rng.uniform(-0.2, 1.2, (5, 7, 3)))
    depth, opacity = rng.uniform(1, 3, (5, 7)), np.ones((5, 7))
    opacity[0, 0] = 0.1
    depth[0, 1] = np.inf
    unit = 4 / 65535
    write_png(tmp_path / "color.png", color)
    write_png(tmp_path / "depth.png", depth_image(depth, opacity, unit))
    assert np.array_equal(imageio.imread(tmp_path / "color.png"), color)
    read = imageio.imread(tmp_path / "depth.png")
    assert read.dtype == np.uint16
    assert read[0, 0] == read[0, 1] == 0
    assert np.abs(read * unit - depth)[1:].max() <= unit


def test_normals_are_grey_where_nothing_is_seen() -> None:
    normal = np.zeros((1, 2, 3))
    normal[..., 2] = 1
    image = normal_image(normal, np.array([[1.0, 0.0]]))
    assert image.tolist() == [[[128, 128, 255], [128, 128, 128]]]


def test_film_has_all_frames_and_an_even_size(tmp_path: Path) -> None:
    with film(tmp_path / "x.mp4", 25) as reel:
        for value in range(10):
            reel.add(np.full((33, 47, 3), 20 * value, np.uint8))
    with av.open(str(tmp_path / "x.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 25
    assert len(frames) == 10
    assert frames[0].shape == (32, 46, 3)
    assert abs(float(frames[9].mean()) - 180) < 6  # studio range and rounding of YUV


def test_a_film_that_fails_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), film(tmp_path / "x.mp4", 25) as reel:
        reel.add(np.zeros((4, 4, 3), np.uint8))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
