"""The photos as a finished mesh meets them: one at a time, with its camera and the exposure that was fitted to it.

Cameras are those of the fit's frame, float32. A photo shows the scene's colour c as A c + b (quicksurf.model.
appearance); `Photo.scene_colors` undoes that, so that what two photos show of one point can be compared and mixed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from quicksurf.geometry.cameras import Cameras, resize


class Photo(NamedTuple):
    """Pixels of one photo."""

    colors: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"] | None
    """Where the object is; None: anywhere."""
    camera: Cameras
    """One camera, of the size of the pixels."""
    exposure: Float32[np.ndarray, "3 4"]
    """A | b."""

    def scene_colors(self, pixels: Float32[np.ndarray, "n 2"]) -> Float32[np.ndarray, "n 3"]:
        """Return the colours in [0, 1] of the scene at `pixels` (column, row; centres at +0.5), bilinear, exposure
        undone.
        """
        return self.undo_exposure(bilinear(self.colors, pixels) / 255)

    def undo_exposure(self, colors: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
        """Return the scene's colours of those that the photo shows."""
        matrix, offset = self.exposure[:, :3], self.exposure[:, 3]
        return ((colors - offset) @ np.linalg.inv(matrix).T).astype(np.float32)


@dataclass(frozen=True)
class Photos:
    """The photos that a surface was fitted to."""

    cameras: Cameras
    exposures: Float[Tensor, "n 3 4"]
    read: Callable[[int, int], tuple[UInt8[np.ndarray, "_ _ 3"], Bool[np.ndarray, "_ _"] | None]]
    """`read(index, max_pixels)`: pixels, and where the object is in them if there is a mask."""

    def __len__(self) -> int:
        return len(self.cameras)

    def open(self, index: int, max_pixels: int) -> Photo:
        """Return photo `index` with at most `max_pixels`.

        Raises:
            ImageError: if its file is gone or damaged.
        """
        colors, mask = self.read(index, max_pixels)
        size = torch.tensor([[colors.shape[1], colors.shape[0]]]).to(self.cameras.sizes)
        camera = resize(self.cameras.select(slice(index, index + 1)), size)
        return Photo(colors, mask, camera, self.exposures[index].numpy().astype(np.float32))


def bilinear(
    image: UInt8[np.ndarray, "h w 3"], pixels: Float32[np.ndarray, "n 2"]
) -> Float32[np.ndarray, "n 3"]:
    """Return the colours (0 to 255) between the four nearest pixel centres; the border is continued outward."""
    height, width = image.shape[:2]
    x = np.clip(pixels[:, 0] - 0.5, 0, width - 1)
    y = np.clip(pixels[:, 1] - 0.5, 0, height - 1)
    left, top = x.astype(np.int64), y.astype(np.int64)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    u, v = (x - left)[:, None], (y - top)[:, None]
    flat, top, bottom = image.reshape(-1, 3), top * width, bottom * width
    upper = (1 - u) * flat.take(top + left, 0) + u * flat.take(top + right, 0)
    lower = (1 - u) * flat.take(bottom + left, 0) + u * flat.take(bottom + right, 0)
    return ((1 - v) * upper + v * lower).astype(np.float32)
