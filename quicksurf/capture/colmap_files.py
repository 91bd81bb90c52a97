"""COLMAP's files, binary or text, as plain numbers: lenses, posed images, and points where there are any.

Formats: COLMAP's documentation, "Output format". The text files are read as people write them by hand, too: the second
line of an image may be empty or absent, names may hold blanks, points3D may be missing. Numbers are those that
quicksurf.untrusted allows; lengths that binary files state are checked before memory is taken for them.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from quicksurf.capture.listing import SUFFIXES
from quicksurf.errors import CaptureError
from quicksurf.untrusted import LARGEST_COORDINATE, number, shown, side

_SUFFIXES = (".bin", ".txt")  # the order of COLMAP itself
_N_PARAMS = {  # of COLMAP's camera models, in the order of their numbers
    **{"SIMPLE_PINHOLE": 3, "PINHOLE": 4, "SIMPLE_RADIAL": 4, "RADIAL": 5, "OPENCV": 8, "OPENCV_FISHEYE": 8},
    **{
        "FULL_OPENCV": 12,
        "FOV": 5,
        "SIMPLE_RADIAL_FISHEYE": 4,
        "RADIAL_FISHEYE": 5,
        "THIN_PRISM_FISHEYE": 12,
    },
    **{
        "RAD_TAN_THIN_PRISM_FISHEYE": 16,
        "SIMPLE_DIVISION": 4,
        "DIVISION": 5,
        "SIMPLE_FISHEYE": 3,
        "FISHEYE": 4,
    },
    **{"EUCM": 6, "EQUIRECTANGULAR": 2},
}
_MAX_TEXT_BYTES = 1 << 30
_UNIT = 1e-2  # how far the norm of a quaternion may be from 1: text files round it
_IMAGE = "ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"


class Lens(NamedTuple):
    """One camera of the model."""

    model: str
    width: int
    height: int
    params: tuple[float, ...]


class Posed(NamedTuple):
    """One image of the model; x_camera = R(quaternion) x_world + translation."""

    image_id: int
    quaternion: tuple[float, ...]
    """w, x, y, z."""
    translation: tuple[float, ...]
    camera_id: int
    name: str


class Point(NamedTuple):
    """One triangulated point."""

    position: tuple[float, ...]
    color: tuple[int, ...]
    error: float
    """In pixels."""
    image_ids: tuple[int, ...]


class Model(NamedTuple):
    """A reconstruction."""

    lenses: dict[int, Lens]
    images: list[Posed]
    points: list[Point] | None
    """None where the file is missing."""


def suffix_of(folder: Path) -> str | None:
    """The suffix of the model's files in `folder`, None if it holds no model."""
    for suffix in _SUFFIXES:
        if all((folder / f"{name}{suffix}").is_file() for name in ("cameras", "images")):
            return suffix
    return None


def count_images(folder: Path) -> int:
    """How many images a model says that it has; 0 for one that cannot be read."""
    try:
        if suffix_of(folder) == ".txt":
            return sum(_is_image(line.split()) for _, line in _lines(folder / "images.txt"))
        with (folder / "images.bin").open("rb") as file:
            return struct.unpack("<Q", file.read(8))[0]
    except (OSError, struct.error, CaptureError):
        return 0


def read_model(folder: Path) -> Model:
    """Read the model in `folder`.

    Raises:
        CaptureError: naming the file, and the line or image, if it is damaged or its numbers cannot be used.
    """
    suffix = suffix_of(folder) or ""
    readers = _TEXT if suffix == ".txt" else _BINARY
    paths = [folder / f"{name}{suffix}" for name in ("cameras", "images", "points3D")]
    try:
        lenses, images = readers[0](paths[0]), readers[1](paths[1])
        points = readers[2](paths[2]) if paths[2].is_file() else None
    except (struct.error, ValueError, IndexError, OSError, MemoryError) as error:
        raise CaptureError(f"the COLMAP model in {folder} is damaged ({error}); export it again") from error
    _check(folder, lenses, images)
    return Model(lenses, images, points)


def _check(folder: Path, lenses: dict[int, Lens], images: Sequence[Posed]) -> None:
    names: set[str] = set()
    for image in images:
        where = f"the COLMAP model in {folder}: image {image.image_id} ({shown(image.name)})"
        if image.camera_id not in lenses:
            raise CaptureError(
                f"{where} has camera {image.camera_id}, which is not there; export the model again"
            )
        if image.name in names:
            raise CaptureError(f"{where} is there twice; keep one of the two")
        names.add(image.name)
        for value in (*image.quaternion, *image.translation):
            number(value, f"{where}: its pose")
        if not abs(np.linalg.norm(image.quaternion) - 1) < _UNIT:
            raise CaptureError(f"{where}: its quaternion has no length of 1; expected {_IMAGE}")


