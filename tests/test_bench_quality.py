"""The quality bench's own logic: targets, table, resuming; the hull and silhouettes of a ball that is known exactly."""

import json
import math
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from quality_bench import hull, measure, runs
from quality_bench.captures import CASES, CHAMFER, Case, at_least, at_most, in_time, select
from quality_bench.ledger import TORCH, Ledger
from quality_bench.measure import Plan, rows_of
from quality_bench.plot import write_plot
from quality_bench.runs import Record, Request
from quality_bench.silhouettes import Silhouettes, draw, held_out_iou
from quality_bench.table import HULL, Row, describe, markdown, read_rows, write_table
from quality_bench.truth import load_truth, score

from quicksurf.errors import CaptureError, OutputError
from quicksurf.geometry.cameras import Cameras
from quicksurf.geometry.paths import look_at
from quicksurf.geometry.region import Roi

TOOLS = Path(__file__).parents[1] / "tools"
CENTER, RADIUS, DISTANCE = np.array([3.0, -2.0, 1.0]), 0.6, 4.0
SIZE, FOCAL = 160, 320.0
SUBPIXEL = 0.25  # pixels: an outline of anti-aliased masks is known better than that
FIGURES = {CHAMFER: 0.2, "fscore": 0.99, "seconds": 61.0}
ROW = Row("dev-a", "no masks", "quicksurf", 1.0, FIGURES, made="here; commit 1; today")


def ball_cameras(n_views: int = 12) -> Cameras:
    """Cameras all around: directions of a Fibonacci lattice, no two of which are opposite."""
    heights = 1 - (2 * torch.arange(n_views, dtype=torch.float64) + 1) / n_views
    turns = torch.arange(n_views, dtype=torch.float64) * math.pi * (3 - math.sqrt(5))
    flat = (1 - heights**2).sqrt()
    directions = torch.stack([flat * turns.cos(), flat * turns.sin(), heights], -1)
    center, up = torch.from_numpy(CENTER), torch.tensor([0.2, 0.1, 1.0], dtype=torch.float64)
    return Cameras(
        c2w=look_at(center + DISTANCE * directions, center, up),
        intrinsics=torch.tensor([[FOCAL, FOCAL, SIZE / 2, SIZE / 2]], dtype=torch.float64).repeat(n_views, 1),
        distortion=torch.zeros(n_views, 6, dtype=torch.float64),
        fisheye=torch.zeros(n_views, dtype=torch.bool),
        sizes=torch.full((n_views, 2), SIZE),
    )


def disc(radius: float, samples_per_pixel: int = 8) -> np.ndarray:
    """Coverage of pixels by a disc in the middle of the picture."""
    n_samples = SIZE * samples_per_pixel
    at = (np.arange(n_samples) + 0.5) / samples_per_pixel - SIZE / 2
    inside = (at[:, None] ** 2 + at**2 <= radius**2).astype(np.float32)
    return inside.reshape(SIZE, samples_per_pixel, SIZE, samples_per_pixel).mean((1, 3))


def ball_silhouettes() -> Silhouettes:
    """The ball from 12 sides: its silhouette is a disc of the tangent cone, f tan(asin(R / d))."""
    cameras = ball_cameras()
    coverages = [disc(FOCAL * math.tan(math.asin(RADIUS / DISTANCE)))] * len(cameras)
    held_out = np.arange(len(cameras)) % 4 == 0
    return Silhouettes(cameras, coverages, held_out, Roi(tuple(CENTER + 0.05), 1.0))


def test_hull_of_a_ball_holds_the_ball_and_little_more():
    vertices, faces = hull.carve(ball_silhouettes(), resolution=96)
    mesh = trimesh.Trimesh(vertices, faces)
    assert mesh.is_watertight
    assert 1 < mesh.volume / (4 / 3 * math.pi * RADIUS**3) < 1.05
    outside = np.linalg.norm(vertices - CENTER, axis=1) - RADIUS
    assert outside.min() > -SUBPIXEL * DISTANCE / FOCAL


def test_hull_keeps_what_the_frame_cuts():
    """Pictures that are all object but for one corner pixel carve next to nothing off the ROI's ball."""
    coverage = np.ones((SIZE, SIZE), np.float32)
    coverage[0, 0] = 0
    whole = ball_silhouettes()
    cut = Silhouettes(whole.cameras, [coverage] * len(whole.cameras), whole.held_out, Roi(tuple(CENTER), 0.9))
    mesh = trimesh.Trimesh(*hull.carve(cut, resolution=48))
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.9**3, rel=0.01)


