"""The seat of somebody who watches a command at work: hears what reporters hear, sees the scene, the field, the mesh.

The pipeline calls it from its own thread and goes on when a call returns, so that a watcher may hold the command up
(inside `Budget.held`), stop it (`StopRequest.stop_gently`) or lengthen it (`Budget.extend`), and needs no lock.
"""

from pathlib import Path

from quicksurf.data.scene import Roi, Scene
from quicksurf.mesh.types import Mesh
from quicksurf.reconstruction import Reconstruction
from quicksurf.session.budget import Budget, StopRequest
from quicksurf.session.status import Silent


class Watcher(Silent):
    """Watches nothing: the base of the others. Calls come in the order of the methods."""

    greeting: str | None = None
    """A line for the user to begin with: where to look."""

    def begin(self, budget: Budget, stop: StopRequest) -> None:
        """The command's clock has started; both may be used until it ends."""

    def choose_roi(self, scene: Scene) -> Roi:
        """The capture of a new run is read, and its user gave no region of interest: the one to fit in."""
        return scene.roi

    def captured(self, scene: Scene) -> None:
        """The fit is about to begin on `scene`."""

    def step(self, reconstruction: Reconstruction) -> None:
        """The fit is between two steps; `reconstruction` is to be looked at, not to be changed."""

    def meshed(self, mesh: Mesh, files: list[Path]) -> None:
        """The mesh is made and written."""
