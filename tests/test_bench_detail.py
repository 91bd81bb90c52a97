"""The detail bench on a painted plane: photos agree over it, and not over another."""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from detail_bench.correlation import correlate
from detail_bench.surfaces import Surface, find_photos
from detail_bench.texture import Textured, compare_with_photos

from quicksurf.geometry.cameras import Cameras

DEPTH, SIDE, FOCAL = 2.0, 160, 160.0
SHIFTS = (0.0, 0.4)  # of the cameras along x: 11 degrees at the plane
QUAD = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
SQUARE = np.array([[-2.0, -2], [2, -2], [2, 2], [-2, 2]])


def paint(x, y):
    return 128 + 50 * np.sin(27 * x + 12 * y) + 50 * np.cos(24 * y - 9 * x)


def cameras():
    n = len(SHIFTS)
    c2w = torch.eye(3, 4, dtype=torch.float64).repeat(n, 1, 1)
    c2w[:, 0, 3] = torch.tensor(SHIFTS)
    intrinsics = torch.tensor([[FOCAL, FOCAL, SIDE / 2, SIDE / 2]], dtype=torch.float64).repeat(n, 1)
    distortion = torch.zeros(n, 6, dtype=torch.float64)
    return Cameras(c2w, intrinsics, distortion, torch.zeros(n, dtype=torch.bool), torch.full((n, 2), SIDE))


def plane(depth):
    vertices = np.column_stack([SQUARE, np.full(4, depth)])
    return Surface(str(depth), vertices, QUAD, cameras(), ["a", "b"])


def photos(folder):
    rows, columns = np.indices((SIDE, SIDE)) + 0.5
    x, y = ((axis - SIDE / 2) / FOCAL * DEPTH for axis in (columns, rows))
    for name, shift in zip("ab", SHIFTS, strict=True):
        grey = np.rint(paint(x + shift, y)).astype(np.uint8)
        Image.fromarray(np.stack([grey] * 3, -1)).save(folder / f"{name}.png")
    return find_photos(folder, masked=False)


def test_photos_agree_over_the_plane_that_they_show(tmp_path):
    (right, wrong), n_windows = correlate([plane(DEPTH), plane(1.1 * DEPTH)], photos(tmp_path), 2, 1)
    assert n_windows > 1000
    assert right.tenth > 0.99 and right.covered > 0.5
    assert wrong.median < 0.8


def test_a_faithful_texture_has_the_photos_gradients(tmp_path):
    """And one of a single colour has none."""
    size = 512
    rows, columns = (np.indices((size, size)) + 0.5) / size * 4 - 2
    texture = np.repeat(np.rint(paint(columns, rows)).astype(np.uint8)[..., None], 3, 2)
    uvs = np.float32((SQUARE + 2) / 4)
    surface, shown = plane(DEPTH), photos(tmp_path)
    faithful = compare_with_photos(Textured(surface.vertices, QUAD, uvs, texture), surface, shown, 2)
    assert 0.95 < faithful.gradients < 1.05 and faithful.psnr > 30
    plain = Textured(surface.vertices, QUAD, uvs, np.full_like(texture, 128))
    assert compare_with_photos(plain, surface, shown, 2).gradients < 0.01
