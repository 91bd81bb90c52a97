"""Texture, confidence, scale and axes on a real run of the tiny capture, files loaded back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from cut_fit import cut_to
from tiny_capture import CENTER, write_capture

from quicksurf.app import api
from quicksurf.app.budget import EXTRAS_FRACTION, Budget
from quicksurf.app.export.frame import SIDECAR
from quicksurf.app.export.request import MeshRequest
from quicksurf.app.export.surface import run_mesh
from quicksurf.app.export.texture_cost import affordable_texture, texture_seconds
from quicksurf.app.fit import FitResult, run_fit
from quicksurf.app.requests import FitRequest
from quicksurf.errors import ConfigError
from quicksurf.mesh.photos import bilinear
from quicksurf.model import TrainedModel

TINY = str(Path(__file__).with_name("tiny.toml"))
SIZE = 128
PAINT = 0.12  # photos of 48 pixels of a surface that was fitted for seconds: it lies a pixel off


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    """A finished run with all extras."""
    folder = tmp_path_factory.mktemp("takeaway")
    mesh = MeshRequest(faces=600, texture=True, texture_size=SIZE, confidence=True)
    request = FitRequest(write_capture(folder / "capture"), 20.0, folder / "run", preset=TINY, mesh=mesh)
    return run_fit(request, fit=cut_to(5.0))


def load(path: Path) -> Any:
    loaded: Any = trimesh.load(path, process=False)
    return loaded.to_geometry() if isinstance(loaded, trimesh.Scene) else loaded


def painted(mesh: Any, image: np.ndarray) -> np.ndarray:
    """Colours of a loaded mesh at its faces' centres; trimesh counts v upwards."""
    uvs = np.asarray(mesh.visual.uv)[mesh.faces].mean(1)
    pixels = np.stack([uvs[:, 0] * image.shape[1], (1 - uvs[:, 1]) * image.shape[0]], 1)
    return bilinear(image, pixels.astype(np.float32)) / 255


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["glb", "obj"])
def test_textured_files_show_the_paint_when_loaded_back(fitted: FitResult, suffix: str) -> None:
    mesh = load(fitted.run.path / f"textured.{suffix}")
    material = mesh.visual.material
    image = np.asarray((material.baseColorTexture if suffix == "glb" else material.image).convert("RGB"))
    assert image.shape == (SIZE, SIZE, 3) and len(mesh.faces) <= 660
    points = np.asarray(mesh.vertices)[mesh.faces].mean(1) - CENTER.numpy()
    expected = 0.5 + 0.4 * np.sin(2.7 * points)
    assert np.abs(painted(mesh, image) - expected).mean() < PAINT
    upside_down = np.abs(painted(mesh, image[::-1]) - expected).mean()
    assert upside_down > 1.5 * PAINT  # the test can tell


def test_the_glb_is_shown_without_light(fitted: FitResult) -> None:
    blob = (fitted.run.path / "textured.glb").read_bytes()
    length = int.from_bytes(blob[12:16], "little")
    tree = json.loads(blob[20 : 20 + length])
    assert tree["materials"][0]["extensions"] == {"KHR_materials_unlit": {}}
    assert "KHR_materials_unlit" in tree["extensionsUsed"]


def test_files_and_confidence_are_named_in_the_summary(fitted: FitResult) -> None:
    expected = {"mesh.ply", "confidence.png", *(f"textured.{s}" for s in ("glb", "obj", "mtl", "png"))}
    assert set(fitted.summary["files"]) == expected
    assert all((fitted.run.path / name).stat().st_size for name in expected)
    confidence = load(fitted.run.path / "mesh.ply").metadata["_ply_raw"]["vertex"]["data"]["confidence"]
    assert np.min(confidence) >= 0 and 0.4 < np.max(confidence) < 1  # ten small photos, a rough surface


def test_scale_and_up_are_in_the_files_and_in_the_sidecar(fitted: FitResult, tmp_path: Path) -> None:
    x, y, z = CENTER.tolist()
    ends = f"{x},{y},{z}", f"{x + 2},{y},{z}"
    files = api.export(
        fitted.run.path,
        formats=("ply", "glb"),
        output=tmp_path,
        scale_from=(*ends, 0.5),
        up="cameras",
    )
    assert files[-1] == tmp_path / SIDECAR
    told = json.loads(files[-1].read_text())
    assert told["units"] == "metres" and told["up"]["source"] == "cameras"
    plain = load(fitted.run.path / "mesh.ply").vertices
    for path in files[:2]:
        matrix = np.array(told["files"][path.name]["cameras_to_file"])
        expected = plain @ matrix[:3, :3].T + matrix[:3, 3]
        assert np.cbrt(np.linalg.det(matrix[:3, :3])) == pytest.approx(0.25)
        assert np.abs(load(path).vertices - expected).max() < 1e-4  # float32 files, coordinates of 5
    chain = [np.array(link["matrix"]) for link in told["chain"]]
    roi = fitted.reconstruction.roi
    assert np.allclose(chain[0] @ [1, 0, 0, 1], [roi.center[0] + roi.radius, *roi.center[1:], 1])


