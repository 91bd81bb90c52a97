"""Dense points of rendered photos lie on what was rendered, within its masks, the same for any number of threads."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from rendered_box import HEIGHT, WIDTH, arc, render

from quicksurf.capture import dense_points
from quicksurf.capture.dense_points import affordable_pixels, find_dense_points
from quicksurf.capture.scene import ReadReport, Scene, SparsePoints
from quicksurf.capture.stereo import choose_partners, stereo_photos
from quicksurf.geometry.cameras import project
from quicksurf.geometry.region import Roi
from quicksurf.kernels import _native

pytestmark = pytest.mark.slow

N_PHOTOS = 4
HALF = np.array([0.6, 0.4, 0.5])
PLENTY = 1e4  # seconds: photos as large as stereo takes them
WITHIN = 0.01  # of a scene 3 away: a quarter of a pixel of disparity between photos 12 degrees apart


@pytest.fixture(autouse=True)
def number_of_threads():
    before = _native.num_threads()
    yield
    _native.set_num_threads(before)


def distance(points: np.ndarray) -> np.ndarray:
    """From the box or the floor, whichever is nearer."""
    outside = np.abs(points) - HALF
    box = np.abs(np.linalg.norm(np.maximum(outside, 0), axis=1) + np.minimum(outside.max(1), 0))
    return np.minimum(box, np.abs(points[:, 2] + HALF[2]))


def sparse(cameras) -> SparsePoints:
    """Places on the floor and on two faces of the box, which all photos of the arc see."""
    ticks = torch.linspace(-1, 1, 9, dtype=torch.float64)
    floor = torch.cartesian_prod(1.4 * ticks, 1.4 * ticks)
    floor = torch.cat([floor, torch.full_like(floor[:, :1], -HALF[2])], 1)
    top = torch.cartesian_prod(ticks, ticks, torch.ones(1, dtype=torch.float64)) * torch.from_numpy(HALF)
    front = torch.cartesian_prod(torch.ones(1, dtype=torch.float64), ticks, ticks) * torch.from_numpy(HALF)
    positions = torch.cat([floor[(floor[:, 0] > 0.7)], top, front])
    seen = []
    for view in range(len(cameras)):
        pixels, _ = project(cameras, view, positions)
        inside = (pixels > 0).all(1) & (pixels < torch.tensor([WIDTH, HEIGHT])).all(1)
        index = torch.nonzero(inside)[:, 0]
        seen.append(torch.stack([index, torch.full_like(index, view)], 1))
    return SparsePoints(positions, torch.zeros(len(positions), 3, dtype=torch.uint8), torch.cat(seen))


@pytest.fixture(scope="module")
def scene() -> Scene:
    cameras = arc(N_PHOTOS)
    return Scene(
        "box",
        Path(),
        cameras,
        [render(cameras, index) for index in range(N_PHOTOS)],
        [None] * N_PHOTOS,
        [str(index) for index in range(N_PHOTOS)],
        np.zeros(N_PHOTOS, bool),
        Roi((0, 0, 0), 2),
        sparse(cameras),
        ReadReport(),
    )


def test_points_lie_on_the_surface_and_on_the_rays_of_their_photos(scene):
    lines = []
    dense = find_dense_points(scene, PLENTY, 0, lines.append)
    assert dense is not None and len(dense.positions) > 0.3 * N_PHOTOS * WIDTH * HEIGHT
    off = distance(dense.positions.numpy())
    assert np.median(off) < 0.3 * WITHIN and np.mean(off < WITHIN) > 0.95
    pixels, depths = project(scene.cameras, 1, dense.positions[dense.views == 1])
    assert (depths > 0).all() and torch.allclose(pixels - 0.5, (pixels - 0.5).round(), atol=1e-3)
    assert f"{len(dense.positions):,} from {N_PHOTOS} photos" in lines[0]


def test_no_point_depends_on_the_number_of_threads(scene):
    found = []
    for n in (1, 3):
        _native.set_num_threads(n)
        found.append(find_dense_points(scene, PLENTY, 7))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_points_keep_to_the_masks(scene):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, : WIDTH // 2] = 255
    dense = find_dense_points(dataclasses.replace(scene, masks=[None, mask, None, None]), PLENTY, 0)
    columns = project(scene.cameras, 1, dense.positions[dense.views == 1])[0][:, 0]
    assert len(columns) > 1000 and (columns < WIDTH / 2 + 1).all()


def test_without_points_or_time_there_are_none(scene):
    assert find_dense_points(dataclasses.replace(scene, points=None), PLENTY, 0) is None
    assert find_dense_points(scene, 1e-3, 0) is None
    assert affordable_pixels(60, 20.0) == affordable_pixels(30, 10.0) > 0


def test_partners_see_the_same_from_aside(scene):
    far = torch.tensor(
        [[0.0, 0.0, 40.0]], dtype=torch.float64
    )  # one more point, that photos 0 and 3 alone see
    points = scene.points
    assert points is not None
    nobody = points.observations[points.observations[:, 1] != 2]
    points = SparsePoints(torch.cat([points.positions, far]), points.colors, nobody)
    partners = choose_partners(stereo_photos(scene, points, 10_000), points, 2)
    assert partners[2] == [] and all(2 not in others for others in partners)
    assert partners[0] == [1, 3] and len(partners[1]) == 2


def test_bent_photos_are_straightened(scene):
    bent = scene.cameras.distortion.clone()
    bent[:, 0] = -0.2
    cameras = dataclasses.replace(scene.cameras, distortion=bent)
    (photo, *_) = stereo_photos(dataclasses.replace(scene, cameras=cameras), scene.points, WIDTH * HEIGHT)
    u, v = 400.5, 100.5
    a, b = (u - WIDTH / 2) / 520, (v - HEIGHT / 2) / 520
    shrink = 1 - 0.2 * (a * a + b * b)
    column, row = (a * shrink * 520 + WIDTH / 2 - 0.5, b * shrink * 520 + HEIGHT / 2 - 0.5)
    near = scene.images[0][int(row) : int(row) + 2, int(column) : int(column) + 2, 0].astype(int)
    assert near.min() - 2 <= photo.grey[int(v), int(u)] <= near.max() + 2


def test_no_more_points_are_kept_than_there_is_room_for(scene, monkeypatch):
    monkeypatch.setattr(dense_points, "_MOST_KEPT", 4000)
    dense = find_dense_points(scene, PLENTY, 0)
    assert torch.equal(torch.bincount(dense.views), torch.full((N_PHOTOS,), 1000))
    monkeypatch.setattr(dense_points, "_MOST_IN_ALL", N_PHOTOS * 50_000)
    lines = []
    find_dense_points(scene, PLENTY, 0, lines.append)
    assert 45_000 < int(lines[0].split(" a pixel of ")[1].split(" a photo")[0].replace(",", "")) <= 51_000
