"""Exposure and white balance: one affine colour map per photo, c ↦ A c + b, as in reconstruction in the wild.

The gauge is fixed: maps are measured against their mean over the photos of the fit, so that the scene's own colours
stay where the average photo has them, and a held-out view is rendered with the identity. Where exposures vary, such a
view is measured up to a map of its own, found on one half of its pixels and applied to the other (Martin-Brualla et
al. 2021, NeRF in the Wild, section 4.3, fit on one half as well).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

_PULL = 1e-3  # towards the identity, as a fraction of the pixels: a view of one colour has no map


class Appearance(nn.Module):
    """One affine map for each photo of the fit; a held-out photo has the identity until it joins.

    Args:
        held_out: photos that no loss sees; in the mean, they would take whatever all the others have in common. Those
            that have joined stay out of it: they must not move the maps of the others.
        joined: whether they have joined the fit.
    """

    held_out: Bool[Tensor, "n"]

    def __init__(self, held_out: Bool[Tensor, "n"], joined: bool = False) -> None:
        super().__init__()
        self.offsets = nn.Parameter(torch.zeros(len(held_out), 3, 4))
        self.register_buffer("held_out", held_out, persistent=False)
        self._n_fitted = max(int((~held_out).sum()), 1)
        self._joined = joined

    def from_identity(self) -> Float[Tensor, "n 3 4"]:
        """Return A − 1 | b of every photo."""
        held_out = self.held_out[:, None, None]
        outside = held_out & (not self._joined)
        used = self.offsets.masked_fill(outside, 0)  # what cancels must do so in here, to the last bit
        mean = used.masked_fill(held_out, 0).sum(0) / self._n_fitted
        return (used - mean).masked_fill(outside, 0)

    @torch.no_grad()
    def join(self, maps: Float[Tensor, "n 3 4"]) -> None:
        """Let the held-out photos have maps of their own from now on.

        Args:
            maps: A − 1 | b of every photo; those of the held-out ones count.
        """
        held_out = self.held_out[:, None, None]
        mean = self.offsets.masked_fill(held_out, 0).sum(0) / self._n_fitted
        self.offsets.copy_(torch.where(held_out, mean + maps, self.offsets))
        self._joined = True

    def forward(self, colors: Float[Tensor, "n 3"], image_indices: Int[Tensor, "n"]) -> Float[Tensor, "n 3"]:
        """Return the colours as the given photos show them."""
        maps = self.from_identity().index_select(0, image_indices)
        return colors + (maps[:, :, :3] * colors[:, None]).sum(-1) + maps[:, :, 3]


def matched_by_halves(
    colors: Float[Tensor, "n 3"], targets: Float[Tensor, "n 3"], first: Bool[Tensor, "n"]
) -> Float[Tensor, "n 3"]:
    """Return the colours of one view after the affine map to `targets` that the other half of its pixels gives.

    No pixel takes part in finding the map that it is judged by.

    Args:
        first: the first half; the others are the second.
    """
    matched = colors.clone()
    for half in (first, ~first):
        matched[half] = mapped(colors[half], affine_map(colors[~half], targets[~half]))
    return matched


def affine_map(colors: Float[Tensor, "n 3"], targets: Float[Tensor, "n 3"]) -> Float[Tensor, "4 3"]:
    """Return the map that brings `colors` to `targets`: least squares with a light pull to the identity."""
    rows, pull = _with_one(colors), _PULL * max(len(colors), 1)
    matrix = rows.T @ rows + pull * torch.eye(4).to(rows)
    return torch.linalg.solve(matrix, rows.T @ targets + pull * torch.eye(4, 3).to(rows))


def mapped(colors: Float[Tensor, "n 3"], matrix: Float[Tensor, "4 3"]) -> Float[Tensor, "n 3"]:
    """Return the colours after an affine map."""
    return _with_one(colors) @ matrix


def _with_one(colors: Float[Tensor, "n 3"]) -> Float[Tensor, "n 4"]:
    return torch.cat([colors, torch.ones_like(colors[:, :1])], 1)
