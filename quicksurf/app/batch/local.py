"""A batch on this machine: as many captures at a time as its cores and memory allow."""

import os
import queue
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch

from quicksurf.app.batch.task import Outcome, Task, run_task
from quicksurf.app.doctor import cpu_quota, memory_bytes
from quicksurf.kernels import may_use_gpu
from quicksurf.kernels.host import usable_cpus

CORES_EACH = 2  # of a capture: a fit on one core is half as far after the same minutes
# Bytes: a fit takes about 1 GB at most, structure from motion of large photos more.
MEMORY_EACH = 2_000_000_000


def affordable_jobs(n_captures: int, n_cpus: int, n_bytes: int) -> int:
    """Compute how many captures at a time have CORES_EACH cores and MEMORY_EACH bytes each; at least one."""
    return max(1, min(n_captures, n_cpus // CORES_EACH, n_bytes // MEMORY_EACH))


def jobs_here(n_captures: int, device: str) -> int:
    """Choose how many captures to fit at a time on this machine; one on a GPU, which a single fit keeps busy."""
    if may_use_gpu(device) and torch.cuda.is_available():
        return 1
    cgroup = Path("/sys/fs/cgroup")
    cpus = usable_cpus()
    quota = cpu_quota(cgroup)
    return affordable_jobs(n_captures, cpus if quota is None else min(cpus, int(quota)), memory_bytes(cgroup))


def run_here(
    tasks: Sequence[Task], jobs: int, should_stop: Callable[[], bool]
) -> Generator[Outcome, None, None]:
    """Run `tasks`, `jobs` at a time, each on processors of its own; yield outcomes as they come.

    After a stop, or when the generator is closed, running fits end with a checkpoint and no further ones begin.
    """
    cpu_sets: queue.SimpleQueue[tuple[int, ...]] = queue.SimpleQueue()
    for cpus in divide_cpus(jobs):
        cpu_sets.put(cpus)
    closed = threading.Event()

    def stopped() -> bool:
        return closed.is_set() or should_stop()

    def work(task: Task) -> Outcome | None:
        if stopped():
            return None
        cpus = cpu_sets.get()
        try:
            return run_task(task, cpus, stopped)
        finally:
            cpu_sets.put(cpus)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for future in as_completed([pool.submit(work, task) for task in tasks]):
                outcome = future.result()
                if outcome is not None:
                    yield outcome
        finally:
            closed.set()


def divide_cpus(jobs: int) -> list[tuple[int, ...]]:
    """Divide the processors among the jobs; all for each if there are too few, none without affinity."""
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = sorted(affinity(0)) if affinity is not None else []
    if len(cpus) < jobs:
        return [tuple(cpus)] * jobs
    return [tuple(cpus[index::jobs]) for index in range(jobs)]


@contextmanager
def own_cpus(count: int) -> Iterator[tuple[int, ...]]:
    """Hold up to `count` processors that no other such block on this machine holds; none if all are taken.

    A socket in Linux's abstract namespace (unix(7)) holds a processor: the system releases it even if this process
    is killed, and no file is left behind.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    taken: list[int] = []
    with ExitStack() as held:
        for cpu in sorted(affinity(0)) if affinity is not None else []:
            if len(taken) == count:
                break
            with suppress(OSError):  # another has it
                held.enter_context(socket.socket(socket.AF_UNIX)).bind(f"\0quicksurf-cpu-{cpu}")
                taken.append(cpu)
        yield tuple(taken)
