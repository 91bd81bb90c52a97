"""index.html of a batch: a card for each capture with a picture of its mesh, its figures or what went wrong."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from quicksurf.app.batch.task import Outcome
from quicksurf.app.export.surface import mesh_of
from quicksurf.app.report.collect import shown
from quicksurf.app.report.context import shown_reason
from quicksurf.app.report.page import NAME, render_template
from quicksurf.app.report.pictures import as_jpeg, data_uri, draw_mesh
from quicksurf.app.run.files import sweep_files
from quicksurf.app.run.folder import Run, is_run, open_run
from quicksurf.capture.transforms import read_cameras
from quicksurf.errors import QuicksurfError
from quicksurf.files import write_atomic, write_text
from quicksurf.mesh.export import read_mesh

PAGE = "index.html"
SIDE = 240  # pixels
PREVIEW = "preview.jpg"
MAX_PREVIEW_BYTES = 1 << 20
MAX_PICTURES = 500  # 10 kB each: the page stays under 10 MB


class Capture(NamedTuple):
    """One capture of a batch."""

    source: Path
    """Absolute; links are kept, whose names the user chose."""
    name: str
    """Of its run folder: letters, digits, ".", "-" and "_"."""


def write_overview(folder: Path, captures: Sequence[Capture], outcomes: Mapping[str, Outcome]) -> None:
    """Write `folder`/index.html.

    Raises:
        OutputError: if the disk is full.
    """
    cards = [
        _card(folder, capture, outcomes.get(capture.name), number) for number, capture in enumerate(captures)
    ]
    done = sum(card["state"] == "done" for card in cards)
    failed = sum(card["state"] == "failed" for card in cards)
    values = {"name": shown(folder.name), "cards": cards, "done": done, "failed": failed, "total": len(cards)}
    write_text(folder / PAGE, render_template("batch.html", values))


def _card(folder: Path, capture: Capture, outcome: Outcome | None, number: int) -> dict[str, Any]:
    run = mesh = None
    with suppress(QuicksurfError):
        path = folder / capture.name
        found = open_run(path) if is_run(path) else None
        run = found if found is not None and found.state == "finished" else None
    with suppress(QuicksurfError):
        mesh = None if run is None else mesh_of(run)
    state = "done" if run is not None else "waiting" if outcome is None else outcome.state
    return {
        "name": shown(capture.source.name),
        "folder": capture.name,
        "state": state,
        "message": "" if outcome is None or run is not None else shown_reason(outcome.message),
        "figures": [] if run is None else _figures(run),
        "image": None if run is None or mesh is None or number >= MAX_PICTURES else _picture(run, mesh),
        "report": NAME if run is not None and (run.path / NAME).is_file() else None,
        "mesh": None if mesh is None else mesh.name,
    }


def _figures(run: Run) -> list[str]:
    try:
        summary = run.read_summary()
        lines = [f"{summary['registered']} of {summary['photos']} photos", f"{summary['faces']:,} faces"]
        held_out, seconds = summary.get("psnr_held_out"), summary["seconds"]["total"]
        lines += [] if held_out is None else [f"{held_out:.1f} dB on kept photos"]
        return [*lines, f"{seconds / 60:.1f} min"]
    except (QuicksurfError, KeyError, TypeError, ValueError, OverflowError):
        return ["summary.json is damaged"]


def _picture(run: Run, mesh: Path) -> str | None:
    """The mesh seen from the first photo's side, kept as preview.jpg; None if it cannot be drawn."""
    path = run.path / PREVIEW
    sweep_files(run.path, (PREVIEW,))  # under the batch's lock; the run's own is not taken again
    try:
        if not path.is_file() or path.stat().st_mtime < mesh.stat().st_mtime:
            cameras = read_cameras(run.path / "cameras.json").cameras
            drawn = Image.fromarray(draw_mesh(read_mesh(mesh), cameras, 2 * SIDE))
            jpeg = as_jpeg(np.asarray(drawn.resize((SIDE, SIDE), Image.Resampling.BOX)))
            write_atomic(path, lambda file: file.write(jpeg))
        return data_uri(path.read_bytes()) if path.stat().st_size <= MAX_PREVIEW_BYTES else None
    except (QuicksurfError, OSError):
        return None