def test_signed_distance_is_that_of_a_disc():
    radius = 40.3
    at = np.arange(SIZE) + 0.5 - SIZE / 2
    exact = radius - np.hypot(at[:, None], at)
    errors = hull.signed_distance(disc(radius)) - exact
    on_outline, near = np.abs(exact) < 0.5, np.abs(exact) < 3
    assert np.abs(errors[on_outline]).max() < 0.1 and abs(errors[near].mean()) < 0.02
    assert np.abs(errors).max() < 1


def test_signed_distance_of_whole_pixels_is_symmetric():
    coverage = np.zeros((9, 9), np.float32)
    coverage[:, 4:] = 1
    assert hull.signed_distance(coverage)[0].tolist() == [-3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5, 4.5]


def test_silhouette_of_a_ball_is_a_disc_in_any_tessellation():
    for subdivisions in (3, 6):  # triangles of many pixels, and of less than one
        ball = trimesh.creation.icosphere(subdivisions, RADIUS)
        drawn = draw(ball.vertices + CENTER, ball.faces, ball_cameras(), 3)
        expected = disc(FOCAL * math.tan(math.asin(RADIUS / DISTANCE))) >= 0.5
        assert (drawn ^ expected).sum() < 0.02 * expected.sum()


def test_one_triangle_covers_the_pixels_whose_centres_it_holds():
    cameras = ball_cameras(1)
    corners = np.array([[20.0, 30.0], [90.0, 41.0], [35.0, 120.0]])
    at = torch.tensor((corners - SIZE / 2) / FOCAL * DISTANCE)
    local = torch.cat([at, torch.full((3, 1), DISTANCE, dtype=torch.float64)], 1)
    vertices = (local @ cameras.c2w[0, :, :3].T + cameras.c2w[0, :, 3]).numpy()
    drawn = draw(vertices, np.array([[0, 1, 2]]), cameras, 0)
    area = 0.5 * abs(np.linalg.det(corners[1:] - corners[0]))
    assert drawn.sum() == pytest.approx(area, rel=0.02)
    assert drawn[40, 30] and not drawn[20, 20] and not drawn[100, 60]


def test_iou_is_that_of_two_discs():
    silhouettes = ball_silhouettes()
    whole = trimesh.creation.icosphere(5, RADIUS)
    assert held_out_iou(whole.vertices + CENTER, whole.faces, silhouettes) > 0.98
    small = trimesh.creation.icosphere(5, 0.8 * RADIUS)
    assert held_out_iou(small.vertices + CENTER, small.faces, silhouettes) == pytest.approx(0.64, abs=0.02)


def test_targets_are_bounds_from_either_side():
    assert at_most(CHAMFER, 0.2).met(0.2) and not at_most(CHAMFER, 0.2).met(0.201)
    assert at_least("psnr", 25).met(25.0) and not at_least("psnr", 25).met(24.9)
    assert not at_most(CHAMFER, 0.2).met(None)


def test_a_command_may_be_back_five_percent_or_five_seconds_late():
    assert in_time(1.0).limit == 65 and in_time(10.0).limit == 630


def test_every_case_has_a_name_of_its_own_and_targets_that_are_shown():
    assert len({case.name for case in CASES}) == len(CASES)
    for case in CASES:
        for minutes, targets in case.targets.items():
            assert minutes in case.minutes and targets
            row = Row(case.scene, case.inputs, "", minutes, targets=targets)
            assert describe(row).count("not met") == len(targets)


def test_masks_must_not_be_worse_than_the_hull():
    case = next(case for case in CASES if case.bounded_by_hull)
    assert at_most(CHAMFER, 0.05, "visual hull") in case.targets_at(1.0, 0.05)
    free = next(case for case in CASES if not case.bounded_by_hull)
    assert all(target.source == "" for target in free.targets_at(1.0, 0.05))


def test_captures_that_are_not_there_are_named(tmp_path):
    (tmp_path / "dev-a").mkdir()
    selection = select("dev-[ab]-no", tmp_path)
    assert [case.scene for case in selection.present] == ["dev-a"]
    assert [case.scene for case in selection.absent] == ["dev-b"]


def test_table_has_verdicts_machine_and_only_columns_with_figures(tmp_path):
    row = Row(**{**vars(ROW), "targets": (at_most(CHAMFER, 0.25), at_least("fscore", 0.995))})
    text = markdown([row], ["A note."])
    assert "Chamfer % ≤ 0.25: met<br>F 0.5 % ≥ 0.995: **not met**" in text
    assert "Measured on here; commit 1; today." in text and "A note." in text and "PSNR" not in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1
    write_table(tmp_path, [row])
    (written,) = json.loads((tmp_path / "quality.json").read_text())["rows"]
    assert written["figures"] == FIGURES and [target["met"] for target in written["targets"]] == [True, False]


