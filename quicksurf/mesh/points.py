"""How well a mesh meets the verified points of its photos: a fit that failed shows here, whatever its colours are."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import KDTree

from quicksurf.capture.scene import SparsePoints
from quicksurf.geometry.region import Roi
from quicksurf.mesh.types import Vertices

_INNER = 0.95  # of the region's radius: the mesh ends at its rim
_LEAST_PHOTOS = 3
_FAR = 0.02  # of the region's radius
_MOST_FAR = 0.5  # of the points: a wall that is missing is less, a fit without surface more
_LEAST_POINTS = 100
_MOST_POINTS = 20_000


class PointDistances(NamedTuple):
    """Distances of verified points in the region of interest from the nearest vertex."""

    points: int
    median_percent: float
    """Of the region's radius."""
    far: float
    """Fraction of the points that are farther than 2 % of the radius."""

    def problem(self) -> str | None:
        """Tell what speaks against the surface, if it leaves most points alone."""
        if self.points < _LEAST_POINTS or self.far <= _MOST_FAR:
            return None
        return (
            f"{self.far:.0%} of the {self.points:,} points that the photos confirm lie beside the surface, by more "
            "than 2 % of the region's radius: try more minutes, another --capture, or --roi around what counts"
        )


def distances_to_points(vertices: Vertices, points: SparsePoints | None, roi: Roi) -> PointDistances | None:
    """Measure a mesh in the frame of the cameras; None without points in the region."""
    if points is None or not len(vertices):
        return None
    seen = torch.bincount(points.observations[:, 0], minlength=len(points.positions)) >= _LEAST_PHOTOS
    positions = points.positions[seen].double().numpy()
    positions = positions[np.linalg.norm(positions - np.array(roi.center), axis=1) < _INNER * roi.radius]
    positions = positions[:: max(1, len(positions) // _MOST_POINTS)]
    if not len(positions):
        return None
    distances = (
        KDTree(vertices).query(positions, distance_upper_bound=roi.radius)[0].clip(max=roi.radius)
        / roi.radius
    )
    return PointDistances(
        len(positions),
        round(100 * float(np.median(distances)), 3),
        round(float((distances > _FAR).mean()), 4),
    )
