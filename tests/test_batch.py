"""A batch: what counts as a capture, what one bad capture costs, what it writes, and a stop."""

import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest
from batch_folders import make, never, replaced_fit, task_in
from processes import descendants, wait_for

from quicksurf.app.batch import overview
from quicksurf.app.batch import run as batch_run
from quicksurf.app.batch.local import affordable_jobs, divide_cpus, jobs_here, run_here
from quicksurf.app.batch.run import BatchRequest, find_captures, run_batch
from quicksurf.app.cli import main
from quicksurf.app.run.folder import Run
from quicksurf.errors import ConfigError, ImageError, OutputError
from quicksurf.kernels import NAMES

GIB = 1 << 30


def test_folders_and_videos_are_captures(tmp_path: Path) -> None:
    folder = make(tmp_path / "c", "b10", "b9", ".hidden", "out")
    (folder / "walk.mp4").write_bytes(b"")
    (folder / "notes.txt").write_text("")
    found = find_captures(folder, folder / "out")
    assert [capture.name for capture in found] == ["b9", "b10", "walk.mp4"]


def test_alike_names_get_folders_of_their_own_that_do_not_change(tmp_path: Path) -> None:
    folder = make(tmp_path / "c", "a b", "a?b", "-x-")
    names = {capture.source.name: capture.name for capture in find_captures(folder, tmp_path)}
    assert len(set(names.values())) == 3
    assert names["-x-"] == "x"
    make(folder, "0", "z")
    later = {capture.source.name: capture.name for capture in find_captures(folder, tmp_path)}
    assert {key: later[key] for key in names} == names


def test_the_folder_of_the_runs_is_no_capture_wherever_it_lies(tmp_path: Path) -> None:
    folder = make(tmp_path / "c", "a", "runs")
    for output in (folder / "runs", folder / "runs" / "batch-c", folder / "runs" / "many" / "batch"):
        assert [capture.name for capture in find_captures(folder, output)] == ["a"]
    assert len(find_captures(folder, tmp_path / "out")) == 2


def test_a_batch_of_the_folder_it_runs_in_finds_the_same_captures_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make(tmp_path / "c", "a"))
    replaced_fit(monkeypatch, tmp_path, "")
    for _ in range(2):
        assert [outcome.name for outcome in run_batch(BatchRequest(Path("."), 1.0), never)] == ["a"]


def test_captures_named_as_what_a_batch_writes_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("Logs", "batch.json", "index.html", "a")
    folder, out = make(tmp_path / "c", *names), tmp_path / "out"
    replaced_fit(monkeypatch, tmp_path, "import os, sys; os.makedirs(sys.argv[4])")
    outcomes = list(run_batch(BatchRequest(folder, 1.0, out), never))
    assert [outcome.state for outcome in outcomes] == ["done"] * 4
    assert {path.name for path in (out / "logs").iterdir()} == {f"{outcome.name}.log" for outcome in outcomes}
    kept = {*(outcome.name for outcome in outcomes), "logs", "batch.json", "index.html", ".lock"}
    assert {path.name for path in out.iterdir()} == kept
    assert {outcome.name.casefold() for outcome in outcomes} & {*map(str.casefold, names)} == {"a"}


def test_a_batch_whose_first_file_a_kill_cut_short_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced_fit(monkeypatch, tmp_path, "")
    folder, out = make(tmp_path / "c", "a"), tmp_path / "out"
    out.mkdir()
    (out / ".batch-0a1b2c3d.json").write_text("{")
    assert [outcome.name for outcome in run_batch(BatchRequest(folder, 1.0, out), never)] == ["a"]
    assert not (out / ".batch-0a1b2c3d.json").exists()


def test_a_link_keeps_the_name_it_has_here(tmp_path: Path) -> None:
    folder = make(tmp_path / "c", ".")
    (folder / "cow").symlink_to(make(tmp_path, "elsewhere") / "elsewhere")
    (capture,) = find_captures(folder, tmp_path / "out")
    assert (capture.name, capture.source) == ("cow", folder / "cow")


def test_a_folder_without_captures_is_refused(tmp_path: Path) -> None:
    photos = make(tmp_path / "photos", "masks")
    (photos / "0.jpg").write_bytes(b"")
    for folder, said in (
        (photos, "photos itself"),
        (make(tmp_path / "e", "."), "no folders"),
        (tmp_path / "n", "no folder"),
    ):
        with pytest.raises(ImageError, match=said):
            find_captures(folder, tmp_path)


def test_jobs_follow_cores_and_memory() -> None:
    assert affordable_jobs(9, 2, 64 * GIB) == 1
    assert affordable_jobs(9, 16, 64 * GIB) == 8
    assert affordable_jobs(9, 16, 7 * GIB) == 3
    assert affordable_jobs(2, 16, 64 * GIB) == 2
    assert affordable_jobs(9, 1, GIB) == 1


def test_processors_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(7)), raising=False)
    fractions = divide_cpus(3)
    assert sorted(cpu for fraction in fractions for cpu in fraction) == list(range(7))
    assert min(map(len, fractions)) == 2
    assert divide_cpus(8) == [tuple(range(7))] * 8


