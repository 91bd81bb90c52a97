"""A batch across machines, on Ray (`pip install 'quicksurf[cluster]'`).

Captures and runs lie in folders with the same path on every machine, and quicksurf is installed on each. If a machine
is lost, another one resumes its run from the last checkpoint.
"""

import logging
import socket
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

from quicksurf.app.batch.local import CORES_EACH, MEMORY_EACH, own_cpus
from quicksurf.app.batch.task import GRACE, STOPPED, Outcome, Task, run_task
from quicksurf.errors import BackendError
from quicksurf.kernels import may_use_gpu

RETRIES = 4  # machines that a capture may lose before it counts as failed
CONNECT_SECONDS = 10.0
LEAVE_SECONDS = 10.0  # a fit that does not react is killed after one
_POLL = 0.5


def run_on_ray(
    tasks: Sequence[Task], address: str, device: str, should_stop: Callable[[], bool]
) -> Generator[Outcome, None, None]:
    """Run `tasks` on a Ray cluster.

    Args:
        address: of the cluster: `auto`, `HOST:PORT`, `ray://HOST:PORT` or `local`.
        should_stop: polled twice a second.

    Raises:
        BackendError: if Ray is not installed, or there is no cluster.
    """
    ray = _connected(address)
    try:
        resources = demands(ray.nodes(), may_use_gpu(device))
        remote = ray.remote(max_retries=RETRIES, **resources)(_run_on_own_cpus)
        tasks_of = {remote.remote(task, resources["num_cpus"]): task for task in tasks}
        yield from _collect(ray, tasks_of, should_stop)
    finally:
        ray.shutdown()


def _connected(address: str) -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise BackendError(
            "--ray needs Ray, which is not installed: pip install 'quicksurf[cluster]'"
        ) from error
    try:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if host and port.isdecimal():  # fail at once if nothing listens: Ray itself tries for minutes
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ValueError, RuntimeError, OSError, OverflowError) as error:
        raise BackendError(
            f"no Ray cluster answers at {address} ({str(error)[:200]}): start one with ray start, or give --ray local"
        ) from error
    return ray


def demands(nodes: Sequence[Any], on_gpu: bool) -> dict[str, float]:
    """Compute the resources of one capture, at most those of the smallest machine, so that each machine can help.

    Fits that can use a GPU get one each if the cluster has any, and then use only machines that have one.
    """
    sizes = [node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    with_gpu = [size for size in sizes if on_gpu and size.get("GPU", 0) > 0]
    sizes = with_gpu or sizes
    return {
        "num_cpus": min([CORES_EACH, *(size["CPU"] for size in sizes)]),
        "num_gpus": min([1, *(size["GPU"] for size in with_gpu)]) if with_gpu else 0,
        "memory": int(min([MEMORY_EACH, *(size.get("memory", MEMORY_EACH) for size in sizes)])),
    }


def _run_on_own_cpus(task: Task, n_cpus: float) -> Outcome:
    """Run on processors of its own: Ray counts them but does not set the affinity."""
    with own_cpus(max(1, int(n_cpus))) as cpus:
        return run_task(task, cpus)


def _collect(
    ray: Any, tasks_of: dict[Any, Task], should_stop: Callable[[], bool]
) -> Generator[Outcome, None, None]:
    """Yield outcomes as they come; cancel the rest after a stop, or far beyond the minutes of all."""
    longest = sum(60 * task.minutes * 1.05 + 2 * GRACE for task in tasks_of.values())
    end = time.monotonic() + (1 + RETRIES) * longest
    try:
        while tasks_of and not should_stop() and time.monotonic() < end:
            ready, _ = ray.wait(list(tasks_of), num_returns=1, timeout=_POLL)
            for reference in ready:
                task = tasks_of.pop(reference)
                try:
                    yield ray.get(reference)
                except ray.exceptions.RayError as error:
                    lines = str(error).strip().splitlines() or ["no message"]
                    yield Outcome(
                        task.name, "failed", BackendError.exit_code, f"lost by Ray: {lines[0]}", 0.0
                    )
    finally:
        left = list(tasks_of)
        for reference in left:  # interrupt run_task, which ends its child, and wait for that
            ray.cancel(reference, force=False)
        if left:
            ray.wait(left, num_returns=len(left), timeout=LEAVE_SECONDS)
    for task in tasks_of.values():
        yield Outcome(task.name, "stopped", 130, STOPPED, 0.0)
