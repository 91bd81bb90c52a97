"""index.html of a batch: a card for each capture with a picture of its mesh, its figures or what went wrong."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from quicksurf.app.batch.captures import PAGE, Capture
from quicksurf.app.batch.task import Outcome
from quicksurf.app.export.surface import mesh_of
from quicksurf.app.report.collect import shown
from quicksurf.app.report.page import NAME, render_template
from quicksurf.app.report.pictures import as_jpeg, data_uri, draw_mesh
from quicksurf.app.report.words import shown_reason
from quicksurf.app.run.folder import Run, is_run, open_run
from quicksurf.capture.transforms import read_cameras
from quicksurf.errors import QuicksurfError
from quicksurf.files import write_atomic, write_text
from quicksurf.mesh.export import read_mesh

SIDE = 240  # pixels
PREVIEW = "preview.jpg"
MAX_PREVIEW_BYTES = 1 << 20
MAX_PICTURES = 500  # 10 kB each: the page stays under 10 MB


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
    run = _finished(folder / capture.name)
    state = "done" if run is not None else "waiting" if outcome is None else outcome.state
    return {
        "name": shown(capture.source.name),
        "folder": capture.name,
        "state": state,
        "message": "" if outcome is None or run is not None else shown_reason(outcome.message),
        "figures": [] if run is None else _figures(run),
        "image": None if run is None or number >= MAX_PICTURES else _picture(run),
        "report": NAME if run is not None and (run.path / NAME).is_file() else None,
        "mesh": None if run is None else _mesh_name(run),
    }


def _mesh_name(run: Run) -> str | None:
    try:
        return mesh_of(run).name
    except QuicksurfError:
        return None


def _finished(path: Path) -> Run | None:
    try:
        run = open_run(path) if is_run(path) else None
    except QuicksurfError:
        return None
    return run if run is not None and run.state == "finished" else None


def _figures(run: Run) -> list[str]:
    try:
        summary = run.read_summary()
        lines = [f"{summary['registered']} of {summary['photos']} photos", f"{summary['faces']:,} faces"]
        held_out, seconds = summary.get("psnr_held_out"), summary["seconds"]["total"]
        lines += [] if held_out is None else [f"{held_out:.1f} dB on kept photos"]
        return [*lines, f"{seconds / 60:.1f} min"]
    except (QuicksurfError, KeyError, TypeError, ValueError, OverflowError):
        return ["summary.json is damaged"]


def _picture(run: Run) -> str | None:
    """The mesh from where the first photo was taken, kept as preview.jpg; None where it cannot be drawn."""
    path = run.path / PREVIEW
    try:
        mesh_path = mesh_of(run)
        if not path.is_file() or path.stat().st_mtime < mesh_path.stat().st_mtime:
            jpeg = as_jpeg(_drawn(run, mesh_path))
            write_atomic(path, lambda file: file.write(jpeg))
        if path.stat().st_size > MAX_PREVIEW_BYTES:
            return None
        return data_uri(path.read_bytes())
    except (QuicksurfError, OSError):
        return None


def _drawn(run: Run, mesh_path: Path) -> np.ndarray:
    mesh, cameras = read_mesh(mesh_path), read_cameras(run.path / "cameras.json").cameras
    picture = draw_mesh(mesh, cameras, 2 * SIDE)
    return np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BOX))
