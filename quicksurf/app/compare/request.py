"""What a comparison is asked for, and the folder that remembers it.

OUT/compare.json   source, minutes, options, how each method ended     OUT/METHOD/   its run
OUT/poses/         a run that holds the poses, where they had to be found   OUT/logs/    what each fit printed
OUT/index.html     the page; OUT/index.md with OUT/images/ is the same as Markdown
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quicksurf.app.batch.run import make_output
from quicksurf.app.batch.task import Outcome
from quicksurf.app.requests import FitRequest
from quicksurf.errors import ConfigError, OutputError
from quicksurf.files import write_json
from quicksurf.untrusted import read_json

FORMAT, RECORD, LOGS, POSES = "quicksurf compare", "compare.json", "logs", "poses"
NO_MASKS = "-no-masks"
MAX_RECORD_BYTES = 1 << 20
MAX_MINUTES = 7 * 24 * 60.0


@dataclass(frozen=True)
class CompareRequest:
    """Options of `quicksurf compare`; those of the fits are in `fit`, whose output and method are not looked at."""

    fit: FitRequest
    minutes: float
    methods: tuple[str, ...]
    output: Path
    truth: Path | None = None
    """True surface in the frame of the cameras."""
    n_views: int = 4
    """Held-out views that are rendered and compared."""
    ray: str | None = None
    """Address of a Ray cluster; None: this machine."""

    def check(self) -> None:
        """Refuse what cannot be compared.

        Raises:
            ConfigError: saying what.
        """
        if not 0 < self.minutes <= MAX_MINUTES:
            raise ConfigError(
                f"--minutes is {self.minutes:g}: choose above 0 and at most {MAX_MINUTES:g}, for each method"
            )
        if not self.methods:
            raise ConfigError("--methods is empty: name at least one")
        if self.n_views < 1:
            raise ConfigError(f"--views is {self.n_views}: give 1 or more")
        if self.truth is not None and not self.truth.is_file():
            raise ConfigError(f"--truth {self.truth} is no file: give a mesh or a point cloud")


def fit_options(fit: FitRequest, method: str) -> tuple[str, ...]:
    """Spell the options of one method's fit, for new runs."""
    masks = "none" if method.endswith(NO_MASKS) else fit.masks
    given: dict[str, Any] = {
        "--masks": masks if masks in (None, "auto", "make", "none") else str(Path(masks).resolve()),
        "--roi": None if fit.roi is None else ",".join(repr(x) for x in (*fit.roi.center, fit.roi.radius)),
        "--capture": fit.capture,
        "--keep": fit.mesh.keep,
        "--seed": fit.seed,
    }
    spelt = [text for name, value in given.items() if value is not None for text in (f"{name}={value}",)]
    if method.startswith("colmap"):
        return tuple(spelt)
    preset = fit.preset
    if preset is not None:  # a file by its full path: the fit runs in another folder
        spelt.append(f"--preset={Path(preset).resolve() if Path(preset).is_file() else preset}")
    return (*spelt, f"--method={method.removesuffix(NO_MASKS)}", "--hold-out=keep")


class Comparison:
    """A folder of runs, and how the last attempt at each ended."""

    def __init__(self, folder: Path, record: dict[str, Any]) -> None:
        self.folder, self.record = folder, record

    @property
    def methods(self) -> dict[str, dict[str, Any]]:
        """What is known of each method, in the order of the table."""
        return self.record["methods"]

    def save(self) -> None:
        """Write compare.json."""
        write_json(self.folder / RECORD, self.record)

    def note(self, outcome: Outcome, date: str, load: float | None) -> None:
        """Record how a method ended; one that was done before keeps what was noted then."""
        if outcome.state != "done" or outcome.seconds or "state" not in self.methods[outcome.name]:
            noted = {**outcome._asdict(), "date": date, "load": load}
            self.methods[outcome.name] = {key: value for key, value in noted.items() if key != "name"}
        self.save()


def open_comparison(request: CompareRequest) -> Comparison:
    """Make the folder of a comparison, or take up one of the same source, minutes and options; add its methods.

    Raises:
        OutputError: if the folder holds something else.
    """
    folder = request.output
    make_output(folder, RECORD, FORMAT, "a comparison's")
    record: dict[str, Any] = {
        "format": FORMAT,
        "version": 1,
        "source": str(request.fit.source.resolve()),
        "minutes": request.minutes,
        "options": list(fit_options(request.fit, "unisurf")),
        "methods": {},
    }
    if (folder / RECORD).is_file():
        known = _read(folder / RECORD)
        changed = [name for name in ("source", "minutes", "options") if known.get(name) != record[name]]
        if changed:
            raise OutputError(
                f"--output {folder} holds a comparison with other {' and '.join(changed)}: choose another folder"
            )
        record = known
    for method in request.methods:
        record["methods"].setdefault(method, {})
    return Comparison(folder.resolve(), record)


def _read(path: Path) -> dict[str, Any]:
    try:
        record: Any = read_json(path, MAX_RECORD_BYTES)
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} is damaged ({error}): choose another --output") from error
    methods = record.get("methods") if isinstance(record, dict) else None
    if not isinstance(methods, dict) or not all(isinstance(value, dict) for value in methods.values()):
        raise OutputError(f"{path} is damaged: it lacks its methods; choose another --output")
    return record
