"""Verified points say whether a mesh is where the photos are."""

import numpy as np
import pytest
import torch

from quicksurf.capture.scene import SparsePoints
from quicksurf.geometry.region import Roi
from quicksurf.mesh.points import distances_to_points

ROI = Roi((1.0, 2.0, 3.0), 2.0)


def plane(height: float) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(-1, 3, 81), np.linspace(0, 4, 81))
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, height)], 1)


def points_at(height: float, n_photos: int = 3, n: int = 400) -> SparsePoints:
    rng = np.random.default_rng(0)
    positions = np.stack([rng.uniform(0, 2, n), rng.uniform(1, 3, n), np.full(n, height)], 1)
    observations = torch.cartesian_prod(torch.arange(n), torch.arange(n_photos))
    return SparsePoints(torch.from_numpy(positions), torch.zeros(n, 3, dtype=torch.uint8), observations)


def test_the_median_is_in_percent_of_the_radius():
    found = distances_to_points(plane(3.0), points_at(3.2), ROI)
    assert found is not None
    assert found.median_percent == pytest.approx(10, abs=0.2)
    assert found.far == 1


def test_points_on_the_mesh_raise_no_doubt():
    found = distances_to_points(plane(3.0), points_at(3.0), ROI)
    assert found is not None and found.far == 0 and found.problem() is None


def test_a_mesh_elsewhere_is_doubtful():
    found = distances_to_points(plane(3.0), points_at(3.2), ROI)
    assert found is not None and "100% of the 400 points" in str(found.problem())


def test_a_handful_of_points_says_nothing():
    found = distances_to_points(plane(3.0), points_at(3.2, n=20), ROI)
    assert found is not None and found.problem() is None


@pytest.mark.parametrize(
    "points", [None, points_at(3.0, n_photos=2), points_at(30.0)], ids=["none", "pairs", "outside"]
)
def test_without_points_in_the_region_nothing_is_measured(points):
    assert distances_to_points(plane(3.0), points, ROI) is None
