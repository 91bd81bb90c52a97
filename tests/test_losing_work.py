"""What must not cost a fit: a closed terminal, a full disk, a region that holds nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cut_fit import cut_to
from tiny_capture import CENTER, write_capture

import quicksurf
from quicksurf.app.budget import Budget, StopRequest, signals_noted
from quicksurf.app.cli import main
from quicksurf.app.export import surface
from quicksurf.app.fit import run_fit
from quicksurf.app.progress import Lines, Panel
from quicksurf.app.requests import FitRequest
from quicksurf.app.run.folder import open_run
from quicksurf.errors import OutputError, SurfaceError
from quicksurf.files import write_json
from quicksurf.geometry.region import Roi
from quicksurf.mesh.export import write_mesh
from quicksurf.train.hits import EMPTY_REPORTS, Hits
from quicksurf.train.loop import FitStatus

pytestmark = pytest.mark.slow

LONG_ENOUGH = 2.5  # seconds of fitting that leave a surface
TINY = str(Path(__file__).with_name("tiny.toml"))
EMPTY = Roi((CENTER[0].item() + 2.6, CENTER[1].item() + 0.8, CENTER[2].item() + 1.6), 0.5)
WHOLE = Roi((CENTER[0].item(), CENTER[1].item(), CENTER[2].item()), 2.5)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_capture(tmp_path_factory.mktemp("capture"))


def test_a_closed_terminal_stops_gently() -> None:
    with signals_noted(StopRequest()) as stop:
        stop.worthwhile = True
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop()


def test_under_nohup_a_closed_terminal_is_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_noted(StopRequest()) as stop:
            stop.worthwhile = True
            stop.listen_again()
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


class Gone:
    """A terminal that was closed."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")

    def flush(self) -> None:
        raise OSError(5, "Input/output error")

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError(9, "no file")


