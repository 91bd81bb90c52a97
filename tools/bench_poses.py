"""Measure how many photos are placed and how many of them right, how exactly and how fast, beside plain COLMAP.

    python tools/bench_poses.py ../shared/data/herzjesu/images --truth ../shared/data/herzjesu/transforms_gt.json
    python tools/bench_poses.py --all ../shared/data --peer --cache runs/colmap     # every capture, COLMAP's poses kept
    python tools/bench_poses.py --all ../shared/data --time-peer --only herzjesu    # COLMAP timed beside ours
    python tools/bench_poses.py --all ../shared/data --fill-cache                   # COLMAP alone, on a busy machine

Photos are given alone, without masks and cameras; every run is a process of its own. --all writes poses.md and
poses.json into --output after each row and resumes from them when it is called again: a row is measured anew if it
failed, was given other --seconds, or lacks what is asked of COLMAP. Name another folder to measure anew.

Exits with 0 if no row has a verdict against it, 1 if one has, another code if it could not run.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
sys.path.insert(0, str(TOOLS))
sys.path.append(str(TOOLS.parent))  # last: an installed package has its extension

from pose_bench.captures import NAMES, Case, select  # noqa: E402
from pose_bench.measure import Plan, peer_poses, rows_of  # noqa: E402
from pose_bench.table import Ledger, describe, verdicts  # noqa: E402

from quicksurf.errors import QuicksurfError  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for; print each row as soon as it is there."""
    options = parse(arguments)
    cases = _cases(options)
    if not cases:
        print(f"nothing in {options.all} is of '{options.only}': {', '.join(NAMES)}", file=sys.stderr)
        return 2
    try:
        return fill(cases, options.cache) if options.fill_cache else report(cases, options)
    except QuicksurfError as error:
        print(f"bench_poses: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"interrupted: run the same command again to resume from {options.output}", file=sys.stderr)
        return 130


def report(cases: Sequence[Case], options: argparse.Namespace) -> int:
    """Print row by row; 1 if one has a verdict against it."""
    cache = options.cache if options.peer or options.time_peer else None
    with tempfile.TemporaryDirectory(prefix="bench-poses-") as passing:
        runs = options.output / "runs" if options.all else Path(passing)
        plan = Plan(cases, options.seconds, runs, cache, options.time_peer)
        failed = False
        for row in rows_of(plan, Ledger(options.output if options.all else None, NAMES)):
            print(describe(row), flush=True)
            failed |= bool(verdicts(row))
    return int(failed)


def fill(cases: Sequence[Case], cache: Path) -> int:
    """Run COLMAP where the cache has nothing; its seconds are marked as not comparable."""
    failed = False
    for case in cases:
        found = peer_poses(case, cache, timed=False)
        print(
            f"{case.name}: {len(found.poses)} placed, {found.seconds:.0f} s, {found.failure or ''}",
            flush=True,
        )
        failed |= found.failure is not None
    return int(failed)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="folder of photos")
    parser.add_argument("--truth", type=Path, help="transforms.json or npz with the cameras of these photos")
    parser.add_argument("--all", type=Path, metavar="DIR", help="folder of the captures")
    parser.add_argument("--only", default="", metavar="REGEX", help="captures whose name matches")
    parser.add_argument("--seconds", type=float, default=300.0, help="time for our poses (%(default)g)")
    parser.add_argument(
        "--peer", action="store_true", help="beside COLMAP, from --cache where it has its poses"
    )
    parser.add_argument("--time-peer", action="store_true", help="run COLMAP anew, right after ours")
    parser.add_argument("--fill-cache", action="store_true", help="run COLMAP alone where --cache lacks it")
    parser.add_argument("--cache", type=Path, default=Path("runs/colmap"), help="of COLMAP (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("runs/poses"), help="of --all (%(default)s)")
    options = parser.parse_args(arguments)
    if (options.folder is None) == (options.all is None):
        parser.error("give a folder of photos, or --all and the folder of the captures")
    given = options.folder or options.all
    if not given.is_dir():
        parser.error(f"{given} is no folder: check the path")
    try:
        re.compile(options.only)
    except re.error as error:
        parser.error(f"--only {options.only!r} is no regular expression: {error}")
    return options


def _cases(options: argparse.Namespace) -> list[Case]:
    if options.all:
        return select(options.all, options.only)
    folder = options.folder.resolve()
    name = folder.parent.name if folder.name in ("image", "images") else folder.name
    return [Case(name, folder, options.truth)]


if __name__ == "__main__":
    sys.exit(main())
