"""The classical baseline of a comparison: from points that photos show to a mesh."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_capture import AXES, CENTER, write_capture

from quicksurf.app.budget import Budget
from quicksurf.app.compare import classical
from quicksurf.app.compare.measure import Result
from quicksurf.capture.assemble import ReadOptions
from quicksurf.capture.load import read_scene
from quicksurf.capture.scene import DensePoints, Scene, SparsePoints
from quicksurf.errors import SurfaceError

PAINT_ERROR = 25  # grey levels: a pixel of these photos is 0.1 wide, over which the paint changes by as much
SPHERE_ERROR = 0.03  # of the radius: of Poisson's mesh of 4000 exact points


def test_points_of_a_sphere_become_its_mesh(tmp_path: Path) -> None:
    """Poisson's equation on exact points with normals, trimmed and seen by the cameras of the tiny capture."""
    scene = read_scene(write_capture(tmp_path / "capture"), ReadOptions(48 * 48, say=lambda text: None))
    random = np.random.default_rng(0)
    normals = random.normal(size=(4000, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    colors = np.full((4000, 3), [200, 40, 10], np.uint8)
    mesh, _, depth = classical.mesh_of_cloud(classical.Cloud(0.4 * normals, normals, colors), scene, "scene")
    assert len(mesh.faces) > 1000 and depth == 6
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) / 0.4 - 1).max() < SPHERE_ERROR
    assert ((mesh.normals * mesh.vertices).sum(1) > 0).all(), "outward"
    assert (mesh.colors == colors[0]).all()


def dense_points(scene: Scene, n_points: int) -> DensePoints:
    """Points of the ellipsoid, each as the camera right before it sees it."""
    random = np.random.default_rng(1)
    outward = random.normal(size=(n_points, 3))
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    positions = torch.from_numpy(outward) * AXES + CENTER
    normals = torch.nn.functional.normalize(torch.from_numpy(outward) / AXES, dim=1)
    sight = torch.nn.functional.normalize(scene.cameras.centers()[None] - positions[:, None], dim=2)
    cosines, views = (sight * normals[:, None]).sum(2).max(1)
    seen = cosines > 0.3
    size = torch.full((int(seen.sum()),), 0.03)
    return DensePoints(positions[seen], views[seen], size, size)


def test_dense_points_are_merged_with_normals_and_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = read_scene(write_capture(tmp_path / "capture"), ReadOptions(48 * 48, say=lambda text: None))
    scene.held_out[:] = False
    dense = dense_points(scene, 60_000)
    monkeypatch.setattr(classical, "find_points", lambda *rest: None)
    monkeypatch.setattr(classical, "find_dense_points", lambda *rest: dense)
    monkeypatch.setattr(classical, "_FEWEST_MERGED", 2000)
    what, cloud = classical.points_of(scene, Budget(0.001), 0)
    assert what == "PatchMatch stereo" and 1000 < len(cloud.points) < 2600, "about as many as asked"
    world = cloud.points * scene.roi.radius + np.array(scene.roi.center)
    local = (world - CENTER.numpy()) / AXES.numpy()
    assert abs(np.median(np.linalg.norm(local, axis=1)) - 1) < SPHERE_ERROR
    outward = local / AXES.numpy()
    cosines = (cloud.normals * outward).sum(1) / np.linalg.norm(outward, axis=1)
    assert (cosines > 0.9).mean() > 0.95
    painted = 255 * (0.5 + 0.4 * np.sin(2.7 * (world - CENTER.numpy())))
    assert np.median(np.abs(cloud.colors - painted)) < PAINT_ERROR


def test_sparse_points_stand_in_and_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = read_scene(write_capture(tmp_path / "capture"), ReadOptions(48 * 48, say=lambda text: None))
    dense = dense_points(scene, 600)
    observations = torch.stack([torch.arange(len(dense.views)), dense.views], 1)
    sparse = SparsePoints(dense.positions, torch.zeros(len(dense.views), 3, dtype=torch.uint8), observations)
    monkeypatch.setattr(classical, "find_dense_points", lambda *rest: None)
    what, cloud = classical.points_of(replace(scene, points=sparse), Budget(60), 0)
    assert what == "sparse points" and 100 <= len(cloud.points) <= len(dense.views)
    monkeypatch.setattr(classical, "find_points", lambda *rest: None)
    with pytest.raises(SurfaceError, match="fewer than 100 points"):
        classical.points_of(scene, Budget(60), 0)
    label = Result("colmap", {}, summary={"classical": {"what": "sparse points, merged"}}).label
    assert label == "sparse points, meshed"
