"""Focal lengths from EXIF: stated, contradicted by the sensor, cropped, shrunk and turned."""

import math

import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base

from quicksurf.capture.exif import focal_of, lens_of, sensor_of

CANON = {
    "Make": "Canon",
    "Model": "Canon EOS 600D",
    "FocalLength": 46.0,
}  # 22.3 x 14.9 mm, 5184 x 3456 pixels
PLANE = {"FocalPlaneXResolution": 5728.0, "FocalPlaneResolutionUnit": 2}
SIZE = {"ExifImageWidth": 5184, "ExifImageHeight": 3456}
FOCAL = 46 * 5728 / 25.4  # pixels of the original
EXACT = 1e-4  # rational tags round
BY_TABLE = 0.04  # the table's sensor is that of a series, and its aspect 0.3 % off that of the photo


def exif_with(**tags: object) -> Image.Exif:
    """Tags as they stand after a file has been read."""
    exif = Image.Exif()
    for name, value in tags.items():
        place = exif if name in ("Make", "Model") else exif.get_ifd(IFD.Exif)
        place[Base[name]] = value
    return exif


def focal(width: int, height: int, **tags: object):
    found = focal_of(exif_with(**tags), width, height)
    assert found is not None
    return found


def test_equivalent_of_an_unknown_camera_is_by_the_diagonal():
    found = focal(4032, 3024, FocalLengthIn35mmFilm=26)
    assert found == (pytest.approx(26 / math.hypot(36, 24) * 5040, rel=EXACT), "35 mm equivalent", False)


@pytest.mark.parametrize("tags", [{}, CANON], ids=["unknown", "known"])
def test_focal_plane_of_a_photo_that_was_cropped_and_shrunk(tags):
    found = focal(120, 120, **{**CANON, "Make": "", "Model": ""} | tags, **PLANE, **SIZE)
    assert found == (pytest.approx(FOCAL * 120 / 3456, rel=EXACT), "focal plane", True)


def test_focal_plane_that_contradicts_the_sensor_gives_way_to_it():
    """A square of 1200 pixels that says so, beside the resolution of 5184 columns: a sensor of 5 mm."""
    found = focal(1200, 1200, **CANON, **PLANE, ExifImageWidth=1200, ExifImageHeight=1200)
    assert found.source == "sensor of the model" and found.cropped
    assert found.pixels == pytest.approx(FOCAL * 1200 / 3456, rel=BY_TABLE)


def test_focal_plane_of_an_unknown_camera_is_none_where_no_sensor_is_so_small():
    tags = {"Make": "Nobody", "Model": "X", "FocalLength": 6.3, "FocalPlaneXResolution": 6992.0}
    assert focal_of(exif_with(**tags, FocalPlaneResolutionUnit=3), 800, 1200) is None
    assert focal(4288, 3216, **tags, FocalPlaneResolutionUnit=3).pixels == pytest.approx(6.3 * 699.2)
    assert focal_of(exif_with(**tags, FocalPlaneResolutionUnit=2), 40_000, 30_000) is None  # 145 mm


def test_a_crop_out_of_the_original_keeps_its_focal_plane():
    found = focal(4200, 3400, **CANON, **PLANE, ExifImageWidth=4200, ExifImageHeight=3400)
    assert found == (pytest.approx(FOCAL, rel=EXACT), "focal plane", False)


@pytest.mark.parametrize(
    ("model", "resolution", "zoom", "source"),
    [
        ("NIKON D800", 2049.0, 1.0, "focal plane"),
        ("NIKON D800", 2049.0 * 1.5, 1.0, "focal plane"),  # its APS-C part, of as many pixels after scaling
        ("NIKON D800", 2049.0 * 4, 1.0, "sensor of the model"),
        ("NIKON D800", 2049.0 * 4, 4.0, "focal plane"),
    ],
)
def test_less_than_the_sensor_is_shown_by_crop_modes_and_digital_zoom_alone(model, resolution, zoom, source):
    tags = {"Make": "NIKON CORPORATION", "Model": model, "FocalLength": 50.0, "DigitalZoomRatio": zoom}
    plane = {"FocalPlaneXResolution": resolution, "FocalPlaneResolutionUnit": 3}
    assert focal(7360, 4912, **tags, **plane).source == source


@pytest.mark.parametrize(
    ("make", "model", "mm", "size", "expected"),
    [
        ("Canon", "Canon EOS 600D", 55.0, (1400, 933), 3450),
        ("NIKON CORPORATION", "NIKON D50", 26.0, (3008, 2000), 3312),
        ("SONY", "ILCE-7M2", 55.0, (1200, 801), 1834),
        ("OLYMPUS IMAGING CORP.", "E-450", 34.0, (3648, 2736), 7171),
        ("Meizu\0\0\0\0", "m1 note\0\0\0\0\0\0", 3.81, (889, 1200), 1031),
        ("  Canon \0", "Canon PowerShot G7 X \0", 8.8, (5472, 3648), 3648),
    ],
)
def test_millimetres_alone_are_turned_into_pixels_by_the_sensor_of_the_model(make, model, mm, size, expected):
    found = focal(*size, Make=make, Model=model, FocalLength=mm)
    assert found.source == "sensor of the model"
    assert found.pixels == pytest.approx(expected, rel=0.06)


