"""All training pixels in one flat array, to be drawn at random, and what the background look like."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from quicksurf.capture.scene import Scene
from quicksurf.fields.background import Border

_SOLID_SPREAD = 6  # grey levels that nearly all border pixels keep from their median, JPEG noise included
_SOLID_FRACTION = 0.98


class PixelBatch(NamedTuple):
    """Pixels of several images; `image_indices` are those of the scene."""

    image_indices: Int[Tensor, "n"]
    pixels: Float[Tensor, "n 2"]
    """Column + 0.5, row + 0.5."""
    colors: Float[Tensor, "n 3"]
    masks: Float[Tensor, "n"] | None
    """Coverage: 1 on the object, 0 beside it."""

    def select(self, index: Int[Tensor, "k"]) -> "PixelBatch":
        """Return the pixels at `index`."""
        masks = None if self.masks is None else self.masks[index]
        return PixelBatch(self.image_indices[index], self.pixels[index], self.colors[index], masks)

    def over(self, behind: Float[Tensor, "n 3"] | None) -> Float[Tensor, "n 3"]:
        """Return the photos' colours, with what the masks exclude replaced by `behind`."""
        if self.masks is None or behind is None:
            return self.colors
        return torch.lerp(behind, self.colors, self.masks[:, None])


@dataclass(frozen=True)
class PixelBank:
    """Images of any mix of sizes, one behind the other."""

    colors: UInt8[Tensor, "p 3"]
    masks: UInt8[Tensor, "p"] | None
    image_indices: Int[Tensor, "k"]
    starts: Int[Tensor, "k"]
    widths: Int[Tensor, "k"]
    sizes: Int[Tensor, "k"]
    """Pixels of each image."""

    @classmethod
    def of(cls, scene: Scene, image_indices: list[int], use_masks: bool, device: torch.device) -> "PixelBank":
        """Return the images' pixels on `device`, with masks if `use_masks`: all of one without a mask counts."""
        images = [torch.from_numpy(scene.images[i].reshape(-1, 3)) for i in image_indices]
        masks = [scene.masks[i] for i in image_indices]
        sizes = torch.tensor([len(image) for image in images])
        widths = torch.tensor([scene.images[i].shape[1] for i in image_indices])
        everything = [torch.full((len(image),), 255, dtype=torch.uint8) for image in images]
        flat = [
            whole if mask is None else torch.from_numpy(mask.reshape(-1))
            for mask, whole in zip(masks, everything, strict=True)
        ]
        return cls(
            torch.cat(images).to(device),
            torch.cat(flat).to(device) if use_masks else None,
            torch.tensor(image_indices, device=device),
            (sizes.cumsum(0) - sizes).to(device),
            widths.to(device),
            sizes.to(device),
        )

    def draw(self, n: int, generator: torch.Generator) -> PixelBatch:
        """Return `n` pixels, uniform over all of them."""
        at = torch.randint(len(self.colors), (n,), generator=generator, device=self.colors.device)
        return self._batch(torch.searchsorted(self.starts, at, right=True) - 1, at)

    def draw_each(self, n_per_image: int, generator: torch.Generator) -> PixelBatch:
        """Return the same number of pixels of each image, image after image."""
        device = self.colors.device
        which = torch.arange(len(self.sizes), device=device).repeat_interleave(n_per_image)
        fraction = torch.rand(len(which), generator=generator, dtype=torch.float64, device=device)
        return self._batch(which, self.starts[which] + (fraction * self.sizes[which]).long())

    def slopes(self, batch: PixelBatch, reach: int) -> Float[Tensor, "n 3 2"]:
        """Compute ∂colour/∂(column, row) per pixel, from the pixels `reach` away on both sides, as far as there are."""
        which = torch.searchsorted(self.image_indices, batch.image_indices)
        widths = self.widths[which]
        limits = torch.stack([widths, self.sizes[which] // widths], -1) - 1
        slopes = []
        for axis in torch.eye(2, dtype=torch.long, device=widths.device):
            ends = [
                (batch.pixels.long() + side * axis).clamp_min(0).minimum(limits) for side in (-reach, reach)
            ]
            before, after = (self.colors[self.starts[which] + y * widths + x] for x, y in (e.T for e in ends))
            apart = (ends[1] - ends[0]).sum(-1, keepdim=True).clamp_min(1)
            slopes.append((after.float() - before.float()) / (255 * apart))
        return torch.stack(slopes, -1)

    def in_left_half(self, batch: PixelBatch) -> Bool[Tensor, "n"]:
        """Tell which pixels lie in the left half of their image."""
        widths = self.widths[torch.searchsorted(self.image_indices, batch.image_indices)]
        return batch.pixels[:, 0] < 0.5 * widths

    def _batch(self, which: Int[Tensor, "n"], at: Int[Tensor, "n"]) -> PixelBatch:
        offset = at - self.starts[which]
        columns, rows = offset % self.widths[which], offset // self.widths[which]
        masks = None if self.masks is None else self.masks[at].float() / 255
        pixels = torch.stack([columns, rows], -1) + 0.5
        return PixelBatch(self.image_indices[which], pixels, self.colors[at].float() / 255, masks)


def border_of(images: list[UInt8[np.ndarray, "_ _ 3"]]) -> Border:
    """Return the colour of the images' outermost pixels, their median, and whether nearly all of them have it."""
    borders = np.concatenate(
        [np.concatenate([i[0], i[-1], i[:, 0], i[:, -1]]).astype(np.int16) for i in images]
    )
    median = np.median(borders, axis=0)
    near = (np.abs(borders - median) <= _SOLID_SPREAD).all(1).mean()
    return Border(torch.from_numpy(median).float() / 255, bool(near >= _SOLID_FRACTION))
