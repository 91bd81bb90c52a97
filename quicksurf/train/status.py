"""What a fit reports about once a second, and the clock that its schedules follow."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from quicksurf.model import TrainedModel
from quicksurf.render.renderer import Rendering
from quicksurf.train import losses


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


@dataclass
class Clock:
    """Seconds fitted and left, and the progress that follows from both."""

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
        """Compute the fraction of the whole time that is spent; it never falls, even if the end moves away."""
        self._progress = max(self._progress, self.fitted() / max(self.fitted() + self.left(), 1e-9))
        return self._progress

    def over(self) -> bool:
        return self.left() <= 0


class Window:
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
        """Count the seconds from the beginning to the end of the last step."""
        return self._end - self._start

    def status(self, result: TrainedModel, clock: Clock) -> FitStatus:
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
