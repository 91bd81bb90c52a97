"""What minutes buy: how accurate the surface is after 1, 3 and 10 minutes, beside the visual hull or OpenMVS.

    python tools/bench_quality.py                                # everything, five hours
    python tools/bench_quality.py --only dev-a --minutes 1       # one capture, one budget
    python tools/bench_quality.py --only '^dev' --torch          # the slow back end for the same minutes, too
    python tools/bench_quality.py --against CAPTURE RUN          # a run that is there, beside CAPTURE/openmvs.ply

Runs the public command, one after the other, in a child process with a clock beside it, and scores its mesh. Writes
into --output: quality.md, quality.json and quality.png, and the runs. Rows that its quality.json has already are not
measured again, so that a bench which was ended goes on when it is called again, also on another day: each row says on
what machine, of what commit and when it was made. Name another folder to measure anew. The machine should be idle.
Captures: those of --captures that are there; the others are named as not run. Published rows are in tools/quality.json;
a bench goes on from them if they are copied into --output. Facades, courtyards and rooms have no true surface: their
rows say how far ours agrees with OpenMVS' mesh of the same photos (quality_bench/against.py).

Leaves with 0 if every target was met, 1 if one was not, another code if it could not run.
"""

import argparse
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

TOOLS = Path(__file__).resolve().parent
sys.path.insert(0, str(TOOLS))
sys.path.append(str(TOOLS.parent))  # last: an installed package has its extension

from quality_bench.captures import CASES, Against, Case, select  # noqa: E402
from quality_bench.ledger import Ledger  # noqa: E402
from quality_bench.measure import Plan, compared_row, rows_of  # noqa: E402
from quality_bench.table import describe  # noqa: E402

from quicksurf.errors import QuicksurfError  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for and write the table after every row."""
    options = parse(arguments)
    # Of this process: its operations are small, and threads that spin cost it tenfold.
    torch.set_num_threads(1)
    if options.against:
        capture, run = options.against
        return compare(capture, run, Against(options.given, options.object))
    selection = select(options.only, options.captures)
    if not selection.present:
        print(f"nothing in {options.captures} is of '{options.only}': {_names(CASES)}", file=sys.stderr)
        return 2
    plan = Plan(selection.present, options.minutes, options.torch, options.captures, options.output)
    notes = [f"Not run, not among the captures: {_names(selection.absent)}."] if selection.absent else []
    try:
        return report(plan, notes)
    except QuicksurfError as error:
        print(f"bench_quality: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"interrupted: the same command goes on from what is in {plan.output}", file=sys.stderr)
        return 130


def compare(capture: Path, run: Path, against: Against) -> int:
    """Print how a run that is there agrees with the other mesh of its capture, as one line."""
    try:
        print(describe(compared_row(capture, run, against)))
        return 0
    except QuicksurfError as error:
        print(f"bench_quality: {error}", file=sys.stderr)
        return error.exit_code


def report(plan: Plan, notes: Sequence[str]) -> int:
    """Print each row as soon as it is there; 1 if a target was missed."""
    rows = []
    for row in rows_of(plan, Ledger(plan.output, notes)):
        rows.append(row)
        print(describe(row), flush=True)
    print(f"wrote {plan.output / 'quality.md'}")
    missed = [
        target for row in rows for target in row.targets if not target.met(row.figures.get(target.figure))
    ]
    return 1 if missed else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, checked: nothing is found missing after an hour."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--captures", type=Path, default=_captures(), help="folder of the captures (%(default)s)"
    )
    parser.add_argument(
        "--only", default="", metavar="REGEX", help="cases whose name matches, as 'dev-a-masks'"
    )
    parser.add_argument("--minutes", type=float, nargs="+", metavar="M", help="in place of each case's own")
    parser.add_argument("--torch", action="store_true", help="run --device torch, too: doubles the time")
    parser.add_argument("--output", type=Path, default=Path("runs/quality"), help="folder (%(default)s)")
    _add_comparison(parser)
    options = parser.parse_args(arguments)
    if (options.given or options.object) and not options.against:
        parser.error("--given and --object say how to compare: name what, with --against CAPTURE RUN")
    if not options.against:
        _check(parser, options)
    return options


def _add_comparison(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("score a run that is there, without fitting")
    group.add_argument(
        "--against", type=Path, nargs=2, metavar=("CAPTURE", "RUN"), help="with its openmvs.ply"
    )
    group.add_argument("--given", action="store_true", help="the run was given openmvs_cameras.json")
    group.add_argument(
        "--object", action="store_true", help="count only what the capture's masks have inside"
    )


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if not options.captures.is_dir():
        parser.error(f"--captures {options.captures} is no folder: name one, or set QUICKSURF_DATA")
    if options.minutes and not all(0 < minutes <= 1440 for minutes in options.minutes):
        parser.error(f"--minutes {options.minutes}: give numbers above 0, at most a day")
    if importlib.util.find_spec("matplotlib") is None:
        parser.error(
            'the plot needs matplotlib: pip install "quicksurf[bench]", or pip install "matplotlib>=3.8"'
        )
    try:
        re.compile(options.only)
    except re.error as error:
        parser.error(f"--only {options.only!r} is no regular expression: {error}")


def _captures() -> Path:
    return Path(os.environ.get("QUICKSURF_DATA", TOOLS.parents[1] / "shared" / "data"))


def _names(cases: Sequence[Case]) -> str:
    return ", ".join(case.name for case in cases)


if __name__ == "__main__":
    sys.exit(main())