def test_an_equivalent_wider_than_the_sensor_is_not_believed():
    """A Nikon that states the 12 mm of its lens on APS-C as the equivalent."""
    tags = {"Make": "NIKON CORPORATION", "Model": "NIKON D5200", "FocalLength": 12.0}
    found = focal(6000, 4000, **tags, FocalLengthIn35mmFilm=12)
    assert found.source == "sensor of the model" and found.pixels == pytest.approx(12 * 6000 / 23.6, rel=0.01)
    assert focal(6000, 4000, **tags, FocalLengthIn35mmFilm=18).source == "35 mm equivalent"
    assert focal(6000, 4000, **tags, FocalLengthIn35mmFilm=27).pixels == pytest.approx(
        27 / 36 * 6000, rel=0.01
    )


@pytest.mark.parametrize(("equivalent", "times"), [(35, 2.0), (70, 1.0)])
def test_digital_zoom_is_in_the_equivalent_once(equivalent, times):
    phone = {"Make": "Apple", "Model": "iPhone 4S", "FocalLength": 4.28, "DigitalZoomRatio": 2.0}
    found = focal(3264, 2448, **phone, FocalLengthIn35mmFilm=equivalent)
    assert found.pixels == pytest.approx(times * equivalent / math.hypot(36, 24) * 4080, rel=0.01)


def test_a_square_of_a_known_camera_has_the_equivalent_of_its_whole_picture():
    found = focal(1000, 1000, Make="SONY", Model="ILCE-7M2", FocalLengthIn35mmFilm=50)
    assert found == (pytest.approx(50 * 1000 / 24, rel=0.01), "35 mm equivalent", True)


@pytest.mark.parametrize(("width", "height"), [(1000, 1500), (1500, 1000)])
def test_a_file_that_was_turned_by_a_program_is_not_cropped(width, height):
    found = focal(width, height, FocalLengthIn35mmFilm=50, ExifImageWidth=6000, ExifImageHeight=4000)
    assert found == (pytest.approx(50 / 36 * 1500, rel=0.01), "35 mm equivalent", False)


def test_a_file_that_was_enlarged_is_enlarged_with_its_focal_length():
    found = focal(6000, 4000, FocalLengthIn35mmFilm=50, ExifImageWidth=3000, ExifImageHeight=2000)
    assert found.pixels == pytest.approx(50 / 36 * 6000, rel=0.01)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"FocalLengthIn35mmFilm": 0},
        {"FocalLengthIn35mmFilm": 65000},
        {"FocalLength": 5.0},
        {"FocalLength": math.nan, "Make": "Canon", "Model": "Canon EOS 600D"},
        {"FocalLength": "wide", "Make": b"Canon\0", "Model": b"\xff\xfe"},
    ],
)
def test_absent_or_absurd_focal_length_is_none(tags):
    assert focal_of(exif_with(**tags), 48, 32) is None


def test_padding_makes_no_other_lens():
    padded = exif_with(Make="Meizu\0\0", Model="m1 note \0\0", FocalLength=3.81, LensModel="a\0")
    assert lens_of(padded) == lens_of(
        exif_with(Make="Meizu", Model="m1 note", FocalLength=3.81, LensModel="a")
    )
    assert lens_of(padded) == "Meizu m1 note a 3.81"
    assert lens_of(exif_with()) == ""


@pytest.mark.parametrize(
    "other",
    [{"FocalLength": 47.0}, {"LensModel": "EF50mm"}, {"DigitalZoomRatio": 2.0}, {"Model": "Canon EOS 60D"}],
)
def test_another_zoom_lens_or_body_is_another_lens(other):
    given = {**CANON, "LensModel": "EF-S18-55mm", "DigitalZoomRatio": 1.0}
    assert lens_of(exif_with(**given)) != lens_of(exif_with(**{**given, **other}))


@pytest.mark.parametrize(
    ("make", "model", "width"),
    [
        ("Canon", "Canon EOS 5D Mark III", 36.0),
        ("Canon", "Canon EOS 50D", 22.3),
        ("Canon", "Canon EOS-1D Mark IV", 27.9),
        ("Canon", "Canon EOS R6m2", 36.0),
        ("Canon", "Canon EOS R10", 22.3),
        ("NIKON CORPORATION", "NIKON D500", 23.6),
        ("NIKON CORPORATION", "NIKON D5", 36.0),
        ("NIKON CORPORATION", "NIKON Z 6_2", 36.0),
        ("NIKON CORPORATION", "NIKON Z50_2", 23.6),
        ("SONY", "ILCE-6400", 23.5),
        ("SONY", "ILCE-7RM4A", 36.0),
        ("SONY", "DSC-RX100M3", 13.2),
        ("FUJIFILM", "X-T30", 23.5),
        ("FUJIFILM", "GFX 50S", 43.8),
        ("OM Digital Solutions", "OM-1", 17.3),
        ("Panasonic", "DC-S5", 36.0),
        ("Panasonic", "DMC-GH4", 17.3),
        ("RICOH IMAGING COMPANY, LTD.", "PENTAX K-1 Mark II", 36.0),
        ("Apple", "iPhone 7", 4.8),
    ],
)
def test_series_that_share_a_prefix_are_told_apart(make, model, width):
    sensor = sensor_of(make, model)
    assert sensor is not None and sensor.width_mm == width


@pytest.mark.parametrize(
    ("make", "model"), [("", ""), ("Canon", ""), ("Apple", "iPhone 13 Pro"), ("Apple", "iPhone 7 Plus")]
)
def test_unknown_cameras_and_phones_of_several_lenses_have_no_sensor(make, model):
    assert sensor_of(make, model) is None
