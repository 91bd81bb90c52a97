"""Check every kernel against its torch twin, time it, and print its fraction of a limit measured in the same run.

    python tools/bench_kernels.py                    all rows
    python tools/bench_kernels.py --only 'MLP|scan'  rows whose name matches
    python tools/bench_kernels.py --gate             fail if a ratio fell against tools/baseline.json
    python tools/bench_kernels.py --write-baseline   keep this run's ratios

Threads: two, or what this process may use if that is less. The machine should be idle. Ratios are taken between
neighbouring samples, so that most hold on a busy one, too, with a wider spread; what a second thread gains does not.
"""

import argparse
import os
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
BASELINE = TOOLS / "baseline.json"
# Before torch is loaded: its threads, which the twins use, must sleep and not spin while they wait. On a busy machine
# two spinning ones made a twin ten times slower than one, and its ratio as much too good.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
# the tolerances and the matcher's twin are those of the tests, which are no package
sys.path[:0] = [str(TOOLS), *(str(TOOLS.parent / folder) for folder in ("tests", "tests/kernels"))]

from kernel_bench import gate, limits, marching, matching, memory, networks, scans, step  # noqa: E402
from kernel_bench.check import Mismatch  # noqa: E402
from kernel_bench.kernel import MACHINE, measure, measure_limits  # noqa: E402
from kernel_bench.results import Row, ratios_of, table_of  # noqa: E402
from rich.console import Console  # noqa: E402

from quicksurf import kernels  # noqa: E402
from quicksurf.kernels import _native, nerfacc  # noqa: E402


def main() -> int:
    """Run what the command line asks for; 1 if a kernel is wrong or a ratio fell."""
    options = parse()
    console = Console(width=None if sys.stdout.isatty() else 130)
    kernels.load("cpu")
    nerfacc.install()
    n_threads = min(2, _native.usable_cpus())
    started = time.monotonic()
    try:
        rows = measure_all(re.compile(options.only), n_threads, options.repeats, console)
    except Mismatch as error:
        console.print(f"[red]{error}[/]")
        return 1
    if not rows:
        console.print(f"no row matches '{options.only}': {', '.join(jobs(n_threads, options.repeats))}")
        return 2
    console.print(table_of(rows))
    console.print(f"{gate.machine()}; {n_threads} threads; {time.monotonic() - started:.0f} s")
    if options.write_baseline:
        gate.write_baseline(BASELINE, ratios_of(rows))
    return check_gate(rows, options.only, console) if options.gate else 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="PATTERN", help="regular expression of row names")
    parser.add_argument("--repeats", type=int, default=7, help="repetitions whose median is taken")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--gate", action="store_true", help="compare with the committed ratios")
    action.add_argument("--write-baseline", action="store_true", help="commit to this run's ratios")
    options = parser.parse_args()
    if options.repeats < 3:
        parser.error(f"--repeats is {options.repeats}: a median needs at least 3")
    if options.gate and not BASELINE.is_file():
        parser.error(f"{BASELINE} is missing: make it with --write-baseline")
    if options.only and options.write_baseline:
        parser.error("--write-baseline needs all rows: leave out --only")
    return options


def measure_all(wanted: re.Pattern[str], n_threads: int, repeats: int, console: Console) -> list[Row]:
    """The rows whose name matches, each announced when it is done."""
    rows = []
    for name, run in jobs(n_threads, repeats).items():
        if wanted.search(name):
            started = time.monotonic()
            rows.append(run())
            console.print(f"[dim]{name}: {time.monotonic() - started:.1f} s[/]")
    return rows


def jobs(n_threads: int, repeats: int) -> dict[str, Callable[[], Row]]:
    """Everything that can be measured, by name."""
    table: dict[str, Callable[[], Row]] = {
        MACHINE: partial(measure_limits, limits.machine(), n_threads, repeats)
    }
    for kernel in [*networks.kernels(), *scans.kernels(), *marching.kernels(), matching.kernel()]:
        table[kernel.name] = partial(measure, kernel, n_threads, repeats)
    table[step.NAME] = partial(step.measure, n_threads, max(3, repeats - 2))
    table[memory.NAME] = memory.measure
    return table


def check_gate(rows: list[Row], only: str, console: Console) -> int:
    """Compare with the committed ratios; 1 and a line for each that fell."""
    baseline = gate.read_baseline(BASELINE)
    if baseline["machine"] != gate.machine():
        console.print(f"[yellow]the baseline was measured on another machine: {baseline['machine']}[/]")
    committed = {
        name: ratio for name, ratio in baseline["ratios"].items() if re.search(only, name.rsplit(": ", 1)[0])
    }
    lines = gate.regressions(ratios_of(rows), committed)
    for line in lines:
        console.print(f"[red]regression[/] {line}")
    console.print(f"{len(committed)} ratios compared, {len(lines)} fell")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
