"""The visual hull: the largest solid whose silhouettes are the masks. What masks alone give, to compare with.

It is the level set 0 of

    h(x) = min over views of  s(π(x)) · z / f

with s the signed distance to the silhouette in pixels (inside > 0, sub-pixel), π the projection, z the depth and f the
focal length: a distance in scene units, so that marching cubes interpolates it well.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from quality_bench.silhouettes import Silhouettes
from quicksurf.geometry.cameras import Cameras, project
from quicksurf.geometry.region import cameras_in_roi
from quicksurf.mesh.extract import extract_surface

RESOLUTION = 256
_STEPS_PER_CELL = 4  # of the coarse grid that tells where the surface may be
_SLOPE = 1.5  # bound of |∇h|: 1 on the axis of a camera, 1.3 in the corner of a wide one (55° off)


def carve(
    silhouettes: Silhouettes, resolution: int = RESOLUTION
) -> tuple[Float64[np.ndarray, "v 3"], Int64[np.ndarray, "f 3"]]:
    """Carve the ball of the ROI by all masks, on `resolution` steps along its diameter; vertices in the world."""
    # A mask of one value bounds nothing.
    used = [index for index, c in enumerate(silhouettes.coverages) if c.min() < 1 and c.max() > 0]
    cameras = cameras_in_roi(
        silhouettes.cameras.select(torch.tensor(used, dtype=torch.long)), silhouettes.roi
    )
    distances = [torch.from_numpy(signed_distance(silhouettes.coverages[index])) for index in used]
    aabb = torch.tensor([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])
    n_cells = max(1, resolution // _STEPS_PER_CELL)
    starts = (torch.arange(n_cells) + 0.5) * (2 / n_cells) - 1
    centers = torch.cartesian_prod(starts, starts, starts)
    reach = _SLOPE * np.sqrt(3) / n_cells  # from a cell's centre to its corners
    near = hull_distance(centers, cameras, distances).abs() <= reach
    vertices, faces = extract_surface(
        lambda points: hull_distance(points, cameras, distances),
        near.view(n_cells, n_cells, n_cells),
        aabb,
        resolution,
    )
    return np.array(silhouettes.roi.center) + silhouettes.roi.radius * vertices, faces


def hull_distance(
    points: Float[Tensor, "n 3"], cameras: Cameras, distances: Sequence[Float32[Tensor, "_ _"]]
) -> Float[Tensor, "n"]:
    """h of the module's text, at points in the frame where the ROI is the unit ball, which bounds the hull, too.

    A point outside a picture is as the picture's border there: carved where that is background, and kept where the
    frame cuts the object. A point behind a camera is left to the others.
    """
    lowest = 1 - points.norm(dim=1)
    for view, image in enumerate(distances):
        pixels, depths = project(cameras, view, points)
        at = 2 * pixels / cameras.sizes[view] - 1  # −1 and 1 are the picture's edges
        values = torch.nn.functional.grid_sample(
            image[None, None], at[None, None], padding_mode="border", align_corners=False
        )[0, 0, 0]
        values = values * depths / cameras.intrinsics[view, :2].mean()
        lowest = torch.where(depths > 0, torch.minimum(lowest, values), lowest)
    return lowest


def signed_distance(coverage: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Distance in pixels of each pixel's centre to the silhouette's outline, inside > 0.

    The outline runs through pixels that are covered in part; there the distance is coverage − 1/2, exact for a straight
    outline along rows or columns. From elsewhere it is that of the nearest such pixel, and the way to it: off by up to
    a pixel at a slant, without a bias.
    """
    outside, inside = _way_to_object(coverage), _way_to_object(1 - coverage)
    return np.where(coverage <= 0, -outside, np.where(coverage >= 1, inside, coverage - 0.5)).astype(
        np.float32
    )


def _way_to_object(coverage: Float32[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
    """Distance from pixels of coverage 0 to the outline; of no meaning elsewhere."""
    found: Any = distance_transform_edt(coverage <= 0, return_indices=True)
    ways, nearest = found
    return ways + 0.5 - coverage[tuple(nearest)]
