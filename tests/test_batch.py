"""A batch: what counts as a capture, what one bad capture costs, going on, and machines that are lost."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
from tiny_capture import write_capture

from quicksurf.backends import NAMES
from quicksurf.batch import run as batch_run
from quicksurf.batch.captures import find_captures
from quicksurf.batch.cluster import demands, run_on_ray
from quicksurf.batch.local import affordable_jobs, divide_cpus, jobs_here, own_cpus, run_here
from quicksurf.batch.run import BatchRequest, run_batch
from quicksurf.batch.task import Outcome, Task, run_task
from quicksurf.cli import main
from quicksurf.errors import BackendError, ConfigError, ImageError, OutputError
from quicksurf.fit_request import FitRequest
from quicksurf.io import write_json
from quicksurf.pipeline import run_fit
from quicksurf.reconstruction import Reconstruction
from quicksurf.session.runs import open_run
from quicksurf.train.loop import fit_scene

GIB = 1 << 30
TINY = str(Path(__file__).with_name("tiny.toml"))
SECONDS = 5.0  # of a fit: the ellipsoid has a surface


def never() -> bool:
    return False


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
    return folder


def task_in(folder: Path, minutes: float = 1.0) -> Task:
    return Task("one", folder / "one", folder / "runs" / "one", folder / "logs" / "one.log", minutes)


def replaced_fit(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """Let children run `code` instead of quicksurf: a package of that name before it on their path."""
    (folder / "fake" / "quicksurf").mkdir(parents=True)
    (folder / "fake" / "quicksurf" / "__init__.py").write_text("")
    (folder / "fake" / "quicksurf" / "__main__.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder / "fake"))


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
    shares = divide_cpus(3)
    assert sorted(cpu for share in shares for cpu in share) == list(range(7))
    assert min(map(len, shares)) == 2
    assert divide_cpus(8) == [tuple(range(7))] * 8


def test_one_capture_at_a_time_goes_to_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quicksurf.batch.local.affordable_jobs", lambda *_: 5)
    jobs = {}
    for gpu in (True, False):
        monkeypatch.setattr("torch.cuda.is_available", lambda gpu=gpu: gpu)
        jobs[gpu] = [jobs_here(9, device) for device in NAMES]
    assert NAMES == ("auto", "cpu", "cuda", "torch")
    assert jobs == {True: [1, 5, 1, 5], False: [5, 5, 5, 5]}


def test_processors_are_held_by_one_block_each(monkeypatch: pytest.MonkeyPatch) -> None:
    first = 1_000_000 + os.getpid()  # names that no batch beside this test takes
    cpus = range(first, first + 5)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(cpus), raising=False)
    with own_cpus(2) as one, own_cpus(2) as two:
        assert (one, two) == (tuple(cpus[:2]), tuple(cpus[2:4]))
        with own_cpus(2) as last, own_cpus(2) as none:
            assert (last, none) == ((cpus[4],), ())
    with own_cpus(9) as free:
        assert free == tuple(cpus)


def test_processors_of_a_killed_process_are_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = 1_000_000 + os.getpid()
    code = f"import socket, time; s = socket.socket(socket.AF_UNIX); s.bind('\\0quicksurf-cpu-{cpu}'); "
    code += "print('held', flush=True); time.sleep(60)"
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {cpu}, raising=False)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with own_cpus(1) as taken:
            assert taken == ()
        holder.kill()
    with own_cpus(1) as taken:
        assert taken == (cpu,)


def test_captures_on_a_cluster_ask_for_no_more_than_its_machines_have() -> None:
    def node(alive: bool = True, **resources: float) -> dict[str, Any]:
        return {"Alive": alive, "Resources": resources}

    large = node(CPU=64, memory=256 * GIB)
    full = {"num_cpus": 2, "num_gpus": 0, "memory": 2_000_000_000}
    assert demands([large, node(CPU=0, GPU=1), node(alive=False, CPU=1, GPU=8)], on_gpu=True) == full
    assert demands([large, node(CPU=1, memory=GIB)], on_gpu=True) == {
        **full,
        "num_cpus": 1,
        "memory": GIB,
    }
    mixed = [large, node(CPU=1), node(CPU=16, GPU=4, memory=64 * GIB)]
    assert demands(mixed, on_gpu=True) == {**full, "num_gpus": 1}
    assert demands(mixed, on_gpu=False) == {**full, "num_cpus": 1}
    assert demands([*mixed, node(CPU=8, GPU=0.5)], on_gpu=True) == {**full, "num_gpus": 0.5}


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


def test_a_fit_that_does_not_end_is_asked_to_and_then_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced_fit(
        monkeypatch,
        tmp_path,
        "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(60)",
    )
    monkeypatch.setattr("quicksurf.batch.task.GRACE", 1.0)
    began = time.monotonic()
    outcome = run_task(task_in(tmp_path, minutes=1 / 60))
    assert (outcome.state, outcome.exit_code) == ("failed", -signal.SIGKILL)
    assert time.monotonic() - began < 40


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


def test_a_capture_that_was_cut_short_goes_on_with_what_it_was_begun_with(tmp_path: Path) -> None:
    """A real fit, left with its checkpoint; the batch's own command resumes it, and is asked for the mesh at once."""
    capture, out = write_capture(tmp_path / "captures" / "a"), tmp_path / "out"

    def interrupted(*args: Any, on_checkpoint: Any, seconds_left: Any, **rest: Any) -> Reconstruction:
        on_checkpoint(fit_scene(*args, seconds=SECONDS, **rest))
        raise KeyboardInterrupt

    request = FitRequest(capture, 1.0, out / "a", preset=TINY, masks=False, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        run_fit(request, fit=interrupted)
    left = open_run(out / "a")
    assert (left.state, left.record["masks"]) == ("unfinished", False)
    write_json(out / "batch.json", {"format": batch_run.FORMAT})
    metrics = out / "a" / "metrics.jsonl"
    n_lines = len(metrics.read_text().splitlines())

    def ask_for_the_mesh() -> None:
        wait_for(lambda: len(metrics.read_text().splitlines()) > n_lines, 60.0)
        for pid, command in descendants(os.getpid()).items():
            if " fit " in command:
                os.kill(pid, signal.SIGTERM)

    asker = threading.Thread(target=ask_for_the_mesh)
    asker.start()
    arguments = ["batch", str(tmp_path / "captures"), "--output", str(out), "--preset", TINY, "--no-masks"]
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


def test_a_cluster_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'quicksurf[cluster]'")
    folder = make(tmp_path / "c", "a")
    with pytest.raises(BackendError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        list(run_batch(BatchRequest(folder, 1.0, tmp_path / "out", ray="127.0.0.1:1"), never))


@pytest.mark.slow
def test_a_stop_on_a_cluster_leaves_no_fit_behind(tmp_path: Path) -> None:
    """Each fit that runs has processors of its own, and is gone when the batch says that it was stopped."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'quicksurf[cluster]'")
    names = ("a", "b", "c")
    tasks = [task_in(tmp_path)._replace(name=name, log=tmp_path / "logs" / name) for name in names]
    for task in tasks:
        write_capture(task.source)
    seen: dict[int, set[int]] = {}

    def fitting() -> bool:
        for pid, command in descendants(os.getpid()).items():
            if f"fit {tmp_path}" in command:
                seen[pid] = allowed(pid)
                os.kill(
                    pid, signal.SIGSTOP
                )  # it does not hear that it should end: what waits for it must kill it
        return len(seen) > 0

    outcomes, left = [], set()
    for outcome in run_on_ray(tasks, "local", "cpu", fitting):
        outcomes.append(outcome)
        left |= {pid for pid in seen if Path(f"/proc/{pid}").exists()}
    assert [outcome.state for outcome in outcomes] == ["stopped"] * 3
    assert seen
    assert max(map(len, seen.values())) <= 2
    assert not left


def allowed(pid: int) -> set[int]:
    try:
        return os.sched_getaffinity(pid)
    except ProcessLookupError:
        return set()


@pytest.mark.slow
def test_captures_survive_the_loss_of_a_worker(tmp_path: Path) -> None:
    """Two workers on a local Ray cluster; one is killed with all its processes, as a power cut would, mid-fit."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'quicksurf[cluster]'")
    from ray.cluster_utils import Cluster

    for name in ("a", "b", "c"):
        write_capture(tmp_path / "captures" / name)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100 << 20})
    workers = [cluster.add_node(num_cpus=2, object_store_memory=100 << 20) for _ in range(2)]
    out = tmp_path / "out"
    request = BatchRequest(
        tmp_path / "captures",
        0.5,
        out,
        ray=cluster.address,
        device="cpu",
        settings=("--preset", TINY),
    )
    killed: list[str] = []
    killer = threading.Thread(target=kill_when_fitting, args=(cluster, workers[0], out, killed))
    killer.start()
    try:
        states = {outcome.name: outcome.state for outcome in run_batch(request, never)}
    finally:
        killer.join()
        ray.shutdown()
        cluster.shutdown()
    assert any("quicksurf" in command for command in killed), "the worker was fitting when it was lost"
    assert states == {"a": "done", "b": "done", "c": "done"}
    for name in states:
        assert (out / name / "mesh.ply").is_file()
        assert (out / name / "summary.json").is_file()


def kill_when_fitting(cluster: object, worker: object, out: Path, killed: list[str]) -> None:
    """Kill a worker, and the fits that descend from it, once two captures are being fitted."""
    wait_for(lambda: len(list(out.glob("*/metrics.jsonl"))) >= 2)
    children = descendants(worker.all_processes["raylet"][0].process.pid)  # type: ignore[attr-defined]
    cluster.remove_node(worker, allow_graceful=False)  # type: ignore[attr-defined]
    for pid in children:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        killed.append(children[pid])


def wait_for(condition: Callable[[], bool], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)


def descendants(pid: int) -> dict[int, str]:
    """Process ids below `pid` with their command lines, from /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    found: dict[int, str] = {}
    todo = [pid]
    while todo:
        above = todo.pop()
        for child in [child for child, parent in parents.items() if parent == above]:
            try:
                found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
            except OSError:
                found[child] = ""
            todo.append(child)
    return found
