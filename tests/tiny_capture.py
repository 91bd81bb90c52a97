"""A capture small enough to fit in seconds: a coloured ellipsoid on white, traced exactly, with masks."""

import math
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import torch

from quicksurf.capture.transforms import write_cameras
from quicksurf.geometry.cameras import Cameras, pixel_rays
from quicksurf.geometry.paths import look_at

AXES = torch.tensor([1.8, 1.2, 0.75], dtype=torch.float64)
CENTER = torch.tensor([10.0, -20.0, 5.0], dtype=torch.float64)
DISTANCE = 6.6


def write_capture(folder: Path, n_views: int = 12, size: int = 48) -> Path:
    """Write images/, masks/ and transforms.json of the ellipsoid with AXES around CENTER; return `folder`."""
    cameras = _around(n_views, size)
    names = [f"images/{index:02d}.png" for index in range(n_views)]
    for index, name in enumerate(names):
        color, mask = _trace(cameras, index)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "masks").mkdir(exist_ok=True)
        imageio.imwrite(folder / name, color)
        imageio.imwrite(folder / "masks" / f"{index:02d}.png", mask)
    held_out = np.arange(n_views) % 6 == 0
    write_cameras(folder / "transforms.json", cameras, names, held_out)
    return folder


def _around(n_views: int, size: int) -> Cameras:
    turns = torch.arange(n_views, dtype=torch.float64) * (2 * math.pi / n_views)
    offsets = torch.stack([turns.cos(), turns.sin(), 0.4 * (turns * 3).sin()], -1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    return Cameras(
        c2w=look_at(CENTER + DISTANCE * offsets, CENTER, up),
        intrinsics=torch.tensor([1.3 * size, 1.3 * size, size / 2, size / 2], dtype=torch.float64).repeat(
            n_views, 1
        ),
        distortion=torch.zeros(n_views, 6, dtype=torch.float64),
        fisheye=torch.zeros(n_views, dtype=torch.bool),
        sizes=torch.full((n_views, 2), size),
    )


def _trace(cameras: Cameras, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Colour follows the point's position, so that it is the same from all sides."""
    width, height = cameras.sizes[index].tolist()
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([columns, rows], -1).reshape(-1, 2).double() + 0.5
    origins, directions = pixel_rays(cameras, torch.full((len(pixels),), index), pixels)
    o, d = (origins - CENTER) / AXES, directions / AXES
    a, b, c = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1
    discriminant = b * b - a * c
    hit = discriminant > 0
    t = (-b - discriminant.clamp_min(0).sqrt()) / a
    points = origins - CENTER + t[:, None] * directions
    color = torch.where(hit[:, None], 0.5 + 0.4 * torch.sin(2.7 * points), torch.ones(3, dtype=torch.float64))
    image = (color.view(height, width, 3) * 255).round().to(torch.uint8).numpy()
    return image, (hit.view(height, width) * 255).to(torch.uint8).numpy()
