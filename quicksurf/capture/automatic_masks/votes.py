"""Carve the volume that the photos agree on by votes, and draw it from each camera.

The network sees one photo at a time and is wrong in one of ten: it misses a part, or takes the table for the object.
A cell's score is the weighted mean of its saliency over the photos that have it in frame. Cells of the object score
near 1 despite a few wrong photos, and a region that only a few photos show scores near 0. The volume is carved twice:
coarsely in the whole region, every photo with the same weight; then finely around the result, with less weight for
photos that disagree with the first volume.

Cameras are in the frame where the region of interest is the unit ball. Saliencies are square maps in [0, 1], stretched
over the whole photo.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from quicksurf.capture.roi import enclosing_ball
from quicksurf.geometry.cameras import Cameras, project
from quicksurf.geometry.region import cell_centers

SOLID = 0.85  # score from which a cell counts as the object: one photo in seven may be wrong
_LEAST = 0.5  # score below which a cell is dropped
_COARSE, _FINE = 48, 96  # cells across the region, and across what is left of it
_SEEN = 1 / 3  # of the photos must see a cell: objects may be cut by the frame
_CELLS_A_PIXEL = 1.3  # when a volume is drawn: fewer leave gaps between cells
_UNLIKE, _ALIKE = 0.5, 0.8  # IoU of a photo with the volume from which its vote counts, and fully


class Volume(NamedTuple):
    """Cells that more than half of the photos show as salient."""

    centers: Float[Tensor, "n 3"]
    scores: Float[Tensor, "n"]
    cell: float
    """Length of a cell's side."""


class Votes(NamedTuple):
    """The volume that the photos agree on, and its views."""

    volume: Volume
    silhouettes: list[Float[np.ndarray, "s s"]]
    """The largest score that a ray through each pixel of a saliency map meets."""
    agreement: Float[np.ndarray, "n"]
    """IoU of each photo's saliency with the silhouette of the volume."""


def vote(cameras: Cameras, saliencies: Sequence[Float[np.ndarray, "s s"]]) -> Votes:
    """Carve the volume that the photos agree on; it may be empty."""
    maps = torch.from_numpy(np.stack(saliencies))
    everyone = torch.ones(len(maps))
    coarse = carve(cameras, maps, everyone, _ball(torch.zeros(3), 1.0, _COARSE))
    agreement = _agreement(saliencies, [draw(cameras, i, coarse, maps.shape[-1]) for i in range(len(maps))])
    solid = coarse.centers[coarse.scores >= SOLID]
    if len(solid):
        weights = torch.from_numpy(((agreement - _UNLIKE) / (_ALIKE - _UNLIKE)).clip(0.05, 1)).float()
        center, radius = enclosing_ball(solid)
        coarse = carve(cameras, maps, weights, _ball(center, min(radius + 2 * coarse.cell, 1.0), _FINE))
    silhouettes = [draw(cameras, i, coarse, maps.shape[-1]) for i in range(len(maps))]
    return Votes(coarse, silhouettes, _agreement(saliencies, silhouettes))


def carve(
    cameras: Cameras, maps: Float[Tensor, "n s s"], weights: Float[Tensor, "n"], cells: Volume
) -> Volume:
    """Keep the cells with a score of at least a half, and set their scores; `weights` are the photos'."""
    for_it, seen = torch.zeros(len(cells.centers)), torch.zeros(len(cells.centers))
    alive, left = torch.arange(len(cells.centers)), float(weights.sum())
    for view in range(len(maps)):
        salient, in_frame = _sample(cameras, view, maps[view], cells.centers[alive])
        for_it[alive] += weights[view] * salient
        seen[alive] += weights[view] * in_frame
        left -= float(weights[view])
        alive = alive[for_it[alive] + left >= _LEAST * (seen[alive] + left)]
    alive = alive[seen[alive] >= _SEEN * float(weights.sum())]
    return Volume(cells.centers[alive], for_it[alive] / seen[alive], cells.cell)


def draw(cameras: Cameras, view: int, volume: Volume, size: int) -> Float[np.ndarray, "s s"]:
    """Draw the largest score on the ray through each pixel of a map of `size`² pixels over the photo."""
    pixels, depths = project(cameras, view, volume.centers)
    front = depths > volume.cell
    if not bool(front.any()):
        return np.zeros((size, size), np.float32)
    width, height = cameras.sizes[view].tolist()
    spacing = volume.cell * float(cameras.intrinsics[view, :2].max()) / float(depths[front].median())
    step = _CELLS_A_PIXEL * max(spacing, 1e-6)  # photo pixels of a pixel that is drawn to
    n_columns, n_rows = (max(1, min(size, int(side / step))) for side in (width, height))
    columns = (pixels[:, 0] * (n_columns / width)).long()
    rows = (pixels[:, 1] * (n_rows / height)).long()
    kept = front & (columns >= 0) & (columns < n_columns) & (rows >= 0) & (rows < n_rows)
    drawn = torch.zeros(n_rows * n_columns)
    drawn.scatter_reduce_(0, (rows * n_columns + columns)[kept], volume.scores[kept], "amax")
    padded = np.pad(drawn.view(n_rows, n_columns).numpy(), 2)
    closed = ndimage.grey_closing(padded, (3, 3))[2:-2, 2:-2]
    image = torch.from_numpy(closed)[None, None]
    return torch.nn.functional.interpolate(image, (size, size), mode="bilinear")[0, 0].numpy()


def _ball(center: Float[Tensor, "3"], radius: float, resolution: int) -> Volume:
    """The cells of a ball, with scores of 0."""
    cells = cell_centers(resolution)
    centers = center + radius * cells[cells.norm(dim=1) <= 1]
    return Volume(centers, torch.zeros(len(centers)), 2 * radius / resolution)


def _sample(
    cameras: Cameras, view: int, saliency: Float[Tensor, "s s"], centers: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """The saliency at each centre's projection, and 1 where that is in frame, 0 elsewhere."""
    pixels, depths = project(cameras, view, centers)
    place = 2 * pixels / cameras.sizes[view] - 1
    in_frame = ((depths > 0) & (place.abs() <= 1).all(1)).float()
    found = torch.nn.functional.grid_sample(
        saliency[None, None], place[None, None], padding_mode="border", align_corners=False
    )
    return found[0, 0, 0] * in_frame, in_frame


def _agreement(
    saliencies: Sequence[Float[np.ndarray, "s s"]], silhouettes: Sequence[Float[np.ndarray, "s s"]]
) -> Float[np.ndarray, "n"]:
    pairs = zip(saliencies, silhouettes, strict=True)
    return np.array([iou(raw > 0.5, silhouette >= SOLID) for raw, silhouette in pairs])


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Compute the intersection over union; 0 where both are empty."""
    return float((a & b).sum() / max(int((a | b).sum()), 1))
