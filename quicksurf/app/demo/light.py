"""Light for the demo: a soft sun and a sky, with the shadows that the object casts on itself and on the table.

The irradiance at a point p with normal n is E = sum_k radiance_k max(0, n·l_k) visible_k(p) over a fixed set
of directions l_k. Visibility comes from an orthographic z-buffer of the object along each direction: many
sharp shadows add up to the sun's soft one, and the sky's to what is known as ambient occlusion. All of it is
independent of the view, so it is computed once per vertex and texel.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quicksurf.kernels.host import rasterize

SUN = torch.nn.functional.normalize(torch.tensor([0.55, -0.45, 0.80]), dim=0)
_SUN_SPREAD = 0.09  # radians: a window nearby rather than the sun
_N_SUN, _N_SKY = 16, 48
_SIDE = 448  # pixels of a z-buffer over 5 units: about one edge of the occluder's triangles
_EXTENT = 2.5
_FAR = 100.0  # the z-buffer interpolates 1/z; so far off, that is linear to 1e-6
_BIAS = 0.015  # along the normal, against a surface shadowing itself


class Lights(NamedTuple):
    """Directions towards the light, and what comes from there."""

    directions: Float[Tensor, "k 3"]
    radiance: Float[Tensor, "k 3"]
    depths: Float[Tensor, "k s s"]
    """Orthographic z-buffers of the object."""


def make_lights(vertices: Float[Tensor, "v 3"], faces: np.ndarray) -> Lights:
    """Sun and sky, and the z-buffer of the object along each of their directions."""
    sun_u, sun_v = _basis(SUN)
    disc = _spiral(_N_SUN)
    sun = SUN + _SUN_SPREAD * (disc[:, :1] * sun_u + disc[:, 1:] * sun_v)
    lift = _spiral(_N_SKY)  # uniform on the disc is cosine-weighted on the hemisphere above it
    sky = torch.cat([lift, (1 - lift.square().sum(1, keepdim=True)).clamp_min(1e-3).sqrt()], 1)
    directions = torch.nn.functional.normalize(torch.cat([sun, sky]), dim=1)
    # the sky's directions are drawn with density cos / pi: divide it out, its horizon counts as much as its zenith
    density = directions[_N_SUN:, 2:].clamp_min(0.15)
    radiance = torch.cat(
        [
            torch.tensor([1.75, 1.55, 1.25]).expand(_N_SUN, 3) / _N_SUN,
            torch.tensor([0.46, 0.52, 0.60]) / density / _N_SKY,
        ]
    )
    triangles = np.ascontiguousarray(faces, np.int32)
    depths = [_depth_along(direction, vertices, triangles) for direction in directions]
    return Lights(directions, radiance, torch.stack(depths))


def irradiance(
    lights: Lights, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """E at `points` (see the module's text): the sun's part, and the sky's with a little thrown up by the table."""
    raised = points + _BIAS * normals
    thrown_up = (1 - normals[:, 2:]) / (2 + 2 * points[:, 2:])
    parts = [torch.zeros_like(points), thrown_up * torch.tensor([0.09, 0.07, 0.045])]
    for index, (direction, radiance, depth) in enumerate(zip(*lights, strict=True)):
        column, row, z = _orthographic(direction, raised).unbind(1)
        nearest = depth[row.long().clamp_(0, _SIDE - 1), column.long().clamp_(0, _SIDE - 1)]
        cosine = (normals @ direction).clamp_min(0) * (z <= nearest)
        parts[index >= _N_SUN].addcmul_(cosine[:, None], radiance)
    return parts[0], parts[1]


def _depth_along(
    direction: Float[Tensor, "3"], vertices: Float[Tensor, "v 3"], faces: np.ndarray
) -> Float[Tensor, "s s"]:
    depth, _ = rasterize(_orthographic(direction, vertices).numpy(), faces, _SIDE, _SIDE)
    return torch.from_numpy(depth)


def _orthographic(direction: Float[Tensor, "3"], points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    u, v = _basis(direction)
    scale = _SIDE / (2 * _EXTENT)
    axes = torch.stack([scale * u, scale * v, -direction], 1)
    return points @ axes + torch.tensor([scale * _EXTENT, scale * _EXTENT, _FAR])


def _basis(direction: Float[Tensor, "3"]) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    helper = (
        torch.tensor([0.0, 1.0, 0.0]) if abs(float(direction[1])) < 0.9 else torch.tensor([1.0, 0.0, 0.0])
    )
    u = torch.nn.functional.normalize(torch.linalg.cross(helper, direction), dim=0)
    return u, torch.linalg.cross(direction, u)


def _spiral(n: int) -> Float[Tensor, "n 2"]:
    """Vogel's sunflower: n points spread evenly over the unit disc."""
    index = torch.arange(n)
    angle, radius = index * math.pi * (3 - math.sqrt(5)), ((index + 0.5) / n).sqrt()
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
