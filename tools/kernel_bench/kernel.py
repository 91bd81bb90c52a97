"""One kernel as data, and how it is measured: checked against its twin, then timed beside its limits."""

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from kernel_bench.limits import Limit
from kernel_bench.results import Row
from kernel_bench.timing import Action, Spread, interleaved, pool_threads, spread, torch_threads

LONG_SECONDS = 1e-3  # shorter calls are bound by waking a thread, not by the machine
TWO_THREADS = 1.8
_TWIN_REPEATS = 3  # it is slow, and its targets are missed or passed by far
MACHINE = "limits of this machine"


@dataclass(frozen=True)
class Kernel:
    """An operation of the `cpu` back end and what it is held against."""

    name: str
    run: Callable[[], object]
    amount: float
    """Work of one call, in the unit below."""
    unit: str
    scale: float
    """Of the unit: 1e6 for M points/s."""
    check: Callable[[], None]
    """Raises Mismatch unless values and gradients are those of the torch twin."""
    limits: tuple[tuple[Limit, float], ...] = ()
    """Each with the work that one call takes of it."""
    twin: Callable[[], object] | None = None
    twin_part: float = 1.0
    """Fraction of the work that the twin is timed with: it is slow."""
    rivals: dict[str, tuple[Callable[[], object], float]] = field(default_factory=dict)
    """Other native ways: ratio's name → how, and its fraction of the work."""
    targets: dict[str, float] = field(default_factory=dict)
    """Ratio's name → its target."""


def measure(kernel: Kernel, n_threads: int, repeats: int) -> Row:
    """Check, time and compare one kernel."""
    kernel.check()
    seconds = interleaved(_actions(kernel, n_threads), repeats)
    own, row = seconds["own"], Row(kernel.name)
    row.add("rate", _rates(own, kernel.amount / kernel.scale), kernel.unit)
    for limit, work in kernel.limits:
        times = [limit_s * work / limit.call_work for limit_s in seconds[limit.name]]
        row.add(
            f"{limit.name} beside it", _rates(seconds[limit.name], limit.call_work / limit.scale), limit.unit
        )
        _add(row, kernel, f"fraction of {limit.name}", times, own)
    for name, (_, part) in kernel.rivals.items():
        _add(row, kernel, name, [s / part for s in seconds[name]], own)
    if kernel.twin is not None:
        twin, beside = _twin_seconds(kernel, kernel.twin, n_threads)
        _add(row, kernel, "times the twin", [s / kernel.twin_part for s in twin], beside)
    if n_threads > 1:
        long = min(seconds["one"]) > LONG_SECONDS
        row.add_ratio(
            f"{n_threads} threads against 1", _ratio(seconds["one"], own), TWO_THREADS if long else None
        )
    return row


def measure_limits(limits: tuple[Limit, ...], n_threads: int, repeats: int) -> Row:
    """The machine itself, on one thread and on all: no kernel gains more from threads than these."""
    row = Row(MACHINE)
    for limit in limits:
        actions = {"one": Action(limit.on(1))}
        if n_threads > 1:
            actions["all"] = Action(limit.on(n_threads))
        seconds = interleaved(actions, repeats)
        for name, times in seconds.items():
            threads = "1 thread" if name == "one" else f"{n_threads} threads"
            row.add(f"{limit.name}, {threads}", _rates(times, limit.call_work / limit.scale), limit.unit)
        if n_threads > 1:
            row.add(f"{limit.name}, {n_threads} threads against 1", _ratio(seconds["one"], seconds["all"]))
    return row


def _actions(kernel: Kernel, n_threads: int) -> dict[str, Action]:
    actions = {"own": _own(kernel, n_threads)}
    actions |= {limit.name: Action(limit.on(n_threads)) for limit, _ in kernel.limits}
    actions |= {name: Action(run, pool_threads(n_threads)) for name, (run, _) in kernel.rivals.items()}
    return actions | ({"one": _own(kernel, 1)} if n_threads > 1 else {})


def _twin_seconds(
    kernel: Kernel, twin: Callable[[], object], n_threads: int
) -> tuple[list[float], list[float]]:
    """Seconds of the twin, on one thread or on all, whichever is faster here, and of the kernel beside it."""
    actions = {str(n): Action(twin, torch_threads(n)) for n in {1, n_threads}}
    seconds = interleaved(actions | {"own": _own(kernel, n_threads)}, _TWIN_REPEATS)
    return min((seconds[name] for name in actions), key=median), seconds["own"]


def _own(kernel: Kernel, n_threads: int) -> Action:
    return Action(kernel.run, pool_threads(n_threads))


def _add(row: Row, kernel: Kernel, name: str, above: list[float], own: list[float]) -> None:
    row.add_ratio(name, _ratio(above, own), kernel.targets.get(name))


def _ratio(above: list[float], below: list[float]) -> Spread:
    """Ratios within each repetition."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def _rates(seconds: list[float], amount: float) -> Spread:
    return spread([amount / s for s in seconds])
