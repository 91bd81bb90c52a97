"""A fit from end to end, with the real loop cut to a second, and what happens when it is stopped, resumed or fails."""

import io
import json
import math
import resource
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from cut_fit import cut_to
from tiny_capture import AXES, CENTER, write_capture

import quicksurf
from quicksurf.app.budget import Budget, StopRequest
from quicksurf.app.export.products import ExportedMesh
from quicksurf.app.export.request import MeshRequest
from quicksurf.app.export.surface import PRODUCTS, check_surface, run_mesh
from quicksurf.app.fit import FitResult, run_fit
from quicksurf.app.listener import Listener
from quicksurf.app.requests import FitRequest, claim, parse_roi
from quicksurf.app.run.folder import Run, open_run
from quicksurf.app.run.resume import keep_points
from quicksurf.capture.scene import DensePoints, Scene, SparsePoints
from quicksurf.capture.transforms import read_cameras
from quicksurf.config import load_config
from quicksurf.errors import (
    BudgetError,
    CaptureError,
    ConfigError,
    ImageError,
    OutputError,
    RoiError,
    SurfaceError,
)
from quicksurf.geometry.region import Roi
from quicksurf.mesh.build import MeshOptions
from quicksurf.mesh.cost import MeshCost
from quicksurf.mesh.export import read_mesh
from quicksurf.mesh.types import Mesh
from quicksurf.model import TrainedModel
from quicksurf.train.loop import fit_scene

pytestmark = pytest.mark.slow

TINY = str(Path(__file__).with_name("tiny.toml"))
SECONDS = 4.0  # of processor time, of the fit that all tests fraction: the ellipsoid is recognised
FEW_SECONDS = 0.3  # of the fits that go on from it
SUMMARY_KEYS = {
    *("photos", "registered", "seconds", "psnr_held_out", "faces", "device", "backend"),
    *("peak_memory_mb", "warnings"),
}


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_capture(tmp_path_factory.mktemp("capture"))


