"""A fit: step after step against the clock, all schedules following elapsed time; and one step of it."""

import math
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from quicksurf.capture.scene import Scene
from quicksurf.config import Config
from quicksurf.errors import SurfaceError
from quicksurf.fields.background import Border
from quicksurf.fields.surface import N_TAPS, gradients_from_taps
from quicksurf.geometry.rays import Rays, Surface
from quicksurf.geometry.region import roi_rays
from quicksurf.kernels import Backend
from quicksurf.kernels.selection import AsyncScalar
from quicksurf.methods import Schedule
from quicksurf.model import TrainedModel, new_model
from quicksurf.render.renderer import Rendering
from quicksurf.train import losses, schedules
from quicksurf.train.guide import guide_of, surface_points
from quicksurf.train.held_out import HeldOutScore, HeldOutViews
from quicksurf.train.hull import room_for_object
from quicksurf.train.optimizer import Adam, groups_of
from quicksurf.train.patches import Patches, ViewConsistency, consistency_loss, implicit_depths
from quicksurf.train.pixels import PixelBank, PixelBatch, border_of
from quicksurf.train.pose_refinement import CameraAlignment
from quicksurf.train.silhouettes import CERTAIN, OutlineBatch, Outlines
from quicksurf.train.status import Clock, FitStatus, Window

_STATUS_SECONDS = 1.0
_CHECKPOINT_SECONDS = 60.0
_HELD_OUT_FRACTION = 0.1  # of the progress between two looks at the held-out views
_HELD_OUT_PIXELS = 12_000  # over all views: half a second; a mean over a dozen views is known to 0.1 dB
_FINAL_HELD_OUT_PIXELS = 48_000
_JOIN = 0.85  # progress from which held-out photos train, too: sharpness is final, and poses are settled
# Of the rays since the last look may be looked at, so that a slow machine keeps its time.
_LOOK_FRACTION = 0.1
_FINAL_LOOK_FRACTION = 0.05  # of all rays
_MAX_LOST_STEPS = 50
_EXPOSURE_FASTER = 10.0  # times the learning rate of the maps: else a short fit has no time for them
_CODE_DECAY = 1e-3  # of their squared length: what all photos show is no photo's own
_MISS_FRACTION = 0.5  # of the rays that miss the region are kept: they teach the background alone
_RAYS = (256, 1 << 15)
_OUTLINE_FRACTION = 0.25  # of the rays of a masked fit go through outlines, a few hundredths of the pixels
_CONSISTENCY_START = 0.5  # of the progress: all levels are active, and surfaces within a pixel or two


def fit_scene(
    scene: Scene,
    config: Config,
    backend: Backend,
    *,
    seconds: float = math.inf,
    seconds_left: Callable[[], float] = lambda: math.inf,
    now: Callable[[], float] | None = None,
    resume: TrainedModel | None = None,
    on_step: Callable[[TrainedModel], None] = lambda reconstruction: None,
    on_status: Callable[[FitStatus], None] = lambda status: None,
    should_stop: Callable[[], bool] = lambda: False,
    on_checkpoint: Callable[[TrainedModel], None] | None = None,
) -> TrainedModel:
    """Fit the scene for `seconds`, or until `should_stop`; go on where `resume` ended.

    A resumed fit keeps its parameters and moments; its progress restarts at the fraction of the whole time that is
    spent.

    Args:
        seconds: at most so many by `now`.
        seconds_left: what is left, where the end may still move; schedules follow it. The smaller of both counts.
        now: the clock, in seconds, time.monotonic if None; it may stand still while `on_step` holds the fit up.
        on_step: called between steps with the fit as it stands, to look at and not to change.

    Raises:
        SurfaceError: if the loss is not a number in step after step.
    """
    now = now or time.monotonic
    trainer = Trainer(scene, config, backend, resume)
    clock = Clock(trainer.result.seconds_fitted, seconds, seconds_left, now)
    window = last_window = Window(now)
    checkpoint_at, held_out_at = 0.0, clock.progress() + _HELD_OUT_FRACTION
    n_rays = n_rays_at_look = 0
    while not clock.over() and not should_stop():
        progress = clock.progress()
        rendering, loss, error = trainer.step(progress)
        window.add(rendering, loss, error)
        n_rays += len(rendering.colors)
        trainer.result.seconds_fitted = clock.fitted()
        on_step(trainer.result)
        if progress >= _JOIN and trainer.joins_later:
            trainer.alignment.review(progress)
            trainer.join_held_out(min(_FINAL_HELD_OUT_PIXELS, int(_FINAL_LOOK_FRACTION * n_rays)))
        if progress >= held_out_at:
            held_out_at = progress + _HELD_OUT_FRACTION
            trainer.alignment.review(progress)
            trainer.measure_held_out(min(_HELD_OUT_PIXELS, int(_LOOK_FRACTION * (n_rays - n_rays_at_look))))
            n_rays_at_look = n_rays
        if window.seconds() > _STATUS_SECONDS:
            on_status(window.status(trainer.result, clock))
            window, last_window = Window(now), window
        if on_checkpoint and clock.elapsed() > checkpoint_at + _CHECKPOINT_SECONDS:
            checkpoint_at = clock.elapsed()
            on_checkpoint(trainer.snapshot())
    trainer.finish(min(_FINAL_HELD_OUT_PIXELS, int(_FINAL_LOOK_FRACTION * n_rays)))
    on_status((window if window.n_steps else last_window).status(trainer.result, clock))
    return trainer.snapshot()


