"""The panel beside the scene: stage and time, figures, the PSNR curve, and the buttons.

A click only queues an action, which the fit's thread carries out between two steps. Changes of the display (colors,
visibility, export of the mesh shown) happen at once, in viser's thread.
"""

import html
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from quicksurf.app.live.gate import Allowance
from quicksurf.app.live.nodes import SHADINGS, Nodes
from quicksurf.app.progress import fit_figures
from quicksurf.errors import QuicksurfError
from quicksurf.mesh.export import FORMATS, write_mesh

if TYPE_CHECKING:
    import viser
    from viser import uplot

    from quicksurf.train.loop import FitStatus

Action = Literal["start", "pause", "stop", "extend"]
EXTENSION_MINUTES = 5
SHOWN = ("PSNR", "held out", "rays/s")
N_NOTES = 6  # at the foot; older ones are in the terminal
MAX_CURVE = 500  # points; every second one is dropped when there are more
EXPORTS_PER_SECOND, EXPORTS_AT_ONCE = 0.2, 5  # a mesh stays in memory until the page fetches it
CURVE_SECONDS = 2.0  # of the fit between two updates of the curve


class PsnrCurve:
    """PSNR of the rays trained on and of the held-out views, over the seconds of the fit."""

    def __init__(self, server: "viser.ViserServer") -> None:
        from viser import uplot

        self._rows: list[tuple[float, float, float]] = []
        self._shown_at = float("-inf")
        self._plot = server.gui.add_uplot(
            (np.zeros(1), np.full(1, np.nan), np.full(1, np.nan)),
            (
                uplot.Series(label="seconds"),
                uplot.Series(label="PSNR", stroke="#1f6fd1", width=1.5),
                uplot.Series(label="held out", stroke="#d1701f", width=1.5),
            ),
            title="PSNR in dB",
            scales=_scales(0.0, 1.0),
            aspect=1.7,
            visible=False,
        )

    def add(self, seconds: float, psnr: float, held_out: float | None) -> None:
        """Add a point; redraw after CURVE_SECONDS."""
        self._rows.append((seconds, psnr, np.nan if held_out is None else held_out))
        if len(self._rows) > MAX_CURVE:
            self._rows = self._rows[::2]
        if seconds - self._shown_at >= CURVE_SECONDS and len(self._rows) > 1:
            self.draw()

    def draw(self) -> None:
        """Draw all points."""
        if len(self._rows) > 1:
            self._shown_at = self._rows[-1][0]
            data = np.array(self._rows).T
            self._plot.scales = _scales(float(np.nanmin(data[1:])), float(np.nanmax(data[1:])))
            self._plot.data = tuple(np.ascontiguousarray(column) for column in data)
            self._plot.visible = True


def _scales(low: float, high: float) -> "dict[str, uplot.Scale]":
    """Scales in seconds and in the range of the curves, which uPlot cannot find for curves with gaps (NaN)."""
    from viser import uplot

    return {"x": uplot.Scale(time=False), "y": uplot.Scale(range=(low - 0.5, high + 0.5))}


