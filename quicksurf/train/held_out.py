"""How well views that the fit never saw are rendered."""

import itertools
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from quicksurf.capture.masks import PERHAPS_INSIDE, PERHAPS_OUTSIDE
from quicksurf.fields.appearance import affine_map, mapped, matched_by_halves
from quicksurf.geometry.rays import Rays
from quicksurf.model import TrainedModel
from quicksurf.train import losses
from quicksurf.train.codes import codes_of_groups
from quicksurf.train.pixels import PixelBank, PixelBatch
from quicksurf.train.pose_refinement import CameraAlignment

_BATCH_RAYS = 1 << 13
_EXPOSURE_GAIN = 1.0  # dB from which exposure counts as varied; 0.1 where it is fixed, 3 at ±30 %


class HeldOutScore(NamedTuple):
    """What a look at the held-out views found."""

    psnr: float
    """dB, the mean over the views."""
    exposure_varies: bool
    maps: Float[Tensor, "k 3 4"]
    """A - 1 | b of the colour map of each view; 0 where exposure does not vary."""
    codes: Float[Tensor, "k c"] | None = None
    """Of each view, where photos have codes."""


class HeldOutViews:
    """The photos kept from the fit."""

    def __init__(self, bank: PixelBank) -> None:
        self.bank = bank

    @torch.no_grad()
    def measure(self, result: TrainedModel, alignment: CameraAlignment, n_pixels: int) -> HeldOutScore:
        """Compute the mean over the views of the PSNR on `n_pixels` random pixels of all, always the same ones.

        Where poses are refined or photos have codes, each half of a view is rendered as the other half says. A fit
        without any appearance is measured as it is.
        """
        per_view = max(n_pixels // len(self.bank.sizes), 64)
        batch = self.bank.draw_each(per_view, torch.Generator(result.device).manual_seed(0))
        rays = alignment.held_out_rays(batch)
        left, targets = self.bank.in_left_half(batch), self._targets(batch)
        seen = torch.ones_like(targets[:, 0]) if batch.masks is None else batch.masks
        # What nobody knows cannot be wrong.
        unsure = ((255 * seen).round() - (PERHAPS_OUTSIDE + PERHAPS_INSIDE) / 2).abs() < 1

        def scored(codes: Float[Tensor, "n c"] | None, varies: bool | None) -> HeldOutScore:
            colors = _render(result, rays, codes).clamp(0, 1)
            known = torch.where(unsure[:, None], colors, targets)
            return score(colors, known, left, seen > 0, per_view, varies)

        if result.config.train.appearance == "none":
            return scored(None, False)
        of_mean = scored(None, None)
        if result.appearance.codes is None:
            return of_mean
        groups = 2 * _views(targets, per_view) + left
        fitted = result.appearance.fitted_codes()
        codes = codes_of_groups(partial(_render, result, rays), targets, groups, fitted)
        of_codes = scored(codes[groups ^ 1], of_mean.exposure_varies)
        return of_codes._replace(codes=codes.view(-1, 2, codes.shape[1]).mean(1))

    def _targets(self, batch: PixelBatch) -> Float[Tensor, "n 3"]:
        return batch.over(None if batch.masks is None else torch.ones_like(batch.colors))


def _render(result: TrainedModel, rays: Rays, codes: Float[Tensor, "n c"] | None) -> Float[Tensor, "n 3"]:
    """Render in batches."""
    parts = zip(*(part.split(_BATCH_RAYS) for part in rays), strict=True)
    lights = itertools.repeat(None) if codes is None else codes.split(_BATCH_RAYS)
    return torch.cat(
        [result.render_rays(Rays(*part), light).colors for part, light in zip(parts, lights, strict=False)]
    )


def score(
    colors: Float[Tensor, "n 3"],
    targets: Float[Tensor, "n 3"],
    first: Bool[Tensor, "n"],
    seen: Bool[Tensor, "n"],
    per_view: int,
    varies: bool | None = None,
) -> HeldOutScore:
    """Return the PSNR of what was rendered, and whether exposure varies.

    It does where an affine map of each view, found on one half of it, brings the other half nearer to the photo by more
    than a decibel than none, and than one found on the other views: what the views have in common says nothing of
    exposure, an unfinished fit is too dark in all of them. Views are then measured matched by halves.

    Args:
        first: in the first half of its view.
        seen: pixels that show the scene; the white around a mask needs no match.
        per_view: pixels of each view, one view behind the other.
        varies: whether exposure does, where that is known: codes take over what would tell.
    """
    matched = _matched(colors, targets, first, seen, per_view)
    plain, own, others = (_psnr(shown, targets, per_view) for shown in (colors, *matched))
    if varies is None:
        varies = own > max(plain, others) + _EXPOSURE_GAIN
    maps = colors.new_zeros(len(colors) // per_view, 3, 4)
    if varies:
        maps = torch.stack(
            [
                affine_map(*(part[seen_here] for part in (colors, targets))).T - torch.eye(3, 4).to(colors)
                for seen_here in (seen & (_views(colors, per_view) == view) for view in range(len(maps)))
            ]
        )
    return HeldOutScore(own if varies else plain, varies, maps)


def _matched(
    colors: Float[Tensor, "n 3"],
    targets: Float[Tensor, "n 3"],
    first: Bool[Tensor, "n"],
    seen: Bool[Tensor, "n"],
    per_view: int,
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """The colours after the map of the other half of their view, and after that of all other views."""
    own, others = colors.clone(), colors.clone()
    views = _views(colors, per_view)
    for view in range(len(colors) // per_view):
        here, elsewhere = seen & (views == view), seen & (views != view)
        own[here] = matched_by_halves(colors[here], targets[here], first[here])
        others[here] = mapped(colors[here], affine_map(colors[elsewhere], targets[elsewhere]))
    return own, others


def _views(colors: Float[Tensor, "n 3"], per_view: int) -> Int[Tensor, "n"]:
    """Which view each pixel is of."""
    return torch.arange(len(colors), device=colors.device) // per_view


def _psnr(colors: Float[Tensor, "n 3"], targets: Float[Tensor, "n 3"], per_view: int) -> float:
    """dB, the mean over the views."""
    errors = (colors - targets).square().view(-1, per_view, 3).mean((1, 2))
    return float(np.mean([losses.psnr_of(float(error)) for error in errors]))
