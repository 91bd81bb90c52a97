"""Camera poses from photos: runs `quicksurf.capture.sfm.worker` by a plan of `quicksurf.capture.sfm.plan`.

The worker is killed at the deadline and on any interruption (Ctrl-C included). `Poses` holds what it found, and a
reason for each photo that it did not place.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from quicksurf.capture.scene import SparsePoints
from quicksurf.capture.sfm.plan import Plan
from quicksurf.errors import BudgetError, PosesError
from quicksurf.geometry.cameras import N_DISTORTION, Cameras, similarity
from quicksurf.kernels.host import usable_cpus

LATE_FRACTION = 0.4  # of the time, added where there is no model yet: without poses there is nothing to fit
_GRACE_SECONDS = 1.0  # for the worker's own deadline to act before it is killed
_MIN_FEATURES, _MIN_INLIERS = 30, 15  # COLMAP registers by 30 points, and keeps a pair of 15 inliers


class Photos(NamedTuple):
    """Photo files as the worker reads them."""

    paths: list[Path]
    groups: list[tuple[list[int], float | None, bool]]
    """Photos taken with one camera, its focal length as a fraction of their width where EXIF has it, and whether that
    is a reliable prior."""


class Poses(NamedTuple):
    """Cameras of the registered photos, in the frame described at `stand_upright`."""

    registered: list[int]
    """Which photos, in increasing order; camera i belongs to photo `registered[i]`."""
    cameras: Cameras
    points: SparsePoints
    """Image indices count registered photos."""
    reasons: dict[int, str]
    """Why each of the other photos was not placed."""
    unreadable: dict[int, str]
    """Why photos could not be read."""
    groups: list[list[int]]
    """Photos of models that could not be joined to this one, largest first."""
    doubtful: list[int]
    """Registered photos that have with the others hardly any of the points in common that their poses imply."""
    error: float
    """Mean reprojection error in pixels of the shrunk photos."""


def find_poses(photos: Photos, folder: Path, plan: Plan, seconds: float, say: Callable[[str], None]) -> Poses:
    """Run structure from motion on the photos for `seconds`; databases go to `folder`.

    Where these end without a model, LATE_FRACTION of them is added.

    Raises:
        PosesError: if no three photos could be posed, with the likely reason.
        BudgetError: if time ran out before anything was found.
    """
    messages = _run_worker(photos, folder, plan, seconds, say)
    found = messages["mapping"]
    if not found["found"]:
        raise _no_model(photos, messages)
    with np.load(folder / "poses.npz", allow_pickle=False) as arrays:
        registered = arrays["images"].tolist()
        focal, cx, cy, k1 = torch.from_numpy(arrays["lenses"]).unbind(1)
        distortion = torch.zeros(len(focal), N_DISTORTION, dtype=torch.float64)
        distortion[:, 0] = k1  # SIMPLE_RADIAL: x' = f (1 + k r²) x + c
        cameras = Cameras(
            c2w=torch.from_numpy(arrays["c2w"]),
            intrinsics=torch.stack([focal, focal, cx, cy], 1),
            distortion=distortion,
            fisheye=torch.zeros(len(focal), dtype=torch.bool),
            sizes=torch.from_numpy(arrays["sizes"]),
        )
        parts = [torch.from_numpy(arrays[name]) for name in ("positions", "colors", "observations")]
        error = float(arrays["error"])
    if len(registered) < 3:
        raise _no_model(photos, messages)
    unreadable = {int(index): why for index, why in messages["features"]["unreadable"].items()}
    reasons = lost_reasons(messages["features"]["counts"], messages["matches"]["inliers"], registered)
    reasons = {index: why for index, why in reasons.items() if index not in unreadable}
    cameras, points = stand_upright(cameras, SparsePoints(*parts))
    return Poses(registered, cameras, points, reasons, unreadable, found["groups"], found["doubtful"], error)


def lost_reasons(
    counts: Sequence[int], inliers: Sequence[Sequence[int]], registered: Sequence[int]
) -> dict[int, str]:
    """Explain why each photo that is not registered is not.

    Args:
        counts: features of each photo, -1 where time ran out before it.
        inliers: (photo, photo, verified matches) of every verified pair.
        registered: photos in the model.
    """
    partners: dict[int, dict[int, int]] = {}
    for first, second, n_matches in inliers:
        partners.setdefault(first, {})[second] = n_matches
        partners.setdefault(second, {})[first] = n_matches
    placed, reasons = set(registered), {}
    for index in sorted(set(range(len(counts))) - placed):
        matches = partners.get(index, {})
        if counts[index] < 0:
            reasons[index] = "no time was left to look at it"
        elif counts[index] < _MIN_FEATURES:
            reasons[index] = f"no features: {counts[index]} found, blurred or without texture"
        elif max(matches.values(), default=0) < _MIN_INLIERS:
            reasons[index] = "too few matches: it overlaps with no other photo"
        elif max(matches.values()) < 2 * _MIN_INLIERS:
            reasons[index] = f"too few matches: {max(matches.values())} with its best partner"
        else:
            n_placed, n_others = len(placed & set(matches)), len(matches)
            if n_placed:
                names = "one photo" if n_placed == 1 else f"{n_placed} photos"
                reasons[index] = f"not placed: it has too few points in common with {names} of the model"
            else:
                names = "one other photo" if n_others == 1 else f"{n_others} other photos"
                reasons[index] = f"not in the largest model: it matches {names}, but none of those in it"
    return reasons


def stand_upright(cameras: Cameras, points: SparsePoints) -> tuple[Cameras, SparsePoints]:
    """Bring both into a frame with z up, the origin amid the points, and the cameras at unit median distance.

    Up is the average of the cameras' own. Photos determine neither scale nor heading: these are a convention.
    """
    up = torch.nn.functional.normalize(-cameras.c2w[:, :, 1].mean(0), dim=0)
    rotation = torch.eye(3, dtype=up.dtype)  # kept where the cameras have no common up
    if bool(up.norm() > 0.5):
        x_axis = torch.linalg.cross(rotation[int(up.abs().argmin())], up)
        x_axis = torch.nn.functional.normalize(x_axis, dim=0)
        rotation = torch.stack([x_axis, torch.linalg.cross(up, x_axis), up])
    positions = points.positions if len(points.positions) else cameras.centers()
    center = positions.median(0).values
    scale = 1.0 / float((cameras.centers() - center).norm(dim=1).median().clamp_min(1e-9))
    moved = similarity(cameras, scale, rotation, -scale * rotation @ center)
    return moved, points._replace(positions=scale * (points.positions - center) @ rotation.T)


def _run_worker(
    photos: Photos, folder: Path, plan: Plan, seconds: float, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Start the worker, relay its stages, end it at the deadline or on any interruption."""
    job = {
        "folder": str(folder.resolve()),
        "paths": [str(path.resolve()) for path in photos.paths],
        "groups": photos.groups,
        **plan._asdict(),
        "seconds": seconds,
        "n_threads": usable_cpus(),
    }
    with open(folder / "sfm.log", "wb") as log:
        process = _start(log)
    try:
        assert process.stdin is not None  # a pipe, by _start
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        return _listen(process, folder, seconds, say)
    finally:
        process.kill()
        process.wait()


