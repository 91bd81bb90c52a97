"""The last step of a mesh: vertices move to the points around them."""

import numpy as np
import pytest
import trimesh

from quicksurf.mesh.refine import SurfacePoints, refine_vertices

PIXEL = 0.01


def points_of_ball(n: int, noise: float = 0.3 * PIXEL) -> SurfacePoints:
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(n, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    positions = directions * (1 + noise * rng.normal(size=(n, 1)))
    return SurfacePoints(positions.astype(np.float32), np.full(n, PIXEL, np.float32))


def ball(radius: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.icosphere(5, radius)
    return np.asarray(mesh.vertices, float), np.asarray(mesh.faces, np.int64)


def test_a_rough_surface_comes_to_the_points():
    vertices, faces = ball()
    rough = vertices * (1 + PIXEL * np.sin(8 * vertices[:, :1]) * np.cos(8 * vertices[:, 1:2]))
    refined = refine_vertices(rough, faces, points_of_ball(150_000))
    off = [np.abs(np.linalg.norm(v, axis=1) - 1).mean() for v in (rough, refined)]
    assert off[1] < 0.3 * off[0]


def test_outliers_do_not_pull():
    vertices, faces = ball()
    points = points_of_ball(150_000)
    stray = points.positions[::10] * (1 + 3 * PIXEL)
    points = SurfacePoints(np.concatenate([points.positions, stray]), np.full(165_000, PIXEL, np.float32))
    assert np.linalg.norm(refine_vertices(vertices, faces, points), axis=1) == pytest.approx(
        1, abs=0.4 * PIXEL
    )


def test_what_is_beyond_reach_of_points_stays():
    vertices, faces = ball(1 + 6 * PIXEL)
    assert np.array_equal(refine_vertices(vertices, faces, points_of_ball(150_000)), vertices)
    vertices, _ = ball()
    assert np.array_equal(refine_vertices(vertices, faces, points_of_ball(10)), vertices)


def test_half_of_the_surface_without_points_stays_but_for_the_seam():
    vertices, faces = ball(1 + PIXEL)
    points = points_of_ball(150_000, 0.0)
    points = SurfacePoints(*(part[points.positions[:, 2] > 0] for part in points))
    lengths = np.linalg.norm(refine_vertices(vertices, faces, points), axis=1)
    above, below = vertices[:, 2] > 0.1, vertices[:, 2] < -0.2
    assert lengths[above] == pytest.approx(1, abs=0.2 * PIXEL)
    assert np.array_equal(lengths[below], np.linalg.norm(vertices[below], axis=1))
