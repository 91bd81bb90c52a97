"""The region of interest in the user's hands: a gizmo for the ball's centre, a slider for its radius, a button."""

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from quicksurf.app.live.nodes import Nodes
from quicksurf.geometry.region import Roi

if TYPE_CHECKING:
    import viser

SMALLEST, LARGEST = 0.1, 3.0  # radii of the ball that was found


class RegionChooser:
    """Stands on the page until closed. What is pulled at arrives in viser's threads, one value at a time."""

    def __init__(self, server: "viser.ViserServer", nodes: Nodes, start: Callable[[], None]) -> None:
        self._nodes = nodes
        self.moved = False
        """Whether somebody has changed the ball."""
        self.touched = time.monotonic()
        """When the ball was last pulled at."""
        self._folder = server.gui.add_folder("Region of interest", order=-1.0)
        with self._folder:
            self._radius = server.gui.add_slider("Radius", SMALLEST, LARGEST, 0.01, 1.0)
            button = server.gui.add_button("Start the fit", color="blue")
        self._gizmo = nodes.drag_ball(1.0, self._note)
        self._radius.on_update(lambda event: self._rescale())
        button.on_click(lambda event: start())

    def roi(self) -> Roi:
        """Return the ball as it stands, in the world."""
        return self._nodes.roi_at(self._gizmo.position, self._in_range())

    def close(self) -> None:
        """Take everything off the page."""
        self._folder.remove()
        self._gizmo.remove()

    def _note(self) -> None:
        self.moved, self.touched = True, time.monotonic()

    def _rescale(self) -> None:
        self._note()
        self._nodes.scale_ball(self._in_range())

    def _in_range(self) -> float:
        """The slider's radius: a page may send what its slider cannot show."""
        radius = float(self._radius.value)
        return min(max(radius, SMALLEST), LARGEST) if math.isfinite(radius) else 1.0
