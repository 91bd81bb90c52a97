"""Time several things alternately, so that a drift of the machine meets all of them.

A machine shared with others changes its speed from second to second: only ratios of neighbouring samples compare. Every
repetition measures each action once, and a ratio is taken within a repetition before the median over repetitions.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from statistics import median
from typing import NamedTuple

import torch

from quicksurf import kernels

Within = Callable[[], AbstractContextManager[None]]

_SAMPLE_SECONDS = 0.02  # a thousand times the clock's and the loop's own cost, ten times a scheduler's slice


class Action(NamedTuple):
    """Something to time, and the circumstances it needs."""

    run: Callable[[], object]
    within: Within = nullcontext


class Spread(NamedTuple):
    """Median, smallest and largest of several repetitions."""

    median: float
    low: float
    high: float


def spread(values: list[float]) -> Spread:
    """Summary of repeated measurements."""
    return Spread(median(values), min(values), max(values))


def interleaved(
    actions: dict[str, Action], repeats: int, sample_seconds: float = _SAMPLE_SECONDS
) -> dict[str, list[float]]:
    """Seconds per call of each action in each repetition; short ones are called often enough to fill a sample."""
    n_calls = {name: _calls_per_sample(action, sample_seconds) for name, action in actions.items()}
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            seconds[name].append(_sample(action, n_calls[name]))
    return seconds


def _calls_per_sample(action: Action, sample_seconds: float) -> int:
    """From the fastest of three calls, the first of which warms up; a long call is made once."""
    first = _sample(action, 1)
    if first > 10 * sample_seconds:
        return 1
    return max(1, round(sample_seconds / min(first, _sample(action, 1), _sample(action, 1))))


def _sample(action: Action, n_calls: int) -> float:
    with action.within():
        start = time.perf_counter()
        for _ in range(n_calls):
            action.run()
        return (time.perf_counter() - start) / n_calls


def pool_threads(n: int) -> Within:
    """Circumstances in which the native kernels use `n` threads."""

    def within() -> AbstractContextManager[None]:
        kernels.set_num_threads(n)
        return nullcontext()

    return within


def torch_threads(n: int) -> Within:
    """Circumstances in which torch uses `n` threads, as its twins do; afterwards one."""

    @contextmanager
    def within() -> Iterator[None]:
        torch.set_num_threads(n)
        try:
            yield
        finally:
            torch.set_num_threads(1)

    return within
