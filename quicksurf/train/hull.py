"""What the masks leave room for: cells of the region of interest that nearly all silhouettes allow.

A cell is carved when more than one mask in twenty shows its whole background as background: the ball around the cell,
and a margin of pixels for cameras and outlines that are a little off. A camera that does not have the cell in its
frame says nothing. So a few bad masks remove nothing, and what stays is larger than the object, never smaller.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage
from torch import Tensor

from quicksurf.capture.masks import PERHAPS_OUTSIDE
from quicksurf.geometry.cameras import Cameras, project
from quicksurf.geometry.region import cell_centers, dilate

_AGREE = 0.95  # of the masks that see a cell must allow it: one bad mask in twenty is forgiven
# Cameras from structure from motion are off by under a pixel, hand-drawn outlines by more.
_MARGIN_PIXELS = 2.0
_COARSER = 4  # cells of the first pass are this many times longer: most of the region falls at once


def room_for_object(
    cameras: Cameras, masks: Sequence[UInt8[np.ndarray, "_ _"] | None], resolution: int
) -> Bool[Tensor, "r r r"]:
    """Return the cells of [−1, 1]³ that the masks allow; `cameras` are in the frame where the ROI is the unit ball.

    Empty and full masks bound nothing and are left out. All cells are allowed without masks that bound anything.
    """
    bounding = {
        i: mask
        for i, mask in enumerate(masks)
        if mask is not None and mask.min() < PERHAPS_OUTSIDE <= mask.max()
    }
    outside = [distance_outside(mask) for mask in bounding.values()]
    cameras = cameras.select(torch.tensor(list(bounding), dtype=torch.long))
    coarse = -(-resolution // _COARSER)
    allowed = _allowed(cameras, outside, cell_centers(coarse), np.sqrt(3) / coarse).view(
        coarse, coarse, coarse
    )
    near = torch.nn.functional.interpolate(allowed[None, None].float(), size=(resolution,) * 3)[0, 0] > 0
    index = torch.nonzero(dilate(near).reshape(-1))[:, 0]
    room = torch.zeros(resolution**3, dtype=torch.bool)
    room[index] = _allowed(cameras, outside, cell_centers(resolution)[index], np.sqrt(3) / resolution)
    return room.view(resolution, resolution, resolution)


def distance_outside(mask: UInt8[np.ndarray, "h w"]) -> Float[Tensor, "h w"]:
    """Compute the distance in pixels from each pixel's centre to the nearest that may be on the object."""
    distances = np.asarray(ndimage.distance_transform_edt(mask < PERHAPS_OUTSIDE))
    return torch.from_numpy(distances.astype(np.float32))


def _allowed(
    cameras: Cameras, outside: Sequence[Float[Tensor, "_ _"]], centers: Float[Tensor, "n 3"], reach: float
) -> Bool[Tensor, "n"]:
    """Whether at most one in twenty of the masks that see a ball of radius `reach` shows nothing there."""
    n_seen, n_against = torch.zeros(len(centers)), torch.zeros(len(centers))
    alive = torch.arange(len(centers))
    for view, distances in enumerate(outside):
        seen, against = votes_of_mask(cameras, view, distances, centers[alive], reach)
        n_seen[alive] += seen
        n_against[alive] += against
        possible = n_against[alive] <= (1 - _AGREE) * len(outside)  # the rest cannot agree any more
        alive = alive[possible]
    return n_against <= (1 - _AGREE) * n_seen


def votes_of_mask(
    cameras: Cameras,
    view: int,
    distances: Float[Tensor, "h w"],
    centers: Float[Tensor, "n 3"],
    reach: float,
) -> tuple[Bool[Tensor, "n"], Bool[Tensor, "n"]]:
    """Tell which centres are in the frame, and which of these have no object within `reach`."""
    pixels, depths = project(cameras, view, centers)
    seen = (depths > reach) & (pixels >= 0).all(1) & (pixels < cameras.sizes[view]).all(1)
    index = torch.nonzero(seen)[:, 0]
    columns, rows = pixels[index].long().unbind(1)
    radius = reach * cameras.intrinsics[view, :2].max() / (depths[index] - reach) + _MARGIN_PIXELS
    against = torch.zeros_like(seen)
    against[index] = distances[rows, columns] > radius
    return seen, against
