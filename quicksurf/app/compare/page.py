"""The page of a comparison, twice: index.html, which needs no other file, and index.md with its pictures beside it."""

import platform
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup

from quicksurf.app.compare.lineage import Picture, sections
from quicksurf.app.compare.measure import Findings, Result, measure
from quicksurf.app.compare.pictures import SIDE, at_size, draw
from quicksurf.app.compare.request import Comparison
from quicksurf.app.film import color_image
from quicksurf.app.report.charts import curves
from quicksurf.app.report.collect import short_names, shown
from quicksurf.app.report.context import shown_reason
from quicksurf.app.report.page import render_template, style_sheet
from quicksurf.app.report.pictures import as_jpeg, data_uri, shrink
from quicksurf.app.run.files import remove
from quicksurf.files import write_atomic, write_text
from quicksurf.kernels.host import usable_cpus

PAGE, MARKDOWN, IMAGES = "index.html", "index.md", "images"
N_PICTURED = 2  # views that are drawn for every method


class Column(NamedTuple):
    """A column of the table."""

    key: str
    title: str
    form: str
    meaning: str


COLUMNS = (
    Column(
        "chamfer",
        "Chamfer %",
        ".3f",
        "mean of the distances mesh to truth and truth to mesh, in percent of the "
        "diagonal of the truth's box",
    ),
    Column("fscore", "F", ".3f", "F-score at 0.5 % of that diagonal"),
    Column("normals", "normals", ".3f", "mean |cos| between the normals of the mesh and of the truth"),
    Column(
        "psnr",
        "PSNR dB",
        ".2f",
        "of held-out photos, at the size of the fit; fits with masks are compared before white",
    ),
    Column("ssim", "SSIM", ".3f", "of the same photos (Wang et al. 2004)"),
    Column(
        "silhouettes",
        "silhouettes",
        ".3f",
        "intersection over union of the mesh's outline and the given mask, in the same photos",
    ),
    Column(
        "seconds",
        "s",
        ".0f",
        "wall-clock from the start of the command to the last file; poses that had to be "
        "found are not counted",
    ),
    Column("memory", "MB", ".0f", "largest resident memory"),
    Column(
        "evaluations",
        "evaluations a ray",
        ".0f",
        "of the geometry, search and losses included; the median over the fit",
    ),
    Column("steps", "steps", ".0f", "of the fit"),
)


def write_pages(comparison: Comparison, truth: Path | None, n_views: int, device: str) -> list[Path]:
    """Measure and draw all methods of a comparison; return the pages written.

    Raises:
        SurfaceError: if the truth cannot be read, or no method has a mesh.
        OutputError: if the disk is full.
    """
    found = measure(comparison, truth, n_views, device)
    columns = [column for column in COLUMNS if any(column.key in one.figures for one in found.results)]
    views = {view: _view(found, view) for view in found.views[:N_PICTURED]}
    values = {
        "name": shown(Path(comparison.record["source"]).name),
        "about": _about(found),
        "columns": columns,
        "rows": [_row(one, columns) for one in found.results],
        "views": {
            f"{number}: {shown(_name(found, view))}": views[view] for number, view in enumerate(views, 1)
        },
        "charts": _charts(found),
        "sections": sections(found),
        "pictures_of": _embedded,
    }
    remove(comparison.folder / IMAGES)
    write_text(comparison.folder / PAGE, render_template("compare.html", values))
    write_text(comparison.folder / MARKDOWN, _markdown(comparison.folder, values))
    return [comparison.folder / PAGE, comparison.folder / MARKDOWN]


def _about(found: Findings) -> list[str]:
    """Say on what the figures stand: minutes, machine, load, dates."""
    record, done = found.comparison.record, [one.outcome for one in found.results if one.outcome.get("date")]
    dates, loads = (
        [str(one["date"]) for one in done],
        [one["load"] for one in done if one.get("load") is not None],
    )
    lines = [
        f"{record['minutes']:g} min for each method, one after another, by quicksurf fit; "
        f"{len(found.scene.images)} photos, of which {int(found.scene.held_out.sum())} are held out of every fit.",
        f"Processors in use: {usable_cpus()} ({platform.machine()})"
        + (f", load average {min(loads):g} to {max(loads):g} when the fits ended" if loads else "")
        + (f"; {min(dates)} to {max(dates)}." if dates else "."),
    ]
    if record.get("poses_seconds"):
        lines.append(f"Poses were found once for all methods, in {record['poses_seconds']:.0f} s on top.")
    for one in found.results:
        classical = one.summary.get("classical")
        if isinstance(classical, dict):
            lines.append(
                f"{one.label}: {classical['what']}; {classical['points']:,} points, octree of depth "
                f"{classical['depth']}, trim {classical['trim']}."
            )
    return lines


