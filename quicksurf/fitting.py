"""The loop against the clock: draw pixels, render them, compare, step; all schedules follow elapsed time."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quicksurf import losses, schedules
from quicksurf.alignment import CameraAlignment
from quicksurf.backends import Backend
from quicksurf.config import Config
from quicksurf.consistency import Patches, ViewConsistency, consistency_loss, implicit_depths
from quicksurf.data.hull import room_for_object
from quicksurf.data.pixels import PixelBank, PixelBatch, solid_background
from quicksurf.data.scene import Scene
from quicksurf.data.silhouettes import CERTAIN, OutlineBatch, Outlines
from quicksurf.errors import SurfaceError
from quicksurf.model.appearance import Appearance, matched_by_halves
from quicksurf.model.background import BackgroundField
from quicksurf.model.field import gradients_from_taps, taps_around
from quicksurf.optimizer import Adam, Group, network_groups
from quicksurf.rays import Rays, Surface
from quicksurf.reconstruction import Reconstruction, build_renderer, roi_rays, settings_at
from quicksurf.render.renderer import Rendering, RenderSettings

_STATUS_SECONDS = 1.0
_CHECKPOINT_SECONDS = 60.0
_HELD_OUT_SHARE = 0.1  # of the progress between two looks at the held-out views
_HELD_OUT_PIXELS = 12_000  # over all views: half a second; a mean over a dozen views is known to 0.1 dB
_FINAL_HELD_OUT_PIXELS = 48_000
_MAX_LOST_STEPS = 50
_EXPOSURE_GAIN = (
    1.0  # dB on held-out views from which exposure counts as varied; 0.1 where it is fixed, 3 at ±30 %
)
_EXPOSURE_FASTER = 10.0  # times the learning rate of the maps then: else a short fit has no time for them
_MISS_SHARE = 0.5  # of the rays that miss the region are kept: they teach the background alone
_RAYS = (256, 1 << 15)
_OUTLINE_SHARE = 0.25  # of the rays of a masked fit go through outlines, a few hundredths of the pixels
_CONSISTENCY_START = 0.5  # of the progress: all levels are active, and surfaces within a pixel or two


class FitStatus(NamedTuple):
    """The state of a fit, about once a second; one line of metrics.jsonl."""

    step: int
    progress: float
    seconds: float
    seconds_left: float
    loss: float
    psnr: float
    """Of the rays trained on since the last status."""
    psnr_held_out: float | None
    """The newest measurement on held-out views."""
    hit_rate: float
    """Share of rays that meet the surface."""
    interval: float
    """Half-width of the sampling interval in units of the ROI's radius."""
    samples_per_ray: float
    evaluations_per_ray: float
    """Evaluations of the geometry: search, samples and regularised points."""
    rays_per_second: float
    sharpness: float


