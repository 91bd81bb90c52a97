"""The seat of somebody who watches a command at work: hears what reporters hear, sees the scene, the field, the mesh.

The command calls it from its own thread and goes on when a call returns, so that a listener may hold the command up
(inside `Budget.held`), stop it (`StopRequest.stop_gently`) or lengthen it (`Budget.extend`), and needs no lock.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from quicksurf.app.budget import Budget, StopRequest
from quicksurf.app.progress import Silent
from quicksurf.capture.scene import Scene
from quicksurf.geometry.region import Roi
from quicksurf.mesh.types import Mesh
from quicksurf.model import TrainedModel


class Listener(Silent):
    """Watches nothing: the base of the others. Calls come in the order of the methods."""

    greeting: str | None = None
    """A line for the user to begin with: where to look."""

    def begin(self, budget: Budget, stop: StopRequest) -> None:
        """Note that the command's clock has started; both may be used until it ends."""

    def choose_roi(self, scene: Scene) -> Roi:
        """Choose the region of interest of a new run whose user gave none."""
        return scene.roi

    def captured(self, scene: Scene) -> None:
        """Note that the fit is about to begin on `scene`."""

    def step(self, reconstruction: TrainedModel) -> None:
        """Note that the fit is between two steps; `reconstruction` is to be looked at, not to be changed."""

    def meshed(self, mesh: Mesh, files: list[Path]) -> None:
        """Note that the mesh is made and written."""


class Harmless(Listener):
    """Passes everything on to `listener` until it fails once: that is told to `failed`, and the fit goes on without.

    What somebody does to a page, or a fault of its server, must not cost the fit. An interrupt passes.
    """

    def __init__(self, listener: Listener, failed: Callable[[str], object]) -> None:
        self._listener: Listener | None = listener
        self._failed = failed
        self.greeting = listener.greeting
        for name in ("begin", "captured", "step", "meshed", "stage", "note", "warn", "fit"):
            setattr(self, name, partial(self._call, name))

    def choose_roi(self, scene: Scene) -> Roi:
        """Let the listener choose; the scene's own if that fails."""
        return self._call("choose_roi", scene) or scene.roi

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            return None if self._listener is None else getattr(self._listener, name)(*arguments)
        except Exception as error:
            self._listener = None
            self._failed(
                f"the live view failed ({type(error).__name__}: {error}); the fit goes on without it"
            )
