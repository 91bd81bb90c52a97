"""The ground of a scene: the level plane that many verified points lie on, with hardly any below it.

Pavement and lawn have few points, so nothing but this tells that what is below them is solid.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_TRIALS = 1000
_NEAR = 0.01  # radii: a point lies on the plane
_BELOW, _MOST_BELOW = 0.03, 0.02  # radii, and the fraction of the points that may lie that far below
_LEVEL = 0.9  # cosine of the angle to the cameras' upward direction
_LOW = 0.1  # of the points, the lowest, are tried
_LEAST, _LEAST_FRACTION = 50, 0.01  # points on it


class Ground(NamedTuple):
    """The plane normal · x = height, and the points on it."""

    normal: Float[Tensor, "3"]
    height: float
    points: Float[Tensor, "n 3"]


def find_ground(
    points: Float[Tensor, "n 3"], centers: Float[Tensor, "c 3"], up: Float[Tensor, "3"]
) -> Ground | None:
    """Find the ground below cameras at `centers`, None where no plane is one; all in the frame of the fit."""
    points = points[points.norm(dim=1) < 1]
    if len(points) < 3 * _LEAST:
        return None
    low = points[(points @ up).argsort()[: math.ceil(_LOW * len(points))]]
    chosen = torch.randint(len(low), (_TRIALS, 3), generator=torch.Generator().manual_seed(0))
    first, second, third = low[chosen].unbind(1)
    normals = torch.nn.functional.normalize(torch.linalg.cross(second - first, third - first), dim=1)
    normals = normals * torch.sign(normals @ up)[:, None]
    heights = (normals * first).sum(1)
    distances = points @ normals.T - heights
    fits = (normals @ up > _LEVEL) & ((centers @ normals.T - heights).amin(0) > 0)
    fits &= (distances < -_BELOW).float().mean(0) < _MOST_BELOW
    counts = (distances.abs() < _NEAR).sum(0) * fits
    best = int(counts.argmax())
    if int(counts[best]) < max(_LEAST, _LEAST_FRACTION * len(points)):
        return None
    on_plane = points[distances[:, best].abs() < _NEAR]
    return Ground(normals[best], float((on_plane @ normals[best]).median()), on_plane)