@pytest.fixture(scope="module")
def fitted(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    """A finished run that tests may read."""
    output = tmp_path_factory.mktemp("fitted") / "run"
    return run_fit(
        FitRequest(capture, 1.0, output, preset=TINY, mesh=MeshRequest(("ply", "obj"))), fit=cut_to(SECONDS)
    )


@pytest.fixture
def run(fitted: FitResult, tmp_path: Path) -> Run:
    """A finished run that tests may change."""
    shutil.copytree(fitted.run.path, tmp_path / "run")
    return open_run(tmp_path / "run")


def test_run_folder_holds_what_was_promised(fitted: FitResult) -> None:
    names = {path.name for path in fitted.run.path.iterdir()}
    expected = {
        "mesh.ply",
        "mesh.obj",
        "cameras.json",
        "summary.json",
        "config.toml",
        "metrics.jsonl",
        "run.json",
    }
    assert names - {"report.html"} == expected | {
        "checkpoint",
        ".lock",
    }  # the report, if there was time for it
    summary = json.loads((fitted.run.path / "summary.json").read_text())
    assert summary.keys() >= SUMMARY_KEYS
    assert set(summary["seconds"]) == {"read", "poses", "fit", "mesh", "total"}
    assert sum(summary["seconds"].values()) == pytest.approx(2 * summary["seconds"]["total"], abs=0.01)
    assert summary == fitted.summary
    assert summary["photos"] == summary["registered"] == 12
    assert summary["faces"] > 100
    assert (fitted.run.path / "metrics.jsonl").read_text().count("\n") >= 1


def test_mesh_is_the_ellipsoid_in_the_frame_of_the_cameras(fitted: FitResult) -> None:
    mesh, _ = fitted.reconstruction.mesh(MeshOptions(96))
    middle = (mesh.vertices.max(0) + mesh.vertices.min(0)) / 2
    extent = (mesh.vertices.max(0) - mesh.vertices.min(0)) / 2
    assert np.abs(middle - CENTER.numpy()).max() < 0.3
    assert 0.5 < extent.min() < extent.max() < 2.4  # a few hundred steps on a busy machine


def test_the_summary_tells_the_input_and_where_cameras_come_from(fitted: FitResult) -> None:
    summary = fitted.summary
    assert summary["cameras"] == "as given"
    assert "12 photos (12 in images/), 12 masks (12 in masks/)" in summary["input"]["found"]
    assert summary["input"]["used"] == "12 of 12 photos used, 12 with masks"
    assert summary["offset"] == [0.0, 0.0, 0.0]


def test_cameras_that_were_found_are_not_called_given(capture: Path, tmp_path: Path) -> None:
    """A run whose poses came from its photos, as an earlier command leaves it."""
    shutil.copytree(capture, tmp_path / "capture")
    content = json.loads((tmp_path / "capture/transforms.json").read_text())
    request = FitRequest(tmp_path / "capture", 1.0, tmp_path / "run", preset=TINY)
    run = claim(request)
    run.update(posed_images=str(tmp_path / "capture"))
    (run.path / "cameras.json").write_text(json.dumps(content))
    summary = run_fit(replace(request, resume=True), fit=cut_to(SECONDS)).summary
    assert summary["cameras"] == "found from the photos"


def test_photos_without_a_mask_help_and_the_surface_stays_that_of_the_masks(
    capture: Path, tmp_path: Path
) -> None:
    shutil.copytree(capture, tmp_path / "capture")
    for index in (1, 4, 6, 9):
        (tmp_path / f"capture/masks/{index:02d}.png").unlink()
    result = run_fit(
        FitRequest(tmp_path / "capture", 1.0, tmp_path / "run", preset=TINY), fit=cut_to(SECONDS)
    )
    reconstruction = result.reconstruction
    assert reconstruction.masked
    assert np.flatnonzero(reconstruction.held_out).tolist() == [0]  # 6 was to be, and has no mask
    assert any("8 of 12 photos have a mask" in text for text in result.summary["warnings"])
    test_mesh_is_the_ellipsoid_in_the_frame_of_the_cameras(result)
    assert result.summary["psnr_held_out"] > 15


def test_a_fit_that_holds_nothing_out_uses_all_photos_and_measures_none(
    capture: Path, tmp_path: Path
) -> None:
    request = FitRequest(capture, 1.0, tmp_path / "run", preset=TINY, hold_out="none")
    result = run_fit(request, fit=cut_to(SECONDS))
    assert result.reconstruction.used.all() and not result.reconstruction.held_out.any()
    assert result.summary["psnr_held_out"] is None
    assert result.summary["held_out"] == {"photos": 0, "joined": False}
    with pytest.raises(ConfigError, match="leave out --preset and --hold-out"):
        run_fit(replace(request, minutes=0.5, hold_out="keep"), fit=cut_to(FEW_SECONDS))


def test_photos_that_measured_the_fit_join_it_by_default(fitted: FitResult) -> None:
    assert fitted.reconstruction.joined and fitted.reconstruction.used.all()
    assert fitted.summary["held_out"] == {"photos": 2, "joined": True}
    assert fitted.summary["psnr_held_out"] > 15
    assert any("which then joined the fit" in line for line in fitted.describe())


def test_survey_coordinates_give_the_surface_of_the_unshifted_capture(capture: Path, tmp_path: Path) -> None:
    shutil.copytree(capture, tmp_path / "capture")
    path, shift = tmp_path / "capture/transforms.json", np.array([500_000.0, 4_600_000.0, 300.0])
    content = json.loads(path.read_text())
    for frame in content["frames"]:
        for row in range(3):
            frame["transform_matrix"][row][3] += shift[row]
    path.write_text(json.dumps(content))
    request = FitRequest(
        tmp_path / "capture",
        1.0,
        tmp_path / "run",
        preset=TINY,
        mesh=MeshRequest(("ply", "obj", "glb", "stl")),
    )
    result = run_fit(request, fit=cut_to(SECONDS))
    offset = np.array(result.summary["offset"])
    assert np.abs(offset - shift - CENTER.numpy()).max() < 10
    for suffix in ("ply", "obj", "glb", "stl"):
        mesh = read_mesh(result.run.path / f"mesh.{suffix}")
        near = trimesh.Trimesh(mesh.vertices - shift, mesh.faces, process=False)
        assert (near.area_faces > 0).mean() > 0.99, suffix
        assert np.abs(near.bounds.mean(0) - CENTER.numpy()).max() < 0.5, suffix
        assert near.area == pytest.approx(result_area(result, shift), rel=1e-3), suffix


def result_area(result: FitResult, shift: np.ndarray) -> float:
    """Of the mesh in memory, in doubles."""
    mesh = read_mesh(result.run.path / "mesh.ply")
    return float(trimesh.Trimesh(mesh.vertices - shift, mesh.faces, process=False).area)


def test_chain_of_transforms_maps_the_roi_to_the_unit_ball(fitted: FitResult) -> None:
    matrix = np.array(fitted.run.record["frames"]["world_to_fit"])
    x, y, z, radius = fitted.run.record["roi"]
    assert matrix @ [x, y, z, 1] == pytest.approx([0, 0, 0, 1])
    assert matrix @ [x + radius, y, z, 1] == pytest.approx([1, 0, 0, 1])


def test_description_names_files_and_figures(fitted: FitResult) -> None:
    text = "\n".join(fitted.describe())
    assert str(fitted.run.path / "mesh.ply") in text
    assert "12 of 12 photos used" in text
    assert "dB on held-out views" in text


def test_finished_run_takes_more_minutes(run: Run, fitted: FitResult) -> None:
    first = fitted.reconstruction
    second = run_fit(FitRequest(run.path, 1.0), fit=cut_to(FEW_SECONDS)).reconstruction
    assert second.seconds_fitted > first.seconds_fitted + 0.9 * FEW_SECONDS
    assert second.step > first.step
    assert second.config == first.config
    steps = [json.loads(line)["step"] for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def test_killed_run_goes_on_only_when_asked(run: Run, fitted: FitResult) -> None:
    (run.path / "summary.json").unlink()  # what a kill leaves: it is written last
    with pytest.raises(OutputError, match="--resume"):
        run_fit(FitRequest(run.path, 1.0), fit=cut_to(FEW_SECONDS))
    resumed = run_fit(FitRequest(run.source, 1.0, run.path, resume=True), fit=cut_to(FEW_SECONDS))
    assert resumed.reconstruction.step > fitted.reconstruction.step
    assert run.state == "finished"


def test_stop_ends_the_fit_and_still_writes_the_mesh(run: Run) -> None:
    stop = StopRequest()
    (run.path / "mesh.ply").unlink()

    def stopped(*args: Any, should_stop: Callable[[], bool], **rest: Any) -> TrainedModel:
        stop.on_signal(signal.SIGINT, None)
        return fit_scene(*args, seconds=60.0, should_stop=should_stop, **rest)

    result = run_fit(FitRequest(run.path, 1.0), stop=stop, fit=stopped)
    assert result.summary["stopped_early"]
    assert (run.path / "mesh.ply").exists()


def test_second_interrupt_leaves_with_the_checkpoint_kept(capture: Path, tmp_path: Path) -> None:
    def interrupted(*args: Any, on_checkpoint: Any, **rest: Any) -> TrainedModel:
        on_checkpoint(fit_scene(*args, seconds=0.0, **rest))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_fit(FitRequest(capture, 1.0, tmp_path / "run", preset=TINY), fit=interrupted)
    assert open_run(tmp_path / "run").state == "unfinished"


def test_added_minutes_that_are_cut_short_leave_an_unfinished_run_with_its_own_plan(run: Run) -> None:
    def interrupted(*args: Any, on_checkpoint: Any, **rest: Any) -> TrainedModel:
        on_checkpoint(rest["resume"])
        raise KeyboardInterrupt

    run.update(minutes=10.0, minutes_spent=9.9)
    with pytest.raises(KeyboardInterrupt):
        run_fit(FitRequest(run.path, 5.0), fit=interrupted)
    left = open_run(run.path)
    assert left.state == "unfinished"
    assert left.record["minutes"] == 5.0
    assert 0 < left.record["minutes_spent"] < 0.5
    assert (run.path / "summary.previous.json").exists()


def test_refused_addition_leaves_the_run_finished(run: Run) -> None:
    run.update(source=str(run.path.parent / "gone.json"))
    with pytest.raises(ImageError):
        run_fit(FitRequest(run.path, 1.0), fit=cut_to(0.0))
    assert open_run(run.path).state == "finished"


def test_a_run_goes_on_with_the_cameras_of_its_field(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may have been refined; a kill before the next checkpoint must not leave the given ones beside its mesh."""
    left = []

    def fit(scene: Scene, *args: Any, **rest: Any) -> TrainedModel:
        left.append(read_cameras(run.path / "cameras.json").cameras.c2w)
        return cut_to(0.5)(scene, *args, **rest)

    load = Run.model

    def refined(self: Run, device: Any) -> TrainedModel:
        loaded = load(self, device)
        loaded.cameras.c2w[:, :, 3] += 0.01
        return loaded

    before = read_cameras(run.path / "cameras.json").cameras.c2w
    monkeypatch.setattr(Run, "model", refined)
    run_fit(FitRequest(run.path, 1.0), fit=fit)
    assert torch.allclose(left[0][:, :, 3], before[:, :, 3] + 0.01)


def test_masks_that_are_gone_are_said_to_be(capture: Path, tmp_path: Path) -> None:
    shutil.copytree(capture, tmp_path / "capture")
    request = FitRequest(tmp_path / "capture", 1.0, tmp_path / "run", preset=TINY)
    run_fit(request, fit=cut_to(SECONDS))
    shutil.rmtree(tmp_path / "capture" / "masks")
    with pytest.raises(CaptureError, match="masks, which are gone"):
        run_fit(FitRequest(tmp_path / "run", 1.0), fit=cut_to(0.5))
    assert open_run(tmp_path / "run").state == "finished"


def test_minutes_that_are_refused_leave_the_run_finished(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_late(self: Budget) -> None:
        raise BudgetError("reading took all of it")

    monkeypatch.setattr(Budget, "begin_fit", too_late)
    with pytest.raises(BudgetError):
        run_fit(FitRequest(run.path, 1.0), fit=cut_to(0.5))
    assert open_run(run.path).state == "finished"


def test_a_checkpoint_with_settings_of_another_version_is_said_to_be_one(run: Run) -> None:
    path = run.path / "checkpoint" / "state.json"
    state = json.loads(path.read_text())
    state["config"]["train"]["eikonal_weight"] = 0.1
    path.write_text(json.dumps(state))
    with pytest.raises(OutputError, match="of another version"):
        quicksurf.load(run.path)


def test_the_size_of_the_model_is_said_at_the_start(run: Run) -> None:
    said = io.StringIO()
    run_fit(FitRequest(run.path, 1.0), fit=cut_to(0.3), quiet=False, stream=said)
    model = load_config(TINY, {}).model
    lines = [line for line in said.getvalue().splitlines() if "model: a hash grid" in line]
    assert len(lines) == 1 and f"of {model.n_levels} levels" in lines[0]
    assert f"{2**model.log2_hashmap_size:,} entries" in lines[0]


def test_an_older_fields_files_do_not_outlive_it(run: Run) -> None:
    (run.path / "textured.png").write_bytes(b"of the older field")
    result = run_fit(FitRequest(run.path, 1.0, mesh=MeshRequest(("glb",))), fit=cut_to(0.5))
    left = {path.name for path in run.path.glob("[mtc]*.[pgo]*")}
    assert left & set(PRODUCTS) == {"mesh.glb"} == set(result.summary["files"])


def test_a_vanished_photo_costs_the_confidence_and_not_the_mesh(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> Any:
        raise ImageError("00.png is gone")

    monkeypatch.setattr(ExportedMesh, "observed", gone)
    result = run_fit(FitRequest(run.path, 1.0, mesh=MeshRequest(trim=0.5)), fit=cut_to(0.5))
    assert result.summary["files"] == ["mesh.ply"] and (run.path / "mesh.ply").exists()
    assert any("confidence is not measured: 00.png is gone" in line for line in result.summary["warnings"])


def test_a_bug_in_the_report_costs_the_report_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object, **__: object) -> Path:
        raise ZeroDivisionError("of the page")

    monkeypatch.setattr("quicksurf.app.fit.write_report", breaks)
    result = run_fit(FitRequest(run.path, 1.0), fit=cut_to(0.5))
    assert result.report is None and open_run(run.path).state == "finished"
    assert any("no report.html" in text for text in open_run(run.path).read_summary()["left_out"])


def test_untouched_field_is_said_to_be_the_sphere_it_was(capture: Path, tmp_path: Path) -> None:
    with pytest.raises(SurfaceError, match=r"stayed the sphere .* give more --minutes"):
        run_fit(FitRequest(capture, 1.0, tmp_path / "run", preset=TINY), fit=cut_to(0.0))
    assert open_run(tmp_path / "run").checkpoint_folder() is not None


def test_a_fitted_ball_is_not_taken_for_the_sphere_of_the_start(fitted: FitResult) -> None:
    ball = trimesh.creation.icosphere(radius=0.5)
    mesh = Mesh(
        np.asarray(ball.vertices), np.asarray(ball.faces), np.zeros((0, 3), np.uint8), ball.vertex_normals
    )
    roi = Roi((0.0, 0.0, 0.0), 1.0)
    check_surface(mesh, roi, 25.0)
    with pytest.raises(SurfaceError, match="stayed the sphere"):
        check_surface(mesh, roi, 15.0)


def test_full_disk_still_gets_the_mesh_and_keeps_the_old_checkpoint(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: TrainedModel, folder: Path) -> None:
        raise OutputError("disk full while writing state.safetensors")

    (run.path / "mesh.ply").unlink()
    before = (run.path / "checkpoint" / "state.safetensors").read_bytes()
    monkeypatch.setattr("quicksurf.app.run.checkpoint.save_checkpoint", fails)
    with pytest.raises(OutputError, match="the mesh is written, but the field is not: disk full"):
        run_fit(FitRequest(run.path, 1.0), fit=cut_to(FEW_SECONDS))
    assert (run.path / "mesh.ply").exists()
    assert (run.path / "checkpoint" / "state.safetensors").read_bytes() == before
    assert any("disk full" in warning for warning in run.read_summary()["warnings"])


def test_points_on_a_full_disk_are_said(run: Run) -> None:
    points = SparsePoints(
        torch.zeros(4096, 3, dtype=torch.float64),
        torch.zeros(4096, 3, dtype=torch.uint8),
        torch.zeros(0, 2, dtype=torch.int64),
    )
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails with EFBIG
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*points\.safetensors"):
            keep_points(run, points)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not (run.path / "points.safetensors").exists()


def test_minutes_hold_for_a_fine_mesh_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Budget, "mesh_seconds", lambda self: 0.01)
    result = run_fit(FitRequest(run.path, 1.0, mesh=MeshRequest(resolution=384)), fit=cut_to(FEW_SECONDS))
    assert any("not 384: the time budget allows no more" in warning for warning in result.summary["warnings"])


def test_a_report_that_there_is_no_time_for_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (run.path / "report.html").write_text("of an older field")
    monkeypatch.setattr("quicksurf.app.fit.REPORT_MIN", 1e9)
    result = run_fit(FitRequest(run.path, 1.0), fit=cut_to(FEW_SECONDS))
    summary = open_run(run.path).read_summary()
    (said,) = [text for text in summary["left_out"] if "report.html" in text]
    assert said in summary["warnings"] and f"quicksurf report {run.path}" in said
    assert result.report is None and not (run.path / "report.html").exists()


def test_a_large_surface_ends_the_fit_sooner(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    reserves = []

    class Seen(Listener):
        def begin(self, budget: Budget, stop: StopRequest) -> None:
            self.budget = budget

    listener = Seen()

    def fit(*args: Any, on_checkpoint: Any, on_status: Any, **rest: Any) -> TrainedModel:
        reconstruction = fit_scene(*args, seconds=FEW_SECONDS, **rest)
        for march_seconds in (1e-4, 10.0):
            cost = MeshCost(0.0, march_seconds, 50)
            monkeypatch.setattr(TrainedModel, "mesh_cost", lambda self, cost=cost: cost)
            on_checkpoint(reconstruction)
            reserves.append(listener.budget.reserve())
        return reconstruction

    run_fit(FitRequest(run.path, 5.0), listener=listener, fit=fit)
    assert reserves == [pytest.approx(8), pytest.approx(1.5 * 0.06 * 300)]


def test_damaged_checkpoint_is_said(run: Run) -> None:
    state = run.path / "checkpoint" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(OutputError, match="damaged"):
        run_mesh(run.path, MeshRequest())


@pytest.mark.parametrize("text", ['{"faces": ', "{}", '{"seconds": {"mesh": "long"}}'])
def test_damaged_summary_is_said(run: Run, text: str) -> None:
    (run.path / "summary.json").write_text(text)
    with pytest.raises(OutputError, match=r"summary\.json is damaged"):
        run_fit(FitRequest(run.path, 1.0), fit=cut_to(FEW_SECONDS))


def test_mesh_again_finer_and_simplified(fitted: FitResult, tmp_path: Path) -> None:
    files, _ = run_mesh(fitted.run.path, MeshRequest(("stl",), resolution=96, faces=400), tmp_path)
    assert files == [tmp_path / "mesh.stl"]
    assert 100 < len(trimesh.load(files[0]).faces) <= 440  # type: ignore[union-attr]


def test_changed_capture_is_refused(run: Run, capture: Path, tmp_path: Path) -> None:
    shutil.copytree(capture, tmp_path / "capture")
    (tmp_path / "capture" / "images" / "05.png").unlink()
    (tmp_path / "capture" / "masks" / "05.png").unlink()
    run.update(source=str(tmp_path / "capture"))
    with pytest.raises(CaptureError, match="has changed"):
        run_fit(FitRequest(run.path, 1.0), fit=cut_to(FEW_SECONDS))


def test_poses_that_were_found_are_not_found_again(run: Run, capture: Path, fitted: FitResult) -> None:
    (capture / "transforms.json").rename(capture / "hidden.json")  # the photos alone are left
    try:
        run.update(posed_images=str(capture))
        result = run_fit(FitRequest(run.path, 1.0), fit=cut_to(FEW_SECONDS))
    finally:
        (capture / "hidden.json").rename(capture / "transforms.json")
    cameras = result.reconstruction.cameras
    assert torch.allclose(cameras.c2w, fitted.reconstruction.cameras.c2w)
    assert result.summary["seconds"]["poses"] == 0


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"preset": "fine"}, "--preset"),
        ({"seed": 3}, "--seed"),
        ({"roi": Roi((0.0, 0.0, 0.0), 1.0)}, "--roi"),
        ({"masks": "none"}, "--masks"),
    ],
)
def test_resumed_run_keeps_its_settings(fitted: FitResult, change: dict[str, Any], option: str) -> None:
    before = (fitted.run.path / "run.json").read_bytes()
    with pytest.raises(ConfigError, match=f"leave out {option}$"):
        run_fit(FitRequest(fitted.run.path, 1.0, **change), fit=cut_to(0.0))
    assert (fitted.run.path / "run.json").read_bytes() == before


def test_edited_settings_of_a_run_are_refused_and_deleted_ones_are_the_checkpoints(run: Run) -> None:
    kept = run.path / "config.toml"
    text = kept.read_text()
    kept.write_text(text.replace("n_levels = 6", "n_levels = 8"))
    with pytest.raises(ConfigError, match=r"config\.toml is not what the run was fitted with"):
        run_fit(FitRequest(run.path, 1.0), fit=cut_to(0.0))
    kept.unlink()
    run_fit(FitRequest(run.path, 1.0), fit=cut_to(FEW_SECONDS))
    assert kept.read_text() == text


def test_mesh_options_of_added_minutes_become_the_runs(run: Run) -> None:
    run_fit(FitRequest(run.path, 1.0, mesh=MeshRequest(faces=300)), fit=cut_to(FEW_SECONDS))
    assert load_config(str(run.path / "config.toml"), {}).mesh.faces == 300
    assert quicksurf.load(run.path).config.mesh.faces == 300


def test_run_without_masks_goes_on_without_masks(capture: Path, tmp_path: Path) -> None:
    seen: list[Scene] = []

    def fit(scene: Scene, *args: Any, **rest: Any) -> TrainedModel:
        seen.append(scene)
        return fit_scene(scene, *args, seconds=FEW_SECONDS, **rest)

    output = tmp_path / "run"
    for request in (FitRequest(capture, 1.0, output, masks="none", preset=TINY), FitRequest(output, 1.0)):
        with suppress(SurfaceError):  # the fits are too short for a surface
            run_fit(replace(request, resume=output.exists()), fit=fit)
    assert len(seen) == 2
    assert all(mask is None for scene in seen for mask in scene.masks)


def test_unknown_format_is_refused_before_the_fit(capture: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose from ply"):
        run_fit(FitRequest(capture, 1.0, tmp_path / "run", mesh=MeshRequest(("fbx",))), fit=cut_to(0.0))
    assert not (tmp_path / "run").exists()


def test_roi_is_parsed() -> None:
    assert parse_roi("-1, 2,3e-1,4") == Roi((-1.0, 2.0, 0.3), 4.0)


@pytest.mark.parametrize("roi", [(0, 0, 1), (0, 0, 0, -1), (0, 0, 0, math.nan)])
def test_malformed_roi_from_python_is_said(roi: tuple[float, ...]) -> None:
    with pytest.raises(RoiError):
        quicksurf.fit("nowhere", roi=roi)


def test_one_format_may_be_given_as_a_string(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown mesh format 'fbx'"):
        quicksurf.fit("nowhere", formats="fbx", output=tmp_path / "run")


@pytest.mark.parametrize("count", [0, -1, 5000])
def test_senseless_number_of_threads_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match="1 to 1024"):
        quicksurf.set_num_threads(count)


def test_same_api_from_python(fitted: FitResult) -> None:
    loaded = quicksurf.load(fitted.run.path)
    points = torch.stack([CENTER, CENTER + 0.95 * loaded.roi.radius * AXES / AXES.norm()])
    inside, outside = loaded.occupancy(points).tolist()
    assert inside > 0.9 > 0.1 > outside
    view = loaded.render(loaded.cameras)
    assert view.color.shape == (48, 48, 3)
    assert callable(quicksurf.fit)


@pytest.mark.parametrize("wanted", [True, False])
def test_stereo_takes_a_share_of_the_time_and_the_fit_gets_its_points(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    points = DensePoints(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long), torch.ones(1), torch.ones(1))
    given: list[float] = []
    fitted_to: list[DensePoints | None] = []

    def find(scene: Scene, seconds: float, seed: int, say: Callable[[str], None]) -> DensePoints:
        given.append(seconds)
        return points

    def fit(scene: Scene, *_: Any, **__: Any) -> TrainedModel:
        fitted_to.append(scene.dense)
        raise SurfaceError("enough")

    preset = tmp_path / "preset.toml"
    weight = "" if wanted else "dense_weight = 0.0\n"
    preset.write_text(Path(TINY).read_text().replace("[train]\n", "[train]\n" + weight))
    monkeypatch.setattr("quicksurf.app.fit.find_dense_points", find)
    with pytest.raises(SurfaceError, match="enough"):
        run_fit(FitRequest(capture, 1.0, tmp_path / "run", preset=str(preset)), fit=fit)
    assert fitted_to == [points if wanted else None]
    assert [0 < seconds < 0.2 * 60 for seconds in given] == [True] * wanted
