"""A batch across machines, on Ray (`pip install 'quicksurf[cluster]'`).

Captures and runs lie in folders that every machine sees under the same path, and quicksurf is installed on each. A
task whose machine is lost is given to another one, which resumes the run from its last checkpoint.
"""

import logging
import socket
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

from quicksurf.batch.local import CORES_EACH, MEMORY_EACH
from quicksurf.batch.task import GRACE, Outcome, Task, run_task
from quicksurf.errors import BackendError

RETRIES = 4  # machines that a capture may lose; then it is said to have failed
KNOCK_SECONDS = 10.0
_POLL = 0.5


def run_on_ray(
    tasks: Sequence[Task], address: str, should_stop: Callable[[], bool]
) -> Generator[Outcome, None, None]:
    """Run `tasks` on the Ray cluster at `address` (`auto`, `HOST:PORT`, `ray://HOST:PORT`, `local`).

    Raises:
        BackendError: if Ray is not installed, or there is no cluster.
    """
    ray = _connected(address)
    try:
        remote = ray.remote(max_retries=RETRIES, **_demands(ray.nodes()))(run_task)
        tasks_of = {remote.remote(task): task for task in tasks}
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
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ValueError, RuntimeError, OSError, OverflowError) as error:
        raise BackendError(
            f"no Ray cluster answers at {address} ({str(error)[:200]}): start one with ray start, or give --ray local"
        ) from error
    return ray


def _knock(address: str) -> None:
    """Fail at once where nothing listens: Ray itself tries for minutes.

    Raises:
        OSError: if HOST:PORT takes no connection.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), KNOCK_SECONDS).close()


def _demands(nodes: Sequence[Any]) -> dict[str, float]:
    """Cores and memory of a capture, but no more than the smallest machine has, which could then never help."""
    sizes = [node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    cores = min([CORES_EACH, *(size["CPU"] for size in sizes)])
    memory = min([MEMORY_EACH, *(size.get("memory", MEMORY_EACH) for size in sizes)])
    return {"num_cpus": cores, "memory": int(memory)}


def _collect(
    ray: Any, tasks_of: dict[Any, Task], should_stop: Callable[[], bool]
) -> Generator[Outcome, None, None]:
    """Outcomes as they come; after a stop, or far beyond all their minutes, what is left is given up."""
    longest = sum(60 * task.minutes * 1.05 + 2 * GRACE for task in tasks_of.values())
    end = time.monotonic() + (1 + RETRIES) * longest
    while tasks_of and not should_stop() and time.monotonic() < end:
        ready, _ = ray.wait(list(tasks_of), num_returns=1, timeout=_POLL)
        for reference in ready:
            task = tasks_of.pop(reference)
            try:
                yield ray.get(reference)
            except ray.exceptions.RayError as error:
                lines = str(error).strip().splitlines() or ["no message"]
                yield Outcome(task.name, "failed", BackendError.exit_code, f"lost by Ray: {lines[0]}", 0.0)
    for reference, task in tasks_of.items():
        ray.cancel(reference, force=False)  # interrupts run_task, which ends its child
        yield Outcome(task.name, "stopped", 130, "the batch was stopped; the same command goes on", 0.0)