def test_a_moved_mesh_does_not_take_the_place_of_the_runs_own(fitted: FitResult, tmp_path: Path) -> None:
    """Other commands read RUN/mesh.ply beside the cameras; what is scaled lies apart, its sidecar never outlives it."""
    folder, before = fitted.run.path, (fitted.run.path / "mesh.ply").read_bytes()
    files = api.export(folder, up="cameras")
    assert {path.parent for path in files} == {folder / "export"}
    assert (folder / "mesh.ply").read_bytes() == before
    with pytest.raises(ConfigError, match="choose another folder"):
        api.export(folder, up="cameras", output=folder)
    api.export(folder, output=folder / "export")
    assert not (folder / "export" / SIDECAR).exists()
    assert np.allclose(
        load(folder / "export" / "mesh.ply").bounds, load(folder / "mesh.ply").bounds, rtol=0.05
    )


@pytest.mark.parametrize(
    "frame",
    [{"up": "north"}, {"scale_from": ("1,2", "0,0,0", 1.0)}, {"scale_from": ("a.png@1", "b.png@2,3", 1.0)}],
)
def test_a_frame_that_cannot_be_is_refused_before_the_mesh_is_made(
    fitted: FitResult, monkeypatch: pytest.MonkeyPatch, frame: dict[str, Any]
) -> None:
    monkeypatch.setattr(TrainedModel, "mesh", lambda *_: pytest.fail("a mesh was made"))
    with pytest.raises(ConfigError, match=r"--up|--scale-from"):
        api.export(fitted.run.path, **frame)


def test_what_is_told_of_a_trimmed_mesh_is_true_of_it(fitted: FitResult, tmp_path: Path) -> None:
    files, whole = run_mesh(fitted.run.path, MeshRequest(watertight=False), tmp_path)
    sure = load(fitted.run.path / "mesh.ply").metadata["_ply_raw"]["vertex"]["data"]["confidence"]
    least = float(np.quantile(sure, 0.3))
    files, report = run_mesh(fitted.run.path, MeshRequest(watertight=False, trim=least), tmp_path)
    mesh = load(files[0])
    assert (report.faces, report.vertices) == (len(mesh.faces), len(mesh.vertices)) != (whole.faces, 0)
    assert report.watertight == mesh.is_watertight and report.hole_lengths != whole.hole_lengths
    with pytest.raises(ConfigError, match="--trim opens what --watertight closes"):
        run_mesh(fitted.run.path, MeshRequest(watertight=True, trim=least), tmp_path)


@pytest.mark.slow
def test_a_point_can_be_picked_in_a_photo(fitted: FitResult, tmp_path: Path) -> None:
    """Opposite photos look at the middle: what they see there lies about 2 · 1.2 to 2 · 1.8 apart."""
    ends = "00.png@24,24", "images/06.png@24,24"
    files = api.export(fitted.run.path, output=tmp_path, scale_from=(*ends, 1.0))
    matrix = np.array(json.loads(files[-1].read_text())["files"]["mesh.ply"]["cameras_to_file"])
    assert 2.0 < 1 / matrix[0, 0] < 4.5
    with pytest.raises(ConfigError, match="no surface under that pixel of 48 x 48"):
        api.export(fitted.run.path, output=tmp_path, scale_from=("00.png@0.5,0.5", ends[1], 1.0))
    with pytest.raises(ConfigError, match=r"no photo .99\.png."):
        api.export(fitted.run.path, output=tmp_path, scale_from=("99.png@1,1", ends[1], 1.0))


@pytest.mark.parametrize("seconds", [7.0, 12.5, 20.0, 28.0])
def test_a_texture_takes_the_time_that_there_is(seconds: float) -> None:
    faces, size = affordable_texture(seconds, seconds, 50_000, 2048, 50) or (0, 0)
    assert 0.9 * seconds <= texture_seconds(faces, size, 50) <= seconds
    assert faces / size**2 == pytest.approx(50_000 / 2048**2, rel=0.2)  # sizes are rounded


def test_without_time_a_texture_is_left_for_later() -> None:
    assert affordable_texture(1000, 1000, 50_000, 2048, 50) == (50_000, 2048)
    assert affordable_texture(1000, 1000, 600, 128, 50) == (600, 128)
    least = affordable_texture(1.0, 5.0, 50_000, 2048, 50)
    assert least is not None and 1.0 < texture_seconds(*least, 50) < 5.0, (
        "the report's time, rather than none"
    )
    assert affordable_texture(1.0, 2.0, 50_000, 2048, 50) is None
    assert affordable_texture(-5.0, -1.0, 600, 128, 50) is None


def test_extras_keep_seconds_back_from_the_fit_but_not_too_many() -> None:
    budget, plain = Budget(100, clock=lambda: 0.0), Budget(100, clock=lambda: 0.0)
    budget.keep_back(5)
    assert plain.fit_seconds_left() - 10 < budget.fit_seconds_left() < plain.fit_seconds_left() - 5
    assert budget.mesh_seconds() == pytest.approx(plain.mesh_seconds() - 6.5)
    budget.keep_back(1000)
    assert plain.fit_seconds_left() - budget.fit_seconds_left() == pytest.approx(100 * EXTRAS_FRACTION)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (MeshRequest(texture_size=10), "--texture-size"),
        (MeshRequest(trim=2.0), "--trim"),
        (MeshRequest(trim=0.5, watertight=True), "--trim opens what --watertight closes"),
        (MeshRequest(up="auto"), "stays in the cameras' frame"),
    ],
)
def test_a_mesh_that_cannot_be_made_is_refused_before_the_fit(
    request_: MeshRequest, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_fit(FitRequest(tmp_path, 1.0, tmp_path / "run", mesh=request_))
