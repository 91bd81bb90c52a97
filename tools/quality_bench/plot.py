"""Chamfer distance against minutes, one panel per capture with a known surface."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quality_bench.captures import CHAMFER
from quality_bench.table import HULL, Row
from quicksurf.files import atomic_path

_COLORS = {"no masks": "#1f6fb4", "masks": "#c2571a"}
_GREY = "#555555"
_PANEL = 3.4  # inches


def write_plot(path: Path, rows: Sequence[Row]) -> bool:
    """Draw every Chamfer distance of `rows` into a PNG; False, and no file, if there is none.

    Raises:
        OutputError: if it cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot  # not at the top: an extra, whose absence the command line reports

    known = [row for row in rows if CHAMFER in row.figures]
    scenes = list(dict.fromkeys(row.scene for row in known))
    if not scenes:
        return False
    size = (_PANEL * len(scenes) + 0.6, _PANEL + 0.8)
    figure, panels = pyplot.subplots(1, len(scenes), figsize=size, sharey=True, squeeze=False)
    for panel, scene in zip(panels[0], scenes, strict=True):
        _draw(panel, [row for row in known if row.scene == scene])
        panel.set_title(scene)
        panel.set_xlabel("minutes")
    panels[0][0].set_ylabel("Chamfer, % of the box diagonal")
    named = {
        name: line
        for panel in panels[0]
        for line, name in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(named.values(), named.keys(), loc="lower center", ncols=4, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
    pyplot.close(figure)
    return True


def _draw(panel: Any, rows: Sequence[Row]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    panel.set_xscale("log")
    panel.set_yscale("log")
    for inputs, method in dict.fromkeys((row.inputs, row.method) for row in rows):
        _draw_line(panel, [row for row in rows if (row.inputs, row.method) == (inputs, method)])
    _draw_targets(panel, rows)
    minutes = sorted({row.minutes for row in rows if row.minutes is not None})
    panel.set_xticks(minutes, [f"{value:g}" for value in minutes])
    panel.set_xticks([], minor=True)
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.grid(True, which="both", color="#dddddd", linewidth=0.5)


def _draw_line(panel: Any, rows: Sequence[Row]) -> None:
    first = rows[0]
    if first.method == HULL:
        panel.axhline(first.figures[CHAMFER], color=_GREY, linestyle="--", linewidth=1, label=HULL)
        return
    points = sorted((row.minutes, row.figures[CHAMFER]) for row in rows if row.minutes is not None)
    style = ":" if "torch" in first.method else "-"
    color, label = _COLORS.get(first.inputs, _GREY), f"{first.method}, {first.inputs}"
    panel.plot(*zip(*points, strict=True), style, color=color, marker="o", markersize=4, label=label)


def _draw_targets(panel: Any, rows: Sequence[Row]) -> None:
    """Targets of the table as short bars in the colour of their line; the hull has a line of its own."""
    for row in rows:
        limits = [target.limit for target in row.targets if target.figure == CHAMFER and not target.source]
        for limit in limits:
            color = _COLORS.get(row.inputs, _GREY)
            panel.plot([row.minutes], [limit], "_", color=color, markersize=14, markeredgewidth=2)
            panel.plot([], [], "_", color=_GREY, markersize=12, markeredgewidth=2, label="target")
