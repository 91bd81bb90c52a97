"""Printed square markers of known size as a ruler: ArUco and AprilTag, found by OpenCV, placed by the run's cameras.

A corner seen by photos along the rays o_i + t d_i is put where it is nearest to all of them,

    x = (Σ_i P_i)⁻¹ Σ_i P_i o_i        P_i = I − d_i d_iᵀ

and the marker counts if its corners fall back where the photos saw them and its sides are equal. The side is the
median over all markers. A photo in which an id stands twice says nothing about it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float64, UInt8

from quicksurf.capture.images import read_pixels
from quicksurf.errors import ConfigError
from quicksurf.geometry.cameras import Cameras, pixel_rays, project

FAMILIES = ("DICT_4X4_250", "DICT_5X5_250", "DICT_6X6_250", "DICT_ARUCO_ORIGINAL", "DICT_APRILTAG_36h11")
# Of a photo that is searched: 0.2 s, and a marker of 30 pixels in 12 megapixels is found.
_MAX_PIXELS = 4_000_000
_FEW_PIXELS = 1_000_000  # fewer are doubled: markers of 25 pixels come out 0.7 % too small instead of 1.3 %
_MAX_MISS = 0.1  # of the marker's side in the photo: a corner is found within a pixel, another thing is not
_MIN_SPREAD = 1e-3  # sin² of about 2°: rays closer to parallel place nothing
_SQUARE = 0.1  # largest difference of a side from their median, in its own length


class Sighting(NamedTuple):
    """A marker in one photo."""

    photo: int
    corners: Float64[np.ndarray, "4 2"]
    """In pixels of the photo's camera, around the marker."""


class Ruler(NamedTuple):
    """What the markers say of the capture's size."""

    side: float
    """Median side in units of the cameras."""
    spread: float
    """Largest difference of a side from it, as a fraction."""
    family: str
    ids: list[int]


def find_ruler(cameras: Cameras, photos: Iterable[tuple[Path, bool]]) -> Ruler:
    """Measure the side of the markers in units of the cameras.

    Args:
        photos: their files, and whether each is to be turned upright as its EXIF says.

    Raises:
        ConfigError: if no marker is placed by two photos.
        ImageError: if a photo's file is gone or damaged.
    """
    seen = _search(cameras, photos)
    rulers = [_measure(cameras, family, markers) for family, markers in seen.items()]
    best = max(rulers, key=lambda ruler: len(ruler.ids), default=None)
    if best is None or not best.ids:
        raise ConfigError(f"--scale-from markers: {_what_was_seen(seen)}, two points do without")
    return best


def _what_was_seen(seen: Mapping[str, Mapping[int, list[Sighting]]]) -> str:
    """Why there is no ruler, and what to do."""
    families = ", ".join(family.removeprefix("DICT_").lower() for family in FAMILIES)
    ids = sorted({marker for markers in seen.values() for marker in markers})
    if not ids:
        return f"no photo shows a marker of {families}: lay printed ones with a white rim beside the object"
    return (
        f"markers are seen (ids {', '.join(map(str, ids[:8]))}), but none is a square placed by two photos from "
        "different sides: take more and sharper photos of them"
    )


def _search(cameras: Cameras, photos: Iterable[tuple[Path, bool]]) -> dict[str, dict[int, list[Sighting]]]:
    """Sightings by family and id."""
    settings = cv2.aruco.DetectorParameters()
    settings.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    detectors = {
        family: cv2.aruco.ArucoDetector(
            cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, family)), settings
        )
        for family in FAMILIES
    }
    seen: dict[str, dict[int, list[Sighting]]] = {}
    for index, (path, upright) in enumerate(photos):
        grey = cv2.cvtColor(read_pixels(path, _MAX_PIXELS, upright).rgb, cv2.COLOR_RGB2GRAY)
        if grey.size < _FEW_PIXELS:
            grey = cv2.resize(grey, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        to_camera = cameras.sizes[index].double().numpy() / (grey.shape[1], grey.shape[0])
        for family, detector in detectors.items():
            for marker, corners in _once_each(detector, grey).items():
                sighting = Sighting(index, (corners + 0.5) * to_camera)  # OpenCV's centres are at +0
                seen.setdefault(family, {}).setdefault(marker, []).append(sighting)
    return seen


def _once_each(detector: Any, grey: UInt8[np.ndarray, "h w"]) -> dict[int, Float64[np.ndarray, "4 2"]]:
    """The corners of every id that stands once in the picture."""
    corners, ids, _ = detector.detectMarkers(grey)
    ids = [] if ids is None else ids.ravel().tolist()
    return {
        marker: quad.reshape(4, 2).astype(np.float64)
        for marker, quad in zip(ids, corners, strict=True)
        if ids.count(marker) == 1
    }


def _measure(cameras: Cameras, family: str, markers: Mapping[int, list[Sighting]]) -> Ruler:
    """The ruler of one family: its markers that are placed, their median side."""
    sides = {}
    for marker, sightings in sorted(markers.items()):
        corners = _place(cameras, sightings)
        if corners is None:
            continue
        lengths = np.linalg.norm(corners - np.roll(corners, 1, 0), axis=1)
        if np.abs(lengths / np.median(lengths) - 1).max() < _SQUARE:
            sides[marker] = lengths
    if not sides:
        return Ruler(0.0, 0.0, family, [])
    every = np.concatenate(list(sides.values()))
    side = float(np.median(every))
    return Ruler(side, float(np.abs(every / side - 1).max()), family, list(sides))


def _place(cameras: Cameras, sightings: list[Sighting]) -> Float64[np.ndarray, "4 3"] | None:
    """The corners in space, without the photos that contradict the others; None where two do not remain."""
    kept = list(sightings)
    while len(kept) >= 2:
        corners = _meet(cameras, kept)
        if corners is None:
            return None
        misses = [_miss(cameras, sighting, corners) for sighting in kept]
        if max(misses) < _MAX_MISS:
            return corners
        kept.pop(int(np.argmax(misses)))
    return None


def _meet(cameras: Cameras, sightings: list[Sighting]) -> Float64[np.ndarray, "4 3"] | None:
    """The point nearest to the rays of each corner; None where they are all but parallel."""
    photos = torch.tensor([sighting.photo for sighting in sightings]).repeat_interleave(4)
    pixels = torch.from_numpy(np.concatenate([sighting.corners for sighting in sightings]))
    origins, directions = (
        values.double().numpy().reshape(-1, 4, 3)
        for values in pixel_rays(cameras, photos, pixels.to(cameras.intrinsics))
    )
    across = np.eye(3) - directions[..., :, None] * directions[..., None, :]
    total = across.sum(0)
    if np.linalg.eigvalsh(total).min() < _MIN_SPREAD * len(sightings):
        return None
    return np.linalg.solve(total, np.einsum("pkij,pkj->ki", across, origins)[..., None])[..., 0]


def _miss(cameras: Cameras, sighting: Sighting, corners: Float64[np.ndarray, "4 3"]) -> float:
    """How far the corners fall from where the photo saw them, in sides of the marker there; infinite behind it."""
    pixels, depths = project(cameras, sighting.photo, torch.from_numpy(corners).to(cameras.c2w))
    side = np.linalg.norm(sighting.corners - np.roll(sighting.corners, 1, 0), axis=1).mean()
    off = np.linalg.norm(pixels.double().numpy() - sighting.corners, axis=1).max()
    return float(off / side) if bool((depths > 0).all()) else float("inf")
