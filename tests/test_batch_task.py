"""One capture of a batch: how it ends, what is said of it, and how it goes on."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

import pytest
from batch_folders import replaced_fit, task_in
from processes import descendants, wait_for
from tiny_capture import write_capture

from quicksurf.app.batch.run import FORMAT
from quicksurf.app.batch.task import Outcome, run_task
from quicksurf.app.cli import main
from quicksurf.app.fit import run_fit
from quicksurf.app.requests import FitRequest
from quicksurf.app.run.folder import open_run
from quicksurf.files import write_json
from quicksurf.model import TrainedModel
from quicksurf.train.loop import fit_scene

TINY = str(Path(__file__).with_name("tiny.toml"))
SECONDS = 5.0  # of a fit: the ellipsoid has a surface


def test_the_error_of_a_fit_is_its_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced_fit(
        monkeypatch, tmp_path, "import sys; print('read ...'); sys.exit('quicksurf: no images in X') "
    )
    outcome = run_task(task_in(tmp_path))
    assert (outcome.state, outcome.exit_code, outcome.message) == ("failed", 1, "no images in X")


def test_a_killed_fit_says_by_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced_fit(monkeypatch, tmp_path, "import os; os.kill(os.getpid(), 9)")
    assert run_task(task_in(tmp_path)).message == "killed by signal 9"


def test_the_error_of_an_earlier_attempt_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced_fit(
        monkeypatch, tmp_path, "import pathlib; exec(pathlib.Path(__file__).with_name('say').read_text())"
    )
    say = tmp_path / "fake" / "quicksurf" / "say"
    said = []
    for code in ("import sys; sys.exit('quicksurf: no images')", "import os; os.kill(os.getpid(), 9)"):
        say.write_text(code)
        said.append(run_task(task_in(tmp_path)).message)
    assert said == ["no images", "killed by signal 9"]
    assert "no images" in (tmp_path / "logs" / "one.log").read_text()


@pytest.mark.slow
def test_a_fit_that_does_not_end_is_asked_to_and_then_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced_fit(
        monkeypatch,
        tmp_path,
        "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(60)",
    )
    monkeypatch.setattr("quicksurf.app.batch.task.GRACE", 1.0)
    began = time.monotonic()
    outcome = run_task(task_in(tmp_path, minutes=1 / 60))
    assert (outcome.state, outcome.exit_code) == ("failed", -signal.SIGKILL)
    assert time.monotonic() - began < 40


def test_finished_runs_are_left_alone_and_unfinished_ones_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced_fit(
        monkeypatch,
        tmp_path,
        f"import sys; open({str(tmp_path / 'seen')!r}, 'w').write(' '.join(sys.argv[1:]))",
    )
    task = task_in(tmp_path)
    record = {"format": "quicksurf run", "version": 1, "source": str(task.source)}
    write_json(task.run / "run.json", record)
    (task.run / "checkpoint").mkdir()
    (task.run / "checkpoint" / "state.json").write_text("{}")
    assert run_task(task).state == "done"
    assert "--resume" in (tmp_path / "seen").read_text()
    (tmp_path / "seen").unlink()
    write_json(task.run / "summary.json", {})
    assert run_task(task) == Outcome("one", "done", 0, "", 0.0)
    assert not (tmp_path / "seen").exists()


@pytest.mark.slow
def test_a_capture_that_was_cut_short_goes_on_with_what_it_was_begun_with(tmp_path: Path) -> None:
    """A real fit, left with its checkpoint; the batch's own command resumes it, and is asked for the mesh at once."""
    capture, out = write_capture(tmp_path / "captures" / "a"), tmp_path / "out"

    def interrupted(*args: Any, on_checkpoint: Any, seconds_left: Any, **rest: Any) -> TrainedModel:
        on_checkpoint(fit_scene(*args, seconds=SECONDS, **rest))
        raise KeyboardInterrupt

    request = FitRequest(capture, 1.0, out / "a", preset=TINY, masks="none", device="cpu")
    with pytest.raises(KeyboardInterrupt):
        run_fit(request, fit=interrupted)
    left = open_run(out / "a")
    assert (left.state, left.record["masks"]) == ("unfinished", False)
    write_json(out / "batch.json", {"format": FORMAT})
    metrics = out / "a" / "metrics.jsonl"
    n_lines = len(metrics.read_text().splitlines())

    def ask_for_the_mesh() -> None:
        wait_for(lambda: len(metrics.read_text().splitlines()) > n_lines, 60.0)
        for pid, command in descendants(os.getpid()).items():
            if " fit " in command:
                os.kill(pid, signal.SIGTERM)

    asker = threading.Thread(target=ask_for_the_mesh)
    asker.start()
    arguments = [
        "batch",
        str(tmp_path / "captures"),
        "--output",
        str(out),
        "--preset",
        TINY,
        "--masks",
        "none",
    ]
    assert main([*arguments, "--device", "cpu", "--jobs", "1"]) == 0
    asker.join()
    assert (open_run(out / "a").state, (out / "a" / "mesh.ply").is_file()) == ("finished", True)


def test_a_run_that_a_lost_worker_left_at_work_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced_fit(monkeypatch, tmp_path, "import sys; sys.exit('quicksurf: must not run')")
    task = task_in(tmp_path)
    write_json(task.run / "run.json", {"format": "quicksurf run", "version": 1, "source": str(task.source)})
    code = (
        "import fcntl, sys, time\nlock = open(sys.argv[1], 'a')\nfcntl.flock(lock, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\ntime.sleep(2)\nopen(sys.argv[2], 'w').write('{}')"
    )
    arguments = [sys.executable, "-c", code, str(task.run / ".lock"), str(task.run / "summary.json")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as orphan:
        assert orphan.stdout is not None
        assert orphan.stdout.readline() == "held\n"
        assert run_task(task).state == "done"


def test_the_lock_of_a_run_is_tried_as_nfs_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS makes a byte-range lock of flock, and an exclusive one needs a file that is open for writing (flock(2))."""

    def flock_of_nfs(file: IO[str], operation: int) -> None:
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(file, operation)

    replaced_fit(monkeypatch, tmp_path, "")
    task = task_in(tmp_path)
    write_json(task.run / "run.json", {"format": "quicksurf run", "version": 1, "source": str(task.source)})
    (task.run / ".lock").write_text("")
    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", flock_of_nfs)
    assert run_task(task).state == "done"
