"""Rays of a fit whose depths stereo has found."""

from collections.abc import Sequence

import torch

from quicksurf.capture.scene import DensePoints
from quicksurf.model import TrainedModel
from quicksurf.train.points import SeenDepths

_TOLERANCE = 0.5  # pixels of disparity
_LEAST_TOLERANCE = 0.001  # radii


def dense_rays(dense: DensePoints, result: TrainedModel, views: Sequence[int]) -> SeenDepths | None:
    """Return the rays of `views` to dense points in the region of interest, in the frame of the fit; None without
    any.
    """
    positions, radius = result.to_roi(dense.positions), result.roi.radius
    known = torch.isin(dense.views, torch.tensor(views)) & (positions.norm(dim=1) < 1)
    if not known.any():
        return None
    positions, observers, pixels, spreads = (part[known] for part in (positions, *dense[1:]))
    origins = result.roi_cameras().centers()[observers]
    depths = (positions - origins).norm(dim=1)
    tolerances = (_TOLERANCE / radius * spreads).clamp_min(_LEAST_TOLERANCE)
    rays = SeenDepths(origins, (positions - origins) / depths[:, None], depths, tolerances, pixels / radius)
    return SeenDepths(*(part.float().to(result.device) for part in rays))
