"""The template context of report.html: the findings as sentences, table rows and charts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from quicksurf.app.progress import clock
from quicksurf.app.report import charts
from quicksurf.app.report.advice import WANTED
from quicksurf.app.report.collect import Findings, PhotoQuality, shown
from quicksurf.app.report.pictures import as_jpeg, data_uri, pack_mesh, shrink
from quicksurf.app.report.sphere import covered_fraction, widest_gap
from quicksurf.untrusted import is_count, is_number

MAX_PICTURES = 300  # of photos: 5 kB each, so that the page stays under 3 MB
MAX_LOST, MAX_WARNINGS = 200, 40
THUMBNAIL = 176  # pixels: sharp at 132 on most screens
_SCRIPT = Path(__file__).parent / "viewer.js"
# Beginning of a reason, alone or after "too few matches: ", and the advice on it.
_LOST = {
    "blurred": "{is_} not used, too blurred: take {them} again with the camera held still",
    "too dark": "{is_} not used, too dark: take {them} again with the exposure of the others",
    "too bright": "{is_} not used, too bright: take {them} again with the exposure of the others",
    "it overlaps with no other photo": "{is_} not used, {they} {show} nothing that another photo shows: "
    "if {they} {belong} here, take photos between",
    "not in the largest model": "{is_} not used, apart from the others: take photos that bridge the gap",
}
_FLAGGED = {
    "blurred": "{is_} blurred beside the others: take {them} again with the camera held still",
    "exposure": "{is_} exposed differently: lock exposure and white balance, or take {them} again",
}


def template_context(found: Findings) -> dict[str, Any]:
    """Compute the values of report.html; Jinja2 escapes every text that is not Markup."""
    summary, surface, photos = found.summary, found.surface, found.photos
    lost = [(shown(str(name)), shown_reason(reason)) for name, reason in _dict(summary.get("lost")).items()]
    pictures = _photo_entries(found, photos) if photos is not None else []
    told = summary.get("warnings")
    warnings = [*found.notes, *(told if isinstance(told, list) else [])]
    places = [] if surface is None else [(place.azimuth, place.elevation) for place in surface.places]
    context = {
        "name": shown(str(found.run.record.get("name", found.run.path.name))),
        "subtitle": shown_reason(f"{found.run.source} → {found.run.path}"),
        "headline": _headline(found),
        "advice": _advice(found),
        "n_places": len(places),
        "praise": "but no mesh was examined.",
        "warnings": [shown_reason(text) for text in warnings[:MAX_WARNINGS]],
        "solid": None,
        "solid_note": "",
        "poster": "",
        "script": Markup(_SCRIPT.read_text(encoding="utf-8")),
        "sphere": charts.sphere_map(found.sphere, found.held_out, places),
        "coverage": _coverage(found),
        "mesh_rows": [],
        "views": found.views,
        "no_views": "Nothing was rendered.",
        "charts": _charts(found),
        "photos_line": _photos_line(found, len(lost)),
        "lost": lost[:MAX_LOST],
        "lost_more": max(0, len(lost) - MAX_LOST),
        "photos": pictures,
        "n_marked": sum(any(entry["flags"]) for entry in pictures),
        "photos_more": 0 if photos is None else len(photos.figures) - len(pictures),
        "stages": _stages(summary),
        "machine": _machine(summary),
    }
    if surface is not None:
        topology, coverage, n_shown = surface.topology, surface.coverage, len(surface.reduced.faces)
        supported = 100 * coverage.weights[coverage.n_views >= WANTED].sum()
        context["praise"] = f"{supported:.0f} % of the surface is supported by four photos or more."
        context["solid"] = Markup(pack_mesh(surface.reduced, surface.n_views, found.frame))
        context["poster"] = surface.poster
        if n_shown != topology.faces:
            context["solid_note"] = f"Shown with {n_shown:,} of {topology.faces:,} faces."
        context["mesh_rows"] = [
            ("faces, vertices", f"{topology.faces:,}, {topology.vertices:,}"),
            ("size", " x ".join(f"{edge:.4g}" for edge in topology.size) + " in the cameras' units"),
            ("area", f"{topology.area:.4g}"),
            ("parts", f"{topology.components:,}"),
            ("holes", f"{topology.holes:,}"),
            ("watertight", "yes" if topology.watertight else "no"),
            ("supported by fewer than four photos, or open", f"{100 - supported:.1f} % of the surface"),
        ]
    return context


def shown_reason(text: Any) -> str:
    """Make a sentence fit for a page: at most 400 printable characters."""
    plain = "".join(letter if letter.isprintable() else " " for letter in str(text))
    return plain if len(plain) <= 400 else plain[:400] + "…"


def _headline(found: Findings) -> list[tuple[str, str]]:
    summary = found.summary
    photos, held_out = summary.get("photos"), summary.get("psnr_held_out")
    n_photos = photos if is_count(photos) else len(found.names)
    rows = [("photos used", f"{len(found.names)} of {n_photos}")]
    if is_number(held_out):
        rows.append(("on photos kept from the fit", f"{held_out:.1f} dB"))
    rows.append(("of the directions covered", f"{100 * covered_fraction(found.frame, found.sphere):.0f} %"))
    if found.surface is not None:
        rows.append(("faces", f"{found.surface.topology.faces:,}"))
        rows.append(("closed surface", "yes" if found.surface.topology.watertight else "no"))
    total = _dict(summary.get("seconds")).get("total")
    if is_number(total) and total >= 0:
        rows.append(("from photos to mesh", f"{clock(total)} min"))
    return rows


def _advice(found: Findings) -> list[str]:
    """Places first, then photos that are worth taking again."""
    sentences = [] if found.surface is None else list(found.surface.advice)
    flags = found.photos.flags if found.photos is not None else []
    for attribute, text in _FLAGGED.items():
        flagged = (name for name, flag in zip(found.names, flags, strict=False) if getattr(flag, attribute))
        sentences += _of_photos(list(flagged), text)
    return sentences + advice_on_lost(_dict(found.summary.get("lost")))


def advice_on_lost(lost: Mapping[str, Any]) -> list[str]:
    """Advise on photos that were not used, by their reasons (quicksurf.capture); second copies need no advice."""
    sentences = []
    for mark, text in _LOST.items():
        beginnings = mark, f"too few matches: {mark}"
        named = [shown(str(name)) for name, reason in lost.items() if str(reason).startswith(beginnings)]
        sentences += _of_photos(named, text)
    return sentences


def _of_photos(names: Sequence[str], text: str) -> list[str]:
    """One sentence about these photos, or none."""
    if not names:
        return []
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    singular = {"is_": "is", "them": "it", "they": "it", "show": "shows", "belong": "belongs"}
    plural = {"is_": "are", "them": "them", "they": "they", "show": "show", "belong": "belong"}
    return [f"{', '.join(names[:4])}{more} {text.format(**(singular if len(names) == 1 else plural))}."]


def _coverage(found: Findings) -> str:
    low, high = found.sphere.elevations.min(), found.sphere.elevations.max()
    gap, left, right = widest_gap(found.sphere)
    return (
        f"{100 * covered_fraction(found.frame, found.sphere):.0f} % of the directions from which the object could "
        f"be seen without going below the photos lie within 20° of a photo. "
        f"Heights from {low:.0f}° to {high:.0f}°; the widest "
        f"gap around the object is {gap:.0f}°, between {found.names[left]} and {found.names[right]}."
    )


def _charts(found: Findings) -> list[dict[str, Any]]:
    def curve(key: str) -> list[tuple[float, float]]:
        pairs = [(line["seconds"], line.get(key)) for line in found.metrics]
        return [(float(x), float(y)) for x, y in pairs if is_number(y)]

    drawings = {
        "PSNR": charts.curves(
            "PSNR", "dB", {"photos of the fit": curve("psnr"), "kept photos": curve("psnr_held_out")}
        ),
        "Loss": charts.curves("Loss", "loss", {"loss": curve("loss")}),
    }
    return [{"title": title, "drawing": drawing} for title, drawing in drawings.items() if drawing]


def _photos_line(found: Findings, n_lost: int) -> str:
    joined = _dict(found.summary.get("held_out")).get("joined") is True
    kept = "kept to measure the fit" + (" until its last stretch" if joined else "")
    line = f"{len(found.names)} photos used, {sum(found.held_out)} of them {kept}; {n_lost} lost."
    if found.photos is None:
        return line
    flags = found.photos.flags
    blurred, off, clipped = (sum(getattr(f, n) for f in flags) for n in ("blurred", "exposure", "clipped"))
    return f"{line} {blurred} blurred, {off} exposed differently, {clipped} with clipped areas."


def _photo_entries(found: Findings, photos: PhotoQuality) -> list[dict[str, Any]]:
    """At most MAX_PICTURES photos, flagged ones first."""
    if found.scene is None or not photos.figures:
        return []
    middle = float(np.median([f.sharpness for f in photos.figures]))
    order = sorted(range(len(photos.figures)), key=lambda i: not any(photos.flags[i]))
    return [
        {
            "name": found.names[i],
            "image": data_uri(as_jpeg(shrink(found.scene.images[i], THUMBNAIL))),
            "sharpness": f"{100 * photos.figures[i].sharpness / middle:.0f} %",
            "stops": f"{round(photos.stops[i], 1) + 0.0:+.1f}",
            "clipped": f"{100 * photos.figures[i].clipped:.0f} %",
            "flags": photos.flags[i],
        }
        for i in order[:MAX_PICTURES]
    ]


def _stages(summary: Mapping[str, Any]) -> Markup:
    seconds = _dict(summary.get("seconds"))
    return charts.bars(
        "Seconds of each stage",
        {shown(k): float(v) for k, v in seconds.items() if is_number(v) and v >= 0},
        "s",
    )


def _machine(summary: Mapping[str, Any]) -> str:
    parts = [f"back end {shown(str(summary['backend']))}"] if "backend" in summary else []
    if is_number(summary.get("peak_memory_mb")):
        parts.append(f"at most {summary['peak_memory_mb']:.0f} MB")
    return ", ".join(parts)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
