"""Charts as SVG: curves, the view sphere, bars. Markupsafe escapes their text.

Every drawing is 360 units wide, so that letters keep their size on a phone. Colors are classes of the page's style
sheet, which has a light and a dark theme.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from quicksurf.app.report.sphere import Sphere

WIDTH, HEIGHT = 360, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 10, 34
_MAX_POINTS = 300  # of a curve: more is finer than a pixel
_MOST_INSIDE = 2  # names of curves that find room between them; more stand below
_TICKS = (1, 2, 5, 10)

Curve = Sequence[tuple[float, float]]


def curves(title: str, unit: str, lines: Mapping[str, Curve], *, across: str = "seconds") -> Markup:
    """Draw named curves over what `across` names; no points give no drawing."""
    lines = {name: _thinned(line) for name, line in lines.items() if line}
    if not lines:
        return Markup("")
    x, y = (np.array([point[k] for line in lines.values() for point in line]) for k in (0, 1))
    right, up = _scale(x, _LEFT, WIDTH - _RIGHT, zero=True), _scale(y, HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(right[1], right[0], up[1], up[0])]
    below = len(lines) > _MOST_INSIDE
    for index, (name, line) in enumerate(lines.items()):
        points = " ".join(f"{right[0](a):.1f},{up[0](b):.1f}" for a, b in line)
        parts.append(Markup('<polyline class="line s{}" points="{}"/>').format(index, points))
        if len(lines) == 1:
            continue
        y = HEIGHT + 12 + 14 * index if below else HEIGHT - _BOTTOM - 8 - 14 * (len(lines) - 1 - index)
        parts.append(
            Markup('<text class="key s{}" x="{}" y="{}" text-anchor="end">{}</text>').format(
                index, WIDTH - _RIGHT - 4, y, name
            )
        )
    parts.append(_text(WIDTH - _RIGHT, HEIGHT - 4, across, "end"))
    parts.append(_text(_LEFT + 4, _TOP + 8, unit, "start"))
    return _svg(title, HEIGHT + 14 * len(lines) + 4 if below else HEIGHT, Markup("").join(parts))


def sphere_map(photos: Sphere, held_out: Sequence[bool], places: Sequence[tuple[float, float]]) -> Markup:
    """Draw the sphere of directions from above: the zenith in the middle, the horizon as the dark circle.

    The first photo is at the bottom, and azimuths grow to the right. Photos are dots (rings if held out), places to
    go to are numbers.
    """
    size, middle = WIDTH, WIDTH / 2
    horizon = 105.0

    def at(azimuth: float, elevation: float) -> tuple[float, float]:
        reach = horizon * (90 - max(elevation, -50)) / 90
        turn = math.radians(azimuth)
        return middle + reach * math.sin(turn), middle + reach * math.cos(turn)

    parts = [
        Markup('<circle class="{}" cx="{}" cy="{}" r="{:.1f}"/>').format(
            "axis" if e == 0 else "grid", middle, middle, horizon * (90 - e) / 90
        )
        for e in (60, 30, 0, -30)
    ]
    parts += [
        _text(middle + 3, middle + horizon * (90 - e) / 90 - 3, f"{e}°", "start") for e in (60, 30, 0, -30)
    ]
    parts += [_text(*at(a, -50), f"{a}°", "middle") for a in (0, 90, 180, 270)]
    for azimuth, elevation, ring in zip(photos.azimuths, photos.elevations, held_out, strict=True):
        x, y = at(float(azimuth), float(elevation))
        parts.append(
            Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="4"/>').format(
                "ring" if ring else "dot", x, y
            )
        )
    for number, (azimuth, elevation) in enumerate(places, 1):
        x, y = at(azimuth, elevation)
        parts.append(Markup('<circle class="place" cx="{:.1f}" cy="{:.1f}" r="10"/>').format(x, y))
        parts.append(Markup('<text class="number" x="{:.1f}" y="{:.1f}">{}</text>').format(x, y + 4, number))
    return _svg("Where the photos were taken from", size, Markup("").join(parts))


def bars(title: str, values: Mapping[str, float], unit: str) -> Markup:
    """Draw horizontal bars with their values."""
    if not values:
        return Markup("")
    most = max(max(values.values()), 1e-9)
    parts = []
    for index, (name, value) in enumerate(values.items()):
        y = 24 * index
        parts.append(_text(64, y + 15, name, "end"))
        parts.append(
            Markup('<rect class="bar" x="70" y="{}" width="{:.1f}" height="16" rx="3"/>').format(
                y + 3, 210 * value / most
            )
        )
        parts.append(_text(76 + 210 * value / most, y + 15, f"{value:.1f} {unit}", "start"))
    return _svg(title, 24 * len(values) + 2, Markup("").join(parts))


def marks(title: str, unit: str, rows: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Markup:
    """Draw rows of ticks on one axis; each row has thin ticks and thick ones."""
    values = np.array([value for row in rows.values() for part in row for value in part])
    place, ticks = _scale(values, _LEFT, WIDTH - _RIGHT)
    bottom = _TOP + 40 * len(rows)
    parts = []
    for number, (name, (thin, thick)) in enumerate(rows.items()):
        y = _TOP + 40 * number
        parts.append(_text(_LEFT - 5, y + 20, name, "end"))
        for kind, top, low, places in (("line s0", y + 6, y + 26, thin), ("line s1", y, y + 32, thick)):
            parts += [
                Markup('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(
                    kind, place(at), place(at), top, low
                )
                for at in places
            ]
    parts += [_text(place(tick), bottom + 12, f"{tick:.3g}", "middle") for tick in ticks]
    parts.append(_text(WIDTH - _RIGHT, bottom + 28, unit, "end"))
    return _svg(title, bottom + 32, Markup("").join(parts))


def _scale(values: np.ndarray, first: float, last: float, zero: bool = False):
    """Map values to positions between `first` and `last`; return the map and round ticks."""
    low, high = (0.0 if zero else float(values.min())), float(values.max())
    margin = max(0.5, 1e-6 * abs(low), 1e-6 * abs(high))
    if high - low < 2e-12 * margin:
        low, high = low - margin, high + margin
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(tick * power for tick in _TICKS if tick * power >= rough * 0.999)
    low = math.floor(low / step) * step
    high = math.ceil(high / step) * step if not zero else high
    ticks = [low + k * step for k in range(int((high - low) / step + 1.001))]

    def place(value: float) -> float:
        return first + (last - first) * (value - low) / (high - low)

    return place, ticks


def _grid(x_ticks, across, y_ticks, up) -> Markup:
    parts = []
    for tick in y_ticks:
        y = up(tick)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                _LEFT, WIDTH - _RIGHT, y, y
            )
        )
        parts.append(_text(_LEFT - 5, y + 4, f"{tick:.3g}", "end"))
    parts += [_text(across(tick), HEIGHT - _BOTTOM + 15, f"{tick:g}", "middle") for tick in x_ticks]
    return Markup("").join(parts)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _svg(title: str, height: float, content: Markup) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, title, content
    )


def _thinned(line: Curve) -> Curve:
    if len(line) <= _MAX_POINTS:
        return line
    return [line[round(k)] for k in np.linspace(0, len(line) - 1, _MAX_POINTS)]
