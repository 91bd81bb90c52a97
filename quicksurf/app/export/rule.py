"""What the making of a mesh may take, and how it meets failures: as `quicksurf mesh` does, or in a fit's minutes."""

from quicksurf.app.budget import Budget
from quicksurf.app.export.texture_cost import USUAL_SIZE, affordable_texture
from quicksurf.app.progress import Warnings
from quicksurf.app.run.folder import Run
from quicksurf.errors import OutputError, QuicksurfError
from quicksurf.mesh.build import MeshReport


class MeshRule:
    """Takes as long as it needs and raises every failure."""

    def mesh_seconds(self) -> float | None:
        """Tell how long the extraction may take; None: as long as it needs."""
        return None

    def extracted(self, report: MeshReport, resolution: int) -> None:
        """Note the mesh that was extracted where `resolution` was asked for."""

    def texture_of(self, n_faces: int, size: int | None, n_photos: int) -> tuple[int, int | None] | None:
        """Choose the faces and the texels a side of a texture, at most those asked for; None leaves it out.

        Texels that are None are as many as the photos resolve.
        """
        return n_faces, size

    def failed(self, what: str, error: QuicksurfError) -> None:
        """Go on without a part that cannot be made, or raise `error`."""
        raise error

    def make_room(self, error: OutputError) -> None:
        """Make room for a mesh that cannot be written, or raise `error`."""
        raise error


class WithinBudget(MeshRule):
    """Makes what there is time for; a part that fails costs itself alone."""

    def __init__(self, budget: Budget, run: Run, warnings: Warnings) -> None:
        self._budget, self._run, self._warnings = budget, run, warnings
        self.given_up: OutputError | None = None
        """Why the checkpoint gave way to the mesh, if it did."""

    def mesh_seconds(self) -> float:
        """Tell what the budget leaves for the extraction."""
        return self._budget.mesh_seconds()

    def extracted(self, report: MeshReport, resolution: int) -> None:
        """Tell the user of a mesh that is coarser than asked for."""
        if report.resolution < resolution:
            self._warnings.leave_out(
                f"mesh at resolution {report.resolution}, not {resolution}: the time budget allows no more; "
                f"quicksurf mesh {self._run.path} makes the finer one"
            )

    def texture_of(self, n_faces: int, size: int | None, n_photos: int) -> tuple[int, int] | None:
        """Choose fewer faces and texels if the time left demands it, or none."""
        size = size or USUAL_SIZE
        seconds, most = self._budget.extras_seconds(), self._budget.last_seconds()
        affordable = affordable_texture(seconds, most, n_faces, size, n_photos)
        later = f"quicksurf mesh {self._run.path} --texture makes"
        if affordable is None:
            self._warnings.leave_out(f"no time for a texture: {later} it")
        elif affordable != (n_faces, size):
            self._warnings.leave_out(
                f"texture of {affordable[1]} texels a side on {affordable[0]:,} faces, the time budget allows no more: "
                f"{later} the finer one"
            )
        return affordable

    def failed(self, what: str, error: QuicksurfError) -> None:
        """Warn of it: a photo may be gone that was there when the fit began."""
        self._warnings.add(f"{what}: {error}")

    def make_room(self, error: OutputError) -> None:
        """Give up the field for the mesh, which the user waits for."""
        self.given_up = error
        self._warnings.add(f"{error}; the checkpoint gives way to the mesh")
        self._run.drop_checkpoint()
