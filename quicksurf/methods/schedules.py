"""What changes during a fit, each a pure function of progress p, the elapsed fraction of the budget in [0, 1]."""

import math

_STEADY_SHARPNESS = 120.0  # at a rate of 1e-2: dtu_scan24 falls by 2 dB where κ |∇l| is more than that
_SHARPENING = 0.4, 0.85  # of the progress
_BACKGROUND_SHARP = 0.2  # of the progress: until half time costs fox 0.6 dB


def sharpness(progress: float, start: float, end: float) -> float:
    """κ in o = sigmoid(κ l): `start` until p = 0.4, exponential to `end` at p = 0.85, then constant.

    The soft surface is about 4/(κ |∇l|) wide. |∇l| is small where the photos do not agree yet and grows where they do:
    with κ low for long, each place sharpens when it is ready, and what is not settled stays soft and is carved.
    """
    begin, finish = _SHARPENING
    return start * (end / start) ** min(1.0, max(0.0, (progress - begin) / (finish - begin)))


def interval_half_width(progress: float, start: float, least: float) -> float:
    """Half-width of the sampling interval around the surface: start · e^(−6p) (UNISURF, eq. 11), at least `least`.

    The least is what the logit needs to become opaque at the present sharpness: where the interval ends before that,
    light leaks through the surface and the fit fills what is hollow behind it.
    """
    return max(start * math.exp(-6 * progress), least)


def active_levels(progress: float, n_levels: int, first: int) -> int:
    """Hash levels in use: `first` at the start, all at p = 0.5 (coarse to fine)."""
    return min(n_levels, first + int((n_levels - first + 1) * progress / 0.5))


def query_noise(progress: float, start: float) -> float:
    """Standard deviation of the noise on query points: start · (1 − 2p)², 0 after half time.

    Stochastic preconditioning (SIGGRAPH 2025): the field is fitted blurred first.
    """
    return start * max(0.0, 1 - 2 * progress) ** 2


def background_noise(progress: float, start: float) -> float:
    """The same for samples of the background: start · (1 − 5p), 0 after that.

    A sharp background learns faster than the surface and paints what stands before it, for each camera elsewhere; a
    blurred one leaves outlines to the surface. Its own detail is learned in what is left of the time.
    """
    return start * max(0.0, 1 - progress / _BACKGROUND_SHARP)


def learning_rate_factor(progress: float) -> float:
    """Warm-up over the first hundredth, 1 until p = 0.4, then exponential down to a twentieth."""
    return min(1.0, 0.1 + 90 * progress) * 0.05 ** max(0.0, (progress - 0.4) / 0.6)


def surface_rate_factor(progress: float, sharpness: float) -> float:
    """Learning rate of what moves the surface: 1 until κ = 120, then as 1/κ, to a half over the last fifth.

    A step of Adam moves the logit by about the rate, however small the gradient is. Where that is more than the soft
    surface is wide, matter grows opaque by chance; what has grown opaque has no gradient to shrink, so surfaces swell.
    """
    return min(1.0, 0.1 + 90 * progress, _STEADY_SHARPNESS / sharpness) * 0.5 ** max(
        0.0, (progress - 0.8) / 0.2
    )


def march_step(half_width: float, cell: float) -> float:
    """Step of the surface search: a quarter of the interval, between half a grid cell and two cells."""
    return min(max(0.25 * half_width, 0.5 * cell), 2 * cell)
