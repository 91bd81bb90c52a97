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
from quicksurf.app.requests import FitRequest, MaskUse, mask_use, parse_roi
from quicksurf.errors import ConfigError, OutputError
from quicksurf.files import write_json
from quicksurf.untrusted import is_number, read_json

FORMAT, RECORD, LOGS, POSES = "quicksurf compare", "compare.json", "logs", "poses"
CLASSICAL, NO_MASKS = "colmap", "-no-masks"
MASKING = "auto", "make", "none"
LABELS = {
    "unisurf": "UNISURF, as improved here",
    "paper": "UNISURF, as published",
    "nerf": "NeRF",
    "idr": "IDR",
    CLASSICAL: "classical stereo",
}
MAX_RECORD_BYTES = 1 << 20
MAX_MINUTES = 7 * 24 * 60.0


@dataclass(frozen=True)
class CompareRequest:
    """Options of `quicksurf compare`, by their names on the command line."""

    source: Path
    methods: tuple[str, ...]
    minutes: float = 3.0
    """For each method."""
    output: Path | None = None
    truth: Path | None = None
    """True surface in the frame of the cameras."""
    views: int = 4
    """Held-out views that are rendered and compared."""
    ray: str | None = None
    """Address of a Ray cluster; None: this machine."""
    masks: str | None = None
    roi: str | None = None
    capture: str | None = None
    keep: str | None = None
    preset: str | None = None
    seed: int | None = None
    device: str = "auto"

    def check(self) -> None:
        """Refuse what cannot be compared.

        Raises:
            ConfigError: saying what.
            RoiError: if the region is not one.
        """
        if not 0 < self.minutes <= MAX_MINUTES:
            raise ConfigError(
                f"--minutes is {self.minutes:g}: choose above 0 and at most {MAX_MINUTES:g}, for each method"
            )
        if not self.methods:
            raise ConfigError("--methods is empty: name at least one")
        if self.views < 1:
            raise ConfigError(f"--views is {self.views}: give 1 or more")
        if self.truth is not None and not self.truth.is_file():
            raise ConfigError(f"--truth {self.truth} is no file: give a mesh or a point cloud")
        if self.roi is not None:
            parse_roi(self.roi)

    def options(self, method: str) -> tuple[str, ...]:
        """Write out the options of one method's fit, for new runs; paths in full, because it runs in another folder."""
        masks = "none" if method.endswith(NO_MASKS) else self.masks
        given = {
            "masks": masks if masks in (None, *MASKING) else str(Path(masks).resolve()),
            "roi": self.roi,
            "capture": self.capture,
            "keep": self.keep,
            "seed": self.seed,
        }
        if not is_classical(method):
            preset = self.preset
            if preset is not None and Path(preset).is_file():
                preset = str(Path(preset).resolve())
            given |= {"preset": preset, "method": method.removesuffix(NO_MASKS), "hold-out": "keep"}
        return tuple(f"--{name}={value}" for name, value in given.items() if value is not None)

    def masking(self, seconds: float) -> MaskUse:
        """Tell which masks of the capture are used.

        Raises:
            QuicksurfError: as `mask_use`.
        """
        return mask_use(FitRequest(self.source, masks=self.masks), seconds)


def is_classical(method: str) -> bool:
    """Tell whether a method is no fit."""
    return method == CLASSICAL


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
    folder = request.output or Path("runs") / f"compare-{request.source.resolve().stem}"
    make_output(folder, RECORD, FORMAT, "a comparison's")
    record: dict[str, Any] = {
        "format": FORMAT,
        "version": 1,
        "source": str(request.source.resolve()),
        "minutes": request.minutes,
        "options": list(request.options("unisurf")),
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
    for method in dict.fromkeys(request.methods):
        record["methods"].setdefault(method, {})
    return Comparison(folder.resolve(), record)


def _read(path: Path) -> dict[str, Any]:
    try:
        record: Any = read_json(path, MAX_RECORD_BYTES)
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} is damaged ({error}): choose another --output") from error
    methods = record.get("methods") if isinstance(record, dict) else None
    sound = isinstance(methods, dict) and all(
        name.removesuffix(NO_MASKS) in LABELS and isinstance(noted, dict) and _is_figure(noted.get("load"))
        for name, noted in methods.items()
    )
    if not sound or not _is_figure(record.get("poses_seconds")):
        raise OutputError(f"{path} is damaged: its methods are no comparison's; choose another --output")
    return record


def _is_figure(value: Any) -> bool:
    return value is None or is_number(value)
