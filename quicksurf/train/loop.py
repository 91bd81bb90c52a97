"""The loop against the clock: step after step, all schedules following elapsed time."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from quicksurf.capture.scene import Scene
from quicksurf.config import Config
from quicksurf.kernels import Backend
from quicksurf.model import TrainedModel
from quicksurf.render.renderer import Rendering
from quicksurf.train import losses
from quicksurf.train.trainer import Trainer

_STATUS_SECONDS = 1.0
_CHECKPOINT_SECONDS = 60.0
_HELD_OUT_FRACTION = 0.1  # of the progress between two looks at the held-out views
_HELD_OUT_PIXELS = 12_000  # over all views: half a second; a mean over a dozen views is known to 0.1 dB
_FINAL_HELD_OUT_PIXELS = 48_000
_JOIN = 0.85  # progress from which held-out photos train, too: sharpness is final, and poses are settled
# Of the rays since the last look may be looked at, so that a slow machine keeps its time.
_LOOK_FRACTION = 0.1
_FINAL_LOOK_FRACTION = 0.05  # of all rays


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
    """Fraction of rays that meet the surface."""
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
    clock = _Clock(trainer.result.seconds_fitted, seconds, seconds_left, now)
    window = last_window = _Window(now)
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
            window, last_window = _Window(now), window
        if on_checkpoint and clock.elapsed() > checkpoint_at + _CHECKPOINT_SECONDS:
            checkpoint_at = clock.elapsed()
            on_checkpoint(trainer.snapshot())
    trainer.finish(min(_FINAL_HELD_OUT_PIXELS, int(_FINAL_LOOK_FRACTION * n_rays)))
    on_status((window if window.n_steps else last_window).status(trainer.result, clock))
    return trainer.snapshot()


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
        """Fraction of the whole time that is spent; it never falls, even if the end moves away."""
        self._progress = max(self._progress, self.fitted() / max(self.fitted() + self.left(), 1e-9))
        return self._progress

    def over(self) -> bool:
        return self.left() <= 0


class _Window:
    """What happened since the last status."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._start = self._end = now()
        self.n_steps = self._n_measured = 0
        self._measured: Tensor | None = None
        """Hits, steps with a number for a loss, their losses and squared errors: sums, where they were computed."""
        self._n_rays = self._n_samples = self._n_evaluations = 0

    def add(self, rendering: Rendering, loss: Float[Tensor, ""], error: Float[Tensor, ""]) -> None:
        self.n_steps += 1
        self._end = self._now()
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
        """From the beginning to the end of the last step."""
        return self._end - self._start

    def status(self, result: TrainedModel, clock: _Clock) -> FitStatus:
        n_rays = max(self._n_rays, 1)
        n_hits, n_measured, loss, error = (0, 0, 0, 0) if self._measured is None else self._measured.tolist()
        schedule = result.schedule()
        return FitStatus(
            result.step,
            result.progress,
            clock.elapsed(),
            clock.left(),
            loss / max(n_measured, 1),
            losses.psnr_of(error / max(n_measured, 1)),
            result.psnr_held_out,
            n_hits / n_rays,
            schedule.interval.half_width,
            self._n_samples / n_rays,
            self._n_evaluations / n_rays,
            self._n_rays / max(self.seconds(), 1e-9),
            schedule.sharpness,
        )
