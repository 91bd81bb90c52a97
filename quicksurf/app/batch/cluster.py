"""A batch across machines, on Ray (`pip install 'quicksurf[cluster]'`).

Captures and runs lie in folders that every machine sees under the same path, and quicksurf is installed on each. A
task whose machine is lost is given to another one, which resumes the run from its last checkpoint.
"""

import logging
import socket
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

from quicksurf.app.batch.local import CORES_EACH, MEMORY_EACH, own_cpus
from quicksurf.app.batch.task import GRACE, Outcome, Task, run_task
from quicksurf.errors import BackendError
from quicksurf.kernels import may_use_gpu

RETRIES = 4  # machines that a capture may lose; then it counts as failed
KNOCK_SECONDS = 10.0
LEAVE_SECONDS = 10.0  # a fit that hears nothing is killed after one
_POLL = 0.5


def run_on_ray(
    tasks: Sequence[Task], address: str, device: str, should_stop: Callable[[], bool]
) -> Generator[Outcome, None, None]:
    """Run `tasks` on a Ray cluster.

    Args:
        tasks: the captures.
        address: of the cluster: `auto`, `HOST:PORT`, `ray://HOST:PORT` or `local`.
        device: that the fits compute on, a name of quicksurf.kernels.
        should_stop: asked twice a second.

    Raises:
        BackendError: if Ray is not installed, or there is no cluster.
    """
    ray = _connected(address)
    try:
        fraction = demands(ray.nodes(), may_use_gpu(device))
        remote = ray.remote(max_retries=RETRIES, **fraction)(_run_on_fraction)
        tasks_of = {remote.remote(task, fraction["num_cpus"]): task for task in tasks}
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


def demands(nodes: Sequence[Any], on_gpu: bool) -> dict[str, float]:
    """Tell what a capture is given of a machine, but no more than the smallest has, which could then never help.

    Fits that can go to a GPU have one each where the cluster has any, and then keep to the machines that do.
    """
    sizes = [node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    with_gpu = [size for size in sizes if on_gpu and size.get("GPU", 0) > 0]
    sizes = with_gpu or sizes
    return {
        "num_cpus": min([CORES_EACH, *(size["CPU"] for size in sizes)]),
        "num_gpus": min([1, *(size["GPU"] for size in with_gpu)]) if with_gpu else 0,
        "memory": int(min([MEMORY_EACH, *(size.get("memory", MEMORY_EACH) for size in sizes)])),
    }


def _run_on_fraction(task: Task, n_cpus: float) -> Outcome:
    """On processors of the capture's own: Ray counts them, but lets each process use all."""
    with own_cpus(max(1, int(n_cpus))) as cpus:
        return run_task(task, cpus)


def _collect(
    ray: Any, tasks_of: dict[Any, Task], should_stop: Callable[[], bool]
) -> Generator[Outcome, None, None]:
    """Outcomes as they come; after a stop, or far beyond all their minutes, what is left is given up."""
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
        _give_up(ray, list(tasks_of))
    for task in tasks_of.values():
        yield Outcome(task.name, "stopped", 130, "the batch was stopped; the same command goes on", 0.0)


def _give_up(ray: Any, references: list[Any]) -> None:
    """Interrupt run_task, which ends its child, and wait for that: who leaves now may leave fits behind."""
    for reference in references:
        ray.cancel(reference, force=False)
    if references:
        ray.wait(references, num_returns=len(references), timeout=LEAVE_SECONDS)
