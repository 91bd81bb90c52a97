"""Which way is up in a photo, from the acceleration that phones write into EXIF.

Apple's MakerNote is the 14 bytes `Apple iOS 0 0 1 MM` and a big-endian TIFF directory with offsets from the
note's start; tag 8 holds three signed rationals, the acceleration (a_x, a_y, a_z) in g along the phone's axes
(x right, y to the top, z out of the screen), −y when it is held upright. So up is −a. The sensor is fixed to
the phone: its stored picture, turned by 90° clockwise, is upright when the phone is. In the stored picture's
axes (x right, y down, z forward) up is then (a_y, a_x, a_z).

The note is undocumented: what is read here is only believed where the photos agree (quicksurf.mesh.frame).
"""

import struct
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from PIL.ExifTags import IFD, Base

from quicksurf.capture.images import read_exif
from quicksurf.errors import ImageError

_ACCELERATION = 8  # tag of the maker note
_MAGIC, _HEADER = b"Apple iOS\0", 14
_MAX_ENTRIES = 256  # a note has about 30
_SIGNED_RATIONAL = 10
_TURNS = {3: (-1, 0, 0, -1), 6: (0, -1, 1, 0), 8: (0, 1, -1, 0)}  # x', y' of an upright picture from x, y


def up_in_photo(path: Path, upright: bool) -> Float64[np.ndarray, "3"] | None:
    """Unit vector upwards in the photo's camera axes; None where the file does not say.

    Args:
        path: the photo.
        upright: the camera refers to pixels after EXIF's orientation, not as stored.
    """
    try:
        exif = read_exif(path)
    except ImageError:
        return None
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
    """(a_x, a_y, a_z) in g from an Apple MakerNote; None if it has none or is damaged."""
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