def fit_scene(
    scene: Scene,
    config: Config,
    backend: Backend,
    *,
    seconds: float = math.inf,
    seconds_left: Callable[[], float] = lambda: math.inf,
    now: Callable[[], float] | None = None,
    resume: Reconstruction | None = None,
    on_step: Callable[[Reconstruction], None] = lambda reconstruction: None,
    on_status: Callable[[FitStatus], None] = lambda status: None,
    should_stop: Callable[[], bool] = lambda: False,
    on_checkpoint: Callable[[Reconstruction], None] | None = None,
) -> Reconstruction:
    """Fit the scene for `seconds`, or until `should_stop`; go on where `resume` ended.

    A resumed fit keeps its parameters and moments; its progress restarts at the share of the whole time that is spent.

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
    clock = _Clock(trainer.result.seconds_fitted, seconds, seconds_left, now)
    window = last_window = _Window(now)
    checkpoint_at, held_out_at = 0.0, clock.progress() + _HELD_OUT_SHARE
    while not clock.over() and not should_stop():
        progress = clock.progress()
        window.add(*trainer.step(progress))
        trainer.result.seconds_fitted = clock.fitted()
        on_step(trainer.result)
        if progress >= held_out_at:
            held_out_at = progress + _HELD_OUT_SHARE
            trainer.alignment.review(progress)
            trainer.measure_held_out(_HELD_OUT_PIXELS)
        if window.seconds() > _STATUS_SECONDS:
            on_status(window.status(trainer.result, clock))
            window, last_window = _Window(now), window
        if on_checkpoint and clock.elapsed() > checkpoint_at + _CHECKPOINT_SECONDS:
            checkpoint_at = clock.elapsed()
            on_checkpoint(trainer.snapshot())
    trainer.finish()
    on_status((window if window.n_steps else last_window).status(trainer.result, clock))
    return trainer.snapshot()


class Trainer:
    """One fit at work: the reconstruction it changes, the pixels it draws and the optimiser."""

    def __init__(self, scene: Scene, config: Config, backend: Backend, resume: Reconstruction | None) -> None:
        masked = all(mask is not None for mask in scene.masks) if resume is None else resume.masked
        self._train = np.flatnonzero(~scene.held_out).tolist()
        self._held_out = np.flatnonzero(scene.held_out).tolist()
        self.result = resume or _fresh(scene, config, backend, masked)
        self._config = config
        self._device = backend.device
        self._bank = PixelBank.of(scene, self._train, masked, self._device)
        self._held_out_bank = (
            PixelBank.of(scene, self._held_out, masked, self._device) if self._held_out else None
        )
        self._outlines = Outlines.of(scene.masks, self._train if masked else [], self._device)
        self.alignment = CameraAlignment(self.result, self._bank, self._held_out_bank)
        if masked:
            self._restrict_to_hull(scene)
        self._generator = torch.Generator(self._device).manual_seed(config.train.seed + self.result.step)
        self._optimizer = Adam(_groups(self.result, config), backend)
        if self.result.optimizer_state:
            self._optimizer.load(self.result.optimizer_state)
        self._fill = backend.fill
        self._n_rays = config.train.n_samples * self._fill // 32
        self._consistency = ViewConsistency(scene.images, self._train, self._device)
        self._n_lost_steps = 0

    def step(self, progress: float) -> tuple[Rendering, Tensor, Tensor]:
        """One step of the optimiser; returns what was rendered, the loss and the squared colour error."""
        result, settings = self.result, self._settings(progress)
        result.advance(progress)
        seed = self._config.train.seed
        with torch.no_grad():
            result.renderer.grid.update(result.step, result.field.logits, settings.sharpness, seed)
        batch, rays = self._draw()
        outline, outline_rays = self._draw_outline()
        all_rays, n = rays.followed_by(outline_rays), len(batch.colors)
        behind = None if batch.masks is None else self._random(all_rays.origins.shape)
        rendering = result.renderer.render(all_rays, settings, self._generator, behind, self._probe)
        colors = result.appearance(rendering.colors[:n], batch.image_indices)
        targets = _over(batch, None if behind is None else behind[:n])
        loss = losses.color_loss(colors, targets) + self._regularise(rendering.probed)
        weight = self._config.train.silhouette_weight
        loss = loss + weight * losses.silhouette_loss(rendering.opacities[n:], outline.inside)
        weight = self._config.train.consistency_weight if progress > _CONSISTENCY_START else 0.0
        if weight > 0 and self._consistency.due(result.step):
            loss = loss + weight * self._compare(batch, rays, rendering)
        if self._is_number(loss):
            loss.backward()
            self._optimizer.step(schedules.learning_rate_factor(progress))
        self.alignment.note(progress, batch, rays, rendering.surface.first(n), (colors - targets).detach())
        result.step += 1
        self._n_rays = _balance(
            self._n_rays, rendering.n_samples, self._config.train.n_samples * self._fill, self._fill
        )
        return rendering, loss.detach(), (colors - targets).detach().square().mean()

    @torch.no_grad()
    def finish(self) -> None:
        """Probe every cell of the grid once more, for the mesh, and measure the held-out views well."""
        result = self.result
        result.renderer.grid.update(0, result.field.logits, result.settings().sharpness)
        self.measure_held_out(_FINAL_HELD_OUT_PIXELS)

    @torch.no_grad()
    def measure_held_out(self, n_pixels: int) -> None:
        """Mean over the held-out views of the PSNR on `n_pixels` random pixels of all, always the same ones.

        Where poses are refined, each half of a view is rendered as the other half says. Where an affine map found on
        one half brings the other nearer to the photo by more than a decibel, exposure was not fixed: the view is then
        measured so matched, and the training views' maps are learned faster.
        """
        if self._held_out_bank is None:
            return
        per_view = max(n_pixels // len(self._held_out), 64)
        batch = self._held_out_bank.draw_each(per_view, torch.Generator(self._device).manual_seed(0))
        white = None if batch.masks is None else torch.ones_like(batch.colors)
        parts = []
        for part in zip(*(part.split(1 << 13) for part in self.alignment.held_out_rays(batch)), strict=True):
            parts.append(self.result.render_rays(Rays(*part)).colors)
        left = self._held_out_bank.in_left_half(batch)
        views = torch.cat(parts).clamp(0, 1), _over(batch, white), left
        views = list(zip(*(part.split(per_view) for part in views), strict=True))
        plain = np.mean([_psnr(colors, targets) for colors, targets, _ in views])
        matched = np.mean([_psnr(matched_by_halves(*view), view[1]) for view in views])
        varies = matched > plain + _EXPOSURE_GAIN
        self.result.psnr_held_out = float(matched if varies else plain)
        rate = self._config.train.learning_rate_appearance
        self._optimizer.set_learning_rate("appearance", _EXPOSURE_FASTER * rate if varies else rate)

    def snapshot(self) -> Reconstruction:
        """The reconstruction with the optimiser's state and the cameras as they are now, ready to be saved."""
        self.result.cameras = self.alignment.world_cameras()
        self.result.cameras_refined = self.alignment.refined
        self.result.optimizer_state = self._optimizer.state()
        return self.result

    def _is_number(self, loss: Tensor) -> bool:
        """Whether to step; a step without rays, or with a loss that overflowed, is left out and counted."""
        self._n_lost_steps = 0 if torch.isfinite(loss) else self._n_lost_steps + 1
        if self._n_lost_steps >= _MAX_LOST_STEPS:
            raise SurfaceError(
                f"the loss was not a number in {_MAX_LOST_STEPS} steps: no pixel sees the ROI, or the fit diverged; "
                "set --roi cx,cy,cz,r around the object, or lower train.learning_rate_tables in a preset"
            )
        return self._n_lost_steps == 0

    def _settings(self, progress: float) -> RenderSettings:
        settings = settings_at(progress, self._config, self.result.renderer.grid.cell)
        return settings._replace(noise=schedules.query_noise(progress, self._config.train.query_noise))

    def _restrict_to_hull(self, scene: Scene) -> None:
        """Leave empty what the masks of the training views do not allow."""
        cameras, grid = self.result.roi_cameras().select(torch.tensor(self._train)), self.result.renderer.grid
        grid.restrict(room_for_object(cameras, [scene.masks[i] for i in self._train], len(grid.occupied)))

    def _draw_outline(self) -> tuple[OutlineBatch, Rays]:
        """Points along the outlines of the masks and their rays; none without masks."""
        points = self._outlines.draw(int(_OUTLINE_SHARE * self._n_rays), self._generator)
        return points, roi_rays(self.alignment.cameras, points.image_indices, points.pixels)

    def _draw(self) -> tuple[PixelBatch, Rays]:
        """Random training pixels and their rays; half of those that miss the region of interest are left out."""
        batch = self._bank.draw(self._n_rays, self._generator)
        rays = roi_rays(self.alignment.cameras, batch.image_indices, batch.pixels)
        meets = rays.near < rays.far
        lenient = self._random(meets.shape) < _MISS_SHARE
        useful = isinstance(self.result.renderer.background, BackgroundField) and batch.masks is None
        kept = meets | lenient if useful else meets
        if batch.masks is not None:  # a pixel on an outline has the colour of both sides
            kept &= (batch.masks - 0.5).abs() >= 0.5 - CERTAIN
        index = torch.nonzero(kept)[:, 0]
        return batch.select(index), Rays(*(part[index] for part in rays))

    def _probe(self, rays: Rays, surface: Surface) -> Float[Tensor, "p 3"]:
        """Taps for the gradient of the logit at surface points, beside them, and at random places; as many of each."""
        index = torch.nonzero(surface.hits)[: self._config.train.n_surface_points * self._fill, 0]
        points = rays.at(index, surface.ts[index])
        reach = max(0.01, self.result.field.finest_cell())
        beside = points + reach * (2 * self._random(points.shape) - 1)
        anywhere = 2 * self._random(points.shape) - 1
        return taps_around(torch.cat([points, beside, anywhere]), self._tap_step())

    def _regularise(self, probed: Float[Tensor, "p"]) -> Float[Tensor, ""]:
        """UNISURF's normal pairs and a light pull of |∇l| to 1."""
        train = self._config.train
        gradients = gradients_from_taps(probed, self._tap_step())
        at_surface, neighbours, _ = gradients.chunk(3)
        smoothness = losses.normal_smoothness(at_surface, neighbours)
        return train.smoothness_weight * smoothness + train.eikonal_weight * losses.eikonal(gradients)

    def _compare(self, batch: PixelBatch, rays: Rays, rendering: Rendering) -> Float[Tensor, ""]:
        """How well patches at the probed surface points match other views, as a loss on the points' depths."""
        surface = rendering.surface.first(len(batch.colors))  # rays through outlines are of no pixel
        index = torch.nonzero(surface.hits)[: self._config.train.n_surface_points * self._fill, 0]
        probed = rendering.probed[: 4 * len(index)]
        gradients = gradients_from_taps(probed.detach(), self._tap_step())
        normals = -torch.nn.functional.normalize(gradients, dim=-1, eps=1e-6)
        points = rays.at(index, surface.ts[index])
        patches = Patches(batch.image_indices[index], batch.pixels[index], points, normals)
        matches = self._consistency.compare(self.alignment.cameras, patches)
        depths = implicit_depths(probed.view(-1, 4).mean(1), gradients, rays.directions[index])
        return consistency_loss(matches, depths)

    def _random(self, shape: torch.Size) -> Tensor:
        """Uniform in [0, 1)."""
        return torch.rand(shape, generator=self._generator, device=self._device)

    def _tap_step(self) -> float:
        return max(0.5 * self.result.field.finest_cell(), 0.002)


