"""Read focal length, lens and gravity from EXIF tags.

The tags describe the original photo of `ExifImageWidth` × `ExifImageHeight` pixels; the file may be smaller, cropped,
or turned. Programs that shrink a photo often correct the size but not the focal-plane resolution. So values that
contradict the sensor are rejected: a photo cannot show more than its sensor, and shows much less only by digital zoom
or a crop. Every focal length is an initial guess for calibration; its source tells how reliable it is.

Gravity comes from Apple's MakerNote: the 14 bytes `Apple iOS 0 0 1 MM` and a big-endian TIFF directory with offsets
from the note's start. Tag 8 holds three signed rationals, the acceleration (a_x, a_y, a_z) in g along the phone's axes
(x right, y to the top, z out of the screen), −y when it is held upright. So up is −a. The sensor is fixed to the phone:
its stored picture, turned by 90° clockwise, is upright when the phone is. In the stored picture's axes (x right,
y down, z forward) up is then (a_y, a_x, a_z). The note is undocumented: it is used only where the photos agree
(quicksurf.mesh.frame).
"""

import math
import re
import struct
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64
from PIL import Image
from PIL.ExifTags import IFD, Base

Source = Literal["35 mm equivalent", "focal plane", "sensor of the model"]
Size = tuple[float, float]

_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}  # inch, cm, mm, µm
_DIAGONAL_35MM = math.hypot(36.0, 24.0)
_SENSOR_MM = 3.0, 60.0  # the longer side, from the smallest phone's to medium format
_FULL_FRAME_MM, _CROP_MODES = 30.0, (1.5, 1.6)  # such bodies read an APS-C part for lenses made for it
_TOLERANCE = 0.2  # of sizes of sensors: the table holds one for a series, and EXIF whole millimetres
_LEAST_CROP = 0.7  # of a side of the sensor: a smaller part is more likely a photo that was shrunk
_ASPECT_TOLERANCE = 0.03  # 4:3 and 3:2 differ by 12 %, sides rounded to pixels by less than 1 %
_FOCAL_RANGE = 0.2, 20.0  # of the longer side: a 10 mm fisheye to a 700 mm lens

_ACCELERATION = 8  # tag of Apple's MakerNote
_MAGIC, _HEADER = b"Apple iOS\0", 14
_MAX_ENTRIES = 256  # a note has about 30
_SIGNED_RATIONAL = 10
_TURNS = {3: (-1, 0, 0, -1), 6: (0, -1, 1, 0), 8: (0, 1, -1, 0)}  # x', y' of an upright picture from x, y


class Focal(NamedTuple):
    """A focal length to begin with."""

    pixels: float
    """Of the file."""
    source: Source
    """The 35 mm equivalent is the most reliable, the sensor of the model the least."""
    cropped: bool = False
    """The file shows a part of the original: `pixels` is a lower bound."""


class Sensor(NamedTuple):
    """Its longer and its shorter side."""

    width_mm: float
    height_mm: float


class _Camera(NamedTuple):
    """The tags that focal lengths are computed from; absent numbers are None."""

    focal_mm: float | None
    focal_35mm: float | None
    density: float | None
    """Pixels of the original per mm, by the focal-plane resolution."""
    zoom: float
    """Digital zoom, 1 for none."""
    sensor: Sensor | None


def focal_of(exif: Image.Exif, width: int, height: int) -> Focal | None:
    """Estimate the focal length of a file of `width` × `height` stored pixels; None if absent or absurd."""
    original = _original_size(exif.get_ifd(IFD.Exif), width, height)
    camera = _camera(exif)
    estimates = (estimate(camera, original) for estimate in (_by_equivalent, _by_focal_plane, _by_sensor))
    focal = next((found for found in estimates if found is not None), None)
    if focal is None:
        return None
    whole = _same_aspect((width, height), original)
    scale = max(width / original[0], height / original[1])  # at least: a crop loses pixels
    pixels = focal.pixels * (scale if whole else min(1.0, scale))
    least, most = _FOCAL_RANGE
    if not least < pixels / max(width, height) < most:
        return None
    return focal._replace(pixels=pixels, cropped=focal.cropped or not whole)


