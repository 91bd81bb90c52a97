"""One frame of a transforms.json, checked: paths, pose and lens; errors name the frame and the key."""

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from quicksurf.capture.images import read_header
from quicksurf.capture.names import parts_of
from quicksurf.capture.numbers import matrix, number, shown, side
from quicksurf.errors import CaptureError

DISTORTION_KEYS = ("k1", "k2", "k3", "k4", "p1", "p2")  # in the order of Cameras.distortion
GL_TO_CV = np.diag([1.0, -1.0, -1.0])
_PERSPECTIVE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
_FISHEYE = ("OPENCV_FISHEYE",)
_RIGID = 1e-3  # largest entry of RᵀR − I: files written with few digits reach 1e-4


class Frame(NamedTuple):
    """One frame of the file, resolved: everything but the pixels."""

    path: Path
    mask: str | None
    """As the file names it."""
    c2w: Float[np.ndarray, "3 4"]
    intrinsics: tuple[float, float, float, float]
    distortion: tuple[float, ...]
    fisheye: bool
    size: tuple[int, int]


def read_frame(path: Path, lens: Mapping[str, Any], c2w: Float[np.ndarray, "3 4"], where: str) -> Frame:
    """Check what a frame says of its lens; `lens` holds the frame's keys over those of the whole file.

    Raises:
        CaptureError: if a key is missing, not finite or out of range, naming it and the frame `where`.
        ImageError: if the size has to come from the image and that cannot be read.
    """
    model = str(lens.get("camera_model", "OPENCV"))
    if model not in _PERSPECTIVE + _FISHEYE:
        known = ", ".join(_PERSPECTIVE + _FISHEYE)
        raise CaptureError(
            f"{where}: camera_model {shown(repr(model))} is not known; undistort to one of {known}"
        )
    size = _size(lens, path, where)
    distortion = tuple(_number(lens, key, where, 0.0) for key in DISTORTION_KEYS)
    mask = lens.get("mask_path")
    fisheye = model in _FISHEYE or lens.get("is_fisheye") is True
    return Frame(path, mask, c2w, _intrinsics(lens, size, where), distortion, fisheye, size)


def inside(root: Path, name: Any, where: str) -> Path:
    """`root / name`: a capture may come from anywhere, so it names files of its own folder only.

    Raises:
        CaptureError: if `name` is no path, or leaves `root`.
    """
    parts, is_inside = parts_of(root, name, where)
    if not is_inside:
        raise CaptureError(
            f"{where}: the path {shown(repr(name))} leaves the folder of the capture, and nothing in it is named "
            f"like that; make it relative to {root}"
        )
    return root.joinpath(*parts)


def read_pose(value: Any, where: str) -> Float[np.ndarray, "3 4"]:
    """The OpenCV camera-to-world matrix of a frame's `transform_matrix`.

    The rotation is replaced by the nearest orthonormal one: digits lost in the file would otherwise bend
    rays.

    Raises:
        CaptureError: if it is no matrix of numbers, or not rigid.
    """
    pose = matrix(value, ((4, 4), (3, 4)), f"{where}: transform_matrix")
    rotation = pose[:3, :3]
    error = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if error > _RIGID or np.linalg.det(rotation) < 0:
        problem = f"off by {error:.2g}" if error > _RIGID else "mirrored"
        raise CaptureError(
            f"{where}: transform_matrix is not rigid, its rotation is {problem}; "
            "export poses without scale or shear"
        )
    left, _, right = np.linalg.svd(rotation)
    return np.concatenate([left @ right @ GL_TO_CV, pose[:3, 3:]], axis=1)


def _size(lens: Mapping[str, Any], path: Path, where: str) -> tuple[int, int]:
    if "w" not in lens or "h" not in lens:
        return read_header(path).stored_size
    return side(lens["w"], f"{where}: w"), side(lens["h"], f"{where}: h")


def _intrinsics(
    lens: Mapping[str, Any], size: tuple[int, int], where: str
) -> tuple[float, float, float, float]:
    width, height = size
    if "fl_x" not in lens and "camera_angle_x" not in lens:
        raise CaptureError(f"{where} lacks `fl_x` (or `camera_angle_x`){_nearest('fl_x', lens)}")
    fx = _number(lens, "fl_x", where) if "fl_x" in lens else _from_angle(lens, "camera_angle_x", width, where)
    if "fl_y" in lens:
        fy = _number(lens, "fl_y", where)
    elif "fl_x" not in lens and "camera_angle_y" in lens:
        fy = _from_angle(lens, "camera_angle_y", height, where)
    else:
        fy = fx
    if fx <= 0 or fy <= 0:
        raise CaptureError(f"{where}: focal lengths must be positive, found {fx:g} and {fy:g}")
    return fx, fy, _number(lens, "cx", where, width / 2), _number(lens, "cy", where, height / 2)


def _from_angle(lens: Mapping[str, Any], key: str, extent: int, where: str) -> float:
    """Focal length from a field of view in radians: extent / (2 tan(angle / 2))."""
    angle = _number(lens, key, where)
    if not 0 < angle < math.pi:
        raise CaptureError(f"{where}: {key} is {angle:g}, radians between 0 and π are expected")
    return extent / (2 * math.tan(angle / 2))


def _number(lens: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    return number(lens.get(key, default), f"{where}: {key}")


def require(mapping: Mapping[str, Any], key: str, where: str) -> Any:
    """`mapping[key]`, or an error that names the key, where it is missing and the nearest one there.

    Raises:
        CaptureError: if it is missing.
    """
    if key not in mapping:
        raise CaptureError(f"{where} lacks `{key}`{_nearest(key, mapping)}")
    return mapping[key]


def _nearest(key: str, mapping: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(key, [str(found) for found in mapping], 1, 0.5)
    if close:
        return f"; it has `{shown(close[0])}`: rename it"
    return f"; it has {', '.join(shown(found) for found in sorted(mapping)[:8]) or 'no key at all'}"
