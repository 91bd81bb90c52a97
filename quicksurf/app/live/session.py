"""`fit --view`: the listener that shows a fit on the page and carries out clicks.

Time in which the user holds the fit up, by choosing the region or pausing, does not count against `--minutes`; minutes
added by clicks do. Without a browser the command takes as long as without `--view`: it waits for one for a few of its
own seconds, counted from when the address was printed, and then keeps the automatic region.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING

from quicksurf.app.budget import Budget, StopRequest
from quicksurf.app.listener import Listener
from quicksurf.app.live.nodes import Nodes, RegionChooser
from quicksurf.app.live.panel import EXTENSION_MINUTES, Action, SidePanel
from quicksurf.app.live.preview import PAUSED, Pacer, WorkClock, preview_mesh
from quicksurf.app.live.server import Address, serving, url_of
from quicksurf.app.progress import clock
from quicksurf.capture.roi import check_roi
from quicksurf.capture.scene import Scene
from quicksurf.errors import RoiError, SurfaceError
from quicksurf.geometry.region import Roi
from quicksurf.mesh.types import Mesh
from quicksurf.model import TrainedModel
from quicksurf.train.status import FitStatus

if TYPE_CHECKING:
    import viser

PAGE_SECONDS, PAGE_FRACTION = 20.0, 0.02  # the longest wait for a browser, also as a fraction of the minutes
ROI_SECONDS = 60.0  # without a change of the ball, after which the fit begins
ROI_LONGEST = 900.0  # to choose the ball in all
MAX_ADDED_MINUTES = 60  # by clicks; more need --minutes
MAX_ACTIONS = 32  # clicks between two steps of the fit
LAST_LOOK_SECONDS = 1.0  # for the final mesh to reach the page before the server stops
POLL_SECONDS = 0.05
TITLES = {"read": "Reading the capture", "fit": "Fitting", "mesh": "Making the mesh"}


@contextmanager
def live_view(address: Address) -> Iterator["LiveView"]:
    """Serve the page of one fit until the end of the block.

    Raises:
        ViewError: if it cannot be opened.
    """
    with serving(address, "quicksurf") as server:
        yield LiveView(server)


class LiveView(Listener):
    """One page. Its methods run in the fit's thread; clicks reach them through a queue."""

    def __init__(self, server: "viser.ViserServer") -> None:
        self._server = server
        self._actions: Queue[Action] = Queue(MAX_ACTIONS)
        self._panel = SidePanel(server, self._action)
        self._minutes_added = 0
        self._pacer, self._work = Pacer(), WorkClock()
        self._stage, self._paused = "read", False
        self.greeting = f"live view at {url_of(server)}"

    def begin(self, budget: Budget, stop: StopRequest) -> None:
        """Keep the clock and the stop request."""
        self._budget, self._stop = budget, stop
        self._announced = budget.elapsed()

    def stage(self, name: str) -> None:
        """Show the stage; buttons are enabled during the fit only, and earlier clicks are discarded."""
        list(self._clicked())
        self._stage = name
        self._panel.allow_steering(name == "fit")
        self._tell()

    def note(self, text: str) -> None:
        """Add a line at the foot of the panel."""
        self._panel.note(text)

    def warn(self, text: str) -> None:
        """Add a line at the foot of the panel."""
        self._panel.note(f"Warning: {text}")

    def fit(self, status: FitStatus) -> None:
        """Show the figures."""
        with self._server.atomic():
            self._panel.figures(status)
            self._tell()

    def choose_roi(self, scene: Scene) -> Roi:
        """Let the user drag the ball if a browser is connected; the budget is held meanwhile."""
        self._nodes = self._panel.nodes = Nodes(self._server, scene)
        if not self._browser_connects():
            return scene.roi
        with self._budget.held():
            return self._dragged(scene)

    def captured(self, scene: Scene) -> None:
        """Show the capture as the fit uses it."""
        if self._panel.nodes is None:
            self._nodes = self._panel.nodes = Nodes(self._server, scene)
        self._nodes.show_ball(scene.roi)
        self._work = WorkClock()

    def step(self, reconstruction: TrainedModel) -> None:
        """Carry out clicks; show the next mesh if it is due and a browser is connected."""
        self._obey()
        if self._paused:
            self._pause(reconstruction)
        now = self._work()
        if self._pacer.due(now) and self._server.get_clients():
            self._grow(reconstruction, self._pacer.resolution)
            done = self._work()
            self._pacer.made(done, done - now, self._budget.seconds)

    def meshed(self, mesh: Mesh, files: list[Path]) -> None:
        """Show the final mesh and its files."""
        run = files[0].parent
        self._panel.headline(f"Done: quicksurf view {run} shows it again", 1.0)
        self._panel.curve.draw()
        for path in files:
            self._panel.note(f"written: {path}")
        self._panel.note("The command has ended: this page no longer exports.")
        self._nodes.show_mesh(mesh)
        self._server.flush()
        if self._server.get_clients():
            time.sleep(LAST_LOOK_SECONDS)

    def _tell(self) -> None:
        left = self._budget.left()
        if self._stage == "mesh":
            self._panel.headline(TITLES["mesh"])  # no time left to show: the fit may have been stopped early
            return
        title = "Paused" if self._paused else TITLES[self._stage]
        self._panel.headline(f"{title}: {clock(left)} left", 1 - left / self._budget.seconds)

    def _obey(self) -> None:
        for action in self._clicked():
            if action == "pause":
                self._paused = not self._paused
                self._panel.show_paused(self._paused)
            elif action == "extend":
                self._extend()
            elif action == "stop":
                self._paused = False
                self._stop.stop_gently()
                self._panel.allow_steering(False)
            self._tell()

    def _extend(self) -> None:
        if self._minutes_added + EXTENSION_MINUTES > MAX_ADDED_MINUTES:
            self._panel.note(f"{MAX_ADDED_MINUTES} minutes were added, the most that this page can add")
            return
        self._minutes_added += EXTENSION_MINUTES
        self._budget.extend(60 * EXTENSION_MINUTES)
        self._panel.note(f"{EXTENSION_MINUTES} minutes added")

    def _action(self, action: Action) -> None:
        with suppress(Full):
            self._actions.put_nowait(action)

    def _clicked(self) -> Iterator[Action]:
        while True:
            try:
                yield self._actions.get_nowait()
            except Empty:
                return

    def _pause(self, reconstruction: TrainedModel) -> None:
        """Wait until the user resumes or stops the fit; show a finer mesh meanwhile."""
        with self._budget.held():
            self._tell()
            self._grow(reconstruction, PAUSED)
            while self._paused and not self._stop():
                time.sleep(POLL_SECONDS)
                self._obey()
        self._paused = False
        self._panel.show_paused(False)
        self._tell()

    def _grow(self, reconstruction: TrainedModel, resolution: int) -> None:
        try:
            self._nodes.show_mesh(preview_mesh(reconstruction, resolution))
        except SurfaceError as error:  # too much of the region is occupied
            self._panel.note(str(error))

    def _browser_connects(self) -> bool:
        """Wait a little for a browser, from when the address was printed; this time counts."""
        end = self._announced + min(PAGE_SECONDS, PAGE_FRACTION * self._budget.seconds)
        while not self._server.get_clients() and self._budget.elapsed() < end:
            self._panel.headline(f"The fit begins in {clock(end - self._budget.elapsed())}")
            time.sleep(POLL_SECONDS)
        return bool(self._server.get_clients())

    def _dragged(self, scene: Scene) -> Roi:
        """The ball when Start is clicked or after a while without a change."""
        chooser = RegionChooser(self._server, self._nodes, lambda: self._action("start"))
        began = time.monotonic()
        try:
            while time.monotonic() < min(chooser.touched + ROI_SECONDS, began + ROI_LONGEST):
                left = chooser.touched + ROI_SECONDS - time.monotonic()
                self._panel.headline(f"Drag the ball around the object; the fit begins in {clock(left)}")
                time.sleep(POLL_SECONDS)
                if "start" in self._clicked() and self._usable(chooser.roi(), scene):
                    break
            roi = chooser.roi()
            return roi if chooser.moved and self._usable(roi, scene) else scene.roi
        finally:
            chooser.close()

    def _usable(self, roi: Roi, scene: Scene) -> bool:
        try:
            for warning in check_roi(roi, scene.cameras):
                self.warn(warning)
        except RoiError as error:
            self.warn(str(error))
            return False
        return True