def _fresh(scene: Scene, config: Config, backend: Backend, masked: bool) -> Reconstruction:
    solid = torch.ones(3) if masked else solid_background(scene.images)
    return Reconstruction(
        config,
        scene.cameras,
        scene.names,
        scene.held_out,
        scene.roi,
        masked,
        build_renderer(config, backend, solid),
        Appearance(len(scene.names)).to(backend.device),
    )


def _groups(result: Reconstruction, config: Config) -> list[Group]:
    rates = config.train.learning_rate_networks, config.train.learning_rate_tables
    groups = network_groups("geometry", result.field.geometry, config.train.learning_rate_geometry, rates[1])
    groups += network_groups("color", result.field.color, *rates)
    if isinstance(result.renderer.background, BackgroundField):
        groups += network_groups("background", result.renderer.background.network, *rates)
    offsets = result.appearance.offsets
    return [*groups, Group("appearance", offsets, slice(None), config.train.learning_rate_appearance, True)]


def _over(batch: PixelBatch, behind: Float[Tensor, "n 3"] | None) -> Float[Tensor, "n 3"]:
    """The photos' colours, with what the masks exclude replaced by `behind`."""
    if batch.masks is None or behind is None:
        return batch.colors
    return torch.lerp(behind, batch.colors, batch.masks[:, None])