def test_a_terminal_that_is_gone_costs_the_words_alone(capfd: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    budget = Budget(60.0)
    panel = Panel("title", budget, Console(file=Gone(), force_terminal=True))  # type: ignore[arg-type]
    lines = Lines(budget, Gone())  # type: ignore[arg-type]
    for reporter in (panel, lines):
        reporter.stage("fit")
        reporter.note("a fact")
        reporter.warn("a warning")
    time.sleep(0.6)
    panel.close()
    lines.close()
    assert "Traceback" not in capfd.readouterr().err


def test_a_fit_whose_terminal_closes_leaves_its_mesh(capture: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "quicksurf", "fit", str(capture), "--preset", TINY, "--minutes", "2"]
    fit = subprocess.Popen(
        [*command, "--output", str(run)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=Path(quicksurf.__file__).parents[1],
    )
    metrics = run / "metrics.jsonl"
    while fit.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        time.sleep(0.1)
    fit.send_signal(signal.SIGHUP)
    assert fit.wait(timeout=60) == 0
    assert (run / "mesh.ply").exists()
    assert json.loads((run / "summary.json").read_text())["stopped_early"]


def test_a_region_that_holds_nothing_is_said_within_seconds_and_is_no_dead_end(
    capture: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    n_reports = 0

    def empty(*scene: Any, on_status: Any, **options: Any) -> None:
        nonlocal n_reports
        while n_reports < 600:
            n_reports += 1
            on_status(status(hit_rate=0.0, samples_per_ray=0.0))

    request = FitRequest(capture, 20.0, run, roi=EMPTY, preset=TINY)
    with pytest.raises(SurfaceError, match="holds nothing that the photos show"):
        run_fit(request, fit=empty)  # type: ignore[arg-type]
    assert n_reports == EMPTY_REPORTS
    result = run_fit(FitRequest(capture, 20.0, run, preset=TINY), fit=cut_to(LONG_ENOUGH))
    assert result.reconstruction.roi != EMPTY and (run / "mesh.ply").exists()


def status(**figures: float) -> FitStatus:
    return FitStatus(*range(len(FitStatus._fields)))._replace(**figures)  # type: ignore[arg-type]


def test_rays_that_hit_or_sample_are_no_empty_region() -> None:
    hits = Hits(EMPTY)
    for figures in ((0.0, 3.0), (0.2, 0.0), (0.0, 0.0), (0.0, 0.0), (0.1, 1.0), (0.0, 0.0), (0.0, 0.0)):
        assert not hits.none_left(status(hit_rate=figures[0], samples_per_ray=figures[1]))


def test_a_region_that_hardly_a_ray_meets_anything_in_is_said_once_and_fitted(
    capture: Path, tmp_path: Path
) -> None:
    """A few hits may be of a thin object, and of floaters in a region that is empty."""

    def sparse(*scene: Any, on_status: Any, **options: Any) -> Any:
        for _ in range(30):
            on_status(status(hit_rate=0.004, samples_per_ray=0.04))
        return cut_to(LONG_ENOUGH)(*scene, on_status=on_status, **options)

    result = run_fit(FitRequest(capture, 20.0, tmp_path / "run", preset=TINY), fit=sparse)
    assert len([text for text in result.summary["warnings"] if "hardly a ray meets" in text]) == 1
    hits = Hits(WHOLE)
    assert not any(
        hits.nearly_none(status(hit_rate=h, samples_per_ray=0.0)) for h in [0.0, 0.0, 0.0, 0.01] * 9
    )


def test_a_fit_without_a_surface_can_be_begun_anew_and_resumed(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def fails(*arguments: Any, **options: Any) -> None:
        raise SurfaceError("the field stayed the sphere it began as")

    with monkeypatch.context() as patch, pytest.raises(SurfaceError):
        patch.setattr(surface, "check_surface", fails)
        run_fit(FitRequest(capture, 20.0, run, preset=TINY, roi=WHOLE), fit=cut_to(LONG_ENOUGH))
    assert open_run(run).state == "unfinished" and open_run(run).failed
    other = Roi(WHOLE.center, 2.4)
    result = run_fit(FitRequest(capture, 20.0, run, preset=TINY, roi=other), fit=cut_to(LONG_ENOUGH))
    assert result.reconstruction.roi == other
    assert not open_run(run).failed and open_run(run).state == "finished"


def test_a_run_cut_short_is_still_not_begun_anew_unasked(capture: Path, tmp_path: Path) -> None:
    run_fit(FitRequest(capture, 20.0, tmp_path / "run", preset=TINY), fit=cut_to(LONG_ENOUGH))
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(OutputError, match="--resume"):
        run_fit(FitRequest(capture, 20.0, tmp_path / "run", preset=TINY))


def test_too_little_room_is_said_before_the_fit(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "shutil.disk_usage", lambda path: SimpleNamespace(total=3 << 20, used=0, free=3 << 20)
    )
    with pytest.raises(OutputError, match=r"3 MB are free .* free some space"):
        run_fit(
            FitRequest(capture, 20.0, tmp_path / "run", preset=TINY),
            fit=lambda *a, **k: pytest.fail("fitted"),
        )
    assert not (tmp_path / "run").exists()


def test_on_a_full_disk_the_checkpoint_gives_way_to_the_mesh(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def full(*place: Any) -> list[Path]:
        if (run / "checkpoint").exists():
            raise OutputError("disk full while writing mesh.ply")
        return write_mesh(*place)

    monkeypatch.setattr(surface, "write_mesh", full)
    with pytest.raises(OutputError, match="cannot go on from here"):
        run_fit(FitRequest(capture, 20.0, run, preset=TINY), fit=cut_to(LONG_ENOUGH))
    assert (run / "mesh.ply").exists() and (run / "summary.json").exists()


def test_more_minutes_on_a_full_disk_can_go_on_from_the_old_checkpoint(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run_fit(FitRequest(capture, 20.0, run, preset=TINY), fit=cut_to(LONG_ENOUGH))

    def full(*anything: Any) -> None:
        raise OutputError("disk full while writing state.safetensors")

    monkeypatch.setattr("quicksurf.app.run.checkpoint.save_checkpoint", full)
    with pytest.raises(OutputError, match="can go on from its last checkpoint"):
        run_fit(FitRequest(run, 20.0), fit=cut_to(0.5))


def test_a_failed_command_does_not_hide_what_the_folder_holds(tmp_path: Path, capsys: Any) -> None:
    write_json(tmp_path / "run.json", {"format": "quicksurf run", "version": 1, "source": str(tmp_path)})
    assert main(["mesh", str(tmp_path)]) == OutputError.exit_code
    assert "no checkpoint" in capsys.readouterr().err
