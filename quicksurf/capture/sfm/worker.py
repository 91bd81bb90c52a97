"""Structure from motion in a process of its own: `python -m quicksurf.capture.sfm.worker`, a JSON job as input.

Its own process, because COLMAP's calls cannot all be stopped from inside, its log belongs into a file,
and its OpenMP runtime must not share a process with torch's. One JSON line leaves per stage; everything
else that anyone prints goes to the error stream. It ends when its input closes, so it never outlives the
one who started it.

Stages: features, pairs, matches (verified two-view geometry), mapping, `poses.npz`. Each stage but the last gives way
when its share of the time is used up, so that late is poorer, not empty-handed. This module plans nothing: see `plan`.
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

from quicksurf.capture.sfm import features as sift
from quicksurf.capture.sfm import matching, reconstruct, view_graph
from quicksurf.capture.sfm.features import Features
from quicksurf.capture.sfm.view_graph import Camera, ViewGraph

# When each stage must give way, as a fraction of the job's seconds: what is left suffices for those after it.
_FEATURES_END, _MATCHES_END, _MAPPING_END = 0.55, 0.8, 0.95
_GUESSED_FOCAL = 1.2  # of the longer side, where nothing is known


class Job(TypedDict):
    """What `quicksurf.capture.sfm.poses` asks for. Photos are named by their place in `paths`."""

    folder: str
    """For databases and `poses.npz`."""
    paths: list[str]
    groups: list[tuple[list[int], float | None, bool]]
    """Photos of one camera, its focal length in parts of the photo's width where EXIF has it, and whether that can be
    trusted."""
    max_pixels: int
    """Photos are shrunk to so many pixels before features are sought."""
    n_features: int
    n_partners: int
    """Photos each one is matched with; as many as there are means all."""
    n_neighbors: int
    """Photos after each in order that it is matched with in any case."""
    seconds: float
    n_threads: int


class Clock:
    """Seconds since the job came in."""

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
    report = _protocol()
    clock = Clock()
    job: Job = json.loads(sys.stdin.readline())
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    pycolmap.set_random_seed(0)
    folder = Path(job["folder"])
    found, unreadable = look(job, clock)
    counts = [len(item.points) if item is not None else -1 for item in found]
    complete = len(unreadable) + sum(item is not None for item in found) == len(found)
    report(
        {
            "stage": "features",
            "seconds": clock.elapsed(),
            "complete": complete,
            "counts": counts,
            "unreadable": unreadable,
        }
    )
    items = [item or sift.nothing() for item in found]
    pairs = matching.choose_pairs(items, job["n_partners"], job["n_neighbors"])
    report({"stage": "pairs", "seconds": clock.elapsed(), "pairs": len(pairs)})
    graph, matches, complete = overlapping(job, items, pairs, clock)
    inliers = [(*pair, len(geometry.inlier_matches)) for pair, geometry in graph.pairs.items()]
    report({"stage": "matches", "seconds": clock.elapsed(), "complete": complete, "inliers": inliers})
    deadline = _MAPPING_END * job["seconds"] - clock.elapsed()

    def say(line: str) -> None:
        report({"line": line, "seconds": clock.elapsed()})

    end: dict[str, Any] = {"groups": [], "doubtful": [], "found": False}
    for result in reconstruct.reconstruct(graph, matches, folder, deadline, job["n_threads"], say):
        save(folder / "poses.npz", reconstruct.model_arrays(result.model, items))
        end = {**result.findings, "found": True}
        report({"stage": "mapping", "seconds": clock.elapsed(), "final": False, **end})
    report({"stage": "mapping", "seconds": clock.elapsed(), "final": True, **end})


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a model in place of the one before; whoever reads it finds the one or the other."""
    written = path.with_suffix(".new.npz")
    np.savez(written, allow_pickle=False, **arrays)
    written.replace(path)


def look(job: Job, clock: Clock) -> tuple[list[Features | None], dict[int, str]]:
    """Return the features of each photo, None where time ran out before it, and why photos cannot be read."""
    found: list[Features | None] = [None] * len(job["paths"])
    unreadable: dict[int, str] = {}
    order = sift.spread(len(found))
    paths = [Path(job["paths"][index]) for index in order]
    results = sift.extract(paths, job["max_pixels"], job["n_features"], job["n_threads"])
    for index, item in zip(order, results, strict=False):
        if isinstance(item, Features):
            found[index] = item
        else:
            unreadable[index] = str(item)
        if clock.elapsed() > _FEATURES_END * job["seconds"]:
            break
    return found, unreadable


def overlapping(
    job: Job, items: list[Features], pairs: list[tuple[int, int]], clock: Clock
) -> tuple[ViewGraph, dict[tuple[int, int], matching.Matches], bool]:
    """Match and verify `pairs` in their order; the graph, all matches, and whether time sufficed."""
    end = _MATCHES_END * job["seconds"]
    matches = matching.match_pairs(items, pairs, lambda: clock.elapsed() > end)
    database = Path(job["folder"]) / "verification.db"
    graph, complete = view_graph.verify(
        database, items, cameras(job, items), matches, lambda call: clock.stop_at(end, call)
    )
    return graph, matches, complete and len(matches) == len(pairs)


def cameras(job: Job, items: list[Features]) -> list[Camera]:
    """The cameras of the photos that were looked at, with focal lengths in pixels of their features."""
    found = []
    for members, focal, trusted in job["groups"]:
        seen = [index for index in members if items[index].size != (0, 0)] or members
        width, height = items[seen[0]].size if items[seen[0]].size != (0, 0) else (1, 1)
        pixels = _GUESSED_FOCAL * max(width, height) if focal is None else focal * width
        found.append(Camera(members, (width, height), pixels, trusted))
    return found


def _protocol() -> Callable[[dict[str, Any]], None]:
    """Keep the output for ourselves: whatever else is printed, from C++ too, goes to the error stream."""
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return lambda message: print(json.dumps(message), file=lines, flush=True)


def _exit_with_parent() -> None:
    sys.stdin.read()
    os._exit(3)


if __name__ == "__main__":
    main()
