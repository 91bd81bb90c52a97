"""Write the report: one self-contained HTML page, atomically.

Jinja2 escapes every text, since file names may hold anything; the page's content security policy forbids it to load
anything from elsewhere.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from quicksurf.app.export.surface import mesh_of
from quicksurf.app.report.collect import TimeLimit, collect
from quicksurf.app.report.context import template_context
from quicksurf.app.run.files import sweep_files
from quicksurf.app.run.folder import Run, open_run
from quicksurf.capture.scene import Scene
from quicksurf.errors import QuicksurfError, SurfaceError
from quicksurf.files import write_text
from quicksurf.mesh.export import read_mesh
from quicksurf.mesh.types import Mesh
from quicksurf.model import TrainedModel

NAME = "report.html"
_FOLDER = Path(__file__).parent
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
)


def report_run(folder: Path, backend: str) -> Path:
    """Write the report of a run that has a checkpoint, without photos or mesh if these cannot be read.

    Raises:
        OutputError: if `folder` is not a run, has no usable checkpoint, or cannot be written.
    """
    run = open_run(folder)
    sweep_files(run.path, (NAME,))
    reconstruction = run.model(backend)
    summary = run.read_summary() if run.state == "finished" else {}
    notes = [] if summary else ["the fit did not finish: `quicksurf fit RUN --resume` resumes it"]
    scene, mesh = None, None
    try:
        scene = run.scene(reconstruction)
    except QuicksurfError as error:
        notes.append(f"the photos are not shown: {error}")
    try:
        mesh = read_mesh(mesh_of(run))
    except QuicksurfError as error:
        notes.append(f"the mesh is not shown: {error}")
    return write_report(run, summary, reconstruction, scene, mesh, notes=notes)


def write_report(
    run: Run,
    summary: Mapping[str, Any],
    reconstruction: TrainedModel,
    scene: Scene | None,
    mesh: Mesh | None,
    *,
    seconds: float | None = None,
    notes: list[str] | None = None,
) -> Path:
    """Write RUN/report.html; return its path.

    Args:
        summary: what summary.json holds, or nothing.
        scene: the photos; None if they cannot be read.
        seconds: time limit; parts beyond it are left out. None: no limit.
        notes: parts already known to be missing.

    Raises:
        OutputError: if the folder cannot be written or the disk is full.
    """
    if mesh is not None and not len(mesh.faces):
        raise SurfaceError("the mesh has no faces: there is nothing to report on")
    found = collect(run, dict(summary), reconstruction, scene, mesh, TimeLimit(seconds))
    found.notes = [*(notes or []), *found.notes]
    path = run.path / NAME
    write_text(path, render_template("report.html", template_context(found)))
    return path


def render_template(name: str, values: Mapping[str, Any]) -> str:
    """Render a template of this folder; every text in `values` that is not Markup is escaped."""
    page = _ENVIRONMENT.get_template(name).render(style=style_sheet(), **values)
    return page.encode("utf-8", "replace").decode()


def style_sheet() -> Markup:
    """Read the style sheet of all pages and charts."""
    return Markup((_FOLDER / "style.css").read_text(encoding="utf-8"))