def test_a_failed_run_meets_nothing_and_cannot_break_the_table():
    failed = Row(
        "fox", "poses", "quicksurf", 3.0, failure="exit code 9: a|b\nc", targets=(at_least("psnr", 23),)
    )
    line = markdown([failed]).splitlines()[2]
    assert "failed: exit code 9: a\\|b c" in line and "not met" in line


def test_rows_come_back_unless_they_failed(tmp_path):
    assert read_rows(tmp_path) == []
    with_options = Row("dev-b", "no masks", "quicksurf", 3.0, FIGURES, options=("--masks", "none"))
    write_table(tmp_path, [ROW, with_options, Row("a", "", "", 1.0, failure="exit code 9")])
    assert read_rows(tmp_path) == [ROW, with_options]
    (tmp_path / "quality.json").write_text("{")
    assert read_rows(tmp_path) == []


def test_a_ledger_keeps_what_is_not_asked_for_and_puts_rows_in_order(tmp_path):
    masks = Row("dev-a", "masks", "quicksurf", 3.0, {CHAMFER: 0.05})
    write_table(tmp_path, [masks, ROW, Row("dev-a", "no masks", TORCH, 1.0, FIGURES)])
    hull = Row("dev-a", "masks", HULL, None, {CHAMFER: 0.04})
    assert Ledger(tmp_path).row(hull, lambda: hull) == hull
    rows = Ledger(tmp_path).rows()
    assert [(row.method, row.inputs) for row in rows] == [
        (HULL, "masks"),
        ("quicksurf", "no masks"),
        (TORCH, "no masks"),
        ("quicksurf", "masks"),
    ]
    assert rows[0].targets == () and rows[2].targets == ()
    assert (
        at_most(CHAMFER, 0.04, "visual hull") in rows[3].targets and at_most(CHAMFER, 0.10) in rows[3].targets
    )
    assert (tmp_path / "quality.png").exists() and "not met" in (tmp_path / "quality.md").read_text()


def test_the_published_table_is_that_of_the_published_rows():
    published = Ledger(TOOLS)
    notes = json.loads((TOOLS / "quality.json").read_text(encoding="utf-8"))["notes"]
    assert published.rows() and all(row.made for row in published.rows())
    assert (TOOLS / "quality.md").read_text(encoding="utf-8") == markdown(published.rows(), notes)


def test_plot_is_written_where_something_is_known(tmp_path):
    rows = [ROW, Row("dev-a", "masks", HULL, None, {CHAMFER: 0.05})]
    assert write_plot(tmp_path / "plot.png", rows) and (tmp_path / "plot.png").stat().st_size > 1000
    assert not write_plot(tmp_path / "none.png", [Row("fox", "poses", "quicksurf", 1.0)])
    assert not (tmp_path / "none.png").exists()


def test_arguments_are_those_of_the_public_command(tmp_path):
    request = Request("dev-a-masks", tmp_path / "dev-a", 3.0, ("--masks", "none"), torch=True)
    words = request.arguments(tmp_path / "out")
    assert words[:4] == ["fit", str(tmp_path / "dev-a"), "--minutes", "3"]
    assert words[4:6] == ["--output", str(tmp_path / "out")]
    assert words[6:8] == ["--hold-out", "keep"], "held-out figures are of views that the fit never saw"
    assert words[8:] == ["--masks", "none", "--device", "torch"] and request.key == "dev-a-masks-3min-torch"


def test_a_command_that_fails_leaves_its_last_log_line(tmp_path):
    record = runs.run_command(["fit", str(tmp_path / "nothing"), "--quiet"], tmp_path / "a.log", 0.1)
    assert record.exit_code == 3 and record.failure is not None and "no such file" in record.failure
    assert record.seconds > 0 and "commit" in record.made


def test_a_command_that_overstays_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "_PATIENCE_SECONDS", 0.0)
    record = runs.run_command(["doctor"], tmp_path / "a.log", 1e-6)
    assert record.exit_code is None and record.failure is not None and record.failure.startswith("not back")


def fake_runs(monkeypatch, exit_code=0):
    """Count the commands instead of running them; each leaves an unfinished run and the record of success."""
    made = []

    def run(arguments, log, minutes):
        folder = Path(arguments[arguments.index("--output") + 1])
        made.append(folder.name)
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"format": "quicksurf run", "version": 1, "source": "x"}))
        return Record(list(arguments), 60 * minutes + 1, exit_code, "" if exit_code == 0 else "words", "here")

    monkeypatch.setattr(runs, "run_command", run)
    monkeypatch.setattr(measure, "mesh_of", lambda run: run.path / "mesh.ply")
    monkeypatch.setattr(measure, "read_mesh", lambda path: SimpleNamespace(vertices=None, faces=None))
    monkeypatch.setattr(runs, "figures_of", lambda run: {"psnr": 30.0})
    return made