class SidePanel:
    """The controls of one server; clicks call `action`."""

    def __init__(self, server: "viser.ViserServer", action: Callable[[Action], None]) -> None:
        self._server, self._action = server, action
        self.nodes: Nodes | None = None
        self._title = ""
        self._lines: list[str] = []
        self._exports = Allowance(EXPORTS_PER_SECOND, EXPORTS_AT_ONCE)
        self._headline = server.gui.add_html("")
        self._bar = server.gui.add_progress_bar(0.0)
        self._figures = server.gui.add_html("")
        self.curve = PsnrCurve(server)
        self._buttons = self._add_buttons()
        self._add_show()
        self._add_export()
        self._notes = server.gui.add_html("")
        self.allow_steering(False)

    def headline(self, text: str, fraction: float | None = None) -> None:
        """Show the headline and the progress (0 to 1)."""
        if text != self._title:  # called many times a second
            self._title = text
            self._headline.content = _html("b", text)
        if fraction is not None:
            self._bar.value = 100 * min(max(fraction, 0.0), 1.0)

    def note(self, text: str) -> None:
        """Add a line at the foot, above older ones."""
        self._lines = [text, *self._lines][:N_NOTES]
        self._notes.content = _html("small", *self._lines)

    def figures(self, status: "FitStatus") -> None:
        """Show the figures of the fit and extend the curve."""
        figures = dict(fit_figures(status))
        self._figures.content = _html("span", " · ".join(f"{name} {figures[name]}" for name in SHOWN))
        self.curve.add(status.seconds, status.psnr, status.psnr_held_out)

    def allow_steering(self, allowed: bool) -> None:
        """Enable or disable the buttons."""
        for button in self._buttons.values():
            button.disabled = not allowed

    def show_paused(self, paused: bool) -> None:
        """Label the button with what a click does."""
        self._buttons["pause"].label = "Go on" if paused else "Pause"

    def hide_steering(self) -> None:
        """Hide the buttons and the progress bar."""
        for button in self._buttons.values():
            button.visible = False
        self._bar.visible = False

    def _add_buttons(self) -> "dict[Action, viser.GuiButtonHandle]":
        gui = self._server.gui
        buttons: dict[Action, viser.GuiButtonHandle] = {
            "pause": gui.add_button("Pause", hint="The fit stands still; its minutes do not run."),
            "stop": gui.add_button(
                "Stop and keep", hint="End the fit now and make the mesh.", color="orange"
            ),
            "extend": gui.add_button(f"Add {EXTENSION_MINUTES} minutes", hint="The fit goes on for longer."),
        }
        for action, button in buttons.items():
            button.on_click(lambda event, action=action: self._pressed(action))
        return buttons

    def _pressed(self, action: Action) -> None:
        """Pass the action on if its button is enabled: a page may send clicks on disabled ones."""
        button = self._buttons[action]
        if button.visible and not button.disabled:
            self._action(action)

    def _add_show(self) -> None:
        gui = self._server.gui
        with gui.add_folder("Show"):
            surface = gui.add_dropdown("Surface", SHADINGS)
            photos = gui.add_checkbox("Photos", True)
            points = gui.add_checkbox("Points", True)
            region = gui.add_checkbox("Region", True)
        surface.on_update(lambda event: self._paint(surface.value))
        photos.on_update(lambda event: self.nodes and self.nodes.show_photos(photos.value))
        points.on_update(lambda event: self.nodes and self.nodes.show_points(points.value))
        region.on_update(lambda event: self.nodes and self.nodes.show_region(region.value))

    def _paint(self, surface: str) -> None:
        """Color the mesh; ignore values outside of the list, which a page may send."""
        if self.nodes is not None and surface in SHADINGS:
            self.nodes.paint(surface)

    def _add_export(self) -> None:
        gui = self._server.gui
        with gui.add_folder("Export"):
            form = gui.add_dropdown("Format", FORMATS)
            button = gui.add_button("Export the mesh shown", hint="In the frame and units of the cameras.")
        button.on_click(lambda event: self._export(event.client, form.value))

    def _export(self, client: "viser.ClientHandle | None", suffix: str) -> None:
        """Send the mesh shown, as a file, to the browser that asked."""
        if client is None or not self._exports.take():
            return
        mesh = None if self.nodes is None else self.nodes.mesh
        if mesh is None:
            client.add_notification("No mesh yet", "It appears a few seconds after the fit begins.")
            return
        try:
            with tempfile.TemporaryDirectory() as folder:
                (path,) = write_mesh(mesh, Path(folder), "mesh", (suffix,))
                client.send_file_download(path.name, path.read_bytes(), save_immediately=True)
        except QuicksurfError as error:
            client.add_notification("Not exported", str(error))


def _html(tag: str, *lines: str) -> str:
    """Lines of plain text, escaped, indented like the panel's other parts."""
    body = "<br>".join(f"<{tag}>{html.escape(line)}</{tag}>" for line in lines)
    return f'<div style="padding: 0.2em 0.75em; overflow-wrap: anywhere">{body}</div>'
