"""`quicksurf batch`: find the captures, fit those that are not done, keep batch.json and index.html up to date."""

import re
import zlib
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quicksurf.app.batch.local import jobs_here, run_here
from quicksurf.app.batch.overview import PAGE, Capture, write_overview
from quicksurf.app.batch.task import Outcome, Task
from quicksurf.app.run.files import holds_more
from quicksurf.app.run.folder import Run
from quicksurf.capture.listing import SUFFIXES, VIDEO_SUFFIXES, natural_key
from quicksurf.errors import ConfigError, ImageError, OutputError
from quicksurf.files import write_json
from quicksurf.untrusted import read_json

FORMAT = "quicksurf batch"
LOGS, RECORD = "logs", "batch.json"
_TAKEN = (LOGS, RECORD, PAGE)  # names in the output folder that no run may have
MAX_CAPTURES = 10_000
MAX_RECORD_BYTES = 64 << 20  # ten thousand captures are 3 MB
MAX_JOBS = 256
MAX_MINUTES = 7 * 24 * 60.0


@dataclass(frozen=True)
class BatchRequest:
    """Options of `quicksurf batch`."""

    captures: Path
    minutes: float
    output: Path | None = None
    jobs: int | None = None
    """Captures at a time; None: as many as cores and memory allow."""
    ray: str | None = None
    """Address of a Ray cluster; None: this machine."""
    device: str = "auto"
    options: tuple[str, ...] = ()
    """Further options of `quicksurf fit`."""
    settings: tuple[str, ...] = ()
    """Options of `quicksurf fit` for new runs only: --preset, --seed, --roi, --masks."""


class Batch:
    """A folder of runs: its captures, and how the last attempt at each ended."""

    def __init__(self, folder: Path, captures: list[Capture]) -> None:
        self.folder, self.captures = folder, captures
        self.outcomes: dict[str, Outcome] = {}

    def save(self) -> None:
        """Write batch.json and index.html."""
        entries = {}
        for capture in self.captures:
            outcome = self.outcomes.get(capture.name)
            ended = {"state": "waiting"} if outcome is None else outcome._asdict()
            entries[capture.name] = {**ended, "source": str(capture.source)}
            entries[capture.name].pop("name", None)  # the key
        write_json(self.folder / RECORD, {"format": FORMAT, "version": 1, "captures": entries})
        write_overview(self.folder, self.captures, self.outcomes)


def run_batch(
    request: BatchRequest, should_stop: Callable[[], bool], warn: Callable[[str], object] = lambda text: None
) -> Generator[Outcome, None, None]:
    """Fit every capture that is not done; yield the outcomes as they come.

    Args:
        should_stop: polled a few times a second; fits then stop, as they do when the generator is closed.
        warn: reports problems that affect no capture.

    Raises:
        ConfigError: if an option cannot be used.
        ImageError: if there are no captures.
        OutputError: if the output folder holds something else or is in use.
        BackendError: if there is no Ray cluster where one was named.
    """
    _check(request)
    output = request.output or Path("runs") / f"batch-{request.captures.resolve().name}"
    captures = find_captures(request.captures, output)
    make_output(output, RECORD, FORMAT, "a batch's")
    batch = Batch(output.resolve(), captures)
    tasks = [
        Task(
            capture.name,
            capture.source,
            run=batch.folder / capture.name,
            log=batch.folder / LOGS / f"{capture.name}.log",
            minutes=request.minutes,
            options=("--device", request.device, *request.options),
            settings=request.settings,
        )
        for capture in captures
    ]
    with Run(batch.folder, {}).locked():
        batch.save()
        jobs = request.jobs or jobs_here(len(tasks), request.device)
        with closing(run_tasks(tasks, jobs, request.ray, request.device, should_stop)) as outcomes:
            for outcome in outcomes:
                batch.outcomes[outcome.name] = outcome
                try:
                    batch.save()
                except OutputError as error:  # the runs are safe, and the next save writes it again
                    warn(f"the overview is not up to date: {error}")
                yield outcome


