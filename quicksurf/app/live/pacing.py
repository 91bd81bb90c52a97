"""How often the growing mesh is made, and how fine, so that the fit keeps nearly all of its time.

The mesh is made in the fit's own thread, between two steps: a second thread would compete for the same cores and the
same interpreter, unmeasured. What one took is paid off before the next: after `seconds` of work the next is due
seconds / fraction later, so that at most about `fraction` of the fit's time goes into meshes.
"""

import time
from collections.abc import Callable

FRACTION = 0.012  # of the fit's time; with opening the page and its figures the fit stays within 3 %
FIRST = 3.0  # seconds of fitting before which there is only the ball that the field begins as
COARSEST, FINEST = 48, 160  # cells along the ROI
PAUSED = 224  # while the fit stands still, a finer look costs it nothing
SHORTEST, LONGEST = 4.0, 30.0  # seconds between two meshes to aim at
N_MESHES = 40  # over the whole fit, to aim at
POWER = 2.5  # of the resolution, by which the work grows: points in the shell by 3, triangles and views by 2


class WorkClock:
    """Seconds in which this process worked: between two looks, the lesser of wall-clock and processor time.

    Idle cores or a GPU that is waited for count as work; time that other programs took does not. By wall-clock alone
    one mesh that the system had set aside for seconds would put off the next one for minutes.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.monotonic,
        processor: Callable[[], float] = time.process_time,
    ) -> None:
        self._clocks = wall, processor
        self._seen = wall(), processor()
        self._seconds = 0.0

    def __call__(self) -> float:
        """Seconds of work until now, since this clock was made; look often."""
        now = self._clocks[0](), self._clocks[1]()
        self._seconds += min(now[0] - self._seen[0], now[1] - self._seen[1])
        self._seen = now
        return self._seconds


class Pacer:
    """Decides from what the meshes so far took. Times are seconds of one clock."""

    def __init__(self, fraction: float = FRACTION) -> None:
        self._fraction = fraction
        self._due_at = FIRST
        self.resolution = COARSEST
        """Of the next mesh."""

    def due(self, now: float) -> bool:
        """Tell whether the next mesh may be made."""
        return now >= self._due_at

    def made(self, now: float, seconds: float, fit_seconds: float) -> None:
        """Note that a mesh was made until `now` in `seconds`, in a fit that takes `fit_seconds` as a whole."""
        self._due_at = now + seconds / self._fraction
        interval = min(max(fit_seconds / N_MESHES, SHORTEST), LONGEST)
        finer = (self._fraction * interval / max(seconds, 1e-6)) ** (1 / POWER)
        wanted = self.resolution * min(max(finer, 0.5), 1.5)  # one slow second must not decide
        self.resolution = int(min(max(wanted, COARSEST), FINEST)) // 8 * 8
