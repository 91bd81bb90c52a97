"""Cameras: every lens inverts, projection undoes rays, and frames transform as they say."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from quicksurf.geometry import cameras as lens
from quicksurf.geometry.cameras import Cameras

f64 = partial(torch.tensor, dtype=torch.float64)

ROUND_TRIP64 = 1e-9  # plane units; Newton ends at 1e-13, a fisheye rim's tangent amplifies by 1e3
ROUND_TRIP32 = 2e-5  # plane units at radius 1: some tens of float32 roundings
PIXEL64 = 1e-7  # ROUND_TRIP64 times a focal length of about 100

FOX = (0.0578421, -0.0805099, 0.0, 0.0, -0.000980296, 0.00015575)
LENSES = {  # name → distortion, fisheye, the largest radius (perspective) or angle (fisheye) in a real frame
    "none": ((0.0,) * 6, False, 2.0),
    "fox": (FOX, False, 0.85),
    "barrel": ((-0.28, 0.07, 0.0, 0.0, 3e-4, -2e-4), False, 0.9),
    "four": ((0.1, -0.05, 0.02, -0.003, 1e-3, 1e-3), False, 1.0),
    "ideal fisheye": ((0.0,) * 6, True, math.radians(88)),
    "phone fisheye": ((-0.02, 0.01, -0.004, 0.0005, 0.0, 0.0), True, math.radians(85)),
}


def disc(radius: float, n_points: int = 400, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Points all over a disc, its centre and rim included."""
    generator = torch.Generator().manual_seed(0)
    radii = radius * torch.rand(n_points, generator=generator, dtype=torch.float64).sqrt()
    angles = 2 * math.pi * torch.rand(n_points, generator=generator, dtype=torch.float64)
    radii[0], radii[1] = 0.0, radius
    return torch.stack([radii * angles.cos(), radii * angles.sin()], -1).to(dtype)


def rig(name: str = "fox", n_images: int = 3, dtype: torch.dtype = torch.float64) -> Cameras:
    distortion, fisheye, _ = LENSES[name]
    rotations = Rotation.random(n_images, random_state=1).as_matrix()
    centers = np.random.default_rng(2).normal(size=(n_images, 3, 1))
    return Cameras(
        c2w=torch.from_numpy(np.concatenate([rotations, centers], -1)),
        intrinsics=torch.tensor([[110.0, 108.0, 61.5, 39.0]] * n_images, dtype=torch.float64),
        distortion=torch.tensor([distortion] * n_images, dtype=torch.float64),
        fisheye=torch.tensor([fisheye] * n_images),
        sizes=torch.tensor([[120, 80]] * n_images),
    ).to(dtype)


