"""Whether the matches of two photos fit a two-view geometry by more than chance.

Of `n` matches, `k` lie within `e` pixels of the epipolar lines of a geometry that some seven of them define. A match at
random does so with probability p = 2 e D / A (D the diagonal, A the area of the photo), so that as good a geometry is
expected

    NFA = n (n choose k) (k choose 7) p^(k - 7)

times among `n` matches at random (Moisan & Stival 2004, eq. 15). Twenty inliers of forty matches mean something,
twenty of two hundred do not. A geometry that is known beforehand needs no seven: NFA = (n choose k) p^k.
"""

import math
from math import lgamma, log

MAX_ERROR = 4.0  # pixels between a feature and its epipolar line, COLMAP's default
MIN_INLIERS = 15
_LOG_CHANCE = log(1e-4)  # a geometry that is expected this often at random says nothing


def is_significant(n_inliers: int, n_matches: int, size: tuple[int, int]) -> bool:
    """Return whether so many inliers among so many matches are no chance, by the expected number of false alarms."""
    return (
        log(max(n_matches, 1))
        + _log_choose(n_matches, n_inliers)
        + _log_choose(n_inliers, 7)
        + (n_inliers - 7) * _log_random(size)
        < _LOG_CHANCE
    )


def agrees(n_fitting: int, n_matches: int, size: tuple[int, int]) -> bool:
    """Return whether so many of the matches fit two given cameras as would rarely fit cameras of other photos."""
    return _log_choose(n_matches, n_fitting) + n_fitting * _log_random(size) < _LOG_CHANCE


def _log_random(size: tuple[int, int]) -> float:
    """Log of the probability p that a random match fits."""
    return min(0.0, log(2 * MAX_ERROR * math.hypot(*size) / (size[0] * size[1])))


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
