"""Tell what kind of capture it is from its cameras and points alone.

around  the photos surround an object: the region of interest is the object, what is behind it is background
facade  they look at one side of something: a house front, a relief, a street
inside  they look outward from within what is to be reconstructed: a courtyard, a room
"""

import torch
from jaxtyping import Float
from torch import Tensor

from quicksurf.capture.roi import look
from quicksurf.capture.scene import Kind, SparsePoints
from quicksurf.geometry.cameras import Cameras

# Of the directions from the common point of the axes to the cameras: facades have 0.80 to 0.94, an object seen from
# above 0.72 at most.
_ONE_SIDED = 0.76
# Degrees of the horizon from which the cameras look: facades have 67 to 102, photos around an object 300 and more.
_ONE_SIDE = 160.0
# Median distance of the axes from their common point, by that of the cameras: a courtyard has 0.11, objects in a room
# whose walls have points 0.07 at most.
_LOOK_ABOUT = 0.09
# Of the points, by observations: the ball that most cameras of an inside capture stand in holds so many.
_SURROUNDING = 0.9


def kind_of(cameras: Cameras, points: SparsePoints | None) -> Kind:
    """Choose the kind of a capture."""
    gaze = look(cameras.to(torch.float64))
    sight = torch.nn.functional.normalize(cameras.centers().double() - gaze.center, dim=1)
    outward = (sight * cameras.c2w[:, :, 2].double()).sum(1).median() > 0
    if (outward or gaze.residual > _LOOK_ABOUT) and points is not None and _stand_among(cameras, points):
        return "inside"
    one_sided = float(sight.mean(0).norm()) > _ONE_SIDED
    return "facade" if one_sided and _horizon(cameras, sight) < _ONE_SIDE else "around"


def _stand_among(cameras: Cameras, points: SparsePoints) -> bool:
    """Whether most cameras stand inside the ball that holds nine tenths of what they observe."""
    positions = points.positions.double()
    seen = positions[points.observations[:, 0]]
    if not len(seen):
        return False
    middle = seen.median(0).values
    radius = (seen - middle).norm(dim=1).quantile(_SURROUNDING) if len(seen) < 1 << 24 else 0.0
    return bool(((cameras.centers().double() - middle).norm(dim=1) < radius).double().mean() > 0.5)


def _horizon(cameras: Cameras, sight: Float[Tensor, "n 3"]) -> float:
    """Degrees of the horizon that the cameras stand on: 360 less the largest gap; most photos are held upright."""
    up = torch.nn.functional.normalize(-cameras.c2w[:, :, 1].double().mean(0), dim=0)
    first, second = torch.linalg.svd(up[None])[2][1:]
    angles = torch.atan2(sight @ second, sight @ first).sort().values
    gaps = torch.cat([angles[1:] - angles[:-1], angles[:1] + 2 * torch.pi - angles[-1:]])
    return 360.0 - float(torch.rad2deg(gaps.max()))
