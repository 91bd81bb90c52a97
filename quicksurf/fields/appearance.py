"""The light of each photo: an affine colour map, c ↦ A c + b, and where asked for a code that colours depend on.

A map is exposure and white balance. A code (Martin-Brualla et al. 2021, NeRF in the Wild, section 4.1) is what a map
cannot say: shadows, another sun. Colour head and background see it, the geometry never does.

The gauge is fixed: maps are measured against their mean over the photos of the fit, so that the scene's own colours
stay where the average photo has them, and a held-out view is rendered with the identity. Where exposures vary, such a
view is measured up to a map of its own, found on one half of its pixels and applied to the other (Martin-Brualla et
al. 2021, NeRF in the Wild, section 4.3, fit on one half as well).
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

N_CODES = 8  # numbers of a code: with them the colour head's 62 inputs still fit its 64 columns
_PULL = 1e-3  # towards the identity, as a fraction of the pixels: a view of one colour has no map


class Light(NamedTuple):
    """How one photo shows the scene."""

    map: Float[Tensor, "3 4"]
    """A - 1 | b."""
    code: Float[Tensor, "c"] | None
    """None where the fit has no codes."""

    def towards(self, other: "Light", fraction: float) -> "Light":
        """Blend from this light, at 0, to another of the same fit, at 1."""
        codes = None
        if self.code is not None and other.code is not None:
            codes = torch.lerp(self.code, other.code, fraction)
        return Light(torch.lerp(self.map, other.map, fraction), codes)


class Appearance(nn.Module):
    """One affine map for each photo of the fit; a held-out photo has the identity until it joins.

    Codes have the same gauge: the mean code is 0, and so is that of a held-out photo.

    Args:
        held_out: photos that no loss sees; in the mean, they would take whatever all the others have in common. Those
            that have joined stay out of it: they must not move the maps of the others.
        joined: whether they have joined the fit.
        has_codes: whether photos have codes besides, all zero at the start.
    """

    held_out: Bool[Tensor, "n"]
    codes: nn.Parameter | None

    def __init__(self, held_out: Bool[Tensor, "n"], joined: bool = False, has_codes: bool = False) -> None:
        super().__init__()
        self.register_parameter(
            "codes", nn.Parameter(torch.zeros(len(held_out), N_CODES)) if has_codes else None
        )
        self.offsets = nn.Parameter(torch.zeros(len(held_out), 3, 4))
        self.register_buffer("held_out", held_out, persistent=False)
        self._n_fitted = max(int((~held_out).sum()), 1)
        self._joined = joined

    def from_identity(self) -> Float[Tensor, "n 3 4"]:
        """Return A − 1 | b of every photo."""
        return self._from_mean(self.offsets)

    def codes_of(self, image_indices: Int[Tensor, "n"]) -> Float[Tensor, "n c"] | None:
        """Return the codes of the given photos; None if there are none."""
        return None if self.codes is None else self._from_mean(self.codes).index_select(0, image_indices)

    @torch.no_grad()
    def fitted_codes(self) -> Float[Tensor, "p c"]:
        """Return the codes of all photos but the held-out ones."""
        assert self.codes is not None
        return self._from_mean(self.codes)[~self.held_out]

    @torch.no_grad()
    def light(self, index: int) -> Light:
        """Return the light of one photo."""
        codes = None if self.codes is None else self._from_mean(self.codes)[index]
        return Light(self.from_identity()[index], codes)

    def has_light(self, index: int) -> bool:
        """Tell whether the fit has found a photo's light: not that of one held out."""
        return self._joined or not bool(self.held_out[index])

    @torch.no_grad()
    def join(self, maps: Float[Tensor, "n 3 4"], codes: Float[Tensor, "n c"] | None = None) -> None:
        """Let the held-out photos have maps and codes of their own from now on.

        Args:
            maps: A − 1 | b of every photo; those of the held-out ones count.
            codes: of every photo, where there are codes.
        """
        self.offsets.copy_(self._joining(self.offsets, maps))
        if self.codes is not None and codes is not None:
            self.codes.copy_(self._joining(self.codes, codes))
        self._joined = True

    def _from_mean(self, values: Float[Tensor, "n *c"]) -> Float[Tensor, "n *c"]:
        held_out = self._held_out_like(values)
        outside = held_out & (not self._joined)
        used = values.masked_fill(outside, 0)  # what cancels must do so in here, to the last bit
        mean = used.masked_fill(held_out, 0).sum(0) / self._n_fitted
        return (used - mean).masked_fill(outside, 0)

    def _joining(self, values: Float[Tensor, "n *c"], new: Float[Tensor, "n *c"]) -> Float[Tensor, "n *c"]:
        held_out = self._held_out_like(values)
        mean = values.masked_fill(held_out, 0).sum(0) / self._n_fitted
        return torch.where(held_out, mean + new, values)

    def _held_out_like(self, values: Float[Tensor, "n *c"]) -> Bool[Tensor, "n *one"]:
        return self.held_out.reshape(-1, *[1] * (values.ndim - 1))

    def forward(self, colors: Float[Tensor, "n 3"], image_indices: Int[Tensor, "n"]) -> Float[Tensor, "n 3"]:
        """Return the colours as the given photos show them."""
        return with_maps(colors, self.from_identity().index_select(0, image_indices))


def with_maps(colors: Float[Tensor, "n 3"], maps: Float[Tensor, "_ 3 4"]) -> Float[Tensor, "n 3"]:
    """Return the colours after maps A − 1 | b, one each or one for all."""
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