def _start(log: Any) -> subprocess.Popen:
    """Start the worker in its own session: the terminal's Ctrl-C reaches only this process, which then kills it."""
    paths = [str(Path(__file__).resolve().parents[3]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-m", "quicksurf.capture.sfm.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONSAFEPATH": "1",  # a glob.py in the folder of photos is not ours
        },
    )


def _listen(
    process: subprocess.Popen, folder: Path, seconds: float, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    deadline = time.monotonic() + seconds + _GRACE_SECONDS
    lines: queue.Queue[str | None] = queue.Queue()

    def pump() -> None:
        for line in process.stdout or ():
            lines.put(line)
        lines.put(None)

    threading.Thread(target=pump, daemon=True).start()
    messages: dict[str, dict[str, Any]] = {}
    while not messages.get("mapping", {}).get("final"):
        try:
            late = 0.0 if "mapping" in messages else LATE_FRACTION * seconds
            line = lines.get(timeout=max(0.0, deadline + late - time.monotonic()))
        except queue.Empty:
            if "mapping" in messages:
                say("time for poses ran out: the best model so far is used")
                return messages
            done = ", ".join(messages) or "nothing"
            raise BudgetError(
                f"time for poses ran out (finished: {done}): give more --minutes or fewer photos"
            ) from None
        if line is None:
            # The log is gone from disk when the user reads the message.
            log = (folder / "sfm.log").read_text(errors="replace").strip().splitlines()
            last = f"last log line: {log[-1][:200]}" if log else "no log output"
            raise PosesError(f"structure from motion stopped unexpectedly (code {process.wait()}); {last}")
        message = json.loads(line)
        if "stage" in message:
            messages[message["stage"]] = message
        if message.get("final", True):
            say(_progress(message))
    return messages


def _progress(message: dict[str, Any]) -> str:
    if "line" in message:
        return f"  {message['seconds']:5.1f} s  {message['line']}"
    late = "" if message.get("complete", True) else " (incomplete: out of time)"
    detail = {
        "features": lambda: f"{int(np.median(np.maximum(message['counts'], 0)))} per photo",
        "pairs": lambda: f"{message['pairs']} to match",
        "matches": lambda: f"{len(message['inliers'])} pairs overlap",
        "mapping": lambda: "done" if message["found"] else "no model",
    }[message["stage"]]()
    return f"  {message['seconds']:5.1f} s  {message['stage']}: {detail}{late}"


def _no_model(photos: Photos, messages: dict[str, dict[str, Any]]) -> PosesError | BudgetError:
    """Choose the error: photos are not blamed where the time for features or matches ran out."""
    counts, inliers = messages["features"]["counts"], messages["matches"]["inliers"]
    late = [name for name in ("features", "matches") if not messages[name]["complete"]]
    if late:
        return BudgetError(
            f"time for poses ran out ({' and '.join(late)} of {len(counts)} photos are incomplete): give more "
            "--minutes or fewer photos"
        )
    n_bare = sum(0 <= count < _MIN_FEATURES for count in counts)
    n_good = sum(n_matches >= 2 * _MIN_INLIERS for *_, n_matches in inliers)
    found = f"no poses for these {len(photos.paths)} photos"
    if n_bare > len(counts) / 2:
        return PosesError(
            f"{found}: {n_bare} show no texture; photograph in focus, put a printed pattern beside it"
        )
    if n_good == 0:
        return PosesError(
            f"{found}: no two overlap; neighbouring photos should have two thirds of the view in common"
        )
    return PosesError(
        f"{found}: {n_good} pairs overlap but no three fit together; walk around the object (turning on the "
        "spot shows no depth), take 20 photos or more, each with two thirds in common with its neighbours"
    )
