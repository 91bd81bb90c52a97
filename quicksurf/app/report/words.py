"""The page in words and numbers: what the findings say to somebody beside the object."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from quicksurf.app.report import charts, solid
from quicksurf.app.report.collect import Findings, Photos, shown
from quicksurf.app.report.pictures import as_jpeg, data_uri, shrink
from quicksurf.app.report.sphere import covered_fraction, widest_gap
from quicksurf.mesh.types import Mesh
from quicksurf.untrusted import is_count, is_number

MAX_PICTURES = 300  # of photos: 5 kB each, so that the page stays under 3 MB
MAX_LOST, MAX_WARNINGS = 200, 40
THUMBNAIL = 176  # pixels: sharp at 132 on most screens
_SCRIPT = Path(__file__).parent / "viewer.js"


_LOST = (  # how a reason begins or ends, what to do about it
    ("blurred", "{is_} not used, too blurred: take {them} again with the camera held still"),
    ("too dark", "{is_} not used, too dark: take {them} again with the exposure of the others"),
    ("too bright", "{is_} not used, too bright: take {them} again with the exposure of the others"),
    (
        "it overlaps with no other photo",
        "{is_} not used, {they} {show} nothing that another photo shows: if {they} {belong} here, take photos between",
    ),
    ("not in the largest model", "{is_} not used, apart from the others: take photos that bridge the gap"),
)


def page_values(found: Findings) -> dict[str, Any]:
    """Tell what report.html is filled in with; Markup is left as it is, every other text will be escaped."""
    summary, surface, photos = found.summary, found.surface, found.photos
    lost = [(shown(str(name)), shown_reason(reason)) for name, reason in _lost(summary).items()]
    pictures = _photo_entries(found, photos) if photos is not None else []
    return {
        "name": shown(str(found.run.record.get("name", found.run.path.name))),
        "subtitle": shown_reason(f"{found.run.source} → {found.run.path}"),
        "headline": _headline(found),
        "advice": _advice(found),
        "n_places": 0 if surface is None else len(surface.places),
        "praise": _praise(found),
        "warnings": [shown_reason(text) for text in [*found.notes, *_list(summary.get("warnings"))]][
            :MAX_WARNINGS
        ],
        "solid": None
        if surface is None
        else Markup(solid.pack(surface.reduced, surface.n_views, found.frame)),
        "solid_note": "" if surface is None else _solid_note(surface.reduced, surface.topology.faces),
        "poster": "" if surface is None else surface.poster,
        "script": Markup(_SCRIPT.read_text(encoding="utf-8")),
        "sphere": charts.sphere_map(
            found.sphere,
            found.held_out,
            [(p.azimuth, p.elevation) for p in surface.places] if surface is not None else [],
        ),
        "coverage": _coverage(found),
        "mesh_rows": _mesh_rows(found),
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


def shown_reason(text: Any) -> str:
    """Return a sentence fit for a page."""
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
        rows.append(("from photos to mesh", f"{int(total) // 60}:{int(total) % 60:02d} min"))
    return rows


def _advice(found: Findings) -> list[str]:
    """Places first, then photos that are worth taking again."""
    sentences = [] if found.surface is None else list(found.surface.advice)
    if found.photos is not None:
        for attribute, words in (
            ("blurred", "{is_} blurred beside the others: take {them} again with the camera held still"),
            ("exposure", "{is_} exposed differently: lock exposure and white balance, or take {them} again"),
        ):
            flags = found.photos.flags
            sentences += _of_photos(
                [found.names[i] for i, f in enumerate(flags) if getattr(f, attribute)], words
            )
    return sentences + advice_on_lost(_lost(found.summary))


def advice_on_lost(lost: Mapping[str, str]) -> list[str]:
    """Tell what to do about photos that are not used, by their reasons (quicksurf.capture); nothing about second
    copies.
    """
    sentences = []
    for mark, words in _LOST:
        whole = f"too few matches: {mark}"
        named = [shown(str(name)) for name, why in lost.items() if str(why).startswith((mark, whole))]
        sentences += _of_photos(named, words)
    return sentences


def _of_photos(names: Sequence[str], words: str) -> list[str]:
    """One sentence about these photos, or none."""
    if not names:
        return []
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    singular = {"is_": "is", "them": "it", "they": "it", "show": "shows", "belong": "belongs"}
    plural = {"is_": "are", "them": "them", "they": "they", "show": "show", "belong": "belong"}
    return [f"{', '.join(names[:4])}{more} {words.format(**(singular if len(names) == 1 else plural))}."]


def _praise(found: Findings) -> str:
    if found.surface is None:
        return "but the page knows no mesh to judge by."
    weights, n_views = found.surface.needs.weights, found.surface.needs.n_views
    return f"{100 * weights[n_views >= 4].sum():.0f} % of the surface is supported by four photos or more."


def _coverage(found: Findings) -> str:
    low, high = found.sphere.elevations.min(), found.sphere.elevations.max()
    gap, left, right = widest_gap(found.sphere)
    return (
        f"{100 * covered_fraction(found.frame, found.sphere):.0f} % of the directions from which the object could "
        f"be seen without going below the photos lie within 20° of a photo. "
        f"Heights from {low:.0f}° to {high:.0f}°; the widest "
        f"gap around the object is {gap:.0f}°, between {found.names[left]} and {found.names[right]}."
    )


def _mesh_rows(found: Findings) -> list[tuple[str, str]]:
    if found.surface is None:
        return []
    t, needs = found.surface.topology, found.surface.needs
    few = 100 * needs.weights[needs.n_views < 4].sum()
    return [
        ("faces, vertices", f"{t.faces:,}, {t.vertices:,}"),
        ("size", " x ".join(f"{edge:.4g}" for edge in t.size) + " in the cameras' units"),
        ("area", f"{t.area:.4g}"),
        ("parts", f"{t.components:,}"),
        ("holes", f"{t.holes:,}"),
        ("watertight", "yes" if t.watertight else "no"),
        ("supported by fewer than four photos, or open", f"{few:.1f} % of the surface"),
    ]


def _solid_note(reduced: Mesh, n_faces: int) -> str:
    if len(reduced.faces) == n_faces:
        return ""
    return f"Shown with {len(reduced.faces):,} of {n_faces:,} faces."


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


def _photo_entries(found: Findings, photos: Photos) -> list[dict[str, Any]]:
    """Flagged photos first, then the others in order, at most MAX_PICTURES."""
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


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _lost(summary: Mapping[str, Any]) -> dict[str, str]:
    """Why photos were not used, by their names."""
    return {name: str(reason) for name, reason in _dict(summary.get("lost")).items()}
