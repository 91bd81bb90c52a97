"""`quicksurf eval`: surfaces of known distance, meshes and clouds as truth, and what cannot be compared."""

from pathlib import Path

import numpy as np
import pytest
import trimesh

from quicksurf.app.budget import StopRequest
from quicksurf.app.evaluate import evaluate, read_truth, run_demo, score
from quicksurf.app.metrics import CloudSurface, MeshSurface
from quicksurf.errors import BudgetError, ConfigError, OutputError, SurfaceError
from quicksurf.geometry.region import Roi

SAMPLING = 0.02  # relative: means over 20,000 points, and facets instead of a sphere


@pytest.fixture
def spheres(tmp_path: Path) -> tuple[Path, Path]:
    """A sphere of radius 1.1 and the true one of radius 1."""
    for name, radius in (("mesh", 1.1), ("truth", 1.0)):
        trimesh.creation.icosphere(subdivisions=5, radius=radius).export(tmp_path / f"{name}.ply")
    return tmp_path / "mesh.ply", tmp_path / "truth.ply"


@pytest.mark.slow
def test_concentric_spheres_are_their_radii_apart(spheres: tuple[Path, Path]) -> None:
    scores = score(*spheres, None, n_samples=20_000)
    diagonal = 2 * np.sqrt(3)
    assert scores.accuracy == pytest.approx(100 * 0.1 / diagonal, rel=SAMPLING)
    assert scores.chamfer == pytest.approx(100 * 0.1 / diagonal, rel=SAMPLING)
    assert scores.normals_outward == 1


def test_a_cloud_is_a_truth_too(spheres: tuple[Path, Path], tmp_path: Path) -> None:
    points = trimesh.load(spheres[1]).vertices  # type: ignore[union-attr]
    trimesh.PointCloud(points).export(tmp_path / "cloud.ply")
    assert isinstance(read_truth(tmp_path / "cloud.ply"), CloudSurface)
    assert isinstance(read_truth(spheres[1]), MeshSurface)
    lines = list(evaluate(spheres[0], tmp_path / "cloud.ply", None, 0, "cpu"))
    assert any("Chamfer" in line for line in lines)


def test_only_what_lies_in_the_ball_counts(spheres: tuple[Path, Path]) -> None:
    with pytest.raises(SurfaceError, match="nothing of the predicted surface"):
        list(evaluate(*spheres, Roi((0.0, 0.0, 0.0), 0.5), 0, "cpu"))
    text = "\n".join(evaluate(*spheres, Roi((0.0, 0.0, 1.0), 0.5), 0, "cpu"))
    assert "inside the ball 0,0,1,0.5" in text


def test_a_mesh_alone_cannot_be_measured(spheres: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="--truth"):
        list(evaluate(spheres[0], None, None, 0, "cpu"))


def test_a_negative_number_of_views_is_refused(spheres: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="--views is -1"):
        list(evaluate(*spheres, None, -1, "cpu"))


@pytest.mark.parametrize("minutes", [0.0, float("nan"), float("inf")])
def test_senseless_minutes_are_refused_before_the_demo_is_rendered(minutes: float, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="above 0, and finite"):
        list(run_demo(tmp_path / "demo", minutes, "cpu", StopRequest(), quiet=True))
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("content", [b"", b"ply\nformat", b"\x00" * 100])
def test_a_broken_truth_is_said(spheres: tuple[Path, Path], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.ply").write_bytes(content)
    with pytest.raises(SurfaceError, match="cannot"):
        score(spheres[0], tmp_path / "broken.ply", None)


def test_demo_writes_to_no_folder_that_is_in_use(spheres: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="not empty"):
        list(run_demo(tmp_path, 1.0, "cpu", StopRequest(), quiet=True))
