"""Cameras without parallax and lenses that cannot be inverted are refused; odd but sound ones are not."""

import re
from dataclasses import replace

import pytest
import torch
from synthetic_capture import ring

from quicksurf.capture.camera_checks import check_lenses, check_parallax, lens_warnings
from quicksurf.capture.load import read_scene
from quicksurf.capture.scene import SparsePoints
from quicksurf.capture.transforms import write_cameras
from quicksurf.errors import CaptureError
from quicksurf.geometry.cameras import Cameras

CENTER = (0.2, -0.1, 0.3)
NAMES = [f"{index:03d}.png" for index in range(10)]


def standing_at(*offset: float, jitter: float = 0.0) -> Cameras:
    """The ring's directions, all from one place."""
    cameras = ring(CENTER)
    c2w = cameras.c2w.clone()
    c2w[:, :, 3] = torch.tensor(offset) + jitter * c2w[:, :, 3]
    return replace(cameras, c2w=c2w)


def with_lens(coefficients: dict[int, float], fisheye: bool = False, only: int | None = None) -> Cameras:
    cameras = ring(CENTER)
    distortion = cameras.distortion.clone()
    for column, value in coefficients.items():
        distortion[slice(None) if only is None else only, column] = value
    return replace(cameras, distortion=distortion, fisheye=torch.full((10,), fisheye))


@pytest.mark.parametrize(
    "cameras",
    [
        standing_at(0, 0, 0),
        standing_at(5, 6, 7),
        standing_at(1, 2, 3, jitter=1e-12),
        replace(ring(CENTER), c2w=ring(CENTER).c2w[:1].repeat(10, 1, 1)),
    ],
)
def test_one_place_is_no_parallax(cameras):
    with pytest.raises(CaptureError, match="no parallax: all 10 cameras stand at one place"):
        check_parallax(cameras, None)


def test_points_far_away_show_that_there_is_no_parallax():
    cameras = standing_at(0, 0, 0, jitter=1e-7)
    check_parallax(cameras, None)  # without points this may be a small world
    positions = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 10
    empty = torch.zeros(0, 2, dtype=torch.int64)
    with pytest.raises(CaptureError, match="no parallax"):
        check_parallax(cameras, SparsePoints(positions, torch.zeros(20, 3, dtype=torch.uint8), empty))


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-4, 0.0), (1e5, 0.0), (1.0, 1e6)])
def test_an_orbit_has_parallax_at_any_scale_and_place(scale, shift):
    cameras = ring(CENTER)
    c2w = cameras.c2w.clone()
    c2w[:, :, 3] = scale * c2w[:, :, 3] + shift
    check_parallax(replace(cameras, c2w=c2w), None)


@pytest.mark.parametrize("fisheye", [False, True])
@pytest.mark.parametrize("value", [1e9, -1e9, 1e308, -50.0])
def test_absurd_coefficients_are_refused_by_name(value, fisheye):
    with pytest.raises(CaptureError, match=r"lens of 004\.png.*k1 = .*1 of 10 cameras"):
        check_lenses(with_lens({0: value}, fisheye, only=4), NAMES)


@pytest.mark.parametrize(
    ("coefficients", "fisheye"),
    [
        ({}, False),
        ({}, True),
        ({0: 0.0578421, 1: -0.0805099}, False),  # instant-ngp's fox, a phone
        ({0: -0.32, 1: 0.12, 4: 1e-3, 5: -5e-4}, False),  # an action camera
        ({0: 0.04, 1: -0.01, 2: 2e-3, 3: -4e-4}, True),
    ],
)
def test_lenses_of_real_cameras_pass(coefficients, fisheye):
    check_lenses(with_lens(coefficients, fisheye), NAMES)


def test_a_fisheye_that_sees_behind_itself_passes():
    cameras = with_lens({0: 0.02}, fisheye=True)
    wide = cameras.intrinsics * torch.tensor(
        [0.2, 0.2, 1, 1]
    )  # 110 degrees off the axis at the nearer border
    check_lenses(replace(cameras, intrinsics=wide), NAMES)


def test_both_are_checked_when_a_capture_is_read(tmp_path, capture, options):
    paths = capture.save_images(tmp_path / "images")
    names = [path.relative_to(tmp_path).as_posix() for path in paths]
    held_out = torch.zeros(10, dtype=torch.bool).numpy()
    for cameras, says in (
        (standing_at(1, 1, 1), "no parallax"),
        (with_lens({0: 1e9}), "cannot be undistorted"),
    ):
        write_cameras(tmp_path / "transforms.json", cameras, names, held_out)
        with pytest.raises(CaptureError, match=says):
            read_scene(tmp_path, options)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            [0.87, 0.87, 24.0, 20.0],
            "1 of 10 cameras have a focal length under a tenth or over 50 times the frame",
        ),
        ([60.0, 1e6, 24.0, 20.0], "focal length under a tenth or over 50 times the frame, the first 004.png"),
        (
            [60.0, 60.0, -24.0, 20.0],
            "1 of 10 cameras have a principal point outside the frame, the first 004.png",
        ),
        ([60.0, 60.0, 24.0, 41.0], r"point 24, 41 of 48 x 40 pixels\): check the camera file"),
    ],
)
def test_lenses_of_no_photo_are_warned_of(row, says):
    cameras = ring(CENTER)
    intrinsics = cameras.intrinsics.clone()
    intrinsics[4] = torch.tensor(row)
    (warning,) = lens_warnings(replace(cameras, intrinsics=intrinsics), NAMES)
    assert re.search(says, warning)
    assert lens_warnings(cameras, NAMES) == []