def lens_of(exif: Image.Exif) -> str:
    """Name maker, model, lens, focal length in mm and digital zoom: files that differ in it differ in intrinsics."""
    tags = exif.get_ifd(IFD.Exif)
    zoom = _number(tags, Base.DigitalZoomRatio)
    words = [_text(exif, Base.Make), _text(exif, Base.Model), _text(tags, Base.BodySerialNumber)]
    words += [_text(tags, Base.LensModel), _text(tags, Base.FocalLength)]
    return " ".join(filter(None, [*words, f"zoom {zoom:.3g}" if zoom is not None and zoom > 1 else ""]))


def up_of(exif: Image.Exif, upright: bool) -> Float64[np.ndarray, "3"] | None:
    """Compute the unit vector upwards in the photo's camera axes; None if the tags do not tell.

    Args:
        upright: the camera refers to pixels after EXIF's orientation, not as stored.
    """
    note = exif.get_ifd(IFD.Exif).get(Base.MakerNote)
    acceleration = apple_acceleration(note) if isinstance(note, bytes) else None
    if acceleration is None:
        return None
    a_x, a_y, a_z = acceleration
    x, y = a_y, a_x
    if upright and exif.get(Base.Orientation) in _TURNS:
        xx, xy, yx, yy = _TURNS[exif[Base.Orientation]]
        x, y = xx * x + xy * y, yx * x + yy * y
    up = np.array([x, y, a_z])
    length = np.linalg.norm(up)
    return up / length if 0.5 < length < 2 else None  # g: a phone that is swung says nothing about gravity


def apple_acceleration(note: bytes) -> tuple[float, float, float] | None:
    """Read (a_x, a_y, a_z) in g from an Apple MakerNote; None if it has none or is damaged."""
    if not note.startswith(_MAGIC) or len(note) < _HEADER + 2 or note[12:14] != b"MM":
        return None
    (n_entries,) = struct.unpack_from(">H", note, _HEADER)
    for index in range(min(n_entries, _MAX_ENTRIES)):
        start = _HEADER + 2 + 12 * index
        if start + 12 > len(note):
            return None
        tag, kind, count, offset = struct.unpack_from(">HHII", note, start)
        if (tag, kind, count) == (_ACCELERATION, _SIGNED_RATIONAL, 3) and offset + 24 <= len(note):
            numbers = struct.unpack_from(">6i", note, offset)
            if 0 in numbers[1::2]:
                return None
            x, y, z = (top / bottom for top, bottom in zip(numbers[::2], numbers[1::2], strict=True))
            return x, y, z
    return None


def _camera(exif: Image.Exif) -> _Camera:
    tags = exif.get_ifd(IFD.Exif)
    resolution = _number(tags, Base.FocalPlaneXResolution)
    unit = _UNIT_MM.get(int(_number(tags, Base.FocalPlaneResolutionUnit) or 2))
    return _Camera(
        _number(tags, Base.FocalLength),
        _number(tags, Base.FocalLengthIn35mmFilm),
        resolution / unit if resolution and unit else None,
        max(1.0, _number(tags, Base.DigitalZoomRatio) or 1.0),
        sensor_of(_text(exif, Base.Make), _text(exif, Base.Model)),
    )


def _original_size(tags: Mapping[int, Any], width: int, height: int) -> Size:
    """The size that EXIF states, turned like the file where only then their aspects agree; else the file's."""
    stated = _number(tags, Base.ExifImageWidth) or width, _number(tags, Base.ExifImageHeight) or height
    turned = stated[1], stated[0]
    return turned if _same_aspect((width, height), turned) else stated


