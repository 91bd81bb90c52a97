"""The sky of outdoor photos, and the cells of the region of interest that several photos see it through.

A photo's sky is calm, reaches the upper edge of the frame, holds no point that other photos confirm, and is not darker
than the photo's median. A plain wall in the corner of one photo may pass for that; so a cell counts as empty only where
several photos see sky through it, and no verified point lies near.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image
from scipy import ndimage
from torch import Tensor

from quicksurf.geometry.cameras import Cameras, pixel_rays, resize
from quicksurf.geometry.rays import unit_ball_span
from quicksurf.geometry.region import cell_centers, dilate
from quicksurf.train.hull import distance_outside, votes_of_mask

_SIZE = 400  # pixels across the longer side: clouds are calm there, tiles and leaves are not
_CALM = 4.0  # grey levels a pixel, after a blur of one pixel
_CLEAR_OF_POINTS = 4.0  # pixels
_LEAST = 0.02  # of the frame
_RAYS_PER_PHOTO = 4000
_PROBES = 24  # places on a ray
_AGREED = 1 / 3  # of them are empty by the votes of all photos
# Photos, and the fraction of those with the cell in their frame, that see sky through it.
_VOTES, _VOTED = 3, 0.25


def find_sky(
    image: UInt8[np.ndarray, "h w 3"], points: Float[np.ndarray, "n 2"]
) -> Bool[np.ndarray, "a b"] | None:
    """Return the sky of a photo at its size or at 400 pixels, None where it shows none.

    Args:
        points: pixels at which the photo observes verified points.
    """
    scale = max(1.0, max(image.shape[:2]) / _SIZE)
    size = round(image.shape[1] / scale), round(image.shape[0] / scale)
    small = np.asarray(Image.fromarray(image).convert("L").resize(size, Image.Resampling.BOX), np.float32)
    clear = np.ones(small.shape, bool)
    columns, rows = (points / scale).astype(np.int64).T
    kept = (columns >= 0) & (rows >= 0) & (columns < size[0]) & (rows < size[1])
    clear[rows[kept], columns[kept]] = False
    clear = np.asarray(ndimage.distance_transform_edt(clear)) > _CLEAR_OF_POINTS
    labels: np.ndarray = np.zeros(small.shape, np.int32)
    ndimage.label(clear & (_unrest(small) < _CALM), output=labels)
    median, sky = np.median(small), np.zeros(small.shape, bool)
    for label in np.unique(labels[0][labels[0] > 0]):
        part = labels == label
        if part.mean() >= _LEAST and small[part].mean() >= median:
            sky |= part
    return ndimage.binary_fill_holes(sky) if sky.any() else None


def room_below_sky(
    cameras: Cameras,
    skies: Sequence[Bool[np.ndarray, "_ _"] | None],
    points: Float[Tensor, "n 3"],
    resolution: int,
) -> Bool[Tensor, "r r r"]:
    """Return the cells of [−1, 1]³ through which no sky is seen; `cameras` are in the frame where the ROI is the unit
    ball.

    Args:
        points: verified points in that frame: the cells around them stay.
    """
    centers = cell_centers(resolution)
    n_seen, n_sky = torch.zeros(len(centers)), torch.zeros(len(centers))
    for view, sky in enumerate(skies):
        camera = cameras.select(torch.tensor([view]))
        solid = np.ones(camera.sizes[0].tolist()[::-1], bool) if sky is None else ~sky
        distances = distance_outside(np.where(solid, 255, 0).astype(np.uint8))
        camera = resize(camera, torch.tensor([solid.shape[::-1]]))
        seen, through = votes_of_mask(camera, 0, distances, centers, np.sqrt(3) / resolution)
        n_seen += seen
        n_sky += through
    empty = (n_sky >= _VOTES) & (n_sky >= _VOTED * n_seen)
    room = ~empty.view(resolution, resolution, resolution)
    cells = ((points[points.norm(dim=1) < 1] + 1) * (resolution / 2)).long()
    held = torch.zeros_like(room)
    held[cells.unbind(1)] = True
    return room | dilate(held)


def sky_rays(
    cameras: Cameras, skies: Sequence[Bool[np.ndarray, "_ _"] | None], room: Bool[Tensor, "r r r"]
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Return origins and directions of rays through the sky of all photos, where other photos agree.

    Args:
        room: of `room_below_sky`. A ray counts where a third of its way through the unit ball is empty by it: else what
            looks like sky is a plain wall.
    """
    parts = [_rays_of(cameras, view, sky) for view, sky in enumerate(skies) if sky is not None]
    origins, directions = (torch.cat(part) for part in zip(*parts, strict=True))
    near, far = unit_ball_span(origins, directions)
    s = (torch.arange(_PROBES) + 0.5) / _PROBES
    ts = near[:, None] + s * (far - near)[:, None]
    cells = ((origins[:, None] + ts[..., None] * directions[:, None] + 1) * (len(room) / 2)).long()
    empty = ~room[cells.clamp(0, len(room) - 1).unbind(-1)]
    agreed = (near < far) & (empty.float().mean(1) >= _AGREED)
    return origins[agreed], directions[agreed]


def _rays_of(
    cameras: Cameras, view: int, sky: Bool[np.ndarray, "a b"]
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Rays through evenly chosen pixels of a photo's sky."""
    rows, columns = np.nonzero(sky)
    chosen = slice(None, None, math.ceil(len(rows) / _RAYS_PER_PHOTO))
    pixels = torch.from_numpy(np.stack([columns[chosen], rows[chosen]], 1) + 0.5).to(cameras.c2w)
    camera = resize(cameras.select(torch.tensor([view])), torch.tensor([sky.shape[::-1]]))
    return pixel_rays(camera, torch.zeros(len(pixels), dtype=torch.long), pixels)


def _unrest(grey: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """The steepest slope within two pixels, in grey levels a pixel, after a blur of one."""
    down, along = np.gradient(np.asarray(ndimage.gaussian_filter(grey, 1.0)))
    return np.asarray(ndimage.maximum_filter(np.hypot(down, along), 5))
