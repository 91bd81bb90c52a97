"""The kind of a capture: around an object, of a facade, from inside."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_capture import look_at
from synthetic_capture import ring as any_cameras

from quicksurf.capture.roi import automatic_roi, check_roi, kind_of
from quicksurf.capture.scene import SparsePoints
from quicksurf.geometry.cameras import Cameras

CENTER = np.array([1.0, -2.0, 3.0])


def ring(degrees: float, n: int = 20) -> np.ndarray:
    angles = np.radians(np.linspace(0, degrees, n, endpoint=degrees < 360))
    return CENTER + 4 * np.stack([np.cos(angles), np.sin(angles), 0.2 + 0 * angles], 1)


def cameras_at(eyes: np.ndarray, target: np.ndarray) -> Cameras:
    targets = np.broadcast_to(target, eyes.shape)
    poses = [look_at(*pair, np.array([0.0, 0.0, 1.0])) for pair in zip(eyes, targets, strict=True)]
    return replace(any_cameras((0, 0, 0), len(eyes)), c2w=torch.from_numpy(np.stack(poses)))


def cloud(positions: np.ndarray, n_images: int) -> SparsePoints:
    positions = torch.from_numpy(positions)
    observations = torch.cartesian_prod(torch.arange(len(positions)), torch.arange(n_images))
    return SparsePoints(positions, torch.zeros(len(positions), 3, dtype=torch.uint8), observations)


def walls(n: int = 400) -> np.ndarray:
    """Points on the four walls of a court of 20 by 20 around the centre."""
    rng = np.random.default_rng(0)
    along, height = rng.uniform(-10, 10, (2, n))
    side = np.where(rng.random(n) < 0.5, -10.0, 10.0)
    first = rng.random(n) < 0.5
    return CENTER + np.stack([np.where(first, along, side), np.where(first, side, along), 0.2 * height], 1)


@pytest.mark.parametrize(
    ("degrees", "kind"), [(360, "around"), (200, "around"), (90, "facade"), (40, "facade")]
)
def test_the_arc_of_the_cameras_tells_an_object_from_a_facade(degrees, kind):
    cameras = cameras_at(ring(degrees), CENTER)
    assert kind_of(cameras, None) == kind


def test_photos_from_above_around_an_object_are_no_facade():
    eyes = ring(360)
    eyes[:, 2] += 6.0
    cameras = cameras_at(eyes, CENTER)
    assert kind_of(cameras, None) == "around"


def test_cameras_that_stand_among_the_points_are_inside():
    eyes = ring(360)
    cameras = cameras_at(eyes, CENTER + 2 * (eyes - CENTER))
    points = cloud(walls(), len(eyes))
    assert kind_of(cameras, points) == "inside"


def test_an_object_in_a_room_whose_walls_have_points_is_an_object():
    eyes = ring(360)
    assert kind_of(cameras_at(eyes, CENTER), cloud(walls(), len(eyes))) == "around"


def test_the_region_of_an_inside_capture_holds_the_walls_and_the_cameras_without_a_warning():
    eyes = ring(360)
    cameras = cameras_at(eyes, CENTER + 2 * (eyes - CENTER))
    stray = CENTER + np.array([[500.0, 0, 0]])
    points = cloud(np.concatenate([walls(), stray]), len(eyes))
    roi = automatic_roi(cameras, [None] * len(eyes), points, "inside")
    corner = math.hypot(10, 10)
    assert np.linalg.norm(np.array(roi.center) - CENTER) < 1.0
    assert 0.9 * corner < roi.radius < 1.2 * corner
    assert check_roi(roi, cameras, "inside") == []
    assert "holds 20 of 20 cameras" in check_roi(roi, cameras, "around")[0]
