"""The region of interest holds the object whatever it is found from, and says when it cannot be used."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_capture import ball_mask, look_at, ring

from quicksurf.capture.assemble import ReadOptions
from quicksurf.capture.load import read_scene
from quicksurf.capture.roi import automatic_roi, check_roi, enclosing_ball, look
from quicksurf.capture.scene import SparsePoints
from quicksurf.errors import RoiError
from quicksurf.geometry.cameras import Cameras
from quicksurf.geometry.region import Roi

CENTER = (0.2, -0.1, 0.3)


def none(cameras: Cameras) -> list[None]:
    return [None] * len(cameras)


def contains(roi: Roi, center: tuple[float, float, float], radius: float) -> bool:
    return math.dist(roi.center, center) + radius <= roi.radius


def cloud(positions: np.ndarray, n_images: int) -> SparsePoints:
    """Points that every image sees."""
    points, images = np.mgrid[0 : len(positions), 0:n_images]
    return SparsePoints(
        positions=torch.from_numpy(positions),
        colors=torch.zeros(len(positions), 3, dtype=torch.uint8),
        observations=torch.from_numpy(np.stack([points.ravel(), images.ravel()], 1)),
    )


def ball_points(center: tuple[float, float, float], radius: float, n_points: int = 300) -> np.ndarray:
    directions = np.random.default_rng(0).normal(size=(n_points, 3))
    return np.array(center) + radius * directions / np.linalg.norm(directions, axis=1, keepdims=True)


def facade(n_images: int = 12) -> Cameras:
    """Cameras on a line 10 before a wall at y = 0, looking ahead and slightly about."""
    eyes = [np.array([x, -10.0, 1.5]) for x in np.linspace(-4, 4, n_images)]
    turns = np.random.default_rng(1).uniform(-2, 2, (n_images, 3)) * [1, 0, 0.5]
    poses = [
        look_at(eye, np.array([eye[0], 0, 2]) + turn, np.array([0, 0, 1.0]))
        for eye, turn in zip(eyes, turns, strict=True)
    ]
    return replace(ring(CENTER, n_images), c2w=torch.from_numpy(np.stack(poses)))


def test_look_finds_where_the_cameras_point():
    gaze = look(ring(CENTER))
    # Principal points are half a pixel off the middle, the axes that far at 60 pixels of focal length.
    assert math.dist(gaze.center.tolist(), CENTER) < 3.0 * 1.0 / 60
    assert gaze.nearest == pytest.approx(3.0, abs=0.05)
    assert gaze.residual < 0.02
    assert gaze.inscribed < gaze.framed < gaze.nearest


def test_a_few_cameras_that_look_elsewhere_do_not_move_it():
    cameras = ring(CENTER, 20)
    c2w = cameras.c2w.clone()
    away = look_at(np.array([3.0, 0, 0]), np.array([30.0, 40, 0]), np.array([0, 0, 1.0]))
    c2w[3], c2w[11] = torch.from_numpy(away), torch.from_numpy(away)
    found = look(replace(cameras, c2w=c2w)).center.tolist()
    assert math.dist(found, CENTER) < 0.06


def test_framed_objects_are_held_without_masks_or_points():
    cameras = ring(CENTER)
    roi = automatic_roi(cameras, none(cameras), None)
    assert contains(roi, CENTER, 0.9)  # the frame's half height is 20 / 65 · 3 = 0.92
    assert roi.radius < 1.6
    assert check_roi(roi, cameras) == []


@pytest.mark.parametrize("radius", [0.15, 0.4, 0.6])
def test_masks_give_the_ball_around_their_hull(radius):
    cameras = ring(CENTER)
    center = (0.3, -0.1, 0.2)  # not where the cameras look
    roi = automatic_roi(cameras, [ball_mask(cameras, i, center, radius) for i in range(10)], None)
    assert contains(roi, center, radius)
    assert (
        roi.radius < 1.3 * radius + 0.15
    )  # a ring of ten low cameras sees little from above; a cell is 0.08


def test_one_bad_mask_in_twenty_is_forgiven():
    cameras = ring(CENTER, 24)
    masks = [ball_mask(cameras, index, CENTER, 0.5) for index in range(24)]
    masks[7] = 255 - masks[7]
    assert contains(automatic_roi(cameras, masks, None), CENTER, 0.5)


@pytest.mark.parametrize("fill", [0, 255])
def test_meaningless_masks_fall_back_on_the_cameras(fill):
    cameras = ring(CENTER)
    roi = automatic_roi(cameras, [np.full((40, 48), fill, np.uint8)] * 10, None)
    assert contains(roi, CENTER, 0.9)
    assert roi.radius <= 0.9 * 3.05


def test_points_shrink_the_ball_of_an_orbit_but_not_below_the_frame():
    cameras = ring(CENTER)
    wide = automatic_roi(cameras, none(cameras), None)
    for radius in (0.2, 1.05):
        roi = automatic_roi(cameras, none(cameras), cloud(ball_points(CENTER, radius), 10))
        assert look(cameras).inscribed <= roi.radius < wide.radius
        assert contains(roi, CENTER, min(radius, 0.85))


def test_facade_is_framed_by_its_points():
    cameras = facade()
    generator = np.random.default_rng(3)
    wall = np.stack(
        [generator.uniform(-5, 5, 400), generator.uniform(-0.3, 0.3, 400), generator.uniform(0, 4, 400)], 1
    )
    stray = generator.uniform(-80, 80, (10, 3))
    roi = automatic_roi(cameras, none(cameras), cloud(np.concatenate([wall, stray]), 12))
    assert math.dist(roi.center, (0, 0, 2)) < 1.0
    inside = np.linalg.norm(wall - roi.center, axis=1) < roi.radius
    assert inside.mean() > 0.95
    assert roi.radius < 0.9 * 10.2


def test_parallel_views_without_points_get_a_ball_ahead():
    cameras = facade()
    cameras = replace(
        cameras, c2w=torch.cat([cameras.c2w[:1, :, :3].expand(12, 3, 3), cameras.c2w[:, :, 3:]], -1)
    )
    roi = automatic_roi(cameras, none(cameras), None)
    assert all(map(math.isfinite, (*roi.center, roi.radius)))
    assert check_roi(roi, cameras) == []


def test_the_ball_never_holds_a_camera():
    cameras = ring(CENTER)
    wide = replace(cameras, intrinsics=cameras.intrinsics * torch.tensor([0.1, 0.1, 1, 1]))
    roi = automatic_roi(wide, none(wide), cloud(ball_points(CENTER, 2.9), 10))
    assert float((wide.centers() - torch.tensor(roi.center)).norm(dim=1).min()) > roi.radius


def test_roi_follows_a_similarity():
    cameras = ring(CENTER)
    roi = automatic_roi(cameras, none(cameras), None)
    moved = replace(cameras, c2w=cameras.c2w.clone())
    moved.c2w[:, :, 3] = 100 * moved.c2w[:, :, 3] + torch.tensor([5.0, 6, 7])
    found = automatic_roi(moved, none(moved), None)
    assert found.radius == pytest.approx(100 * roi.radius)
    assert found.center == pytest.approx(
        [100 * value + offset for value, offset in zip(roi.center, (5, 6, 7), strict=True)]
    )


def test_enclosing_ball_of_a_cube():
    corners = torch.tensor(
        [[x, y, z] for x in (0.0, 1) for y in (0.0, 1) for z in (0.0, 1)], dtype=torch.float64
    )
    center, radius = enclosing_ball(corners)
    assert center.tolist() == pytest.approx([0.5] * 3, abs=0.02)
    assert radius == pytest.approx(math.sqrt(3) / 2, rel=0.02)


def test_roi_that_holds_cameras_is_said():
    cameras = ring(CENTER)
    eye = cameras.centers()[4].tolist()
    assert "holds 1 of 10 cameras" in check_roi(Roi((eye[0], eye[1], eye[2]), 0.1), cameras)[0]
    assert "holds 10 of 10 cameras" in check_roi(Roi(CENTER, 5.0), cameras)[0]


def test_roi_that_no_camera_sees_is_refused_with_a_suggestion():
    cameras = ring(CENTER)
    with pytest.raises(
        RoiError, match=r"no camera sees the region of interest 0\.2,-0\.1,40,1: they look at 0\.\d"
    ):
        check_roi(Roi((0.2, -0.1, 40.0), 1.0), cameras)


def test_cameras_with_the_axes_of_another_program_are_told_so():
    """Turned about their x axis, as OpenCV has them: all look away from where they stand around."""
    cameras = ring(CENTER)
    c2w = cameras.c2w.clone()
    c2w[:, :, 1:3] *= -1
    cameras = replace(cameras, c2w=c2w)
    with pytest.raises(RoiError, match=r"all cameras look away .* check the axes"):
        check_roi(automatic_roi(cameras, [], None), cameras)


def test_roi_that_one_camera_sees_is_said():
    cameras = replace(ring(CENTER))
    ahead = cameras.centers()[0] + 50 * cameras.c2w[0, :, 2]
    warnings = check_roi(Roi((float(ahead[0]), float(ahead[1]), float(ahead[2])), 1.0), cameras)
    assert "only 1 of 10 cameras see" in warnings[0]


@pytest.mark.parametrize("numbers", [(0, 0, 0, 0), (0, 0, 0, -1), (math.nan, 0, 0, 1), (0, 0, 0, math.inf)])
def test_malformed_roi_is_refused(numbers):
    with pytest.raises(RoiError, match="four finite numbers"):
        check_roi(Roi(numbers[:3], numbers[3]), ring(CENTER))


@pytest.mark.parametrize("radius", [1e-300, 1e-7, 1e5, 1e300])
def test_roi_out_of_proportion_is_refused_with_a_suggestion(radius):
    with pytest.raises(RoiError, match=r"out of proportion.*cameras are 3 from.*they look at 0\.\d"):
        check_roi(Roi(CENTER, radius), ring(CENTER))


def test_roi_infinitely_far_away_is_refused():
    with pytest.raises(RoiError):
        check_roi(Roi((1e300, 0.0, 0.0), 1.0), ring(CENTER))


OBJECTS = {  # the true bounding ball of each development scene (its roi.json), for scoring alone
    "dev-a": ((0.0, 0.0, 0.0), 1.0),
    "dev-b": ((0.800, -1.300, 0.766), 0.370),
    "dev-c": ((0.0, 0.0, 0.926), 1.0),
}


@pytest.mark.parametrize("use_masks", [True, False])
@pytest.mark.parametrize("name", OBJECTS)
def test_development_scenes_are_inside(data_folder, name, use_masks):
    options = ReadOptions(max_pixels=128 * 128, use_masks=use_masks, say=lambda line: None)
    roi = read_scene(data_folder / name, options).roi
    center, radius = OBJECTS[name]
    assert contains(roi, center, radius)
    assert roi.radius < (1.3 if use_masks else 1.7) * radius