def ideal_points(name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Plane points within a lens's field with its parameters beside them."""
    distortion, fisheye, reach = LENSES[name]
    points = disc(math.tan(reach) if fisheye else reach)
    return points, f64([distortion] * len(points)), torch.full((len(points),), fisheye)


def distort_by_opencv(a: float, b: float, k: tuple[float, ...], fisheye: bool) -> tuple[float, float]:
    """OpenCV's formulas in plain arithmetic, the twin of `distort`."""
    k1, k2, k3, k4, p1, p2 = k
    r = math.hypot(a, b)
    if fisheye:
        t = math.atan(r)
        scale = t * (1 + k1 * t**2 + k2 * t**4 + k3 * t**6 + k4 * t**8) / r if r else 1.0
        return a * scale, b * scale
    scale = 1 + k1 * r**2 + k2 * r**4 + k3 * r**6 + k4 * r**8
    x = a * scale + 2 * p1 * a * b + p2 * (r**2 + 2 * a**2)
    y = b * scale + p1 * (r**2 + 2 * b**2) + 2 * p2 * a * b
    return x, y


@pytest.mark.parametrize("name", LENSES)
def test_distort_is_opencv_s(name):
    points, distortion, fisheye = ideal_points(name)
    expected = [distort_by_opencv(a, b, LENSES[name][0], LENSES[name][1]) for a, b in points.tolist()]
    found = lens.distort(points, distortion, fisheye)
    assert (found - f64(expected)).abs().max() < ROUND_TRIP64


@pytest.mark.parametrize("name", LENSES)
def test_undistort_inverts_distort(name):
    points, distortion, fisheye = ideal_points(name)
    back = lens.undistort(lens.distort(points, distortion, fisheye), distortion, fisheye)
    scale = 1 + points.norm(dim=1, keepdim=True) ** 2  # a fisheye's tangent stretches its rim by this much
    assert ((back - points) / scale).abs().max() < ROUND_TRIP64


@pytest.mark.parametrize("name", LENSES)
def test_undistort_in_float32(name):
    points, distortion, fisheye = ideal_points(name)
    distortion = distortion.float()
    back = lens.undistort(lens.distort(points.float(), distortion, fisheye), distortion, fisheye)
    scale = 1 + points.norm(dim=1, keepdim=True) ** 2
    assert ((back - points) / scale).abs().max() < ROUND_TRIP32


@pytest.mark.parametrize("name", LENSES)
def test_cameras_know_how_many_steps_their_lenses_take(name):
    _, distortion, fisheye = ideal_points(name)
    eye, intrinsics = torch.eye(3, 4, dtype=torch.float64)[None], f64([[900.0, 900.0, 320.0, 240.0]])
    cameras = lens.Cameras(eye, intrinsics, distortion[:1], fisheye[:1], torch.tensor([[640, 480]]))
    pixels = torch.rand(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plane = (pixels * cameras.sizes - intrinsics[:, 2:]) / intrinsics[:, :2]
    rows = distortion[:1].expand(500, -1), fisheye[:1].expand(500)
    lenses = lens.lenses_of(cameras)
    assert lenses.n_newton_steps < 20
    found = lens.undistort(plane, *rows, lenses)
    assert (found - lens.undistort(plane, *rows)).abs().max() < ROUND_TRIP64


def test_mixed_lenses_in_one_batch_are_each_their_own():
    fox, fisheye = ideal_points("fox"), ideal_points("phone fisheye")
    batch = [torch.stack(pair, 1) for pair in zip(fox, fisheye, strict=True)]
    points, distortion, is_fisheye = (part.flatten(0, 1) for part in batch)
    bent = lens.distort(points, distortion, is_fisheye)
    assert torch.equal(bent[0::2], lens.distort(*fox))
    assert torch.equal(bent[1::2], lens.distort(*fisheye))
    back = lens.undistort(bent, distortion, is_fisheye)
    assert (back - points)[0::2].abs().max() < ROUND_TRIP64


@settings(max_examples=50, deadline=None)
@given(
    k1=st.floats(-0.2, 0.3), k2=st.floats(-0.05, 0.1), p1=st.floats(-5e-3, 5e-3), p2=st.floats(-5e-3, 5e-3)
)
def test_any_mild_lens_inverts(k1, k2, p1, p2):
    points = disc(0.8, 50)
    distortion = f64([[k1, k2, 0.0, 0.0, p1, p2]] * 50)
    perspective = torch.zeros(50, dtype=torch.bool)
    back = lens.undistort(lens.distort(points, distortion, perspective), distortion, perspective)
    assert (back - points).abs().max() < ROUND_TRIP64


@pytest.mark.parametrize("name", LENSES)
def test_gradients_of_distort(name):
    points, distortion, fisheye = (part[:8] for part in ideal_points(name))
    points = points.clone().requires_grad_()
    lens.distort(points, distortion, fisheye).sum().backward()
    assert points.grad is not None and points.grad.isfinite().all()  # points[0] is the centre
    off_centre = points[1:].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: lens.distort(p, distortion[1:], fisheye[1:]), off_centre)


def test_folded_lens_and_backward_fisheye_stay_finite():
    points = disc(3.0)
    folded = f64([[-0.5, 0.0, 0.0, 0.0, 0.0, 0.0]] * len(points))
    for fisheye in (False, True):
        assert lens.undistort(points, folded, torch.full((len(points),), fisheye)).isfinite().all()


@pytest.mark.parametrize("n_points", [0, 1, 7])
def test_any_number_of_points(n_points):
    cameras = rig("phone fisheye")
    indices = torch.zeros(n_points, dtype=torch.int64)
    origins, directions = lens.pixel_rays(cameras, indices, torch.ones(n_points, 2, dtype=torch.float64))
    assert origins.shape == directions.shape == (n_points, 3)
    pixels, depths = lens.project(cameras, 0, origins + directions)
    assert pixels.shape == (n_points, 2)
    assert depths.shape == (n_points,)


@pytest.mark.parametrize("name", LENSES)
def test_project_undoes_pixel_rays(name):
    cameras = rig(name)
    columns, rows = torch.meshgrid(torch.arange(120), torch.arange(80), indexing="xy")
    pixels = torch.stack([columns, rows], -1).reshape(-1, 2)[::7].double() + 0.5
    for index in range(len(cameras)):
        origins, directions = lens.pixel_rays(cameras, torch.full((len(pixels),), index), pixels)
        assert (directions.norm(dim=1) - 1).abs().max() < ROUND_TRIP64
        back, depths = lens.project(cameras, index, origins + 3.7 * directions)
        assert (depths > 0).all()
        assert (back - pixels).abs().max() < PIXEL64


def test_ray_through_the_principal_point_is_the_optical_axis():
    cameras = rig("fox")
    origins, directions = lens.pixel_rays(cameras, torch.arange(3), cameras.intrinsics[:, 2:])
    assert torch.equal(origins, cameras.centers())
    assert (directions - cameras.c2w[:, :, 2]).abs().max() < ROUND_TRIP64


def test_axes_are_opencv_s():
    cameras = replace(rig("none", 1), c2w=torch.eye(4)[None, :3].double())
    pixels, depths = lens.project(cameras, 0, f64([[0.0, 0, 2], [0.2, 0, 2], [0, 0.2, 2], [0, 0, -2]]))
    expected = f64([[61.5, 39.0], [72.5, 39.0], [61.5, 49.8]])
    assert (pixels[:3] - expected).abs().max() < PIXEL64
    assert depths.tolist() == [2, 2, 2, -2]


@pytest.mark.parametrize("name", ["fox", "barrel", "phone fisheye"])
def test_points_outside_the_field_never_project_into_the_frame(name):
    # The polynomial of fox's lens returns to zero at 63° off the axis: unguarded, points land mid-picture.
    cameras = replace(rig(name, 1), c2w=torch.eye(4)[None, :3].double())
    angles = torch.linspace(math.radians(50), math.radians(89.9), 300, dtype=torch.float64)
    points = torch.stack([angles.sin(), torch.zeros_like(angles), angles.cos()], -1)
    pixels, _ = lens.project(cameras, 0, points)
    assert (pixels[:, 0] > cameras.sizes[0, 0]).all()
    assert (pixels[:, 0].diff() > 0).all()


def test_fold_radius_is_where_the_slope_vanishes():
    k = f64([-0.3, 0.02, 0.0, 0.0, 0.0, 0.0])
    turn = lens.fold_radius(k, False)
    assert 1 + 3 * -0.3 * turn**2 + 5 * 0.02 * turn**4 == pytest.approx(0, abs=1e-12)
    assert lens.fold_radius(torch.zeros(6), False) == math.inf
    assert lens.fold_radius(torch.tensor([0.1, 0, 0, 0, 0, 0]), False) == math.inf


def test_resize_scales_pixels():
    cameras = rig("fox")
    small = lens.resize(cameras, torch.tensor([[60, 20]] * 3))
    points = cameras.centers()[0] + cameras.c2w[0, :, 2] * 2 + 0.1 * torch.eye(3).double()
    before, depths = lens.project(cameras, 0, points)
    after, depths_after = lens.project(small, 0, points)
    assert (after - before * f64([0.5, 0.25])).abs().max() < PIXEL64
    assert torch.equal(depths, depths_after)
    assert small.sizes.tolist() == [[60, 20]] * 3


def test_similarity_moves_cameras_with_the_world():
    cameras = rig("barrel")
    rotation = torch.from_numpy(Rotation.from_rotvec([0.3, -1.0, 0.5]).as_matrix())
    translation = f64([1.0, -2.0, 0.5])
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    moved = lens.similarity(cameras, 2.5, rotation, translation)
    before, depths = lens.project(cameras, 1, points)
    after, depths_after = lens.project(moved, 1, 2.5 * points @ rotation.T + translation)
    in_front = depths > 0.1
    assert in_front.any()
    assert (after - before)[in_front].abs().max() < PIXEL64
    assert (depths_after - 2.5 * depths).abs().max() < PIXEL64


@pytest.mark.parametrize("index", [torch.tensor([2, 0]), torch.tensor([True, False, True]), slice(0, 2)])
def test_select_takes_matching_fields(index):
    cameras = rig("fox")
    chosen = cameras.select(index)
    assert len(chosen) == 2
    assert torch.equal(chosen.c2w, cameras.c2w[index])
    assert torch.equal(chosen.sizes, cameras.sizes[index])


@pytest.mark.parametrize("n_images", [1, 5, 6])
def test_every_number_of_cameras_can_be_changed(n_images):
    cameras = rig("fox", n_images)
    assert len(lens.resize(cameras, cameras.sizes * 2)) == n_images
    assert cameras.to(torch.float32).c2w.dtype == torch.float32
