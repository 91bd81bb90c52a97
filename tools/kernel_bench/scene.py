"""A capture made in memory: a painted ellipsoid on white, traced exactly, seen from a ring of cameras."""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from quicksurf.capture.scene import ReadReport, Roi, Scene
from quicksurf.geometry.cameras import Cameras, pixel_rays
from quicksurf.geometry.paths import look_at

_AXES = torch.tensor([0.9, 0.6, 0.4], dtype=torch.float64)
_ROI_RADIUS = 1.2  # room around the object, as a region of interest found from photos has
_DISTANCE = 3.5
_N_VIEWS, _SIZE = 24, 200


def painted_ellipsoid() -> Scene:
    """The scene; its border is one colour, so that a fit needs no background field."""
    cameras = _ring(_N_VIEWS, _SIZE)
    images = [_trace(cameras, index) for index in range(_N_VIEWS)]
    names = [f"{index:02d}.png" for index in range(_N_VIEWS)]
    held_out = np.arange(_N_VIEWS) % 8 == 0
    roi = Roi((0.0, 0.0, 0.0), _ROI_RADIUS)
    masks: list[np.ndarray | None] = [None] * _N_VIEWS
    return Scene("ellipsoid", Path(), cameras, images, masks, names, held_out, roi, None, ReadReport())


def _ring(n_views: int, size: int) -> Cameras:
    turns = torch.arange(n_views, dtype=torch.float64) * (2 * math.pi / n_views)
    offsets = torch.stack([turns.cos(), turns.sin(), 0.4 * (3 * turns).sin()], -1)
    origin, up = torch.zeros(3, dtype=torch.float64), torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    intrinsics = torch.tensor([1.5 * size, 1.5 * size, size / 2, size / 2], dtype=torch.float64)
    return Cameras(
        c2w=look_at(_DISTANCE * offsets, origin, up),
        intrinsics=intrinsics.repeat(n_views, 1),
        distortion=torch.zeros(n_views, 6, dtype=torch.float64),
        fisheye=torch.zeros(n_views, dtype=torch.bool),
        sizes=torch.full((n_views, 2), size),
    )


def _trace(cameras: Cameras, index: int) -> UInt8[np.ndarray, "h w 3"]:
    """Colour follows the point's position, so that it is the same from all sides."""
    width, height = cameras.sizes[index].tolist()
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([columns, rows], -1).reshape(-1, 2).double() + 0.5
    origins, directions = pixel_rays(cameras, torch.full((len(pixels),), index), pixels)
    hits, points = _hit(origins, directions)
    paint = 0.5 + 0.25 * torch.sin(5 * points) + 0.2 * torch.sin(23 * points.roll(1, -1))
    color = torch.where(hits[:, None], paint, torch.ones_like(paint))
    return (color.view(height, width, 3) * 255).round().to(torch.uint8).numpy()


def _hit(origins: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]) -> tuple[Tensor, Tensor]:
    """Whether rays meet the ellipsoid |x / axes| = 1, and where."""
    o, d = origins / _AXES, directions / _AXES
    a, b, c = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1
    discriminant = b * b - a * c
    ts = (-b - discriminant.clamp_min(0).sqrt()) / a
    return discriminant > 0, origins + ts[:, None] * directions