class Trainer:
    """One fit at work: the reconstruction it changes, the pixels it draws and the optimiser."""

    def __init__(self, scene: Scene, config: Config, backend: Backend, resume: TrainedModel | None) -> None:
        masked = any(mask is not None for mask in scene.masks) if resume is None else resume.masked
        border = Border(torch.ones(3), solid=True) if masked else border_of(scene.images)
        self.result = resume or new_model(scene, config, backend, border, masked)
        self._scene, self._settings = scene, config.train
        self._device = backend.device
        self._train, self._bank, self._outlines = self._pixels()
        held_out = np.flatnonzero(~self.result.used).tolist()
        bank = PixelBank.of(scene, held_out, masked, self._device) if held_out else None
        self._held_out = HeldOutViews(bank) if bank else None
        self._has_mask = torch.tensor([mask is not None for mask in scene.masks], device=self._device)
        self._were_refined = self.result.cameras_refined
        self.alignment = CameraAlignment(self.result, self._bank, bank)
        if masked:
            self._restrict_to_hull(scene)
        self._guide = guide_of(scene, self.result, self._train)
        if self._guide is not None and scene.dense is not None:
            self.result.stereo = surface_points(scene.dense, self.result)
        self._generator = torch.Generator(self._device).manual_seed(config.train.seed + self.result.step)
        self._optimizer = Adam(groups_of(self.result, config.train), backend)
        if self.result.optimizer_state:
            self._optimizer.load(self.result.optimizer_state)
        self._multiplier = backend.batch_multiplier
        self._n_rays = self._settings.n_samples * self._multiplier // 32
        self._consistency = ViewConsistency(scene.images, self._train, self._device)
        self._method, self._selection = self.result.renderer.method, backend.selection
        self._lost_running = torch.zeros((), dtype=torch.long, device=self._device)
        self._n_lost_steps = AsyncScalar()

    def step(self, progress: float) -> tuple[Rendering, Tensor, Tensor]:
        """Make one step of the optimiser; return what was rendered, the loss and the squared colour error."""
        self._check_losses()
        result, settings, schedule = self.result, self._settings, self._method.schedule(progress)
        result.advance(progress)
        self._update_grid(result.step, settings.seed)
        batch, rays = self._draw()
        outline, outline_rays = self._draw_outline()
        all_rays, n = rays.followed_by(outline_rays), len(batch.colors)
        behind = None if batch.masks is None else self._behind(batch, len(all_rays.origins))
        probe = partial(self._probe, n)
        background_noise = schedules.background_noise(progress, settings.background_noise)
        codes = result.appearance.codes_of(torch.cat([batch.image_indices, outline.image_indices]))
        rendering = result.renderer.render(
            all_rays, schedule, self._generator, behind, probe, background_noise, codes
        )
        colors = result.appearance(rendering.colors[:n], batch.image_indices)
        if behind is not None:  # the photo's map is of its light, not of what is put behind the object
            mapped = result.appearance(behind[:n], batch.image_indices)
            clear = (1 - rendering.opacities[:n]) * ~self._has_mask[batch.image_indices]
            colors = colors + clear[:, None] * (batch.colors - mapped)
            behind = mapped.detach()
        targets = batch.over(behind)
        inside = None if batch.masks is None else self._inside(batch, outline)
        taught = self._method.taught(rendering.surface.first(n).hits, None if inside is None else inside[:n])
        if taught is not None:
            colors = torch.where(taught[:, None], colors, targets)
        loss = losses.color_loss(colors, targets) + self._method_loss(rendering, inside, schedule)
        if codes is not None:
            loss = loss + _CODE_DECAY * codes.square().sum(1).mean()
        if self._guide is not None:
            n_rays = settings.n_point_rays * self._multiplier
            loss = loss + settings.points_weight * self._guide.loss(result.field, n_rays, self._generator)
        silhouettes = losses.silhouette_loss(rendering.opacities[n:], outline.inside)
        loss = loss + settings.silhouette_weight * silhouettes
        weight = settings.consistency_weight if progress > _CONSISTENCY_START else 0.0
        if weight > 0 and self._consistency.due(result.step):
            loss = loss + weight * self._compare(batch, rays, rendering)
        loss.backward()
        rates = {"geometry": schedule.geometry_rate}
        self._optimizer.step(schedules.learning_rate_factor(progress), rates, self._is_number(loss))
        self.alignment.note(progress, batch, rays, rendering.surface.first(n), (colors - targets).detach())
        result.step += 1
        wanted = settings.n_samples * self._multiplier
        ratio = min(max(wanted / max(rendering.n_samples, 1), 0.9), 1.1)  # at most a tenth a step
        self._n_rays = int(min(max(self._n_rays * ratio, _RAYS[0]), _RAYS[1] * self._multiplier))
        return rendering, loss.detach(), (colors - targets).detach().square().mean()

    @property
    def joins_later(self) -> bool:
        """Whether photos are held out that are to join the fit."""
        return self._held_out is not None and self._settings.hold_out == "join"

    def join_held_out(self, n_pixels: int) -> None:
        """Look at the held-out views for the last time, on `n_pixels` of them, and let them join the fit."""
        score = self.measure_held_out(n_pixels)
        held_out, self._held_out = self._held_out, None
        if score is None or held_out is None:
            return
        appearance = self.result.appearance
        maps, codes = torch.zeros_like(appearance.offsets), None
        maps[held_out.bank.image_indices] = score.maps
        if appearance.codes is not None and score.codes is not None:
            codes = torch.zeros_like(appearance.codes)
            codes[held_out.bank.image_indices] = score.codes
        appearance.join(maps, codes)
        del held_out  # its pixels are in the new bank
        self.result.joined = True
        self._train, self._bank, self._outlines = self._pixels()
        self.alignment.join_held_out(self._bank)
        self._consistency.look_at(self._train)

    def _pixels(self) -> tuple[list[int], PixelBank, Outlines]:
        """The photos of the fit, their pixels, and the outlines of their masks."""
        scene, masked = self._scene, self.result.masked
        train = np.flatnonzero(self.result.used).tolist()
        outlined = [index for index in train if masked and scene.masks[index] is not None]
        bank = PixelBank.of(scene, train, masked, self._device)
        return train, bank, Outlines.of(scene.masks, outlined, self._device)

    @torch.no_grad()
    def finish(self, n_pixels: int) -> None:
        """Probe every cell of the grid once more, for the mesh, and measure `n_pixels` of the held-out views."""
        self._update_grid(0)
        self.measure_held_out(n_pixels)

    def measure_held_out(self, n_pixels: int) -> HeldOutScore | None:
        """Note the PSNR on `n_pixels` of the held-out views; maps are learned faster where exposure varies."""
        if self._held_out is None:
            return None
        score = self._held_out.measure(self.result, self.alignment, n_pixels)
        self.result.psnr_held_out = score.psnr
        rate = self._settings.learning_rate_appearance
        faster = _EXPOSURE_FASTER if score.exposure_varies else 1.0
        self._optimizer.set_learning_rate("appearance", faster * rate)
        return score

    def snapshot(self) -> TrainedModel:
        """Return the reconstruction with the optimiser's state and the cameras as they are now, ready to be saved."""
        self.result.cameras = self.alignment.world_cameras()
        self.result.cameras_refined = self._were_refined or self.alignment.refined
        self.result.optimizer_state = self._optimizer.state()
        return self.result

    def _is_number(self, loss: Float[Tensor, ""]) -> Bool[Tensor, ""]:
        """Whether to step; a step without rays, or with a loss that overflowed, is left out and counted."""
        sound = torch.isfinite(loss.detach())
        self._lost_running = torch.where(sound, 0, self._lost_running + 1)
        self._n_lost_steps.put(self._lost_running)
        return sound

    def _check_losses(self) -> None:
        if (self._n_lost_steps.get() or 0) >= _MAX_LOST_STEPS:
            raise SurfaceError(
                f"the loss was not a number in {_MAX_LOST_STEPS} steps: no pixel sees the ROI, or the fit diverged; "
                "set --roi cx,cy,cz,r around the object, or lower train.learning_rate_tables in a preset"
            )

    @torch.no_grad()
    def _update_grid(self, step: int, seed: int = 0) -> None:
        """Probe the occupancy of the field, if it is time to; every cell at step 0."""
        method, schedule = self._method, self.result.schedule()
        self.result.renderer.grid.update(
            step, self.result.field.logits, lambda logits: method.occupancy(logits, schedule), seed
        )

    def _restrict_to_hull(self, scene: Scene) -> None:
        """Leave empty what the masks of the training views do not allow."""
        cameras, grid = self.result.roi_cameras().select(torch.tensor(self._train)), self.result.renderer.grid
        grid.restrict(room_for_object(cameras, [scene.masks[i] for i in self._train], len(grid.occupied)))

    def _behind(self, batch: PixelBatch, n_rays: int) -> Float[Tensor, "r 3"]:
        """What is put behind the object: noise, and where a photo has no mask the photo itself.

        So a clear ray costs nothing there: that photo says which colour the surface has, the masks of the others where
        it ends.
        """
        behind = self._random(torch.Size((n_rays, 3)))
        known = self._has_mask[batch.image_indices, None]
        return torch.cat([torch.where(known, behind[: len(known)], batch.colors), behind[len(known) :]])

    def _draw_outline(self) -> tuple[OutlineBatch, Rays]:
        """Points along the outlines of the masks and their rays; none without masks."""
        points = self._outlines.draw(int(_OUTLINE_FRACTION * self._n_rays), self._generator)
        return points, roi_rays(self.alignment.cameras, points.image_indices, points.pixels)

    def _draw(self) -> tuple[PixelBatch, Rays]:
        """Random training pixels and their rays; half of those that miss the region of interest are left out."""
        batch = self._bank.draw(self._n_rays, self._generator)
        rays = roi_rays(self.alignment.cameras, batch.image_indices, batch.pixels)
        meets = rays.near < rays.far
        lenient = self._random(meets.shape) < _MISS_FRACTION
        useful = bool(self.result.renderer.background.networks) and batch.masks is None
        kept = meets | lenient if useful else meets
        if batch.masks is not None:  # a pixel on an outline has the colour of both sides
            kept &= (batch.masks - 0.5).abs() >= 0.5 - CERTAIN
        index = self._selection.most_where(kept, "pixels")
        return batch.select(index), Rays(*(part[index] for part in rays))

    def _probe(self, n_rays: int, rays: Rays, surface: Surface) -> Float[Tensor, "p 3"]:
        """Choose the points that the method's losses look at.

        Args:
            n_rays: that are of pixels, and may be probed: the first ones.
        """
        index = self._probed_rays(surface.first(n_rays))
        return self._method.probe(self.result.field.geometry, rays.at(index, surface.ts[index]), self._random)

    def _probed_rays(self, surface: Surface) -> Int[Tensor, "k"]:
        return self._selection.first_where(surface.hits, self._settings.n_surface_points * self._multiplier)

    def _method_loss(
        self, seen: Rendering, inside: Float[Tensor, "r"] | None, schedule: Schedule
    ) -> Float[Tensor, ""]:
        """Sum the method's losses, on the geometry and on the rays."""
        geometry, masked = self.result.field.geometry, self.result.masked
        parts = self._method.losses(geometry, seen.probed, self._consistency.unconfirmed, masked)
        parts |= self._method.ray_losses(seen.logits, seen.samples, inside, schedule, seen.weights)
        return torch.stack(list(parts.values())).sum()

    def _inside(self, batch: PixelBatch, outline: OutlineBatch) -> Float[Tensor, "r"]:
        """Which rays are on the object: 1, 0 beside it, 1/2 in a photo without a mask."""
        assert batch.masks is not None, "asked for where there are masks"
        known = self._has_mask[batch.image_indices]
        return torch.cat([torch.where(known, batch.masks, 0.5), outline.inside])

    def _compare(self, batch: PixelBatch, rays: Rays, rendering: Rendering) -> Float[Tensor, ""]:
        """How well patches at the probed surface points match other views, as a loss on the points' depths."""
        surface = rendering.surface.first(len(batch.colors))  # rays through outlines are of no pixel
        index = self._probed_rays(surface)
        probed = rendering.probed[: N_TAPS * len(index)]
        gradients = gradients_from_taps(probed.detach(), self.result.field.geometry.tap_step())
        normals = -torch.nn.functional.normalize(gradients, dim=-1, eps=1e-6)
        points = rays.at(index, surface.ts[index])
        patches = Patches(batch.image_indices[index], batch.pixels[index], points, normals)
        matches = self._consistency.compare(self.alignment.cameras, patches)
        depths = implicit_depths(probed.view(-1, N_TAPS).mean(1), gradients, rays.directions[index])
        return consistency_loss(matches, depths)

    def _random(self, shape: torch.Size) -> Tensor:
        """Uniform in [0, 1)."""
        return torch.rand(shape, generator=self._generator, device=self._device)
