"""The region of interest, and the frame of the fit, in which it is the unit ball at 0."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from quicksurf.geometry.cameras import Cameras, pixel_rays, similarity
from quicksurf.geometry.rays import Rays, unit_ball_span

_NEAR_CAMERA = 0.02  # radii: a camera inside the region sees nothing closer


class Roi(NamedTuple):
    """Region of interest: the ball that the surface is reconstructed in, in the frame of the cameras."""

    center: tuple[float, float, float]
    radius: float

    def describe(self) -> str:
        """Return `x,y,z,r` as `--roi` takes it, to a thousandth of the radius: survey coordinates need their digits."""
        values = (*self.center, self.radius)
        if not all(map(math.isfinite, values)) or not 0 < self.radius < 1e300:
            return ",".join(f"{value:.4g}" for value in values)
        decimals = 3 - math.floor(math.log10(self.radius))
        return ",".join(f"{round(value, decimals):.15g}" for value in values)


def cameras_in_roi(cameras: Cameras, roi: Roi) -> Cameras:
    """Return world cameras in the frame where the ROI is the unit ball, float32."""
    shift = -torch.tensor(roi.center, dtype=torch.float64) / roi.radius
    eye = torch.eye(3, dtype=torch.float64)
    return similarity(cameras.to(torch.float64), 1 / roi.radius, eye, shift).to(torch.float32)


def cameras_in_world(cameras: Cameras, roi: Roi) -> Cameras:
    """Return the inverse of `cameras_in_roi`, float64."""
    center, eye = torch.tensor(roi.center, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    return similarity(cameras.to(torch.float64), roi.radius, eye, center)


def cell_centers(resolution: int) -> Float[Tensor, "n 3"]:
    """Return the centres of the cells of [−1, 1]³, `resolution` along an axis, the last coordinate changing fastest."""
    ticks = (torch.arange(resolution) + 0.5) * (2 / resolution) - 1
    return torch.cartesian_prod(ticks, ticks, ticks)


def dilate(cells: Bool[Tensor, "rx ry rz"], reach: int = 1) -> Bool[Tensor, "rx ry rz"]:
    """Add the neighbours of `cells`, those at corners included, `reach` cells far."""
    grown = torch.nn.functional.max_pool3d(cells[None, None].float(), 2 * reach + 1, stride=1, padding=reach)
    return grown[0, 0] > 0


def roi_rays(cameras: Cameras, image_indices: Int[Tensor, "n"], pixels: Float[Tensor, "n 2"]) -> Rays:
    """Return rays through pixels of cameras in the fit's frame, with the stretch that lies in the unit ball."""
    origins, directions = pixel_rays(cameras, image_indices, pixels)
    near, far = unit_ball_span(origins, directions)
    inside = origins.square().sum(-1) < 1
    return Rays(origins, directions, torch.where(inside, near + _NEAR_CAMERA, near), far)
