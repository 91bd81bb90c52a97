"""Empty space that is proven empty: what lies on the way from photos to verified points.

A cell of the region of interest is empty if several such rays cross it, and each of its neighbours, well before they
end, and no point lies near it. The neighbours count because a cell that rays graze may hold the floor below them.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from quicksurf.geometry.rays import unit_ball_span
from quicksurf.geometry.region import dilate

_RAYS = 3  # a point that is wrong empties nothing alone
_BEFORE = 3.0  # cells before its end that a ray proves nothing: points are off by pixels, surfaces are rough
_HELD = 1  # cells around a point, or around one that is not crossed: rays graze floors and walls


def room_before_points(
    origins: Float[Tensor, "n 3"], ends: Float[Tensor, "n 3"], resolution: int
) -> Bool[Tensor, "r r r"]:
    """Return the cells of [−1, 1]³ that rays from `origins` to points `ends` do not prove empty."""
    cell = 2 / resolution
    lengths = (ends - origins).norm(dim=1)
    directions = (ends - origins) / lengths[:, None].clamp_min(1e-9)
    near, far = unit_ball_span(origins, directions)
    far = torch.minimum(far, lengths - _BEFORE * cell)
    crossing = torch.zeros(resolution**3)
    for step in range(resolution):
        ts = near + (step + 0.5) * cell
        inside = ts < far
        cells = _cells(origins[inside] + ts[inside, None] * directions[inside], resolution)
        crossing += torch.bincount(cells, minlength=len(crossing))
    held = crossing < _RAYS
    held[_cells(ends[ends.norm(dim=1) < 1], resolution)] = True
    return dilate(held.view(resolution, resolution, resolution), _HELD)


def _cells(points: Float[Tensor, "n 3"], resolution: int) -> Int[Tensor, "n"]:
    x, y, z = ((points + 1) * (resolution / 2)).long().clamp(0, resolution - 1).unbind(1)
    return (x * resolution + y) * resolution + z
