"""Whether the rays of a fit still meet something: where none does, nothing can be learned any more."""

from quicksurf.errors import SurfaceError
from quicksurf.geometry.region import Roi
from quicksurf.train.status import FitStatus

EMPTY_REPORTS = 3  # a report a second: one alone may be of a few unlucky rays
SPARSE_REPORTS = 5
FEW_HITS, FEW_SAMPLES = 0.005, 0.05  # what the terminal shows as 0 % and 0.0


class Hits:
    """Counts the reports of a fit in a row in which no ray met a surface and none was sampled."""

    def __init__(self, roi: Roi) -> None:
        self._roi = roi
        self._n_empty = self._n_sparse = 0

    def none_left(self, status: FitStatus) -> bool:
        """Tell whether EMPTY_REPORTS were empty, this one the last."""
        empty = status.hit_rate == 0 and status.samples_per_ray == 0
        self._n_empty = self._n_empty + 1 if empty else 0
        return self._n_empty >= EMPTY_REPORTS

    def nearly_none(self, status: FitStatus) -> bool:
        """Tell whether SPARSE_REPORTS had next to no hits and samples, this one the last."""
        sparse = status.hit_rate < FEW_HITS and status.samples_per_ray < FEW_SAMPLES
        self._n_sparse = self._n_sparse + 1 if sparse else 0
        return self._n_sparse == SPARSE_REPORTS

    def warning(self) -> str:
        """Tell what to say then: a few rays may be a thin object, so that the fit goes on."""
        return (
            f"hardly a ray meets anything in the ROI {self._ball()}: if the object is not in it, stop and set --roi "
            "cx,cy,cz,r around it"
        )

    def _ball(self) -> str:
        return ",".join(f"{value:.4g}" for value in (*self._roi.center, self._roi.radius))

    def error(self) -> SurfaceError:
        """Tell what to say where none is left."""
        return SurfaceError(
            f"the ROI {self._ball()} holds nothing that the photos show: no ray meets a surface in it; "
            "set --roi cx,cy,cz,r around the object"
        )