def _by_equivalent(camera: _Camera, original: Size) -> Focal | None:
    """The 35 mm equivalent states the diagonal angle of the whole image: refused if it exceeds the sensor's.

    Some bodies state the focal length in mm itself; some phones leave their digital zoom out.
    """
    if camera.focal_35mm is None:
        return None
    equivalent, source = camera.focal_35mm / _DIAGONAL_35MM, "35 mm equivalent"
    if camera.sensor is None:
        return Focal(equivalent * math.hypot(*original), source)
    pixels = equivalent * math.hypot(*camera.sensor) * _least_density(camera.sensor, original)
    cropped = _is_part(camera.sensor, original)
    unzoomed = _by_sensor(camera._replace(zoom=1.0), original)
    ratio = math.inf if unzoomed is None else pixels / unzoomed.pixels
    if ratio < 1 - _TOLERANCE:
        return None
    return Focal(pixels * (camera.zoom if ratio < 1 + _TOLERANCE else 1.0), source, cropped)


def _by_focal_plane(camera: _Camera, original: Size) -> Focal | None:
    """Refused if the pixels of the original would cover another sensor than the model's, or none that exists."""
    if camera.focal_mm is None or camera.density is None:
        return None
    focal = Focal(camera.focal_mm * camera.density, "focal plane")
    covered = max(original) / camera.density
    if camera.sensor is None:
        return focal if _SENSOR_MM[0] <= covered <= _SENSOR_MM[1] else None
    fraction = covered / camera.sensor.width_mm
    zooms = [1.0, camera.zoom, *(_CROP_MODES if camera.sensor.width_mm > _FULL_FRAME_MM else ())]
    agrees = any(abs(fraction * zoom - 1) < _TOLERANCE for zoom in zooms)
    cut_out = _is_part(camera.sensor, original) and _LEAST_CROP < fraction < 1
    return focal if agrees or cut_out else None


def _by_sensor(camera: _Camera, original: Size) -> Focal | None:
    if camera.focal_mm is None or camera.sensor is None:
        return None
    density = camera.zoom * _least_density(camera.sensor, original)
    return Focal(camera.focal_mm * density, "sensor of the model", _is_part(camera.sensor, original))


def _least_density(sensor: Sensor, original: Size) -> float:
    """Pixels per mm if the original is as large a part of the sensor as fits; portraits stand upright."""
    return max(max(original) / sensor.width_mm, min(original) / sensor.height_mm)


def _is_part(sensor: Sensor, original: Size) -> bool:
    return not _same_aspect((max(original), min(original)), sensor)


def _same_aspect(first: Size, second: Size) -> bool:
    return abs(first[0] * second[1] / (first[1] * second[0]) - 1) < _ASPECT_TOLERANCE


def _text(tags: Mapping[int, Any], tag: int) -> str:
    """A tag as text, without the NULs and blanks that some cameras pad with."""
    value = tags.get(tag)
    value = value.decode("latin-1") if isinstance(value, bytes) else str("" if value is None else value)
    return " ".join(value.replace("\0", " ").split())


def _number(tags: Mapping[int, Any], tag: int) -> float | None:
    """A positive finite EXIF value, or None (tags of any type, 0/0 and NaN occur in the wild)."""
    try:
        value = float(tags[tag])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) and value > 0 else None


# Sensor sizes of common cameras, from manufacturers' data sheets. Only cameras with one sensor are listed: a phone with
# several lenses has one behind each, and states the 35 mm equivalent. Compacts of a series differ by up to a tenth; the
# most frequent size stands for all of them.
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
    """Look up the sensor of a camera as EXIF names it; None for a camera that the table lacks."""
    brand = "".join(maker.lower().split()[:1])
    name = f"{brand} {' '.join(model.lower().split()).removeprefix(f'{brand} ')}"
    return next((sensor for sensor, pattern in _PATTERNS if pattern.match(name)), None)
