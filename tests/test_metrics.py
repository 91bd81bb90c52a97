"""Scores against closed forms, brute force and the reference scorer."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from quicksurf.app.metrics import (
    CloudSurface,
    MeshSurface,
    ObjectRegion,
    SurfaceSamples,
    compare_surfaces,
    psnr,
    ssim,
    triangle_distances,
)

SAME = 1e-3  # percent: a nearest triangle may be missed by the search now and then
N = 20_000  # sample points: means are good to about half a percent
DATA = Path(os.environ.get("QUICKSURF_DATA", Path(__file__).parents[2] / "shared" / "data"))


def ball(radius, center=(0.0, 0.0, 0.0), subdivisions=4):
    mesh = trimesh.creation.icosphere(subdivisions, radius)
    return np.asarray(mesh.vertices) + center, np.asarray(mesh.faces, np.int64)


def test_psnr_of_a_known_error():
    image = np.random.default_rng(0).uniform(0.2, 0.8, (20, 30, 3))
    assert psnr(image, image) == float("inf")
    assert psnr(image + 0.1, image) == pytest.approx(20.0)


def ssim_twin(x, y):
    """Every 11 × 11 window, one after another."""
    line = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    weights = np.outer(line, line) / line.sum() ** 2
    values = []
    for row in range(x.shape[0] - 10):
        for column in range(x.shape[1] - 10):
            a, b = x[row : row + 11, column : column + 11], y[row : row + 11, column : column + 11]
            ma, mb = (weights * a).sum(), (weights * b).sum()
            va, vb = (weights * (a - ma) ** 2).sum(), (weights * (b - mb) ** 2).sum()
            cov = (weights * (a - ma) * (b - mb)).sum()
            top = (2 * ma * mb + 1e-4) * (2 * cov + 9e-4)
            values.append(top / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)))
    return np.mean(values)


def test_ssim_matches_the_window_by_window_twin():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(18, 23, 2))
    y = np.clip(x + 0.2 * rng.normal(size=x.shape), 0, 1)
    expected = np.mean([ssim_twin(x[..., k], y[..., k]) for k in range(2)])
    assert ssim(x, y) == pytest.approx(expected, abs=1e-12)
    assert ssim(x, x) == pytest.approx(1.0)


@pytest.mark.parametrize("shapes", [((10, 30, 3), (10, 30, 3)), ((20, 20, 3), (20, 21, 3))])
def test_ssim_refuses_images_it_cannot_compare(shapes):
    with pytest.raises(ValueError, match="SSIM"):
        ssim(np.zeros(shapes[0]), np.zeros(shapes[1]))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_triangle_distance_is_the_least_over_a_fine_grid(seed):
    """The grid has 45² / 2 points, so it is at most a 45th of the longest side too far, never too near."""
    rng = np.random.default_rng(seed)
    point, triangle = rng.normal(size=(1, 3)), rng.normal(size=(1, 3, 3))
    u, v = (w.ravel() for w in np.meshgrid(np.linspace(0, 1, 46), np.linspace(0, 1, 46)))
    u, v = u[u + v <= 1 + 1e-9], v[u + v <= 1 + 1e-9]
    grid = np.stack([1 - u - v, u, v], 1) @ triangle[0]
    brute = np.linalg.norm(grid - point, axis=1).min()
    side = np.linalg.norm(triangle[0] - np.roll(triangle[0], 1, axis=0), axis=1).max()
    assert brute - side / 45 <= triangle_distances(point, triangle)[0] <= brute + 1e-12


def test_triangle_distance_at_sides_corners_and_inside():
    triangle = np.tile([[0.0, 0, 0], [2, 0, 0], [0, 2, 0]], (4, 1, 1))
    points = np.array([[0.5, 0.5, 3], [1, -2, 0], [-3, -4, 0], [2, 2, 0]])
    np.testing.assert_allclose(triangle_distances(points, triangle), [3, 2, 5, 2**0.5])


def test_a_larger_sphere_is_off_by_the_difference_of_radii():
    truth, predicted = MeshSurface(*ball(1.0)), MeshSurface(*ball(1.05))
    scores = compare_surfaces(predicted, truth, n_samples=N)
    percent = 100 * 0.05 / (2 * 3**0.5)
    assert scores.diagonal == pytest.approx(2 * 3**0.5, rel=1e-3)
    assert scores.accuracy == pytest.approx(percent, rel=0.01)
    assert scores.completeness == pytest.approx(percent, rel=0.01)
    assert scores.chamfer == pytest.approx((scores.accuracy + scores.completeness) / 2)
    assert (scores.fscore_half, scores.fscore_one) == (0.0, 0.0)
    assert scores.normal_consistency > 0.998 and scores.normals_outward == 1.0


def test_a_surface_is_equal_to_itself_in_any_triangulation():
    vertices, faces = ball(1.0)
    finer = trimesh.Trimesh(vertices, faces, process=False).subdivide()
    scores = compare_surfaces(
        MeshSurface(finer.vertices, finer.faces), MeshSurface(vertices, faces), n_samples=N
    )
    assert scores.chamfer < SAME and scores.fscore_half == 1.0


def test_half_a_sphere_is_accurate_but_not_complete():
    vertices, faces = ball(1.0)
    upper = faces[(vertices[faces][..., 2] > 0).all(1)]
    scores = compare_surfaces(MeshSurface(vertices, upper), MeshSurface(vertices, faces), n_samples=N)
    assert scores.accuracy < SAME < 5 < scores.completeness
    assert scores.fscore_one == pytest.approx(2 / 3, abs=0.02)  # precision 1, recall one half


def test_inside_out_faces_are_seen():
    vertices, faces = ball(1.0)
    scores = compare_surfaces(
        MeshSurface(vertices, faces[:, ::-1]), MeshSurface(vertices, faces), n_samples=N
    )
    assert scores.normals_outward == 0.0 and scores.normal_consistency > 0.998


def test_scores_do_not_depend_on_the_unit():
    a, b = ball(1.0), ball(1.03, (0.01, 0, 0))
    one = compare_surfaces(MeshSurface(*b), MeshSurface(*a), n_samples=N)
    large = compare_surfaces(MeshSurface(1e3 * b[0], b[1]), MeshSurface(1e3 * a[0], a[1]), n_samples=N)
    assert large.chamfer == pytest.approx(one.chamfer, rel=1e-9)


def test_a_cloud_can_be_the_truth():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(100_000, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    predicted = MeshSurface(*ball(1.05))
    scores = compare_surfaces(predicted, CloudSurface(points, points), n_samples=N)
    assert scores.chamfer == pytest.approx(100 * 0.05 / (2 * 3**0.5), rel=0.02)
    assert scores.normal_consistency > 0.99
    assert np.isnan(compare_surfaces(predicted, CloudSurface(points), n_samples=N).normal_consistency)


def test_only_what_counts_is_scored():
    """A ball on a table, with a table top and a blob beneath in the prediction: neither changes the score."""
    vertices, faces = ball(1.0, (0, 0, 1.0))
    blob, blob_faces = ball(0.8, (0, 0, -1.0))
    both = np.concatenate([vertices, blob]), np.concatenate([faces, blob_faces + len(vertices)])
    truth = MeshSurface(vertices, faces)
    region = ObjectRegion((0, 0, 1.0), 1.0, (0, 0, 1.0), 0.0, truth.diagonal())
    scores = compare_surfaces(MeshSurface(*both), truth, region.contains, n_samples=N)
    assert scores.chamfer < SAME
    assert compare_surfaces(MeshSurface(*both), truth, n_samples=N).accuracy > 1


def test_given_truth_samples_replace_the_drawn_ones():
    vertices, faces = ball(1.0)
    upper = faces[(vertices[faces][..., 2] > 0).all(1)]
    seen = MeshSurface(vertices, upper).sample(N)
    scores = compare_surfaces(MeshSurface(vertices, upper), MeshSurface(vertices, faces), truth_samples=seen)
    assert scores.completeness < SAME and scores.n_truth == N


@pytest.mark.parametrize("empty", [np.zeros((0, 3), np.int64), np.array([[0, 0, 1]])])
def test_a_surface_without_area_is_refused(empty):
    vertices, faces = ball(1.0, subdivisions=1)
    with pytest.raises(ValueError, match="without area"):
        compare_surfaces(MeshSurface(vertices, empty), MeshSurface(vertices, faces))


def test_nothing_in_the_region_is_refused():
    surface = MeshSurface(*ball(1.0, subdivisions=1))
    with pytest.raises(ValueError, match="predicted surface"):
        compare_surfaces(surface, surface, lambda points: np.zeros(len(points), bool), n_samples=10)


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["dev-a", "dev-b"])
def test_agrees_with_the_reference_scorer(scene):
    """The same noisy surface, scored by the captures' own tool: within 1 %, two independent draws of points apart."""
    folder, tool = DATA / scene, DATA.parent / "tools" / "evaluate.py"
    if not (folder.is_dir() and tool.is_file()):
        pytest.skip(f"{folder} or {tool} is not here: set QUICKSURF_DATA")
    spec = importlib.util.spec_from_file_location("evaluate", tool)
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    mesh = trimesh.load(folder / "gt_mesh.ply", process=False)
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces, np.int64)
    roi = json.loads((folder / "roi.json").read_text())
    noise = np.random.default_rng(0).normal(size=vertices.shape) * 3e-3 * roi["bbox_diagonal"]
    expected = reference.evaluate(str(folder), (vertices + noise, faces), n=N * 3)
    points = np.load(folder / "gt_points.npz")
    counts = None
    if roi["table_z"] is not None:
        up, z = tuple(roi["up"]), roi["table_z"]
        counts = ObjectRegion(tuple(roi["center"]), roi["radius"], up, z, roi["bbox_diagonal"]).contains
    seen = SurfaceSamples(points["points"].astype(np.float64), points["normals"].astype(np.float64))
    truth = MeshSurface(vertices, faces)
    scores = compare_surfaces(MeshSurface(vertices + noise, faces), truth, counts, seen, n_samples=N * 3)
    for name in ("accuracy", "completeness", "chamfer", "normal_consistency"):
        assert getattr(scores, name) == pytest.approx(expected[name], rel=0.01), name
    assert scores.fscore_half == pytest.approx(expected["fscore_0.5"], rel=0.01)
