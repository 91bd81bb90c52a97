"""How often the growing mesh is made, and how fine, so that the fit keeps nearly all of its time.

The mesh is made in the fit's own thread, between two steps: a second thread would compete for the same cores and the
same interpreter, unmeasured. What one took is paid off before the next: after `seconds` of work the next is due
seconds / share later, so that at most about `share` of the fit's time goes into meshes.
"""

SHARE = 0.015  # of the fit's time; with the page's own messages the fit stays within 3 %
COARSEST, FINEST = 48, 160  # cells along the ROI
PAUSED = 224  # while the fit stands still, a finer look costs it nothing
SHORTEST, LONGEST = 4.0, 30.0  # seconds between two meshes to aim at
N_MESHES = 40  # over the whole fit, to aim at
POWER = 2.5  # of the resolution, by which the work grows: points in the shell by 3, triangles and views by 2


class Pacer:
    """Decides from what the meshes so far took. Times are seconds of one clock."""

    def __init__(self, share: float = SHARE) -> None:
        self._share = share
        self._due_at = float("-inf")
        self.resolution = COARSEST
        """Of the next mesh."""

    def due(self, now: float) -> bool:
        """Whether the next mesh may be made."""
        return now >= self._due_at

    def made(self, now: float, seconds: float, fit_seconds: float) -> None:
        """A mesh was made until `now` in `seconds`, in a fit that takes `fit_seconds` as a whole."""
        self._due_at = now + seconds / self._share
        interval = min(max(fit_seconds / N_MESHES, SHORTEST), LONGEST)
        finer = (self._share * interval / max(seconds, 1e-6)) ** (1 / POWER)
        wanted = self.resolution * min(max(finer, 0.5), 1.5)  # one slow second must not decide
        self.resolution = int(min(max(wanted, COARSEST), FINEST)) // 8 * 8
