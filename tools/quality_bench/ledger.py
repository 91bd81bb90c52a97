"""All rows that were measured into one folder: its table, from which a bench goes on."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from quality_bench.captures import CASES, CHAMFER, Case
from quality_bench.plot import write_plot
from quality_bench.table import HULL, Row, read_rows, write_table

METHOD, TORCH = "quicksurf", "quicksurf, torch back end"


class Ledger:
    """The rows of a folder's quality.json, quality.md and quality.png; one is measured only if it is missing."""

    def __init__(self, folder: Path, notes: Sequence[str] = (), cases: Sequence[Case] = CASES) -> None:
        self._folder, self._notes, self._cases = folder, notes, cases
        self._rows = {_identity(row): row for row in read_rows(folder)}

    def row(self, wanted: Row, measure: Callable[[], Row]) -> Row:
        """The row of what `wanted` names, with its targets: kept if it was made with the same options, else measured.

        Raises:
            OutputError: if the table cannot be written.
        """
        key = _identity(wanted)
        if key not in self._rows or self._rows[key].options != wanted.options:
            self._rows[key] = measure()
        rows = self.rows()
        write_table(self._folder, rows, self._notes)
        write_plot(self._folder / "quality.png", rows)
        return next(row for row in rows if _identity(row) == key)

    def rows(self) -> list[Row]:
        """In the order of the captures, with their targets."""
        return [self._with_targets(row) for row in sorted(self._rows.values(), key=self._place)]

    def _with_targets(self, row: Row) -> Row:
        """Targets are for the default back end alone."""
        if row.method != METHOD or row.minutes is None:
            return replace(row, targets=())
        hull = self._rows.get((row.scene, "masks", HULL, None))
        bound = None if hull is None else hull.figures.get(CHAMFER)
        cases = [case for case in self._cases if (case.scene, case.inputs) == (row.scene, row.inputs)]
        return replace(row, targets=tuple(t for case in cases for t in case.targets_at(row.minutes, bound)))

    def _place(self, row: Row) -> tuple[int, int, int, str, float]:
        """Captures as they are listed, the hull of each first, then by input, back end and minutes."""
        scenes = [case.scene for case in self._cases]
        inputs = [case.inputs for case in self._cases if case.scene == row.scene]
        scene = scenes.index(row.scene) if row.scene in scenes else len(scenes)
        which = inputs.index(row.inputs) if row.inputs in inputs else len(inputs)
        return scene, row.method != HULL, which, row.method, row.minutes or 0.0


def _identity(row: Row) -> tuple[str, str, str, float | None]:
    return row.scene, row.inputs, row.method, row.minutes
