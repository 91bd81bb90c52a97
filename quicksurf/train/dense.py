"""What stereo has found, for a fit: rays with depths, and points that its mesh is refined to."""

from collections.abc import Sequence

import torch

from quicksurf.capture.scene import DensePoints
from quicksurf.mesh.refine import SurfacePoints
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


def surface_points(dense: DensePoints, result: TrainedModel) -> SurfacePoints:
    """Return the dense points in the region of interest, of all photos, in the frame of the fit."""
    positions = result.to_roi(dense.positions)
    known = positions.norm(dim=1) < 1
    return SurfacePoints(positions[known].numpy(), (dense.pixels[known] / result.roi.radius).float().numpy())
