"""Sensor sizes of common cameras by maker and model, from manufacturers' data sheets.

Only cameras with one sensor are listed: a phone with several lenses has one behind each, and states the 35 mm
equivalent. Compacts of a series differ by up to a tenth; the most frequent size stands for all of them.
"""

import re
from typing import NamedTuple


class Sensor(NamedTuple):
    """Its longer and its shorter side."""

    width_mm: float
    height_mm: float


_FULL_FRAME = Sensor(36.0, 24.0)
_APS_C_CANON, _APS_C = Sensor(22.3, 14.9), Sensor(23.5, 15.6)
_FOUR_THIRDS, _ONE_INCH = Sensor(17.3, 13.0), Sensor(13.2, 8.8)

# The first pattern that matches decides, so that a model stands before the series it belongs to.
_TABLE: tuple[tuple[Sensor, str], ...] = (
    (Sensor(43.8, 32.9), r"fujifilm gfx|pentax 645[dz]|hasselblad x[12]d"),
    # Canon
    (Sensor(27.9, 18.6), r"canon eos-1d(?! [xc]|s)"),
    (_FULL_FRAME, r"canon eos(-1ds|-1d [xc]| [56]ds?\b| r[13568p]?(m2)?\b)"),
    (_APS_C_CANON, r"canon (eos|powershot g1 ?x mark iii)"),
    (Sensor(18.7, 14.0), r"canon powershot g1 ?x"),
    (_ONE_INCH, r"canon powershot g[3579] ?x"),
    (Sensor(7.44, 5.58), r"canon powershot (g1[0-6]|s(9\d|1[0-2]\d))\b"),
    (Sensor(7.18, 5.32), r"canon powershot (g[67]|a6[1-4]0|s[678]0)\b"),
    (Sensor(5.37, 4.04), r"canon powershot s1 is"),
    (Sensor(5.76, 4.29), r"canon powershot (s[235] is|a[57][0-9]{2})\b"),
    (Sensor(6.17, 4.55), r"canon (powershot (sx|elph)|(digital )?ixus)"),
    # Nikon
    (_FULL_FRAME, r"nikon (d([3-6]|3[sx]|4s|6[01]0|7\d0|8\d0e?)\b|df\b|z ?([5-9]|f)(\b|_))"),
    (_ONE_INCH, r"nikon 1 "),
    (Sensor(23.6, 15.7), r"nikon (d\d+|z ?(30|50|fc))"),
    (Sensor(6.17, 4.55), r"nikon coolpix ([plswab]\d|aw)"),
    # Sony
    (_FULL_FRAME, r"sony (ilce-[179](?!\d)|ilme-fx3\b|slt-a99|ilca-99|dslr-a(850|900)|dsc-rx1(?!0))"),
    (_APS_C, r"sony (ilce-|nex-|slt-|dslr-|ilca-|zv-e10)"),
    (_ONE_INCH, r"sony (dsc-rx10|zv-1\b)"),
    (Sensor(6.17, 4.55), r"sony dsc-(h|hx|w|wx)\d"),
    # Fujifilm, Pentax, Ricoh, Samsung, Leica
    (Sensor(8.8, 6.6), r"fujifilm (x-s1|xf1|x[123]0)\b"),
    (_APS_C, r"fujifilm (x|finepix x100)"),
    (Sensor(6.17, 4.55), r"fujifilm finepix"),
    (_FULL_FRAME, r"(ricoh )?pentax k-1\b|leica (m9|m1[01]|q|sl)"),
    (_APS_C, r"(ricoh )?pentax k|ricoh gr\b|samsung nx(?! ?mini)"),
    # Four thirds
    (_FULL_FRAME, r"panasonic dc-s\d"),
    (_FOUR_THIRDS, r"panasonic (dmc|dc)-(g|lx100|l1\b)|om om-|olympus (e-(\d{3}|30|[135]\b|m|p)|pen-f)"),
    (_ONE_INCH, r"panasonic (dmc|dc)-(fz1000|fz2\d{3}|lx1[05]\b|(tz|zs)[12]\d\d)"),
    (Sensor(6.17, 4.55), r"panasonic (dmc|dc)-(fz|tz|zs|fs|ts|ft)\d|olympus (sp|tg|sz)-"),
    # Other compacts
    (Sensor(5.76, 4.29), r"(eastman )?kodak .*z\d{3}"),
    (Sensor(7.18, 5.32), r"casio ex-z1\d{3}\b"),
    # Drones and action cameras
    (_FOUR_THIRDS, r"(dji|hasselblad) (l2d-20c|fc6520|fc550)"),
    (_ONE_INCH, r"(dji|hasselblad) (l1d-20c|fc6310s?|fc6360|fc3411)"),
    (Sensor(9.7, 7.3), r"dji fc3582"),
    (Sensor(6.4, 4.8), r"dji fc3170"),
    (Sensor(6.17, 4.55), r"dji fc(300|330|350|220|230|7203|7303)|gopro"),
    # Phones with one lens at the back
    (Sensor(4.54, 3.42), r"apple iphone (4s|5c?)$|\w+ nexus [45]$"),
    (Sensor(4.8, 3.6), r"apple iphone (5s|6s?( plus)?|[78]|se)$"),
    (Sensor(4.69, 3.52), r"meizu m1 note|samsung gt-i9(30|50)\d"),
    (Sensor(6.2, 4.65), r"\w+ nexus (5x|6p)$"),
)
_PATTERNS = tuple((sensor, re.compile(pattern)) for sensor, pattern in _TABLE)


def sensor_of(maker: str, model: str) -> Sensor | None:
    """The sensor of a camera as EXIF names it; None for a camera that the table lacks."""
    brand = "".join(maker.lower().split()[:1])
    name = f"{brand} {' '.join(model.lower().split()).removeprefix(f'{brand} ')}"
    return next((sensor for sensor, pattern in _PATTERNS if pattern.match(name)), None)