def _row(one: Result, columns: list[Column]) -> dict[str, Any]:
    cells = [format(one.figures[c.key], c.form) if c.key in one.figures else "n/a" for c in columns]
    return {"label": one.label, "failure": shown_reason(one.failure), "cells": cells}


def _name(found: Findings, view: int) -> str:
    return short_names(found.scene.names)[view]


def _view(found: Findings, view: int) -> dict[str, list[Picture]]:
    """Every method's mesh in clay, and its rendering, or its mesh in colours where it renders nothing; photo first."""
    photo = Picture("photo", shrink(found.scene.images[view], SIDE))
    clay, colors = [photo], [photo]
    for one in found.results:
        if one.mesh is None or one.cameras is None:
            continue
        camera = at_size(one.cameras.cameras, view, SIDE)
        drawing = draw(one.mesh, camera)
        clay.append(Picture(one.label, drawing.clay))
        if one.model is None:
            colors.append(Picture(f"{one.label} (mesh)", drawing.colors))
        else:
            colors.append(Picture(one.label, color_image(one.model.render(camera).color.cpu().numpy())))
    return {"clay": clay, "colours": colors}


def _charts(found: Findings) -> dict[str, Markup]:
    """Curves against time, of the metrics log."""
    charts = {}
    for key, title in (("psnr_held_out", "PSNR on held-out photos"), ("psnr", "PSNR in training")):
        lines = {
            one.label: [(line["seconds"], line[key]) for line in one.metrics if line.get(key) is not None]
            for one in found.results
        }
        chart = curves(title, "dB", lines)
        charts |= {title: chart} if chart else {}
    return charts


def _embedded(pictures: list[Picture]) -> list[tuple[str, str]]:
    return [(caption, data_uri(as_jpeg(image))) for caption, image in pictures]


def _markdown(folder: Path, values: dict[str, Any]) -> str:
    """Write the pictures; return the text of the Markdown page."""
    columns: list[Column] = values["columns"]
    lines = [f"# {values['name']}: methods compared", "", *_paragraphs(values["about"])]
    lines += ["| method | " + " | ".join(c.title for c in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in values["rows"]:
        failed = ["failed: " + row["failure"].replace("|", "/"), *[""] * (len(columns) - 1)]
        lines.append(f"| {row['label']} | " + " | ".join(failed if row["failure"] else row["cells"]) + " |")
    lines += ["", "; ".join(f"**{c.title}**: {c.meaning}" for c in columns) + ".", ""]
    for number, (name, rows) in enumerate(values["views"].items(), 1):
        lines += [f"## View {name}", ""]
        for kind, pictures in rows.items():
            lines += [f"In {kind}:", "", *_tiles(folder, f"view-{number}-{kind}", pictures)]
    lines += ["## Against time", "", *_drawn(folder, "time", values["charts"])]
    for section in values["sections"]:
        lines += [f"## {section.title}", "", section.text, ""]
        lines += _tiles(folder, section.name, section.pictures) + _drawn(folder, section.name, section.charts)
    return "\n".join(lines)


def _paragraphs(texts: list[str]) -> list[str]:
    return [line for text in texts for line in (text, "")]


def _tiles(folder: Path, name: str, pictures: list[Picture]) -> list[str]:
    """One JPEG of all pictures in a row, and their captions; no pictures give nothing."""
    if not pictures:
        return []
    path = folder / IMAGES / f"{name}.jpg"
    jpeg = as_jpeg(in_rows([picture.image for picture in pictures]))
    write_atomic(path, lambda file: file.write(jpeg))
    captions = " · ".join(picture.caption for picture in pictures)
    return [f"![{captions}]({IMAGES}/{path.name})", "", f"*From left to right: {captions}.*", ""]


def in_rows(images: list[UInt8[np.ndarray, "_ _ 3"]], most: int = 7) -> UInt8[np.ndarray, "h w 3"]:
    """Put pictures side by side, `most` in a row, on white."""
    width, height = max(image.shape[1] for image in images), max(image.shape[0] for image in images)
    columns = min(most, len(images))
    sheet = np.full((-(-len(images) // columns) * height, columns * width, 3), 255, np.uint8)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        top, left = row * height, column * width
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


def _drawn(folder: Path, name: str, charts: dict[str, Markup]) -> list[str]:
    """The charts as SVG files of their own."""
    lines = []
    for number, (title, chart) in enumerate(charts.items(), 1):
        path = folder / IMAGES / f"{name}-{number}.svg"
        head, _, rest = str(chart).partition(">")
        drawing = (
            f'{head} xmlns="http://www.w3.org/2000/svg" width="480"><style>{style_sheet()}</style>{rest}'
        )
        write_text(path, drawing)
        lines += [f"![{title}]({IMAGES}/{path.name})", "", f"*{title}*", ""]
    return lines
