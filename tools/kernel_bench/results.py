"""Rows of the printed table: figures with their spread, and the targets."""

from dataclasses import dataclass, field
from typing import NamedTuple

from rich.table import Table

from kernel_bench.timing import Spread


class Figure(NamedTuple):
    """One measured figure."""

    name: str
    value: Spread
    unit: str = ""
    target: float | None = None
    at_most: bool = False
    """The target is an upper bound."""
    gated: bool = False
    """A ratio of two things measured in the same run: it may stand in a baseline."""

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the target, None without one."""
        if self.target is None:
            return None
        return self.value.median <= self.target if self.at_most else self.value.median >= self.target


@dataclass
class Row:
    """An operation and its figures."""

    name: str
    figures: list[Figure] = field(default_factory=list)

    def add(self, name: str, value: Spread, unit: str = "", target: float | None = None) -> None:
        """Append a figure that holds for this machine alone."""
        self.figures.append(Figure(name, value, unit, target))

    def add_ratio(self, name: str, value: Spread, target: float | None = None) -> None:
        """Append a ratio that the gate looks at."""
        self.figures.append(Figure(name, value, "", target, gated=True))


def ratios_of(rows: list[Row]) -> dict[str, float]:
    """Gated ratios by "row: figure"."""
    return {
        f"{row.name}: {figure.name}": figure.value.median
        for row in rows
        for figure in row.figures
        if figure.gated
    }


def table_of(rows: list[Row]) -> Table:
    """The table that is printed."""
    table = Table("operation", "figure")
    for column in ("median", "smallest … largest", "target", ""):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        for index, figure in enumerate(row.figures):
            table.add_row(
                row.name if index == 0 else "", *_cells(figure), end_section=figure is row.figures[-1]
            )
    return table


def _cells(figure: Figure) -> list[str]:
    value, sign = figure.value, "≤" if figure.at_most else "≥"
    verdict = {None: "", True: "[green]met[/]", False: "[red]not met[/]"}[figure.met]
    return [
        f"{figure.name} ({figure.unit})" if figure.unit else figure.name,
        _number(value.median),
        f"{_number(value.low)} … {_number(value.high)}",
        "" if figure.target is None else f"{sign} {_number(figure.target)}",
        verdict,
    ]


def _number(value: float) -> str:
    """Three digits, whole numbers from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
