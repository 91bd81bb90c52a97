"""`quicksurf fit` as a user runs it: a child process with a clock beside it, and a record of what it did.

    RUNS/KEY/                what the command wrote        RUNS/KEY.log    what it printed
    RUNS/KEY.command.json    its arguments, seconds until it was back, exit code; written last

A record with the same arguments stands for the run: it is not made again. A run without one was cut short, unless its
summary says that it is finished; it is made anew, for its minutes would not be those of one command.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from kernel_bench.gate import machine

import quicksurf
from quicksurf.app.run.folder import Run, is_run, open_run
from quicksurf.app.run.metrics_log import read_metrics_log
from quicksurf.errors import OutputError
from quicksurf.files import write_json
from quicksurf.untrusted import is_number

_TORCH = ("--device", "torch")
_KEPT = ("--hold-out", "keep")  # views that the fit never saw are compared to the end
_PATIENCE, _PATIENCE_SECONDS = 1.5, 60.0  # a command that is not back by then is ended


@dataclass(frozen=True)
class Request:
    """One run of the benchmark."""

    name: str
    source: Path
    minutes: float
    options: tuple[str, ...] = ()
    torch: bool = False
    """On the slow back end that specifies the native kernels."""

    @property
    def key(self) -> str:
        """Name of its files."""
        return f"{self.name}-{self.minutes:g}min" + ("-torch" if self.torch else "")

    def arguments(self, folder: Path) -> list[str]:
        """The command line after `python -m quicksurf`, writing into `folder`."""
        minutes, output = ("--minutes", f"{self.minutes:g}"), ("--output", str(folder.resolve()))
        backend = _TORCH if self.torch else ()
        return ["fit", str(self.source.resolve()), *minutes, *output, *_KEPT, *self.options, *backend]


@dataclass(frozen=True)
class Record:
    """What a command did."""

    arguments: list[str]
    seconds: float
    """From its start until it was back."""
    exit_code: int | None
    """None if it had to be ended."""
    message: str = ""
    """Its last words, where it failed."""
    made: str = ""
    """On what machine, of what commit, on what day."""

    @property
    def failure(self) -> str | None:
        """Why there is no mesh."""
        if self.exit_code == 0:
            return None
        how = "not back in time, ended" if self.exit_code is None else f"exit code {self.exit_code}"
        return f"{how}: {self.message}" if self.message else how


def kept_record(request: Request, runs: Path) -> Record | None:
    """The record of a run of `request` that lies in `runs` already and has a mesh."""
    folder = runs / request.key
    arguments = request.arguments(folder)
    return _kept(_record_of(folder), arguments) or _finished(folder, arguments, request.minutes)


def fit(request: Request, runs: Path) -> Record:
    """Run `request` in `runs`, in place of what was cut short or failed there.

    Raises:
        OutputError: if its place is taken by something else, or the disk is full.
    """
    folder = runs / request.key
    _clear(folder)
    _record_of(folder).unlink(missing_ok=True)
    record = run_command(request.arguments(folder), runs / f"{request.key}.log", request.minutes)
    write_json(_record_of(folder), asdict(record))
    return record


def provenance() -> str:
    """Machine, commit and day, for the foot of the table."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        commit = "unknown"
    return f"{machine()}; commit {commit}; {time.strftime('%Y-%m-%d')}"


def run_command(arguments: Sequence[str], log: Path, minutes: float) -> Record:
    """Run `python -m quicksurf` with `arguments`, and what it prints in `log`; end it if it overstays by far."""
    log.parent.mkdir(parents=True, exist_ok=True)
    home = Path(quicksurf.__file__).parents[1]  # of the package that is tested, which need not be installed
    started = time.monotonic()
    with open(log, "wb") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", "quicksurf", *arguments],
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        exit_code = wait_or_end(process, _PATIENCE * 60 * minutes + _PATIENCE_SECONDS)
    seconds = time.monotonic() - started
    message = "" if exit_code == 0 else _last_line(log)
    return Record(list(arguments), round(seconds, 2), exit_code, message, provenance())


def figures_of(run: Run) -> dict[str, float]:
    """What the run says of itself; its seconds are by its own clock.

    Raises:
        OutputError: if its summary is damaged.
    """
    summary, course = run.read_summary(), read_metrics_log(run.path)
    training, evaluations = _column(course, "psnr"), _column(course, "evaluations_per_ray")
    values = {
        "psnr": summary.get("psnr_held_out"),
        "psnr_training": training[-1] if training else None,
        "evaluations": median(evaluations) if evaluations else None,
        "photos": summary.get("registered"),
        "memory_mb": summary.get("peak_memory_mb"),
        "seconds": summary["seconds"]["total"],
    }
    return {name: float(value) for name, value in values.items() if value is not None}


def wait_or_end(process: subprocess.Popen, seconds: float) -> int | None:
    """The exit code, None if the process is not back in so many seconds; nothing of it is left in either case."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _kept(path: Path, arguments: Sequence[str]) -> Record | None:
    """The record of a run with the same arguments that did not fail."""
    try:
        record = Record(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return record if record.arguments == list(arguments) and record.failure is None else None


def _finished(folder: Path, arguments: Sequence[str], minutes: float) -> Record | None:
    """A record made of the summary of a finished run of the same minutes; its seconds are by the run's own clock."""
    if not is_run(folder) or open_run(folder).state != "finished":
        return None
    summary = open_run(folder).read_summary()
    same = summary.get("minutes") == minutes and not summary.get("stopped_early")
    if not same:
        return None
    return Record(list(arguments), summary["seconds"]["total"], 0, made="unknown, by a command of its own")


def _column(course: Sequence[dict[str, Any]], name: str) -> list[float]:
    """The numbers of this name, line by line."""
    return [line[name] for line in course if is_number(line.get(name))]


def _record_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.command.json")


def _clear(folder: Path) -> None:
    """Remove a run that was cut short, and nothing else."""
    if is_run(folder):
        shutil.rmtree(folder)
    elif folder.exists():
        raise OutputError(f"{folder} is in the way and not a run: remove it, or choose another --output")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""