def run_tasks(
    tasks: list[Task], jobs: int, ray: str | None, device: str, should_stop: Callable[[], bool]
) -> Generator[Outcome, None, None]:
    """Run tasks on the Ray cluster at the address `ray`, or here, `jobs` at a time; yield outcomes as they come.

    Raises:
        BackendError: if there is no Ray cluster where one was named.
    """
    if ray is not None:
        from quicksurf.app.batch.cluster import run_on_ray

        return run_on_ray(tasks, ray, device, should_stop)
    return run_here(tasks, jobs, should_stop)


def _check(request: BatchRequest) -> None:
    if not 0 < request.minutes <= MAX_MINUTES:
        raise ConfigError(
            f"--minutes is {request.minutes:g}: choose above 0 and at most {MAX_MINUTES:g}, for each capture"
        )
    if request.jobs is not None and not 1 <= request.jobs <= MAX_JOBS:
        raise ConfigError(f"--jobs is {request.jobs}: choose 1 to {MAX_JOBS}")
    if request.jobs is not None and request.ray is not None:
        raise ConfigError("--jobs is for this machine; with --ray the cluster decides: leave one out")


def make_output(output: Path, name: str, kind: str, whose: str) -> None:
    """Make the folder, unless it holds something else than what its record `name` says to be of the format `kind`.

    Raises:
        OutputError: if it does, or cannot be made.
    """
    if output.exists() and not output.is_dir():
        raise OutputError(f"--output {output} is a file: choose another name")
    if output.is_dir() and holds_more(output, name):
        try:
            record: Any = read_json(output / name, MAX_RECORD_BYTES)
        except (OSError, ValueError):
            record = None
        if not isinstance(record, dict) or record.get("format") != kind:
            raise OutputError(f"--output {output} holds files that are not {whose}: choose another folder")
    if (output / LOGS).is_symlink():
        raise OutputError(f"{output / LOGS} is a link, which would put the logs elsewhere: remove it")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make {output}: {error.strerror or error}; choose another --output"
        ) from error


def find_captures(folder: Path, output: Path) -> list[Capture]:
    """List the folders and videos directly inside `folder`, in natural order.

    Hidden ones do not count, nor do `output`, where the runs go, and folders that contain it. Every other folder
    counts: its own fit reports what is wrong with it, and the rest continues.

    Raises:
        ImageError: if there is none, too many, or `folder` is itself a capture.
    """
    if not folder.is_dir():
        raise ImageError(
            f"{folder} is no folder: give the folder that holds one folder of photos for each capture"
        )
    entries = sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
    results = {output.resolve(), *output.resolve().parents}
    found = [path for path in entries if _may_be_capture(path) and path.resolve() not in results]
    photos = any(path.suffix.lower() in SUFFIXES for path in entries)
    if photos or not found:
        what = "photos itself" if photos else "no folders and no videos"
        raise ImageError(
            f"{folder} holds {what}: expected one folder of photos, or a video, for each capture; "
            "a single capture is for quicksurf fit"
        )
    if len(found) > MAX_CAPTURES:
        raise ImageError(f"{folder} holds {len(found)} captures: at most {MAX_CAPTURES} go into one batch")
    return _named(found)


def _may_be_capture(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    return path.is_dir() or (path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES)


def _named(sources: list[Path]) -> list[Capture]:
    """Give each capture a plain name; names in use get a checksum of the original, stable when captures are added."""
    plain = [re.sub(r"[^\w.-]+", "-", source.name).strip("-.") or "capture" for source in sources]
    taken = [*_TAKEN, *(name.casefold() for name in plain)]
    names = [
        name
        if taken.count(name.casefold()) == 1
        else f"{name}-{zlib.crc32(source.name.encode('utf-8', 'replace')):08x}"
        for name, source in zip(plain, sources, strict=True)
    ]
    return [Capture(source.absolute(), name) for source, name in zip(sources, names, strict=True)]