def plan_of(tmp_path, **options):
    case = Case("scene", "photos", "scene", minutes=(1.0, 3.0), **options)
    return Plan([case], None, False, tmp_path / "captures", tmp_path / "out")


def measured(tmp_path, **options):
    plan = plan_of(tmp_path, **options)
    return list(rows_of(plan, Ledger(plan.output, (), plan.cases)))


def test_a_bench_goes_on_from_what_lies_there(tmp_path, monkeypatch):
    made = fake_runs(monkeypatch)
    plan = plan_of(tmp_path)
    rows = rows_of(plan, Ledger(plan.output, (), plan.cases))
    next(rows)
    rows.close()  # interrupted after the first row
    assert made == ["scene-photos-1min"]
    assert len(measured(tmp_path)) == 2 and made[1:] == ["scene-photos-3min"]
    shutil.rmtree(tmp_path / "out" / "runs")  # on another day, with the table alone
    rows = measured(tmp_path)
    assert len(rows) == 2 and len(made) == 2


def test_other_options_are_another_run(tmp_path, monkeypatch):
    made = fake_runs(monkeypatch)
    measured(tmp_path)
    measured(tmp_path, options=("--masks", "none"))
    assert len(made) == 4


def test_a_run_that_was_cut_short_is_made_anew(tmp_path, monkeypatch):
    made = fake_runs(monkeypatch)
    request = Request("scene", tmp_path, 1.0)
    torn = tmp_path / "runs" / request.key
    torn.mkdir(parents=True)
    (torn / "run.json").write_text(json.dumps({"format": "quicksurf run", "version": 1, "source": "x"}))
    (torn / "torn").touch()
    assert runs.kept_record(request, tmp_path / "runs") is None
    runs.fit(request, tmp_path / "runs")
    assert made == [request.key] and not (torn / "torn").exists()
    assert runs.kept_record(request, tmp_path / "runs") is not None


def test_a_finished_run_without_a_record_counts_by_its_own_clock(tmp_path):
    request = Request("scene", tmp_path, 1.0)
    folder = tmp_path / request.key
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"format": "quicksurf run", "version": 1, "source": "x"}))
    summary = {"minutes": 1.0, "stopped_early": False, "seconds": {"total": 58.5}}
    (folder / "summary.json").write_text(json.dumps(summary))
    record = runs.kept_record(request, tmp_path)
    assert record is not None and record.seconds == 58.5
    (folder / "summary.json").write_text(json.dumps(summary | {"minutes": 3.0}))
    assert runs.kept_record(request, tmp_path) is None


def test_nothing_but_a_run_is_removed(tmp_path):
    request = Request("scene", tmp_path, 1.0)
    (tmp_path / request.key).mkdir()
    (tmp_path / request.key / "letter.txt").write_text("mine")
    with pytest.raises(OutputError, match="not a run"):
        runs.fit(request, tmp_path)
    assert (tmp_path / request.key / "letter.txt").exists()


def test_a_failed_run_is_a_row_and_is_tried_again(tmp_path, monkeypatch):
    made = fake_runs(monkeypatch, exit_code=9)
    (row, _) = measured(tmp_path)
    assert row.failure == "exit code 9: words" and row.figures == {"seconds": 61.0}
    measured(tmp_path)
    assert len(made) == 4


def test_truth_counts_what_stands_above_the_table(tmp_path):
    """A ball on a table, seen from above: a perfect mesh that goes on below and around scores as perfect."""
    ball = trimesh.creation.icosphere(4, 1.0)
    ball.export(tmp_path / "gt_mesh.ply")
    keep = ball.vertices[:, 2] > -0.5
    np.savez(tmp_path / "gt_points.npz", points=ball.vertices[keep], normals=ball.vertices[keep])
    known = {
        "center": [0, 0, 0],
        "radius": 1.0,
        "up": [0, 0, 1],
        "table_z": -0.5,
        "bbox_diagonal": 2 * 3**0.5,
    }
    (tmp_path / "roi.json").write_text(json.dumps(known))
    table = trimesh.creation.box((8, 8, 0.2)).apply_translation((0, 0, -0.6)).subdivide_loop(5)
    vertices = np.concatenate([ball.vertices, table.vertices])
    faces = np.concatenate([ball.faces, table.faces + len(ball.vertices)])
    figures = score(vertices, faces, load_truth(tmp_path))
    assert figures[CHAMFER] < 1e-3 and figures["fscore"] == 1 and figures["normals"] > 0.99
    (tmp_path / "roi.json").unlink()
    with pytest.raises(CaptureError, match=r"roi\.json"):
        load_truth(tmp_path)
