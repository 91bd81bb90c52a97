"""Rows of the benchmark, and the table made of them: Markdown for people, JSON for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from quality_bench.captures import AGREEMENT, EVALUATIONS, MISSED, Target
from quicksurf.files import write_json, write_text

HULL = "visual hull"


class Column(NamedTuple):
    """How a figure is shown."""

    figure: str
    title: str
    form: str


COLUMNS = (
    Column("chamfer", "Chamfer %", ".3f"),
    Column("accuracy", "accuracy %", ".3f"),
    Column("completeness", "completeness %", ".3f"),
    Column("fscore", "F 0.5 %", ".4f"),
    Column("normals", "normals", ".4f"),
    Column("psnr", "held-out PSNR dB", ".2f"),
    Column("psnr_training", "training PSNR dB", ".2f"),
    Column("iou", "silhouette IoU", ".4f"),
    Column(AGREEMENT, "F 0.2 %", ".3f"),
    Column("recall", "recall", ".3f"),
    Column("precision", "precision", ".3f"),
    Column(MISSED, "missed %", ".1f"),
    Column("elsewhere", "elsewhere %", ".1f"),
    Column("median", "median %", ".3f"),
    Column(EVALUATIONS, "evaluations a ray", ".1f"),
    Column("photos", "photos used", ".0f"),
    Column("seconds", "time s", ".1f"),
    Column("memory_mb", "peak MB", ".0f"),
)
_FORMS = {column.figure: column for column in COLUMNS}
_LEGEND = (
    "Lengths are mean distances in percent of the diagonal of the true object's box: accuracy from the mesh to the "
    "truth, completeness from the true points that cameras see to the mesh, Chamfer their mean; F is the F-score at "
    "0.5 %, normals the mean |cos| of the normals. On a table, only what stands above it counts. Time is until the "
    "command was back; that of a visual hull is for carving it from all masks at 256³."
)


_LEGEND_AGAINST = (
    "With OpenMVS' mesh of the same photos, which is no truth, the surface is compared where a quarter of the photos "
    "have it in their frame, lengths in percent of the diagonal of the box around that: missed is the fraction of it "
    "farther than 1 % from ours, elsewhere that of ours farther than 1 % from it; of the rest are F at 0.2 % and the "
    "median distance."
)


@dataclass(frozen=True)
class Row:
    """What came out of one run, or of the hull."""

    scene: str
    inputs: str
    method: str
    minutes: float | None
    """None for what has no budget."""
    figures: dict[str, float] = field(default_factory=dict)
    """Only those that were measured."""
    failure: str | None = None
    """Why there is nothing more."""
    made: str = ""
    """On what machine, of what commit, on what day."""
    options: tuple[str, ...] = ()
    """Of the command line, besides minutes and places."""
    targets: tuple[Target, ...] = ()


def verdicts(row: Row) -> list[str]:
    """A line per target: what was asked, and whether it was met."""
    return [f"{_bound(target)}: {_met(target, row)}" for target in row.targets]


def describe(row: Row) -> str:
    """One line for the terminal."""
    minutes = "" if row.minutes is None else f", {row.minutes:g} min"
    known = [f"{c.title} {row.figures[c.figure]:{c.form}}" for c in COLUMNS if c.figure in row.figures]
    failure = [] if row.failure is None else [f"failed: {row.failure}"]
    found = "; ".join([*failure, *known])
    return " | ".join([f"{row.scene}, {row.inputs}, {row.method}{minutes}", found, *verdicts(row)])


def markdown(rows: Sequence[Row], notes: Sequence[str] = ()) -> str:
    """The table with what it was measured on, and `notes`, under it. Figures that no row has get no column."""
    shown = [column for column in COLUMNS if any(column.figure in row.figures for row in rows)]
    titles = ["capture", "input", "method", "min", *(column.title for column in shown), "targets"]
    right = ["---"] * 3 + ["---:"] * (1 + len(shown)) + ["---"]
    lines = [_line(titles), _line(right), *(_line(_cells(row, shown)) for row in rows)]
    compared = any(AGREEMENT in row.figures for row in rows)
    legends = [_LEGEND, *([_LEGEND_AGAINST] if compared else [])]
    return "\n".join([*lines, "", *(f"{text}  " for text in (*_footer(rows), *notes)), *legends, ""])


def write_table(folder: Path, rows: Sequence[Row], notes: Sequence[str] = ()) -> None:
    """Write quality.md and quality.json.

    Raises:
        OutputError: if the folder cannot be written.
    """
    write_text(folder / "quality.md", markdown(rows, notes))
    listed = [{**asdict(row), "targets": [_target(target, row) for target in row.targets]} for row in rows]
    write_json(folder / "quality.json", {"rows": listed, "notes": list(notes)})


def read_rows(folder: Path) -> list[Row]:
    """The rows of a quality.json, without their targets, which follow from the table of captures.

    A failed row is left out, to be tried again; where there is no such file, or it is damaged, there are none.
    """
    try:
        listed = json.loads((folder / "quality.json").read_text(encoding="utf-8"))["rows"]
        rows = [Row(**{**values, "options": tuple(values["options"]), "targets": ()}) for values in listed]
    except (OSError, ValueError, TypeError, KeyError):
        return []
    return [row for row in rows if row.failure is None]


def _footer(rows: Sequence[Row]) -> list[str]:
    """What the rows were measured on: one line if all are of one machine, commit and day."""
    return [f"Measured on {made}." for made in dict.fromkeys(row.made for row in rows)]


def _cells(row: Row, shown: Sequence[Column]) -> list[str]:
    minutes = "" if row.minutes is None else f"{row.minutes:g}"
    values = [f"{row.figures[c.figure]:{c.form}}" if c.figure in row.figures else "" for c in shown]
    failure = [] if row.failure is None else [f"failed: {row.failure}"]
    return [row.scene, row.inputs, row.method, minutes, *values, "<br>".join([*failure, *verdicts(row)])]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _met(target: Target, row: Row) -> str:
    return "met" if target.met(row.figures.get(target.figure)) else "**not met**"


def _bound(target: Target) -> str:
    sign, column = "≤" if target.at_most else "≥", _FORMS[target.figure]
    source = f" ({target.source})" if target.source else ""
    return f"{column.title} {sign} {target.limit:.4g}{source}"


def _target(target: Target, row: Row) -> dict[str, object]:
    return {**target._asdict(), "met": target.met(row.figures.get(target.figure))}
