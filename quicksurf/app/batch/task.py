"""One capture of a batch: `quicksurf fit` as a child process with a deadline.

The run folder is the only state: a finished run is skipped, an unfinished one resumed. An interrupted batch or a lost
machine thus costs at most the time since the last checkpoint. This module also runs on workers of a cluster.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from quicksurf.app.run.files import own_file
from quicksurf.app.run.folder import is_run, open_run
from quicksurf.errors import DOUBTFUL, OutputError

GRACE = 60.0  # seconds beyond the minutes of a fit until it is asked to stop, and again until it is killed
_POLL = 0.2
_TAIL_BYTES = 4096
_AGAIN = 0.5  # seconds between the signal that ends the fit gently and the one that ends it at once
STOPPED = "the batch was stopped; run the same command to resume"


class Task(NamedTuple):
    """A capture to fit, and where."""

    name: str
    source: Path
    run: Path
    log: Path
    """Output of the child, outside of the run: a bad capture leaves no run folder."""
    minutes: float
    options: tuple[str, ...] = ()
    """Further options of `quicksurf fit`."""
    settings: tuple[str, ...] = ()
    """Options for new runs only, which `quicksurf fit --resume` refuses."""
    program: tuple[str, ...] = ("quicksurf", "fit")
    """The module that is run, and its first arguments."""


class Outcome(NamedTuple):
    """How a capture ended."""

    name: str
    state: str
    """`done`, `failed` or `stopped`."""
    exit_code: int
    message: str
    """The error of the fit, if it failed."""
    seconds: float

    def describe(self) -> str:
        """Write one line for the terminal."""
        message = f", {self.message}" if self.message else ""
        return f"{self.name}: {self.state} after {self.seconds:.0f} s{message}"


def run_task(
    task: Task,
    cpus: Sequence[int] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Fit one capture unless it is done.

    Args:
        cpus: processors for the child; all if empty or without affinity.
        should_stop: polled a few times a second; the child then ends with its last checkpoint.
    """
    began = time.monotonic()
    deadline = began + 60 * task.minutes * 1.05 + GRACE
    try:
        log_start = _size(task.log)
        resume = _resumable(task, deadline, should_stop)
        if resume is None:
            return Outcome(task.name, "done", 0, "", 0.0)
        code = _run_child(task, resume, cpus, deadline, should_stop)
    except (OSError, OutputError) as error:
        return Outcome(task.name, "failed", OutputError.exit_code, str(error), time.monotonic() - began)
    seconds = time.monotonic() - began
    if code in (0, DOUBTFUL):
        message = "its poses are doubtful: summary.json says why" if code else ""
        return Outcome(task.name, "done", code, message, seconds)
    if should_stop():
        return Outcome(task.name, "stopped", code, STOPPED, seconds)
    return Outcome(task.name, "failed", code, _last_log_line(task.log, log_start, code), seconds)


def _resumable(task: Task, deadline: float, should_stop: Callable[[], bool]) -> bool | None:
    """Whether to resume the run; None if it is finished.

    A lost worker may have left its child running: wait until the run is unlocked, then check again.
    """
    while is_run(task.run):
        state = open_run(task.run).state
        if state == "finished":
            return None
        if not _in_use(task.run) or time.monotonic() > deadline or should_stop():
            return state == "unfinished"
        time.sleep(_POLL)
    return False


def _in_use(run: Path) -> bool:
    with suppress(FileNotFoundError), own_file(run / ".lock") as lock:  # NFS locks what is open for writing
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _run_child(
    task: Task, resume: bool, cpus: Sequence[int], deadline: float, should_stop: Callable[[], bool]
) -> int:
    """Run the fit and return its exit code; ask it to stop at the deadline and kill it GRACE later."""
    plan = ["--resume"] if resume else ["--minutes", repr(task.minutes), *task.settings]
    command = [sys.executable, "-m", *task.program, str(task.source), "--output", str(task.run), *plan]
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with own_file(task.log) as log:
        child = subprocess.Popen(
            [*command, *task.options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": path},
            cwd=task.log.parent,  # searched first by `python -m`: a source folder must not shadow the installed package
            start_new_session=True,  # Ctrl-C reaches only the batch
        )
    try:
        if cpus and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(child.pid, cpus)  # before its imports count the processors
        return _wait(child, deadline, should_stop)
    finally:
        _end(child)


def _wait(child: "subprocess.Popen[bytes]", deadline: float, should_stop: Callable[[], bool]) -> int:
    asked = False
    while True:
        with suppress(subprocess.TimeoutExpired):
            return child.wait(_POLL)
        if should_stop() or time.monotonic() > deadline + GRACE:
            _end(child)
        elif time.monotonic() > deadline and not asked:
            child.send_signal(signal.SIGTERM)  # stop fitting, write the mesh
            asked = True


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End the fit with its last checkpoint by two signals; kill the process group if that fails."""
    for kind in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        if child.poll() is not None:
            return
        with suppress(ProcessLookupError):
            if kind == signal.SIGKILL:
                os.killpg(child.pid, kind)
            else:
                child.send_signal(kind)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_AGAIN if kind != signal.SIGKILL else GRACE)


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _last_log_line(log: Path, start: int, code: int) -> str:
    """The error of the fit: the last line after byte `start` that begins with the program's name."""
    try:
        with open(log, "rb") as file:
            file.seek(max(start, _size(log) - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in reversed(lines):
        if line.startswith("quicksurf: "):
            return line.removeprefix("quicksurf: ")
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}; see {log}"
