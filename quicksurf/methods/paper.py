"""UNISURF as published (Oechsle et al. 2021), on this field: α = o, its interval, its samples, no bound on the slope.

    o = sigmoid(κ l)        Δ(p) = max(2 e^(−6p), 0.1)        64 samples in the interval, 32 in front of it

The official code counts lengths in radii of the object, here they are radii of the region; its 450,000 iterations are
one fit, so that Δ arrives at a third of it in the paper and at half of it here. κ is constant; the official 10 is that
of a logit whose slope has hundreds of thousands of steps to grow, while a minute here has some hundreds: with 10 space
grows opaque before the logit is steep (a textured object: 13 dB in a minute, 31 dB with 50). Nothing but colour and
pairs of normals shapes the surface: points, patches and the balloon force are off by the settings of the method
(`config.py`). The search passes over what is thinner than its steps where the logit is steep, as the official one of
256 equal steps.
"""

from quicksurf.geometry.rays import Interval
from quicksurf.methods.unisurf import Unisurf, UnisurfSchedule, interval_half_width, march_step

LEAST_HALF_WIDTH = 0.1  # radii
_LATE = 0.4, 0.05  # progress from which the rate falls, and what it falls to: as that of all other networks


class Paper(Unisurf):
    """UNISURF's own formula and schedule with the settings of one fit."""

    name = "paper"

    def schedule(self, progress: float) -> UnisurfSchedule:
        """Compute the interval at `progress`; the sharpness is constant, and no interval widens on grazing rays."""
        config = self._config
        half_width = interval_half_width(progress, config.interval_start, LEAST_HALF_WIDTH)
        interval = Interval(half_width, 0.0, config.n_interval_samples, config.n_front_samples)
        begin, end = _LATE
        rate = min(1.0, 0.1 + 90 * progress) * end ** max(0.0, (progress - begin) / (1 - begin))
        return UnisurfSchedule(
            interval, config.sharpness_start, march_step(half_width, self._cell), 0.0, rate
        )
