"""A batch across machines: what a capture asks of them, a stop, and machines that are lost."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from batch_folders import make, never, task_in
from processes import descendants, wait_for
from tiny_capture import write_capture

from quicksurf.app.batch.cluster import demands, run_on_ray
from quicksurf.app.batch.local import own_cpus
from quicksurf.app.batch.run import BatchRequest, run_batch
from quicksurf.errors import BackendError

GIB = 1 << 30
TINY = str(Path(__file__).with_name("tiny.toml"))


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


def test_a_cluster_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'quicksurf[cluster]'")
    folder = make(tmp_path / "c", "a")
    with pytest.raises(BackendError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        list(run_batch(BatchRequest(folder, 1.0, tmp_path / "out", ray="127.0.0.1:1"), never))


@pytest.mark.slow
def test_a_stop_on_a_cluster_leaves_no_fit_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fit that runs has processors of its own, and is gone when the batch says that it was stopped."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'quicksurf[cluster]'")
    monkeypatch.chdir(
        tmp_path
    )  # Ray's workers look there first: a source folder would hide what is installed
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
def test_captures_survive_the_loss_of_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers on a local Ray cluster; one is killed with all its processes, as a power cut would, mid-fit."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'quicksurf[cluster]'")
    from ray.cluster_utils import Cluster

    monkeypatch.chdir(tmp_path)  # as above
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
