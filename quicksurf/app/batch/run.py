"""`quicksurf batch`: find the captures, fit those that are not done, keep batch.json and index.html up to date."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quicksurf.app.batch.captures import LOGS, RECORD, Capture, find_captures
from quicksurf.app.batch.local import jobs_here, run_here
from quicksurf.app.batch.overview import write_overview
from quicksurf.app.batch.task import Outcome, Task
from quicksurf.app.run.files import holds_more
from quicksurf.app.run.folder import Run
from quicksurf.errors import ConfigError, OutputError
from quicksurf.files import write_json
from quicksurf.untrusted import read_json

FORMAT = "quicksurf batch"
MAX_RECORD_BYTES = 64 << 20  # ten thousand captures are 3 MB
MAX_JOBS = 256
MAX_MINUTES = 7 * 24 * 60.0


@dataclass(frozen=True)
class BatchRequest:
    """What `quicksurf batch` is asked for."""

    captures: Path
    minutes: float
    output: Path | None = None
    jobs: int | None = None
    """Captures at a time; None: as many as cores and memory allow."""
    ray: str | None = None
    """Address of a Ray cluster; None: this machine."""
    device: str = "auto"
    options: tuple[str, ...] = ()
    """More options of `quicksurf fit`."""
    settings: tuple[str, ...] = ()
    """Options of `quicksurf fit` that a run is begun with and keeps: --preset, --seed, --roi, --masks."""


class Batch:
    """A folder of runs: which captures belong to it, and how the last attempt at each ended."""

    def __init__(self, folder: Path, captures: list[Capture]) -> None:
        self.folder, self.captures = folder, captures
        self.outcomes: dict[str, Outcome] = {}

    def save(self) -> None:
        """Write batch.json and index.html."""
        entries = {
            capture.name: {"source": str(capture.source), **_entry(self.outcomes.get(capture.name))}
            for capture in self.captures
        }
        write_json(self.folder / RECORD, {"format": FORMAT, "version": 1, "captures": entries})
        write_overview(self.folder, self.captures, self.outcomes)


def run_batch(
    request: BatchRequest, should_stop: Callable[[], bool], warn: Callable[[str], object] = lambda text: None
) -> Generator[Outcome, None, None]:
    """Fit every capture that is not done; yield how each ended, as it ends.

    Args:
        request: the captures, and how to fit them.
        should_stop: asked a few times a second; the fits then leave, as they do when the generator is closed.
        warn: told what is wrong and costs no capture.

    Raises:
        ConfigError: if an option cannot be used.
        ImageError: if there are no captures.
        OutputError: if the output folder holds something else or is in use.
        BackendError: if there is no Ray cluster where one was named.
    """
    _check(request)
    output = request.output or Path("runs") / f"batch-{request.captures.resolve().name}"
    captures = find_captures(request.captures, output)
    _claim(output)
    batch = Batch(output.resolve(), captures)
    tasks = [_task(batch, capture, request) for capture in captures]
    with Run(batch.folder, {}).locked():
        batch.save()
        with closing(_outcomes(tasks, request, should_stop)) as outcomes:
            for outcome in outcomes:
                batch.outcomes[outcome.name] = outcome
                try:
                    batch.save()
                except OutputError as error:  # the runs are there, and the next save says all of this again
                    warn(f"the overview is not up to date: {error}")
                yield outcome


def _outcomes(
    tasks: list[Task], request: BatchRequest, should_stop: Callable[[], bool]
) -> Generator[Outcome, None, None]:
    if request.ray is not None:
        from quicksurf.app.batch.cluster import run_on_ray

        return run_on_ray(tasks, request.ray, request.device, should_stop)
    return run_here(tasks, request.jobs or jobs_here(len(tasks), request.device), should_stop)


def _check(request: BatchRequest) -> None:
    if not 0 < request.minutes <= MAX_MINUTES:
        raise ConfigError(
            f"--minutes is {request.minutes:g}: choose above 0 and at most {MAX_MINUTES:g}, for each capture"
        )
    if request.jobs is not None and not 1 <= request.jobs <= MAX_JOBS:
        raise ConfigError(f"--jobs is {request.jobs}: choose 1 to {MAX_JOBS}")
    if request.jobs is not None and request.ray is not None:
        raise ConfigError("--jobs is for this machine; with --ray the cluster decides: leave one out")


def _claim(output: Path) -> None:
    """Take the folder if it is new, empty or a batch's."""
    if output.exists() and not output.is_dir():
        raise OutputError(f"--output {output} is a file: choose another name")
    if output.is_dir() and holds_more(output, RECORD):
        try:
            record: Any = read_json(output / RECORD, MAX_RECORD_BYTES)
        except (OSError, ValueError):
            record = None
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise OutputError(f"--output {output} holds files that are not a batch's: choose another folder")
    if (output / LOGS).is_symlink():
        raise OutputError(f"{output / LOGS} is a link: what the fits print would land elsewhere; remove it")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make {output}: {error.strerror or error}; choose another --output"
        ) from error


def _task(batch: Batch, capture: Capture, request: BatchRequest) -> Task:
    return Task(
        capture.name,
        capture.source,
        run=batch.folder / capture.name,
        log=batch.folder / LOGS / f"{capture.name}.log",
        minutes=request.minutes,
        options=("--device", request.device, *request.options),
        settings=request.settings,
    )


def _entry(outcome: Outcome | None) -> dict[str, Any]:
    if outcome is None:
        return {"state": "waiting"}
    return {key: value for key, value in outcome._asdict().items() if key != "name"}
