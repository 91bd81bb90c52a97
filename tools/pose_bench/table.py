"""Rows of the benchmark, their verdicts, and the table: Markdown for people, JSON to resume from."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from quicksurf.files import write_json, write_text

SPEED = 0.6  # of COLMAP's seconds, from `MANY` photos on
MANY = 25
_DOUBT = re.compile(r"\b(pos(e|es|ed)|placed|registered|refused|problem|groups?|contradict)", re.IGNORECASE)
_FILES = re.compile(r"\d+ files? w")  # "2 files were not used: …" tells of files, whatever their reasons
_TITLES = (
    *("capture", "photos", "truth", "placed", "right", "centres %", "AUC@5°", "s", "problem", "verdict"),
    *("C placed", "C right", "C centres %", "C AUC@5°", "C s", "s / C's"),
)
_LEGEND = (
    "Right: rotation and direction to the other photos within 5° of the truth's by the median over them; of those "
    "whose true camera is known. Centres after the best similarity: RMS (median) in percent of their extent. C is "
    "COLMAP (pycolmap; its SIFT at 1600 pixels on the doubled image, 4096 features, all pairs, 1000 trials of RANSAC, "
    "incremental mapping); ~ marks seconds while other work ran. Silent: photos placed wrong without a warning. False "
    "alarm: a warning of problem where every photo is right. Exactness is compared over the photos that both placed."
)


@dataclass(frozen=True)
class Row:
    """One capture: figures of ours and of the peer; a figure that was not measured is absent."""

    capture: str
    photos: int
    known: int
    """Photos whose true camera is known."""
    note: str = ""
    """What restricts the truth."""
    budget: float = 0.0
    """Seconds that our run was given."""
    ours: dict[str, float] = field(default_factory=dict)
    peer: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failure: str | None = None
    made: str = ""

    @property
    def problems(self) -> list[str]:
        """Warnings about poses; those about files or the region of interest are none."""
        return [line for line in self.warnings if _DOUBT.search(line) and not _FILES.match(line)]


def verdicts(row: Row) -> list[str]:
    """List what a row fails at; nothing if it is good."""
    if row.failure is not None:
        return [f"failed: {row.failure}"]
    return [*_honesty(row), *_against_peer(row)]


def describe(row: Row) -> str:
    """Format the row as lines for the terminal."""
    cells = dict(zip(_TITLES, _cells(row), strict=True))
    known = [f"{title} {cell}" for title, cell in cells.items() if cell and title != "capture"]
    pairs = ", ".join(
        f"{name} {row.ours[name]:.3f}°" for name in ("rotation", "direction") if name in row.ours
    )
    errors = [f"median errors of pairs: {pairs}"] if pairs else []
    return "\n  ".join([f"{row.capture}: {' | '.join(known)}", *errors, *row.warnings])


def markdown(rows: Sequence[Row]) -> str:
    """Format the table, with the machines of its measurements below."""
    right = ["---", "---:", "---", *["---:"] * 5, "---", "---", *["---:"] * 6]
    lines = [_line(_TITLES), _line(right), *(_line(_cells(row)) for row in rows)]
    made = [f"Measured on {made}.  " for made in dict.fromkeys(row.made for row in rows if row.made)]
    return "\n".join([*lines, "", *made, _LEGEND, ""])


class Ledger:
    """The rows of a folder's poses.json and poses.md, in the order of `order`; nothing is kept without a folder."""

    def __init__(self, folder: Path | None, order: Sequence[str]) -> None:
        self._folder, self._order = folder, order
        self._rows = {} if folder is None else {row.capture: row for row in _read(folder)}

    def row(self, capture: str) -> Row | None:
        """Return the row of an earlier run that did not fail."""
        row = self._rows.get(capture)
        return None if row is None or row.failure is not None else row

    def add(self, row: Row) -> None:
        """Add the row and write both files.

        Raises:
            OutputError: if the folder cannot be written.
        """
        self._rows[row.capture] = row
        if self._folder is None:
            return
        rows = sorted(self._rows.values(), key=lambda row: self._order.index(row.capture))
        write_json(self._folder / "poses.json", {"rows": [asdict(row) for row in rows]})
        write_text(self._folder / "poses.md", markdown(rows))


def _read(folder: Path) -> list[Row]:
    try:
        return [Row(**values) for values in json.loads((folder / "poses.json").read_text("utf-8"))["rows"]]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _honesty(row: Row) -> list[str]:
    wrong = int(row.ours.get("compared", 0) - row.ours.get("right", 0))
    if wrong and not row.problems:
        return [f"**silent**: {wrong} wrong"]
    all_right = row.ours.get("right") == row.known > 0 and row.ours.get("placed") == row.photos
    return ["**false alarm**"] if all_right and row.problems else []


def _against_peer(row: Row) -> list[str]:
    """Compared at the digits that are shown."""
    found, ours, peer = [], row.ours, row.peer
    if not row.note and ours.get("right", 0) < peer.get("right", 0):
        found.append("**fewer right than C**")
    if not row.note and "auc_both" in ours and "auc_both" in peer:
        worse = round(ours["auc_both"], 1) < round(peer["auc_both"], 1)
        off = round(ours["rms_both"], 2) > round(peer["rms_both"], 2)
        found += ["**less exact than C**"] if worse or off else []
    if row.photos >= MANY and _time_ratio(row) > SPEED and peer.get("timed"):
        found.append(f"**above {SPEED:g} of C's time**")
    return found


def _time_ratio(row: Row) -> float:
    return row.ours.get("seconds", 0.0) / row.peer["seconds"] if row.peer.get("seconds") else 0.0


def _cells(row: Row) -> list[str]:
    truth = f"{row.known}" + (f" ({row.note})" if row.note else "") if row.known else "none"
    ratio = f"{_time_ratio(row):.2f}" if row.peer.get("timed") else ""
    said = "warned" if row.problems else ""
    judged = "<br>".join(verdicts(row))
    return [row.capture, f"{row.photos}", truth, *_five(row.ours), said, judged, *_five(row.peer), ratio]


def _five(figures: dict[str, float]) -> list[str]:
    """Placed, right, centres, AUC and seconds."""
    if not figures:
        return [""] * 5
    centres = f"{figures['rms']:.2f} ({figures['median']:.2f})" if "rms" in figures else ""
    auc = f"{figures['auc']:.1f}" if "auc" in figures else ""
    right = f"{figures['right']:.0f}" if "right" in figures else ""
    seconds = f"{'' if figures.get('timed') else '~'}{figures['seconds']:.0f}"
    return [f"{figures['placed']:.0f}", right, centres, auc, seconds]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
