"""Exposure and white balance: one affine colour map per photo, c ↦ A c + b, as in reconstruction in the wild.

The gauge is fixed: maps are measured against their mean over the photos, so that the scene's own colours stay where
the average photo has them, and a held-out view is rendered with the identity.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Appearance(nn.Module):
    """Offsets of `n_images` affine maps from the identity."""

    def __init__(self, n_images: int) -> None:
        super().__init__()
        self.offsets = nn.Parameter(torch.zeros(n_images, 3, 4))

    def forward(self, colors: Float[Tensor, "n 3"], image_indices: Int[Tensor, "n"]) -> Float[Tensor, "n 3"]:
        """Colours as the given photos show them."""
        maps = (self.offsets - self.offsets.mean(0)).index_select(0, image_indices)
        return colors + (maps[:, :, :3] * colors[:, None]).sum(-1) + maps[:, :, 3]
