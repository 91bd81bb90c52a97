"""Schedules common to all methods: pure functions of progress p, the elapsed fraction of the budget in [0, 1]."""

_BACKGROUND_SHARP = 0.2  # progress; half time costs fox 0.6 dB


def background_noise(progress: float, start: float) -> float:
    """Compute the standard deviation of the noise on the background's samples: start · (1 − 5p), 0 after that.

    A sharp background learns faster than the surface and paints what stands before it, for each camera elsewhere; a
    blurred one leaves outlines to the surface. Its own detail is learned in the time that is left.
    """
    return start * max(0.0, 1 - progress / _BACKGROUND_SHARP)


def learning_rate_factor(progress: float) -> float:
    """Compute the learning rates' factor: warm-up over 0.01, 1 until p = 0.4, exponential to a twentieth."""
    return min(1.0, 0.1 + 90 * progress) * 0.05 ** max(0.0, (progress - 0.4) / 0.6)
