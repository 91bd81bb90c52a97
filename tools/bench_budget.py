"""Wall time of `quicksurf fit` against its `--minutes`: small and large surfaces, alone and beside a busy process.

    python tools/bench_budget.py ../shared/data                    12 fits, 57 minutes
    python tools/bench_budget.py ../shared/data --minutes 1 --fits 2

A fit keeps its promise where its wall time is within the larger of FRACTION and SECONDS of its minutes, and where
report.html is there or summary.json says that it was left out. The table is printed as it grows; the tool leaves with
1 where a promise was broken. Every other fit runs beside a process that takes one core.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

FRACTION, SECONDS = 0.03, 5.0
MINUTES = (1.0, 3.0, 5.0, 10.0)
LATE = 2.0  # times the minutes after which a fit is ended
CAPTURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("dev-a", ("--masks", "none")),  # one object in the middle, cameras given
    ("castle_p30/images", ("--keep", "scene")),  # a courtyard that fills the region, photos alone
    ("dtu_scan24", ("--masks", "none", "--keep", "scene")),  # houses and their table, cameras given
)
"""Folders and options. A folder without cameras beside its photos has them found."""


class Case(NamedTuple):
    """One fit."""

    capture: str
    options: tuple[str, ...]
    minutes: float
    busy: bool


class Row(NamedTuple):
    """How it went."""

    case: Case
    seconds: float
    code: int
    report: bool
    left_out: list[str]

    def late(self) -> float:
        """Seconds beyond the minutes; negative when it was early."""
        return self.seconds - 60 * self.case.minutes

    def kept(self) -> bool:
        """Whether the promise was kept; a fit that ends early has only what it says to be judged by."""
        said = self.report or any("report.html" in text for text in self.left_out)
        return (
            self.code in (0, 13) and said and self.late() <= max(FRACTION * 60 * self.case.minutes, SECONDS)
        )

    def line(self) -> str:
        """Of the table."""
        cells = [
            self.case.capture,
            f"{self.case.minutes:g}",
            "busy" if self.case.busy else "",
            f"{self.seconds:.1f}",
            f"{self.late():+.1f}",
            "yes" if self.report else "no",
            "; ".join(text.partition(":")[0] for text in self.left_out),
            "kept" if self.kept() else f"**broken** (exit {self.code})",
        ]
        return f"| {' | '.join(cells)} |"


def cases(minutes: tuple[float, ...], count: int) -> list[Case]:
    """Every capture with each of the minutes, the next one beside a busy process."""
    grid = [(capture, m) for m in minutes for capture in CAPTURES]
    return [Case(*capture, m, index % 2 == 1) for index, (capture, m) in enumerate(grid)][:count]


@contextmanager
def busy_core(wanted: bool) -> Iterator[None]:
    """Another process that computes without end, if wanted."""
    if not wanted:
        yield
        return
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def run_case(case: Case, data: Path, folder: Path) -> Row:
    """Fit once, from the start of the process to its end."""
    output = folder / "run"
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "quicksurf", "fit", str(data / case.capture), *case.options, "--quiet"]
    with busy_core(case.busy):
        began = time.monotonic()
        try:
            code = subprocess.run(
                [*command, "--minutes", f"{case.minutes:g}", "--output", str(output)],
                timeout=LATE * 60 * case.minutes,
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
        seconds = time.monotonic() - began
    path = output / "summary.json"
    summary = json.loads(path.read_text()) if path.exists() else {}
    return Row(case, seconds, code, (output / "report.html").exists(), summary.get("left_out", []))


def main() -> int:
    """Bench as the arguments say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of the captures")
    parser.add_argument("--minutes", type=float, nargs="+", default=MINUTES)
    parser.add_argument("--fits", type=int, default=12)
    given = parser.parse_args()
    chosen = cases(tuple(given.minutes), given.fits)
    for case in chosen:
        if not (given.data / case.capture).exists():
            parser.error(f"{given.data / case.capture} is not there: give the folder of the captures")
    print("| capture | minutes | other core | seconds | late | report | left out | promise |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    kept = True
    with tempfile.TemporaryDirectory(prefix="budget-") as name:
        for case in chosen:
            row = run_case(case, given.data, Path(name))
            print(row.line(), flush=True)
            kept &= row.kept()
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
