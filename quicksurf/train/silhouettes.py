"""Outlines of masks below the pixel: pixels along them, and whether a point inside such a pixel is on the object.

A mask holds coverage: the fraction of each pixel that the object fills. Interpolated linearly between the pixels'
centres, its level 1/2 is the outline: to a quarter of a pixel where that is straight, and without bias over the places
where it cuts pixels. So a point in a pixel gets a yes or a no, and a ray through it is compared with that; a ray
through the middle of a pixel, compared with the pixel's coverage, would have to be as soft as the pixel is wide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage
from torch import Tensor

from quicksurf.capture.masks import unknown

CERTAIN = 0.05  # coverage this near to 0 or 1 is taken for it: JPEG noise, feathered edges


class OutlineBatch(NamedTuple):
    """Points of images near outlines; `image_indices` are those of the scene."""

    image_indices: Int[Tensor, "n"]
    pixels: Float[Tensor, "n 2"]
    """Anywhere within the pixels."""
    inside: Float[Tensor, "n"]
    """1 on the object, 0 beside it."""


@dataclass(frozen=True)
class Outlines:
    """All pixels of some masks that lie along an outline, each with the coverage around it."""

    image_indices: Int[Tensor, "p"]
    corners: Float[Tensor, "p 2"]
    """Upper left corners: column, row."""
    patches: UInt8[Tensor, "p 3 3"]
    """Coverage of the pixel and its eight neighbours, 255 is 1; rows first."""

    @classmethod
    def of(
        cls,
        masks: Sequence[UInt8[np.ndarray, "_ _"] | None],
        image_indices: Sequence[int],
        device: torch.device,
    ) -> "Outlines":
        """Find the outlines of the given images, which all have masks, on `device`; a mask of one value has none."""
        nothing = torch.zeros(0, dtype=torch.long), torch.zeros(0, 2), torch.zeros(0, 3, 3, dtype=torch.uint8)
        parts = [nothing, *(_outline_of(index, masks[index]) for index in image_indices)]
        return cls(*(torch.cat(columns).to(device) for columns in zip(*parts, strict=True)))

    def __len__(self) -> int:
        return len(self.patches)

    def draw(self, n: int, generator: torch.Generator) -> OutlineBatch:
        """Return `n` points, uniform over all the pixels; none where there are no outlines."""
        place = {"generator": generator, "device": self.patches.device}
        at = torch.randint(max(len(self), 1), (n if len(self) else 0,), **place)
        within = torch.rand(len(at), 2, **place)
        inside = (interpolate(self.patches[at].float() / 255, within) >= 0.5).float()
        return OutlineBatch(self.image_indices[at], self.corners[at] + within, inside)


def interpolate(patches: Float[Tensor, "n 3 3"], within: Float[Tensor, "n 2"]) -> Float[Tensor, "n"]:
    """Interpolate bilinearly the values at pixel centres, at (column, row) ∈ [0, 1]² within the middle pixel."""
    weights = torch.stack([(0.5 - within).relu(), 1 - (within - 0.5).abs(), (within - 0.5).relu()], -1)
    return torch.einsum("nr,nrc,nc->n", weights[:, 1], patches, weights[:, 0])


def along_outline(mask: UInt8[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Return pixels beside or on an outline: their 3×3 neighbourhood lies on both sides of 1/2.

    None that touches what a made mask does not know.
    """
    inside, unsure = mask > 127, unknown(mask)
    around = np.ones((3, 3), bool)
    inner = np.asarray(ndimage.binary_erosion(inside, around, border_value=1))
    outline = np.asarray(ndimage.binary_dilation(inside, around)) & np.logical_not(inner)
    if not unsure.any():
        return outline
    return outline & np.logical_not(np.asarray(ndimage.binary_dilation(unsure, around)))


def _outline_of(
    index: int, mask: UInt8[np.ndarray, "h w"] | None
) -> tuple[Int[Tensor, "p"], Float[Tensor, "p 2"], UInt8[Tensor, "p 3 3"]]:
    assert mask is not None, "outlines are asked for where all images have masks"
    rows, columns = np.nonzero(along_outline(mask))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(mask, 1, mode="edge"), (3, 3))
    corners = torch.from_numpy(np.stack([columns, rows], -1)).float()
    return torch.full((len(rows),), index), corners, torch.from_numpy(windows[rows, columns])
