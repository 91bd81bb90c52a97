"""The cameras of a fit: as given, or refined where held-out views say that it helps.

Given poses may be surveyed to a hundredth of a pixel or off by several, and refining exact ones only adds noise. So
the given ones are tested first: the poses of held-out views, which the field never saw, are refined against the field
on one half of their picture and judged on the other. What helps there is an error of the given poses; what merely makes
up for errors of the field does not carry over to the other half. Training views are refined from then on, and the same
test at the end decides whether the result is kept.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from quicksurf.geometry.cameras import Cameras
from quicksurf.geometry.poses import PoseTwists, moved
from quicksurf.geometry.rays import Rays, Surface
from quicksurf.geometry.region import cameras_in_world, roi_rays
from quicksurf.model import TrainedModel
from quicksurf.train.pixels import PixelBank, PixelBatch

_TESTS = 0.25, 0.45, 0.65  # progress: before, the field is too blurred to tell; after, it is too late
_END = 0.85
_UPDATE = 0.02  # of the progress between two updates
_TEST_PIXELS = 24_000
_TEST_REACHES = 4, 4, 4, 2  # of the steps of Gauss and Newton's method
_SURE = 2.0  # standard errors of the mean over views that an improvement must exceed
_BATCH_RAYS = 1 << 13


class Trial(NamedTuple):
    """What a test found: mean over held-out views of log(error with refined pose / with given pose), and its error."""

    log_ratio: float
    standard_error: float

    def improves(self) -> bool:
        """Tell whether refined poses explain pixels that they were not refined on better, beyond chance."""
        return self.log_ratio < -_SURE * self.standard_error


class CameraAlignment:
    """Cameras in the frame of the fit, and the evidence for moving them."""

    def __init__(self, result: TrainedModel, train: PixelBank, held_out: PixelBank | None) -> None:
        device = result.device
        self.cameras = self._given = result.roi_cameras().on(device)
        self.refined = False
        """Whether `cameras` are others than the given ones."""
        self._world = result.cameras
        self._result, self._bank, self._held_out_bank = result, train, held_out
        self._poses = PoseTwists(self._given, torch.from_numpy(~result.held_out).to(device))
        twice = self._given.select(torch.arange(len(self._given), device=device).repeat(2))
        self._halves = PoseTwists(twice, torch.zeros(len(twice), dtype=torch.bool, device=device))
        """First as the left halves of the pictures say, then as the right ones."""
        self._tests = [] if held_out is None else list(_TESTS)
        self._next_update = 0.0

    def note(
        self,
        progress: float,
        batch: PixelBatch,
        rays: Rays,
        surface: Surface,
        residuals: Float[Tensor, "n 3"],
    ) -> None:
        """Learn from a training step, and now and then move the cameras.

        Args:
            residuals: rendered minus photographed colours.
        """
        if not self.refined or not self._tests:
            return
        index = self._on_object(batch, surface, "refined poses")
        points = rays.at(index, surface.ts[index])
        slopes = self._bank.slopes(batch.select(index), _reach(progress))
        residuals = residuals[index].nan_to_num(0, 0, 0)  # of a step that the optimiser leaves out, too
        self._poses.note(batch.image_indices[index], points, slopes, residuals)
        if progress >= self._next_update:
            self._next_update = progress + _UPDATE
            self._poses.update()
            self.cameras = self._poses.cameras()

    @torch.no_grad()
    def review(self, progress: float) -> Trial | None:
        """Test poses where it is time to: begin to refine them, or settle whether what came out is kept."""
        if not self._tests or progress < self._tests[0]:
            return None
        trial = self._try()
        if trial.improves() and not self.refined:
            self._tests, self._next_update = [_END], progress + _UPDATE
        else:
            self._tests = [at for at in self._tests if at > progress]
        self.refined = trial.improves()
        if not self.refined:
            self.cameras = self._given
        return trial

    def join_held_out(self, bank: PixelBank) -> None:
        """Take the poses of held-out views as both halves of their pictures say, and test no more.

        Args:
            bank: the pixels of all views.
        """
        if self.refined:
            self._poses.twists = self._all_twists()
            self.cameras = moved(self._given, self._poses.twists)
        self._tests, self._bank, self._held_out_bank = [], bank, None

    def held_out_rays(self, batch: PixelBatch) -> Rays:
        """Return rays of held-out pixels; a refined pose is what the other half of its picture gave."""
        if not self.refined or self._held_out_bank is None:
            return roi_rays(self._given, batch.image_indices, batch.pixels)
        return self._crossed_rays(batch)

    def world_cameras(self) -> Cameras:
        """Return all cameras in the world; those of held-out views as both halves of their pictures say."""
        if not self.refined:
            return self._world
        cameras = moved(self._given, self._all_twists())
        return cameras_in_world(cameras.on(torch.device("cpu")), self._result.roi)

    def _all_twists(self) -> Float[Tensor, "n 6"]:
        if self._held_out_bank is None:
            return self._poses.twists
        held_out = torch.from_numpy(self._result.held_out).to(self._result.device)[:, None]
        halves = self._halves.twists.view(2, -1, 6).mean(0)
        return torch.where(held_out, halves, self._poses.twists)

    def _try(self) -> Trial:
        """Refine the held-out views by halves, and compare with the given poses on the other halves."""
        bank = _present(self._held_out_bank)
        generator = torch.Generator(self._result.device).manual_seed(1)
        batch = bank.draw_each(max(_TEST_PIXELS // len(bank.sizes), 64), generator)
        colors, surface = self._render(roi_rays(self._given, batch.image_indices, batch.pixels))
        hits = self._on_object(batch, surface)
        batch, as_given = batch.select(hits), colors[hits]
        rows = batch.image_indices + len(self._given) * ~bank.in_left_half(batch)
        for reach in _TEST_REACHES:
            rays = roi_rays(self._halves.cameras(), rows, batch.pixels)
            colors, surface = self._render(rays)
            index = self._on_object(batch, surface)
            points, slopes = rays.at(index, surface.ts[index]), bank.slopes(batch.select(index), reach)
            self._halves.note(rows[index], points, slopes, (colors - batch.colors)[index])
            self._halves.update()
        refined, _ = self._render(self._crossed_rays(batch))
        of_refined, of_given = ((shown - batch.colors).abs().mean(1) for shown in (refined, as_given))
        return compare_views(of_refined, of_given, batch.image_indices)

    def _on_object(self, batch: PixelBatch, surface: Surface, place: str | None = None) -> Int[Tensor, "k"]:
        """Select rays that hit the surface where the masks, if any, see the object; all of them without `place`."""
        hits = surface.hits if batch.masks is None else surface.hits & (batch.masks > 0)
        return self._result.renderer.backend.selection.most_where(hits, place)

    def _crossed_rays(self, batch: PixelBatch) -> Rays:
        """Rays of held-out pixels by the poses of the other halves."""
        left = _present(self._held_out_bank).in_left_half(batch)
        return roi_rays(self._halves.cameras(), batch.image_indices + len(self._given) * left, batch.pixels)

    def _render(self, rays: Rays) -> tuple[Float[Tensor, "n 3"], Surface]:
        parts = zip(*(part.split(_BATCH_RAYS) for part in rays), strict=True)
        rendered = [self._result.render_rays(Rays(*part)) for part in parts]
        surfaces = [part.surface for part in rendered]
        hits, ts = (torch.cat(part) for part in zip(*(s[:2] for s in surfaces), strict=True))
        return torch.cat([part.colors for part in rendered]), Surface(hits, ts, 0)


def compare_views(
    refined: Float[Tensor, "n"], given: Float[Tensor, "n"], image_indices: Int[Tensor, "n"]
) -> Trial:
    """Compute the mean over views of the log of the ratio of their mean errors, and its standard error.

    Two views at least are needed: a trial of one has an infinite error, and improves nothing.
    """
    views, which = image_indices.unique(return_inverse=True)
    sums = refined.new_zeros(2, len(views)).index_add_(1, which, torch.stack([refined, given]))
    sums = sums.clamp_min(1e-9)
    ratios = (sums[0] / sums[1]).log()
    error = float(ratios.std() / len(views) ** 0.5) if len(views) > 1 else torch.inf
    return Trial(float(ratios.mean()), error)


def _reach(progress: float) -> int:
    """Pixels on both sides that a photo's slope is taken over: as far as poses may be off, then for the last digit."""
    return 4 if progress < 0.5 else 2


def _present(bank: PixelBank | None) -> PixelBank:
    assert bank is not None  # without held-out views there are no tests, and nothing is refined
    return bank
