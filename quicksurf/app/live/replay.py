"""`view RUN`: the page of a finished or interrupted run: its cameras, photos, points, curve and mesh."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from quicksurf.app.live.nodes import Nodes
from quicksurf.app.live.panel import SidePanel
from quicksurf.app.live.preview import preview_mesh
from quicksurf.app.live.server import Address, serving, url_of
from quicksurf.app.run.folder import Run, open_run
from quicksurf.app.run.metrics_log import read_metrics_log
from quicksurf.app.run.resume import load_points
from quicksurf.capture.load import ReadOptions
from quicksurf.capture.scene import ReadReport, Scene
from quicksurf.capture.transforms import read_cameras
from quicksurf.errors import QuicksurfError
from quicksurf.mesh.export import FORMATS, read_mesh
from quicksurf.mesh.types import Mesh
from quicksurf.untrusted import is_number

if TYPE_CHECKING:
    import viser

CAMERAS = "cameras.json"
PHOTO_PIXELS = 320 * 240  # thumbnails are smaller still
RESOLUTION = 224  # of the checkpoint's mesh, where the run has no mesh file
POLL_SECONDS = 0.2


def view_run(
    folder: Path,
    address: Address,
    stop: Callable[[], bool],
    say: Callable[[str], None],
    backend: str = "auto",
) -> None:
    """Show a run until `stop`.

    Args:
        stop: polled a few times a second.
        say: prints the page's address and missing parts.
        backend: name of the back end for the checkpoint's mesh.

    Raises:
        OutputError: if `folder` is not a run, or has neither a mesh nor a checkpoint.
        QuicksurfError: if neither its capture nor its cameras.json can be read.
        ViewError: if the page cannot be opened.
    """
    run = open_run(folder)
    with serving(address, f"quicksurf: {run.source.name}") as server:
        say(f"{url_of(server)} shows {run.path} until Ctrl-C")
        _show(server, run, backend, say)
        while not stop():
            time.sleep(POLL_SECONDS)


def _show(server: "viser.ViserServer", run: Run, backend: str, say: Callable[[str], None]) -> None:
    panel = SidePanel(server, lambda action: None)
    panel.hide_steering()
    panel.headline("Reading the run")
    for seconds, psnr, held_out in _curve(run):
        panel.curve.add(seconds, psnr, held_out)
    panel.curve.draw()
    try:
        scene = _scene(run, say)
    except QuicksurfError as error:  # moved since, or gone
        scene = _without_photos(run, error)
        say(f"the photos are not shown: {error}")
        panel.note(f"The photos are not shown: {error}")
    panel.nodes = Nodes(server, scene)
    mesh = _mesh(run, backend)
    panel.nodes.show_mesh(mesh)
    panel.headline(f"{run.path.name}: {len(mesh.faces):,} faces, {len(scene.names)} photos")


def _scene(run: Run, say: Callable[[str], None]) -> Scene:
    scene = run.scene(None, ReadOptions(PHOTO_PIXELS, use_masks=False, say=say))
    with suppress(QuicksurfError):  # a fit may have refined the capture's cameras
        known = read_cameras(run.path / CAMERAS)
        scene = replace(scene, cameras=known.cameras) if known.names == scene.names else scene
    return scene


def _without_photos(run: Run, reason: QuicksurfError) -> Scene:
    """The scene without photos, which cannot be read because of `reason`; raise it if cameras are missing, too."""
    if run.roi is None:
        raise reason
    try:
        known = read_cameras(run.path / CAMERAS)
    except QuicksurfError:
        raise reason from None
    return Scene(
        name=run.source.name,
        source=run.source,
        cameras=known.cameras,
        images=[],
        masks=[],
        names=known.names,
        held_out=known.held_out,
        roi=run.roi,
        points=load_points(run),
        report=ReadReport(),
    )


def _mesh(run: Run, backend: str) -> Mesh:
    """The run's mesh file, else the surface of its checkpoint."""
    for suffix in FORMATS:
        with suppress(QuicksurfError):
            return read_mesh(run.path / f"mesh.{suffix}")
    return preview_mesh(run.model(backend), RESOLUTION)


def _curve(run: Run) -> Iterator[tuple[float, float, float | None]]:
    """Seconds, PSNR and held-out PSNR of every line of the metrics log with a PSNR."""
    for line in read_metrics_log(run.path):
        psnr, held_out = line.get("psnr"), line.get("psnr_held_out")
        if is_number(psnr):
            yield line["seconds"], psnr, held_out if is_number(held_out) else None
