"""Directions around the center of the ROI in which the photos were taken.

azimuth     about the cameras' mean up, 0 at the first photo, counter-clockwise seen from above (growing to the right
            for a photographer who faces the object), in [0, 360)
elevation   above the horizontal plane through the center of the ROI, in [-90, 90]
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

Directions = Float64[np.ndarray, "n 3"]

# Degrees: a direction this close to a photo's is covered; beyond, matching across views gets hard.
NEAR = 20.0
_SAMPLES = 2000


class Sphere(NamedTuple):
    """Directions in degrees."""

    azimuths: Float64[np.ndarray, "n"]
    elevations: Float64[np.ndarray, "n"]


class HorizonFrame(NamedTuple):
    """Axes that directions are measured by."""

    center: Float64[np.ndarray, "3"]
    up: Float64[np.ndarray, "3"]
    ahead: Float64[np.ndarray, "3"]
    """Horizontal, from the center towards the first photo."""

    def sphere(self, points: Directions) -> Sphere:
        """Measure the directions of points from the center."""
        offsets = points - self.center
        offsets = offsets / np.maximum(np.linalg.norm(offsets, axis=1, keepdims=True), 1e-30)
        right = np.cross(self.up, self.ahead)
        azimuths = np.degrees(np.arctan2(offsets @ right, offsets @ self.ahead)) % 360
        return Sphere(azimuths, np.degrees(np.arcsin(np.clip(offsets @ self.up, -1, 1))))

    def directions(self, sphere: Sphere) -> Directions:
        """Convert directions to unit vectors."""
        azimuths, elevations = np.radians(sphere.azimuths), np.radians(sphere.elevations)
        right = np.cross(self.up, self.ahead)
        flat = np.cos(azimuths)[:, None] * self.ahead + np.sin(azimuths)[:, None] * right
        return np.cos(elevations)[:, None] * flat + np.sin(elevations)[:, None] * self.up


def angles_between(
    first: Float64[np.ndarray, "n 3"], second: Float64[np.ndarray, "m 3"]
) -> Float64[np.ndarray, "n m"]:
    """Compute the angles in degrees between every two unit vectors."""
    return np.degrees(np.arccos(np.clip(first @ second.T, -1, 1)))


def covered_fraction(frame: HorizonFrame, photos: Sphere) -> float:
    """Compute the fraction of directions within NEAR of a photo, down to the lowest photo or the horizon."""
    samples = _even_directions(_SAMPLES)
    floor = min(0.0, float(photos.elevations.min()))
    samples = samples[np.degrees(np.arcsin(np.clip(samples @ frame.up, -1, 1))) >= floor]
    return float((angles_between(samples, frame.directions(photos)).min(1) <= NEAR).mean())


def widest_gap(photos: Sphere) -> tuple[float, int, int]:
    """Find the widest gap in azimuth, in degrees, and the photos left and right of it, facing the object."""
    order = np.argsort(photos.azimuths, kind="stable")
    ordered = photos.azimuths[order]
    gaps = np.append(ordered[1:], ordered[0] + 360) - ordered
    widest = int(gaps.argmax())
    return float(gaps[widest]), int(order[widest]), int(order[(widest + 1) % len(order)])


def step_in_words(start: tuple[float, float], end: tuple[float, float]) -> str:
    """Describe the way from one (azimuth, elevation) to another for a photographer who faces the object."""
    around = (end[0] - start[0] + 180) % 360 - 180
    higher = end[1] - start[1]
    parts = []
    if abs(around) >= 5:
        parts.append(f"{_rounded(around)}° to the {'right' if around > 0 else 'left'} around the object")
    if abs(higher) >= 5:
        parts.append(f"{_rounded(higher)}° {'higher' if higher > 0 else 'lower'}")
    return " and ".join(parts) or "the same place, closer"


def _rounded(degrees: float) -> int:
    return max(5, 5 * round(abs(degrees) / 5))


def _even_directions(count: int) -> Directions:
    """Fibonacci's lattice on the sphere."""
    index = np.arange(count) + 0.5
    z = 1 - 2 * index / count
    turn = np.pi * (1 + 5**0.5) * index
    flat = np.sqrt(1 - z * z)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), z], -1)
