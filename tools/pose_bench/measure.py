"""One row after another: our run and COLMAP's of the same capture, and how far both are from the truth."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pose_bench.captures import Case, read_truth
from pose_bench.measures import Poses, compare
from pose_bench.runs import OURS, PEER, Found, kept, run
from pose_bench.table import Ledger, Row
from quicksurf.capture.listing import list_images


class Plan(NamedTuple):
    """What is to be measured, and where things lie."""

    cases: Sequence[Case]
    seconds: float
    """Given to our runs."""
    runs: Path
    """Where our poses and logs are kept."""
    cache: Path | None
    """Where COLMAP's poses are kept; None leaves COLMAP out."""
    time_peer: bool
    """Run COLMAP anew, so that its seconds are of this machine and hour."""


def rows_of(plan: Plan, ledger: Ledger) -> Iterator[Row]:
    """Measure what `ledger` lacks of `plan`, row by row; what fails becomes a row that says so.

    Raises:
        CaptureError: if the file of the true cameras is broken.
        OutputError: if the folder of the output cannot be written.
    """
    for case in plan.cases:
        row = ledger.row(case.name)
        if row is None or not _complete(row, plan):
            row = measure(case, plan)
            ledger.add(row)
        yield row


def measure(case: Case, plan: Plan) -> Row:
    """Our run, then COLMAP's or what is kept of it."""
    names = {path.stem for path in list_images(case.photos)}
    truth = {name: pose for name, pose in read_truth(case).items() if name in names}
    ours = run(OURS, case, plan.runs, plan.seconds)
    row = Row(case.name, len(names), len(truth), case.note, plan.seconds, made=ours.made)
    row = replace(row, warnings=ours.warnings, failure=ours.failure)
    peer = None if plan.cache is None else peer_poses(case, plan.cache, plan.time_peer)
    if peer is not None and peer.failure is not None:
        row = replace(row, failure=row.failure or f"COLMAP: {peer.failure}")
    return _with_figures(row, ours, peer, truth)


def peer_poses(case: Case, cache: Path, timed: bool) -> Found:
    """What COLMAP finds: from the cache if it is there and need not be timed."""
    found = None if timed else kept(case, cache)
    return found or run(PEER, case, cache, 0.0, timed)


def _complete(row: Row, plan: Plan) -> bool:
    """Whether a row has all that is asked for: the same budget, and COLMAP's figures."""
    if row.budget != plan.seconds:
        return False
    return plan.cache is None or bool(row.peer.get("timed") if plan.time_peer else row.peer)


def _with_figures(row: Row, ours: Found, peer: Found | None, truth: Poses) -> Row:
    """Figures of each over what it placed, and as NAME_both over what both placed."""
    row = replace(row, ours=_figures(ours, truth))
    if peer is None:
        return row
    both = {name: truth[name] for name in ours.poses.keys() & peer.poses.keys() & truth.keys()}
    shared = [
        {f"{name}_both": value for name, value in compare(found.arrays(), both).items()}
        for found in (ours, peer)
    ]
    return replace(row, ours=row.ours | shared[0], peer=_figures(peer, truth) | shared[1])


def _figures(found: Found, truth: Poses) -> dict[str, float]:
    known = {"placed": len(found.poses), "seconds": round(found.seconds, 1), "timed": float(found.timed)}
    return known | (compare(found.arrays(), truth) if truth else {})
