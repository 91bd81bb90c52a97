"""`_native.rasterize` against a readable twin in numpy, and its edge and error rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quicksurf.kernels import _native

DEPTH = dict(rtol=1e-6, atol=0.0)  # one float32 rounding of a float64 result


def rasterize_twin(vertices, faces, width, height):
    """The specification: every pixel centre against every face, in float64."""
    depth = np.full((height, width), np.inf, np.float32)
    face_indices = np.full((height, width), -1, np.int32)
    px, py = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    for face, corners in enumerate(faces):
        a, b, c = vertices[corners].astype(np.float64)
        if not (np.isfinite([a, b, c]).all() and min(a[2], b[2], c[2]) > 1e-6):
            continue
        if _edge(a, b, c[0], c[1]) < 0:
            b, c = c, b
        at = [_edge(b, c, px, py), _edge(c, a, px, py), _edge(a, b, px, py)]
        inside = _covers(b, c, at[0]) & _covers(c, a, at[1]) & _covers(a, b, at[2]) & (sum(at) > 0)
        inverse = at[0] / a[2] + at[1] / b[2] + at[2] / c[2]
        z = (sum(at) / np.where(inside, inverse, 1.0)).astype(np.float32)
        nearer = inside & (z < depth)
        depth[nearer], face_indices[nearer] = z[nearer], face
    return depth, face_indices


def _edge(a, b, px, py):
    return (b[0] - a[0]) * (py - a[1]) - (b[1] - a[1]) * (px - a[0])


def _covers(a, b, value):
    is_top_or_left = b[1] < a[1] or (b[1] == a[1] and b[0] > a[0])
    return (value >= 0) if is_top_or_left else (value > 0)


def draw(vertices, faces, width, height):
    return _native.rasterize(
        np.float32(vertices).reshape(-1, 3), np.int32(faces).reshape(-1, 3), width, height
    )


@pytest.mark.parametrize("size", [(1, 1), (7, 1), (1, 9), (33, 21)])
def test_random_triangles_match_the_twin(size):
    rng = np.random.default_rng(0)
    vertices = rng.uniform([-10, -10, -0.2], [43, 31, 3], (60, 3)).astype(np.float32)
    faces = rng.integers(0, 60, (80, 3)).astype(np.int32)
    depth, face_indices = draw(vertices, faces, *size)
    expected_depth, expected_faces = rasterize_twin(vertices, faces, *size)
    np.testing.assert_array_equal(face_indices, expected_faces)
    np.testing.assert_allclose(depth, expected_depth, **DEPTH)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 16), st.integers(0, 16), st.integers(1, 4)), min_size=9, max_size=9))
def test_vertices_on_pixel_centres_match_the_twin(corners):
    """Half-pixel coordinates put many centres exactly on edges: the top-left rule decides."""
    vertices = np.float32(corners) * [0.5, 0.5, 1.0]
    faces = np.arange(9).reshape(3, 3)
    for result, expected in zip(
        draw(vertices, faces, 8, 8), rasterize_twin(vertices, faces, 8, 8), strict=True
    ):
        np.testing.assert_allclose(result, expected, **DEPTH)


def test_neighbours_cover_each_pixel_once():
    """A jittered grid of triangles over the image: drawn one by one, the coverages add up to exactly one."""
    rng = np.random.default_rng(3)
    n, size = 6, 24
    x, y = np.meshgrid(np.linspace(-3, 27, n), np.linspace(-3, 27, n))
    x[1:-1, 1:-1] += rng.uniform(-2, 2, (n - 2, n - 2))
    y[1:-1, 1:-1] += np.round(rng.uniform(-2, 2, (n - 2, n - 2)) * 2) / 2
    vertices = np.stack([x.ravel(), y.ravel(), np.ones(n * n)], -1)
    corner = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    faces = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + n], -1),
            np.stack([corner + 1, corner + n + 1, corner + n], -1),
        ]
    )
    coverage = sum((draw(vertices, face, size, size)[1] == 0).astype(int) for face in faces)
    np.testing.assert_array_equal(coverage, 1)


def test_depth_is_perspective_correct():
    """The plane z = 2 + x/2: the ray of slope s = x/z meets it at z = 2 / (1 - s/2)."""
    corners = np.array([[-3.0, -4], [3, -4], [3, 4], [-3, 4]])
    z = 2 + corners[:, 0] / 2
    pixels = corners / z[:, None] * 10 + 8
    depth, _ = draw(np.concatenate([pixels, z[:, None]], 1), [[0, 1, 2], [0, 2, 3]], 16, 16)
    slope = (np.arange(16) + 0.5 - 8) / 10
    np.testing.assert_allclose(depth, np.broadcast_to(2 / (1 - slope / 2), (16, 16)), rtol=1e-6)


def test_the_nearer_face_wins_whatever_the_order():
    near, far = [[0, 0, 1], [9, 0, 1], [0, 9, 1]], [[0, 0, 2], [9, 0, 2], [0, 9, 2]]
    _, first = draw(near + far, [[0, 1, 2], [3, 4, 5]], 4, 4)
    _, second = draw(near + far, [[3, 4, 5], [0, 1, 2]], 4, 4)
    assert (first == 0).all() and (second == 1).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_faces_that_are_not_finite_are_left_out(bad, axis):
    vertices = np.float32([[0, 0, 1], [9, 0, 1], [0, 9, 1]])
    vertices[1, axis] = bad
    depth, face_indices = draw(vertices, [[0, 1, 2]], 4, 4)
    assert np.isinf(depth).all() and (face_indices == -1).all()


def test_faces_behind_the_camera_are_left_out():
    _, face_indices = draw([[0, 0, 1], [9, 0, -1], [0, 9, 1]], [[0, 1, 2]], 4, 4)
    assert (face_indices == -1).all()


def test_huge_coordinates_are_cut_to_the_image():
    _, face_indices = draw([[-1e30, -1e30, 1], [1e30, -1e30, 1], [0, 1e30, 1]], [[0, 1, 2]], 4, 4)
    assert (face_indices == 0).all()


def test_no_faces_gives_an_empty_image():
    depth, face_indices = draw(np.zeros((0, 3)), np.zeros((0, 3)), 3, 2)
    assert depth.shape == (2, 3) and np.isinf(depth).all() and (face_indices == -1).all()


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_out_of_range_is_refused(index):
    with pytest.raises(ValueError, match="index"):
        draw(np.ones((3, 3)), [[0, 1, index]], 4, 4)


@pytest.mark.parametrize("size", [(0, 4), (4, -1), (100000, 4)])
def test_an_impossible_size_is_refused(size):
    with pytest.raises(ValueError, match="width"):
        draw(np.ones((3, 3)), [[0, 1, 2]], *size)


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError):
        _native.rasterize(np.ones((3, 3)), np.int32([[0, 1, 2]]), 4, 4)
