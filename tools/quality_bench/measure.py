"""One row after another: run or carve, score, keep. Rows that were kept are not measured again."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from quality_bench import runs
from quality_bench.captures import CHAMFER, Case
from quality_bench.hull import carve
from quality_bench.runs import Record, Request, provenance
from quality_bench.silhouettes import held_out_iou, read_silhouettes
from quality_bench.table import HULL, Row, keep_row, kept_row
from quality_bench.truth import load_truth, score
from quicksurf.data.masks import FOLDERS
from quicksurf.errors import QuicksurfError
from quicksurf.evaluation import mesh_of
from quicksurf.mesh.export import read_mesh, write_mesh
from quicksurf.mesh.extract import vertex_normals
from quicksurf.mesh.types import Mesh
from quicksurf.session.runs import open_run

METHOD, TORCH = "quicksurf", "quicksurf, torch back end"


class Plan(NamedTuple):
    """What is to be measured, and where things lie."""

    cases: Sequence[Case]
    minutes: Sequence[float] | None
    """In place of those that each case names."""
    torch: bool
    """Run the slow back end, too."""
    captures: Path
    output: Path


def rows_of(plan: Plan) -> Iterator[Row]:
    """Measure `plan`, row by row; what fails becomes a row that says so.

    Raises:
        OutputError: if the folder of the output cannot be written.
    """
    hulls: dict[str, Row | None] = {}
    for case in plan.cases:
        if case.has_truth and case.scene not in hulls:
            hulls[case.scene] = hull = hull_row(case, plan)
            if hull is not None:
                yield hull
        for minutes in plan.minutes or case.minutes:
            for torch in (False, True) if plan.torch else (False,):
                yield run_row(case, minutes, torch, plan, hulls.get(case.scene))


def run_row(case: Case, minutes: float, torch: bool, plan: Plan, hull: Row | None) -> Row:
    """The row of one run, made if there is none yet. Targets are for the default back end alone."""
    request = Request(case.name, plan.captures / case.source, minutes, case.options, torch)
    kept = plan.output / "rows" / f"{request.key}.json"
    record = runs.kept_record(request, plan.output / "runs")
    row = kept_row(kept) if record is not None else None
    if row is None:
        record = record or runs.fit(request, plan.output / "runs")
        row = _measured(case, request, record, plan)
        keep_row(kept, row)
    bound = None if hull is None else hull.figures.get(CHAMFER)
    return replace(row, targets=() if torch else case.targets_at(minutes, bound))


def hull_row(case: Case, plan: Plan) -> Row | None:
    """The row of the visual hull, carved if it was not before; None where the capture has no masks."""
    source = plan.captures / case.source
    if not any((source / name).is_dir() for name in FOLDERS):
        return None
    kept = plan.output / "rows" / f"{case.scene}-hull.json"
    row = kept_row(kept)
    if row is None:
        row = _carved(case, source, plan)
        keep_row(kept, row)
    return row


def _measured(case: Case, request: Request, record: Record, plan: Plan) -> Row:
    method = TORCH if request.torch else METHOD
    row = Row(case.scene, case.inputs, method, request.minutes, {"seconds": record.seconds}, made=record.made)
    if record.failure is not None:
        return replace(row, failure=record.failure)
    try:
        run = open_run(plan.output / "runs" / request.key)
        mesh = read_mesh(mesh_of(run))
        row = replace(row, figures=runs.figures_of(run, record))
        return replace(row, figures=row.figures | _scores(case, mesh.vertices, mesh.faces, plan))
    except QuicksurfError as error:
        return replace(row, failure=str(error))


def _carved(case: Case, source: Path, plan: Plan) -> Row:
    row = Row(case.scene, "masks", HULL, None, made=provenance())
    started = time.monotonic()
    try:
        vertices, faces = carve(read_silhouettes(source))
        figures = {"seconds": time.monotonic() - started}
        _write_hull(vertices, faces, plan.output / "hulls", case.scene)
        return replace(row, figures=figures | _scores(case, vertices, faces, plan))
    except QuicksurfError as error:
        return replace(row, failure=str(error))


def _scores(case: Case, vertices: np.ndarray, faces: np.ndarray, plan: Plan) -> dict[str, float]:
    """Distances to the truth and overlap of silhouettes, where the case has them."""
    source, figures = plan.captures / case.source, {}
    if case.has_truth:
        figures |= score(vertices, faces, load_truth(source))
    if case.silhouettes:
        figures["iou"] = held_out_iou(vertices, faces, read_silhouettes(source))
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def _write_hull(vertices: np.ndarray, faces: np.ndarray, folder: Path, name: str) -> None:
    """Keep the hull, to look at."""
    grey = np.full((len(vertices), 3), 160, np.uint8)
    write_mesh(Mesh(vertices, faces, grey, vertex_normals(vertices, faces)), folder, name, ("ply",))
