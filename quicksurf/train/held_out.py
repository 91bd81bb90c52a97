"""How well views that the fit never saw are rendered."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quicksurf import losses
from quicksurf.data.pixels import PixelBank
from quicksurf.model.appearance import matched_by_halves
from quicksurf.rays import Rays
from quicksurf.reconstruction import Reconstruction
from quicksurf.train.alignment import CameraAlignment

_BATCH_RAYS = 1 << 13
_EXPOSURE_GAIN = 1.0  # dB from which exposure counts as varied; 0.1 where it is fixed, 3 at ±30 %


class HeldOutScore(NamedTuple):
    """What a look at the held-out views found."""

    psnr: float
    """dB, the mean over the views."""
    exposure_varies: bool


class HeldOutViews:
    """The photos kept from the fit."""

    def __init__(self, bank: PixelBank) -> None:
        self.bank = bank

    @torch.no_grad()
    def measure(self, result: Reconstruction, alignment: CameraAlignment, n_pixels: int) -> HeldOutScore:
        """Mean over the views of the PSNR on `n_pixels` random pixels of all, always the same ones.

        Where poses are refined, each half of a view is rendered as the other half says. Where an affine map found on
        one half brings the other nearer to the photo by more than a decibel, exposure was not fixed: the view is then
        measured so matched.
        """
        per_view = max(n_pixels // len(self.bank.sizes), 64)
        batch = self.bank.draw_each(per_view, torch.Generator(result.device).manual_seed(0))
        rays = alignment.held_out_rays(batch)
        parts = zip(*(part.split(_BATCH_RAYS) for part in rays), strict=True)
        colors = torch.cat([result.render_rays(Rays(*part)).colors for part in parts]).clamp(0, 1)
        targets = batch.over(None if batch.masks is None else torch.ones_like(batch.colors))
        seen = torch.ones_like(colors[:, 0]) if batch.masks is None else batch.masks
        parts = colors, targets, self.bank.in_left_half(batch), seen > 0
        views = list(zip(*(part.split(per_view) for part in parts), strict=True))
        plain = float(np.mean([_psnr(colors, targets) for colors, targets, *_ in views]))
        matched = float(np.mean([_psnr(_matched(*view), view[1]) for view in views]))
        varies = matched > plain + _EXPOSURE_GAIN
        return HeldOutScore(matched if varies else plain, varies)


def _matched(
    colors: Float[Tensor, "n 3"],
    targets: Float[Tensor, "n 3"],
    first: Bool[Tensor, "n"],
    seen: Bool[Tensor, "n"],
) -> Float[Tensor, "n 3"]:
    """The colours of one view matched by halves where the photo is `seen`; the white around a mask needs no match."""
    matched = colors.clone()
    matched[seen] = matched_by_halves(colors[seen], targets[seen], first[seen])
    return matched


def _psnr(colors: Float[Tensor, "n 3"], targets: Float[Tensor, "n 3"]) -> float:
    return losses.psnr_of(float((colors - targets).square().mean()))
