"""Whether the rays of a fit still meet something: where none does, nothing can be learned any more."""

from quicksurf.data.scene import Roi
from quicksurf.errors import SurfaceError
from quicksurf.train.loop import FitStatus

EMPTY_REPORTS = 3  # a report a second: one alone may be of a few unlucky rays


class Hits:
    """Counts the reports of a fit in a row in which no ray met a surface and none was sampled."""

    def __init__(self, roi: Roi) -> None:
        self._roi = roi
        self._n_empty = 0

    def none_left(self, status: FitStatus) -> bool:
        """Whether EMPTY_REPORTS were empty, this one the last."""
        empty = status.hit_rate == 0 and status.samples_per_ray == 0
        self._n_empty = self._n_empty + 1 if empty else 0
        return self._n_empty >= EMPTY_REPORTS

    def error(self) -> SurfaceError:
        """What to say then."""
        ball = ",".join(f"{value:.4g}" for value in (*self._roi.center, self._roi.radius))
        return SurfaceError(
            f"the ROI {ball} holds nothing that the photos show: no ray meets a surface in it; "
            "set --roi cx,cy,cz,r around the object"
        )
