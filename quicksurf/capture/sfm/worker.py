"""Structure from motion in a process of its own: `python -m quicksurf.capture.sfm.worker`, a JSON job as input.

COLMAP runs in its own process because not all of its calls can be stopped from inside, its log belongs into a file, and
its OpenMP runtime conflicts with torch's. The worker prints one JSON line per stage; all other output goes to the error
stream. It exits when its input closes, so it never outlives its parent.

Stages: features, pairs, matches (verified two-view geometry), mapping, `poses.npz`. Each stage but the last ends when
its fraction of the time is used up, so that too little time gives a poorer result, not none. `plan` chooses the effort.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pycolmap

from quicksurf.capture.sfm import matching, reconstruct, view_graph
from quicksurf.capture.sfm.matching import Features
from quicksurf.capture.sfm.view_graph import Camera, ViewGraph

# When each stage ends, as a fraction of the job's seconds: the rest suffices for those after it.
_FEATURES_END, _MATCHES_END, _MAPPING_END = 0.55, 0.8, 0.95
_LEAST_MAPPING = 0.4  # for mapping in any case: `poses.LATE_FRACTION` waits for the first model
_GUESSED_FOCAL = 1.2  # of the longer side, where nothing is known


class Job(TypedDict):
    """The task from `quicksurf.capture.sfm.poses`, where the fields are explained; photos are indices into `paths`."""

    folder: str
    paths: list[str]
    groups: list[tuple[list[int], float | None, bool]]
    max_pixels: int
    n_features: int
    n_partners: int
    n_neighbors: int
    seconds: float
    n_threads: int


class Clock:
    """Seconds since the start of the job."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def stop_at(self, seconds: float, call: Callable[[pycolmap.CancellationToken], None]) -> bool:
        """Run `call`, cancelled once `seconds` have passed since the start; False if it was."""
        token = pycolmap.CancellationToken()
        timer = threading.Timer(max(0.0, seconds - self.elapsed()), token.cancel)
        timer.daemon = True
        timer.start()
        try:
            call(token)
        except InterruptedError:
            return False
        finally:
            timer.cancel()
        return True


def main() -> None:
    """Read the job from the input, do it, report each stage on the output."""
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else is printed, from C++ too, goes to the error stream
    clock = Clock()

    def report(stage: str, **items: Any) -> None:
        message = {"stage": stage, "seconds": clock.elapsed(), **items}
        print(json.dumps(message), file=lines, flush=True)

    def say(line: str) -> None:
        print(json.dumps({"line": line, "seconds": clock.elapsed()}), file=lines, flush=True)

    job: Job = json.loads(sys.stdin.readline())
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    pycolmap.set_random_seed(0)
    folder = Path(job["folder"])
    found, unreadable = extract_features(job, clock)
    counts = [len(item.points) if item is not None else -1 for item in found]
    complete = len(unreadable) + sum(item is not None for item in found) == len(found)
    report("features", complete=complete, counts=counts, unreadable=unreadable)
    items = [item or matching.no_features() for item in found]
    pairs = matching.choose_pairs(items, job["n_partners"], job["n_neighbors"])
    report("pairs", pairs=len(pairs))
    graph, matches, complete = match_and_verify(job, items, pairs, clock)
    inliers = [(*pair, len(geometry.inlier_matches)) for pair, geometry in graph.pairs.items()]
    report("matches", complete=complete, inliers=inliers)
    seconds = max(_MAPPING_END * job["seconds"] - clock.elapsed(), _LEAST_MAPPING * job["seconds"])

    end: dict[str, Any] = {"groups": [], "doubtful": [], "found": False}
    for result in reconstruct.reconstruct(graph, matches, folder, seconds, job["n_threads"], say):
        np.savez(folder / "new.npz", allow_pickle=False, **reconstruct.model_arrays(result.model, items))
        (folder / "new.npz").replace(folder / "poses.npz")  # a reader finds this model or the one before
        end = {**result.findings, "found": True}
        report("mapping", final=False, **end)
    report("mapping", final=True, **end)


def extract_features(job: Job, clock: Clock) -> tuple[list[Features | None], dict[int, str]]:
    """Return the features of each photo, None where time ran out before it, and why photos cannot be read."""
    found: list[Features | None] = [None] * len(job["paths"])
    unreadable: dict[int, str] = {}
    order = matching.interleave(len(found))
    paths = [Path(job["paths"][index]) for index in order]
    results = matching.extract(paths, job["max_pixels"], job["n_features"], job["n_threads"])
    for index, item in zip(order, results, strict=False):
        if isinstance(item, Features):
            found[index] = item
        else:
            unreadable[index] = str(item)
        if clock.elapsed() > _FEATURES_END * job["seconds"]:
            break
    return found, unreadable


def match_and_verify(
    job: Job, items: list[Features], pairs: list[tuple[int, int]], clock: Clock
) -> tuple[ViewGraph, dict[tuple[int, int], matching.Matches], bool]:
    """Match and verify `pairs` in their order; return the graph, all matches, and whether all were done in time."""
    end = _MATCHES_END * job["seconds"]
    matches = matching.match_pairs(items, pairs, lambda: clock.elapsed() > end)
    database = Path(job["folder"]) / "verification.db"
    graph, complete = view_graph.verify(
        database, items, cameras(job, items), matches, lambda call: clock.stop_at(end, call)
    )
    return graph, matches, complete and len(matches) == len(pairs)


def cameras(job: Job, items: list[Features]) -> list[Camera]:
    """Convert the job's groups to cameras with focal lengths in pixels of the features."""
    found = []
    for members, focal, has_prior in job["groups"]:
        sizes = (items[index].size for index in members if items[index].size != (0, 0))
        width, height = next(sizes, (1, 1))
        pixels = _GUESSED_FOCAL * max(width, height) if focal is None else focal * width
        found.append(Camera(members, (width, height), pixels, has_prior))
    return found


def _exit_with_parent() -> None:
    sys.stdin.read()
    os._exit(3)


if __name__ == "__main__":
    main()
