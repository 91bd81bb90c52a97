"""One row after another: run or carve, and score."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from quality_bench import runs
from quality_bench.against import capture_with_cameras, load_reference, score_against
from quality_bench.captures import ALONE, GIVEN, Against, Case
from quality_bench.hull import carve
from quality_bench.ledger import METHOD, TORCH, Ledger
from quality_bench.runs import Request, provenance
from quality_bench.silhouettes import held_out_iou, read_silhouettes
from quality_bench.table import HULL, Row
from quality_bench.truth import load_truth, score
from quicksurf.app.evaluate import mesh_of
from quicksurf.app.run.folder import is_run, open_run
from quicksurf.capture.listing import MASK_FOLDERS
from quicksurf.errors import QuicksurfError
from quicksurf.mesh.export import read_mesh, read_points, write_mesh
from quicksurf.mesh.extract import vertex_normals
from quicksurf.mesh.types import Mesh


class Plan(NamedTuple):
    """What is to be measured, and where things lie."""

    cases: Sequence[Case]
    minutes: Sequence[float] | None
    """In place of those that each case names."""
    torch: bool
    """Run the slow back end, too."""
    captures: Path
    output: Path


def rows_of(plan: Plan, ledger: Ledger) -> Iterator[Row]:
    """Measure what `ledger` lacks of `plan`, row by row; what fails becomes a row that says so.

    Raises:
        OutputError: if the folder of the output cannot be written.
    """
    carved: set[str] = set()
    for case in plan.cases:
        if case.has_truth and case.scene not in carved and _has_masks(case, plan):
            carved.add(case.scene)
            hull = Row(case.scene, "masks", HULL, None)
            yield ledger.row(hull, partial(_carved, case, hull, plan))
        for minutes in plan.minutes or case.minutes:
            for torch in (False, True) if plan.torch else (False,):
                method = TORCH if torch else METHOD
                row = Row(case.scene, case.inputs, method, minutes, options=case.options)
                yield ledger.row(row, partial(_run, case, row, plan))


def _has_masks(case: Case, plan: Plan) -> bool:
    return any((plan.captures / case.source / name).is_dir() for name in MASK_FOLDERS)


def _run(case: Case, row: Row, plan: Plan) -> Row:
    """The command's run, made if there is none yet, and how good its mesh is."""
    assert row.minutes is not None
    request = Request(case.name, _source(case, plan), row.minutes, case.options, row.method == TORCH)
    record = runs.kept_record(request, plan.output / "runs") or runs.fit(request, plan.output / "runs")
    row = replace(row, figures={"seconds": record.seconds}, made=record.made)
    if record.failure is not None:
        return replace(row, failure=record.failure)
    try:
        run = open_run(plan.output / "runs" / request.key)
        mesh = read_mesh(mesh_of(run))
        row = replace(row, figures=runs.figures_of(run) | row.figures)
        if case.against is not None:
            compared = _compared(mesh_of(run), plan.captures / case.scene, case.against)
            row = replace(row, figures=row.figures | compared)
        return replace(row, figures=row.figures | _scores(case, mesh.vertices, mesh.faces, plan))
    except QuicksurfError as error:
        return replace(row, failure=str(error))


def _source(case: Case, plan: Plan) -> Path:
    """What the fit is given: the capture as it lies there, or one made of its photos and the other cameras."""
    if case.against is None or not case.against.given:
        return plan.captures / case.source
    return capture_with_cameras(plan.captures / case.scene, plan.output / "captures" / case.scene)


def compared_row(capture: Path, folder: Path, against: Against) -> Row:
    """The row of a run that is there, with or without a summary, beside the other mesh of its capture.

    Raises:
        QuicksurfError: if one of the meshes or cameras cannot be read, or nothing of them can be compared.
    """
    mesh, figures = folder / "mesh.ply", {}
    if is_run(folder):
        run = open_run(folder)
        mesh, figures = mesh_of(run), runs.figures_of(run)
    inputs = GIVEN if against.given else ALONE
    return Row(capture.resolve().name, inputs, str(folder), None, figures | _compared(mesh, capture, against))


def _compared(mesh: Path, capture: Path, against: Against) -> dict[str, float]:
    """How far the mesh of a run agrees with the other program's."""
    cameras = None if against.given else mesh.with_name("cameras.json")
    return score_against(*read_points(mesh), load_reference(capture, against.inside_masks), cameras)


def _carved(case: Case, row: Row, plan: Plan) -> Row:
    row, started = replace(row, made=provenance()), time.monotonic()
    try:
        vertices, faces = carve(read_silhouettes(plan.captures / case.source))
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
