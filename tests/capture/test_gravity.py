"""Up from the acceleration in EXIF: a note written as Apple writes it, whole and damaged."""

import struct

import numpy as np
import pytest
from PIL import Image

from quicksurf.capture.exif import apple_acceleration
from quicksurf.capture.images import up_in_photo


def note(acceleration, tag=8, denominator=1000):
    """A MakerNote with one entry."""
    numbers = [v for a in acceleration for v in (round(a * 1000), denominator)]
    head = b"Apple iOS\0\0\x01MM" + struct.pack(">HHHII", 1, tag, 10, 3, 14 + 2 + 12)
    return head + struct.pack(">6i", *numbers)


def photo(path, maker_note, orientation=1):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769)[0x927C] = maker_note
    Image.new("RGB", (32, 24)).save(path, exif=exif)
    return path


def test_a_phone_held_upright(tmp_path):
    """Its pictures carry orientation 6, and up is the top of the upright picture (y down)."""
    path = photo(tmp_path / "a.jpg", note((0.0, -1.0, 0.0)), orientation=6)
    assert np.allclose(up_in_photo(path, True), [0, -1, 0])
    assert np.allclose(up_in_photo(path, False), [-1, 0, 0])


def test_a_phone_that_lies_on_the_table_looks_down(tmp_path):
    """The screen faces up: gravity is −z of the phone, and the camera's z axis points down."""
    path = photo(tmp_path / "a.jpg", note((0.0, 0.0, -1.0)))
    assert np.allclose(up_in_photo(path, True), [0, 0, -1])


@pytest.mark.parametrize(
    ("acceleration", "orientation"), [((-1.0, 0.0, 0.0), 1), ((1.0, 0.0, 0.0), 3), ((0.0, 1.0, 0.0), 8)]
)
def test_every_orientation_puts_up_at_the_top(tmp_path, acceleration, orientation):
    path = photo(tmp_path / "a.jpg", note(acceleration), orientation)
    assert np.allclose(up_in_photo(path, True), [0, -1, 0])


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"Nikon",
        note((0, -1, 0))[:20],
        note((0, -1, 0))[:-1],
        note((0, -1, 0), tag=9),
        note((0, -1, 0), denominator=0),
        b"Apple iOS\0\0\x01MM\xff\xff",
    ],
)
def test_damaged_notes_say_nothing(broken):
    assert apple_acceleration(broken) is None


def test_photos_without_a_note_say_nothing(tmp_path):
    Image.new("RGB", (32, 24)).save(tmp_path / "a.png")
    assert up_in_photo(tmp_path / "a.png", True) is None
    assert up_in_photo(tmp_path / "missing.jpg", True) is None
    swung = photo(tmp_path / "b.jpg", note((0.0, -3.0, 0.0)))
    assert up_in_photo(swung, True) is None