def _lens(model: str, size: tuple[float, float], params: Sequence[float], where: str) -> Lens:
    values = tuple(number(value, f"{where}: a parameter") for value in params)
    if len(values) != _N_PARAMS.get(model, len(values)):
        raise CaptureError(f"{where}: {model} has {_N_PARAMS[model]} parameters, found {len(values)}")
    return Lens(model, side(size[0], f"{where}: its width"), side(size[1], f"{where}: its height"), values)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines with what they are called in a message, without comments and empty ones."""
    if path.stat().st_size > _MAX_TEXT_BYTES:
        raise CaptureError(
            f"{path} has {path.stat().st_size >> 20} MB, at most {_MAX_TEXT_BYTES >> 20} are read"
        )
    text = os.fsdecode(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    for index, line in enumerate(text.replace("\r", "").split("\n")):
        if line.strip() and not line.lstrip().startswith("#"):
            yield f"{path} line {index + 1}", line.strip()


def _floats(words: Sequence[str], where: str, expected: str) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise CaptureError(f"{where}: {error}; expected {expected}") from error


def _text_lenses(path: Path) -> dict[int, Lens]:
    lenses = {}
    for where, line in _lines(path):
        words = line.split()
        if len(words) < 5 or not words[0].isdecimal():
            raise CaptureError(f"{where}: expected ID MODEL WIDTH HEIGHT PARAMETERS, found {shown(line)}")
        width, height, *params = _floats(words[2:], where, "numbers after the model")
        lenses[int(words[0])] = _lens(words[1], (width, height), params, where)
    return lenses


def _text_images(path: Path) -> list[Posed]:
    """Lines are told apart by what they hold: the second one of an image is all numbers, and often left out."""
    images: list[Posed] = []
    n_second = 0
    for where, line in _lines(path):
        words = line.split()
        if not _is_image(words):
            n_second += 1
            if not _is_points(words) or n_second > len(images):
                raise CaptureError(f"{where}: expected {_IMAGE}, found {shown(line)}")
            continue
        n_second = len(images)  # each has one at most
        pose = _floats(words[1:8], where, _IMAGE)
        name = line.split(None, 9)[9]  # the rest of the line: names may hold blanks
        images.append(Posed(int(words[0]), tuple(pose[:4]), tuple(pose[4:]), int(words[8]), name))
    return images


def _is_image(words: Sequence[str]) -> bool:
    if len(words) < 10 or not (words[0].isdecimal() and words[8].isdecimal()):
        return False
    return not _is_points(words) or Path(words[-1]).suffix.lower() in SUFFIXES


def _is_points(words: Sequence[str]) -> bool:
    """X Y POINT3D_ID and so on."""
    if len(words) % 3 or not all(word.removeprefix("-").isdecimal() for word in words[2::3]):
        return False
    try:
        return np.array(words, dtype=np.float64).size > 0
    except ValueError:
        return False


def _text_points(path: Path) -> list[Point]:
    points = []
    expected = "ID X Y Z R G B ERROR and pairs of IMAGE_ID POINT2D"
    for where, line in _lines(path):
        words = line.split()
        values = _floats(words, where, expected)
        if len(values) < 8 or len(values) % 2:
            raise CaptureError(f"{where}: expected {expected}, found {shown(line)}")
        color = tuple(int(value) for value in np.clip(values[4:7], 0, 255))
        points.append(Point(tuple(values[1:4]), color, values[7], tuple(int(word) for word in words[8::2])))
    return [point for point in points if _is_near(point.position)]


def _binary_lenses(path: Path) -> dict[int, Lens]:
    body, lenses, offset = path.read_bytes(), {}, 8
    for _ in range(_count(body, 0, 48)):
        camera_id, model_id, width, height = struct.unpack_from("<IiQQ", body, offset)
        where = f"{path}: camera {camera_id}"
        if not 0 <= model_id < len(_N_PARAMS):
            raise CaptureError(f"{where} has model number {model_id}; known are {', '.join(_N_PARAMS)}")
        model = list(_N_PARAMS)[model_id]
        params = struct.unpack_from(f"<{_N_PARAMS[model]}d", body, offset + 24)
        lenses[camera_id] = _lens(model, (width, height), params, where)
        offset += 24 + 8 * len(params)
    return lenses


def _binary_images(path: Path) -> list[Posed]:
    body, images, offset = path.read_bytes(), [], 8
    for _ in range(_count(body, 0, 73)):
        image_id, *pose, camera_id = struct.unpack_from("<I7dI", body, offset)
        end = body.index(b"\0", offset + 64)
        name = os.fsdecode(body[offset + 64 : end])
        images.append(Posed(image_id, tuple(pose[:4]), tuple(pose[4:]), camera_id, name))
        offset = end + 9 + 24 * _count(body, end + 1, 24)
    return images


def _binary_points(path: Path) -> list[Point]:
    body, points, offset = path.read_bytes(), [], 8
    for _ in range(_count(body, 0, 51)):
        _, x, y, z, red, green, blue, error = struct.unpack_from("<Q3d3Bd", body, offset)
        n_track = _count(body, offset + 43, 8)
        track = struct.unpack_from(f"<{2 * n_track}I", body, offset + 51)
        points.append(Point((x, y, z), (red, green, blue), error, track[::2]))
        offset += 51 + 8 * n_track
    return [point for point in points if _is_near(point.position)]


def _is_near(position: Sequence[float]) -> bool:
    """Whether a point is one: of a degenerate triangulation it is at infinity or not a number."""
    return all(abs(value) <= LARGEST_COORDINATE for value in position)


def _count(body: bytes, offset: int, item_bytes: int) -> int:
    """The count stored at `offset`, if that many items can follow it.

    Raises:
        struct.error: if they cannot.
    """
    (count,) = struct.unpack_from("<Q", body, offset)
    if count * item_bytes > len(body) - offset - 8:
        raise struct.error(f"{count} records are stated, the file ends before them")
    return count


_TEXT = (_text_lenses, _text_images, _text_points)
_BINARY = (_binary_lenses, _binary_images, _binary_points)