def _psnr(colors: Float[Tensor, "n 3"], targets: Float[Tensor, "n 3"]) -> float:
    return losses.psnr_of(float((colors - targets).square().mean()))


def _balance(n_rays: int, n_samples: int, wanted: int, fill: int) -> int:
    """Number of rays for the next step: towards `wanted` samples, by at most a tenth a step."""
    ratio = min(max(wanted / max(n_samples, 1), 0.9), 1.1)
    return int(min(max(n_rays * ratio, _RAYS[0]), _RAYS[1] * fill))


@dataclass
class _Clock:
    before: float
    """Seconds fitted by earlier runs."""
    seconds: float
    seconds_left: Callable[[], float]
    now: Callable[[], float]

    def __post_init__(self) -> None:
        self._start = self.now()
        self._progress = 0.0

    def elapsed(self) -> float:
        return self.now() - self._start

    def fitted(self) -> float:
        return self.before + self.elapsed()

    def left(self) -> float:
        return max(0.0, min(self.seconds - self.elapsed(), self.seconds_left()))

    def progress(self) -> float:
        """Share of the whole time that is spent; it never falls, even if the end moves away."""
        self._progress = max(self._progress, self.fitted() / max(self.fitted() + self.left(), 1e-9))
        return self._progress

    def over(self) -> bool:
        return self.left() <= 0


class _Window:
    """What happened since the last status."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now, self._start = now, now()
        self.n_steps = self._n_measured = 0
        self._measured: Tensor | None = None
        """Hits, steps with a number for a loss, their losses and squared errors: sums, where they were computed."""
        self._n_rays = self._n_samples = self._n_evaluations = 0

    def add(self, rendering: Rendering, loss: Float[Tensor, ""], error: Float[Tensor, ""]) -> None:
        self.n_steps += 1
        self._n_rays += len(rendering.colors)
        self._n_samples += rendering.n_samples
        self._n_evaluations += rendering.n_evaluations
        number = torch.isfinite(loss).float()
        parts = [
            rendering.surface.hits.sum(),
            number,
            *(v.nan_to_num(0, 0, 0) * number for v in (loss, error)),
        ]
        measured = torch.stack([part.double() for part in parts])  # float32 counts no further than 2^24 hits
        self._measured = measured if self._measured is None else self._measured + measured

    def seconds(self) -> float:
        return self._now() - self._start

    def status(self, result: Reconstruction, clock: _Clock) -> FitStatus:
        n_rays = max(self._n_rays, 1)
        n_hits, n_measured, loss, error = (0, 0, 0, 0) if self._measured is None else self._measured.tolist()
        settings = result.settings()
        return FitStatus(
            result.step,
            result.progress,
            clock.elapsed(),
            clock.left(),
            loss / max(n_measured, 1),
            losses.psnr_of(error / max(n_measured, 1)),
            result.psnr_held_out,
            n_hits / n_rays,
            settings.interval.half_width,
            self._n_samples / n_rays,
            self._n_evaluations / n_rays,
            self._n_rays / self.seconds(),
            settings.sharpness,
        )