def test_one_capture_at_a_time_goes_to_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quicksurf.app.batch.local.affordable_jobs", lambda *_: 5)
    jobs = {}
    for gpu in (True, False):
        monkeypatch.setattr("torch.cuda.is_available", lambda gpu=gpu: gpu)
        jobs[gpu] = [jobs_here(9, device) for device in NAMES]
    assert NAMES == ("auto", "cpu", "cuda", "torch")
    assert jobs == {True: [1, 5, 1, 5], False: [5, 5, 5, 5]}


def test_a_stop_ends_what_runs_and_begins_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced_fit(monkeypatch, tmp_path, "import time; time.sleep(60)")
    stopped = threading.Event()
    tasks = [task_in(tmp_path)._replace(name=str(k), run=tmp_path / str(k)) for k in range(3)]
    threading.Timer(1.0, stopped.set).start()
    outcomes = list(run_here(tasks, 1, stopped.is_set))
    assert [(outcome.name, outcome.state) for outcome in outcomes] == [("0", "stopped")]


def test_a_reader_that_leaves_ends_what_runs_and_begins_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing the outcomes is what an exception in the reader's loop does: a closed pipe, a full disk."""
    began = tmp_path / "began"
    code = f"import sys, time; open({str(began)!r}, 'a').write(sys.argv[2] + chr(10))\n"
    replaced_fit(monkeypatch, tmp_path, code + "if not sys.argv[2].endswith('0'): time.sleep(60)")
    folder = make(tmp_path / "c", *map(str, range(6)))
    outcomes = run_batch(BatchRequest(folder, 1.0, tmp_path / "out", jobs=2), never)
    assert next(outcomes).name == "0"
    wait_for(lambda: len(began.read_text().splitlines()) == 3)
    leaving = time.monotonic()
    outcomes.close()
    assert time.monotonic() - leaving < 30
    assert len(began.read_text().splitlines()) == 3
    assert not [command for command in descendants(os.getpid()).values() if str(folder) in command]


def test_a_closed_output_ends_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced_fit(
        monkeypatch, tmp_path, "import sys, time; time.sleep(0 if sys.argv[2].endswith('0') else 60)"
    )
    folder, out = make(tmp_path / "c", "0", "1", "2"), tmp_path / "out"
    reading, writing = os.pipe()
    os.close(reading)
    began = time.monotonic()
    with open(writing, "w") as output, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", output)
        assert main(["batch", str(folder), "--output", str(out), "--jobs", "1"]) == 0
    assert time.monotonic() - began < 50
    assert not (out / "logs" / "2.log").exists()


def test_an_overview_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced_fit(monkeypatch, tmp_path, "")
    folder, out = make(tmp_path / "c", "a", "b", "c"), tmp_path / "out"
    warnings: list[str] = []
    outcomes = run_batch(BatchRequest(folder, 1.0, out, jobs=1), never, warnings.append)
    assert next(outcomes).name == "a"
    (out / "index.html").unlink()
    (out / "index.html").mkdir()  # stands in the way, as a full disk does
    assert [outcome.state for outcome in outcomes] == ["done", "done"]
    assert len(warnings) == 2
    assert f"cannot write {out / 'index.html'}" in warnings[0]
    record = json.loads((out / "batch.json").read_text())
    assert [entry["state"] for entry in record["captures"].values()] == ["done"] * 3


def test_a_picture_that_a_killed_batch_was_writing_goes(tmp_path: Path) -> None:
    for name in ("run.json", "mesh.ply", "preview.jpg", ".preview-0123abcd.jpg"):
        (tmp_path / name).write_text("{}")
    assert overview._picture(Run(tmp_path, {}), tmp_path / "mesh.ply") is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mesh.ply", "preview.jpg", "run.json"]


def test_one_bad_capture_does_not_stop_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "c", "a<b>", "bad", "z")
    code = "import sys; sys.exit('quicksurf: no <images>' if sys.argv[2].endswith('bad') else 0)"
    replaced_fit(monkeypatch, tmp_path, code)
    request = BatchRequest(folder, 1.0, tmp_path / "out", jobs=2)
    states = {outcome.name: outcome.state for outcome in run_batch(request, never)}
    assert states == {"a-b": "done", "bad": "failed", "z": "done"}
    record = json.loads((tmp_path / "out" / "batch.json").read_text())
    assert record["captures"]["bad"]["message"] == "no <images>"
    page = (tmp_path / "out" / "index.html").read_text()
    assert "no &lt;images&gt;" in page
    assert "a&lt;b&gt;" in page


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "c", "a")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    good = BatchRequest(folder, 1.0, tmp_path / "out")
    refused: list[tuple[BatchRequest, type[Exception]]] = [
        (BatchRequest(folder, 0.0), ConfigError),
        (BatchRequest(folder, float("nan")), ConfigError),
        (BatchRequest(folder, 1.0, jobs=0), ConfigError),
        (BatchRequest(folder, 1.0, jobs=2, ray="auto"), ConfigError),
        (BatchRequest(folder, 1.0, tmp_path / "taken"), OutputError),
        (BatchRequest(folder, 1.0, tmp_path / "taken" / "file"), OutputError),
    ]
    for request, kind in refused:
        with pytest.raises(kind):
            list(run_batch(request, never))
    assert batch_run.RECORD not in os.listdir(tmp_path)
    assert good.output is not None
    assert not good.output.exists()
