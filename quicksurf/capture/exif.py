"""What EXIF says of a camera: its focal length in pixels, from where it is known, and which lens it was.

The tags describe the original photo of `ExifImageWidth` × `ExifImageHeight` pixels; the file may be smaller, cropped,
or turned. Programs that shrink a photo often correct the size but not the focal-plane resolution, so that nothing is
believed that contradicts the sensor: a photo cannot show more than its sensor, and shows much less only by digital
zoom or a crop. Every result is a start for calibration and may be wrong; its source says how much it is worth.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from PIL import Image
from PIL.ExifTags import IFD, Base

from quicksurf.capture.sensors import Sensor, sensor_of

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


class Focal(NamedTuple):
    """A focal length to begin with."""

    pixels: float
    """Of the file."""
    source: Source
    """In falling order of trust."""
    cropped: bool = False
    """The file shows a part of the original, so that this is the least it can be."""


class _Camera(NamedTuple):
    """The tags that focal lengths are made of; absent numbers are None."""

    focal_mm: float | None
    focal_35mm: float | None
    density: float | None
    """Pixels of the original per mm, by the focal-plane resolution."""
    zoom: float
    """Digital zoom, 1 for none."""
    sensor: Sensor | None


def focal_of(exif: Image.Exif, width: int, height: int) -> Focal | None:
    """Focal length of a file of `width` × `height` stored pixels, or None where it is absent or absurd."""
    original = _original_size(exif.get_ifd(IFD.Exif), width, height)
    focal = _original_focal(_camera(exif), original)
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
    """Maker, model, lens, focal length in mm and digital zoom: files that differ in it have different intrinsics."""
    tags = exif.get_ifd(IFD.Exif)
    zoom = _number(tags, Base.DigitalZoomRatio)
    words = [_text(exif, Base.Make), _text(exif, Base.Model), _text(tags, Base.BodySerialNumber)]
    words += [_text(tags, Base.LensModel), _text(tags, Base.FocalLength)]
    return " ".join(filter(None, [*words, f"zoom {zoom:.3g}" if zoom is not None and zoom > 1 else ""]))


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


def _original_focal(camera: _Camera, original: Size) -> Focal | None:
    """In pixels of the original: by the first of three ways that is open and agrees with the sensor."""
    for way in (_by_equivalent, _by_focal_plane, _by_sensor):
        focal = way(camera, original)
        if focal is not None:
            return focal
    return None


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
    share = covered / camera.sensor.width_mm
    zooms = [1.0, camera.zoom, *(_CROP_MODES if camera.sensor.width_mm > _FULL_FRAME_MM else ())]
    agrees = any(abs(share * zoom - 1) < _TOLERANCE for zoom in zooms)
    cut_out = _is_part(camera.sensor, original) and _LEAST_CROP < share < 1
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
    """A tag as words, without the NULs and blanks that some cameras pad with."""
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
