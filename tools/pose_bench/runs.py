"""One method on one capture in a child process with a clock beside it, and the poses it leaves behind."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from quality_bench.runs import provenance, wait_or_end

from pose_bench.captures import Case
from pose_bench.measures import Poses
from quicksurf.files import write_json

OURS, PEER = "quicksurf", "colmap"
_PATIENCE, _PATIENCE_SECONDS = 1.5, 120.0  # ours is ended when it overstays by so much
_PEER_SECONDS = 7200.0  # the longest capture takes ten minutes on two cores


@dataclass(frozen=True)
class Found:
    """The result of one run."""

    seconds: float
    poses: dict[str, list]
    """3 x 4 c2w by name without suffix."""
    warnings: list[str] = field(default_factory=list)
    timed: bool = True
    """False where other work ran beside it: its seconds mean nothing."""
    made: str = ""
    """On what machine, of what commit, on what day."""
    failure: str | None = None

    def arrays(self) -> Poses:
        """Convert the poses to arrays."""
        return {name: np.array(pose) for name, pose in self.poses.items()}


def run(method: str, case: Case, folder: Path, seconds: float, timed: bool = True) -> Found:
    """Estimate the poses of `case` by `method`, and keep poses and log as `folder`/NAME.json and NAME.log."""
    output, log = folder / f"{case.name}.json", folder / f"{case.name}.log"
    folder.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)
    patience = _PEER_SECONDS if method == PEER else _PATIENCE * seconds + _PATIENCE_SECONDS
    exit_code = _child(_arguments(method, case, output, seconds), log, patience)
    if exit_code != 0 or not output.is_file():
        how = "not back in time" if exit_code is None else f"exit code {exit_code}"
        return Found(0.0, {}, timed=timed, made=provenance(), failure=f"{how}: {_last_line(log)}")
    found = Found(**json.loads(output.read_text()), timed=timed, made=provenance())
    write_json(output, asdict(found))
    return found


def kept(case: Case, folder: Path) -> Found | None:
    """Read the result of an earlier run in `folder`."""
    try:
        return Found(**json.loads((folder / f"{case.name}.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _arguments(method: str, case: Case, output: Path, seconds: float) -> list[str]:
    one_camera = ["--one-camera"] if case.one_camera else []
    places = [str(case.photos.resolve()), str(output.resolve())]
    return [method, *places, "--seconds", f"{seconds:g}", *one_camera]


def _child(arguments: list[str], log: Path, patience: float) -> int | None:
    """The exit code of the worker, None if it had to be ended."""
    with open(log, "wb") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", "pose_bench.worker", *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"},
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return wait_or_end(process, patience)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "no log output"
