"""A mesh beside another program's: planes with holes, shifts and similarities whose figures are known exactly."""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import bench_quality
from quality_bench import measure
from quality_bench.against import capture_with_cameras, load_reference, score_against
from quality_bench.captures import ALONE, CASES, GIVEN, OTHER_CAMERAS, OTHER_MESH, Against, select
from quality_bench.runs import figures_of

from quicksurf.app.run.folder import open_run
from quicksurf.capture.load import ReadOptions, read_scene
from quicksurf.capture.transforms import write_cameras
from quicksurf.errors import CaptureError, OutputError, SurfaceError
from quicksurf.geometry.cameras import Cameras, similarity
from quicksurf.geometry.paths import look_at

SIDE = 40  # cells along the plane [0, 1]²
N_SAMPLES = 60_000
FOUND = 1 - 2.0**-4  # has one of so few random points within two median distances: half have none within one
FRACTION = 0.01  # of samples in a region of a tenth: three standard deviations are 0.004
INNER = 0.96  # of the side, between the 2nd and 98th percentile of samples
DIAGONAL = INNER * 2**0.5
N_PHOTOS, SIZE = 8, 64


def plane(height: float = 0.0, hole: float = 0.0, bump: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """[0, 1]² at a height, without [0, hole] x [0, 1]; with a ridge across it if there is a bump."""
    at = np.linspace(0, 1, SIDE + 1)
    x, y = np.meshgrid(at, at, indexing="ij")
    z = height + bump * (np.sin(7 * x) + np.cos(5 * y + 2 * x))
    vertices = np.stack([x, y, z], -1).reshape(-1, 3)
    i, j = (grid.ravel() for grid in np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"))
    corner = i * (SIDE + 1) + j
    one = np.stack([corner, corner + SIDE + 1, corner + SIDE + 2], -1)
    two = np.stack([corner, corner + SIDE + 2, corner + 1], -1)
    keep = at[i] >= hole - 1e-9
    return vertices, np.concatenate([one[keep], two[keep]])


def photos() -> Cameras:
    """A ring of cameras above the plane that have all of it in their frames."""
    turns = torch.arange(N_PHOTOS, dtype=torch.float64) * (2 * torch.pi / N_PHOTOS)
    offsets = torch.stack([1.2 * turns.cos(), 1.2 * turns.sin(), 2 + 0.3 * (3 * turns).sin()], -1)
    center = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    return Cameras(
        c2w=look_at(center + offsets, center, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)),
        intrinsics=torch.tensor([[60.0, 60, SIZE / 2, SIZE / 2]], dtype=torch.float64).repeat(N_PHOTOS, 1),
        distortion=torch.zeros(N_PHOTOS, 6, dtype=torch.float64),
        fisheye=torch.zeros(N_PHOTOS, dtype=torch.bool),
        sizes=torch.full((N_PHOTOS, 2), SIZE),
    )


def names(folder: str = "") -> list[str]:
    return [f"{folder}{index}.png" for index in range(N_PHOTOS)]


def write_capture(folder: Path, vertices: np.ndarray, faces: np.ndarray, cameras: Cameras) -> Path:
    """A capture with the other mesh, and grey photos."""
    (folder / "images").mkdir(parents=True)
    for name in names("images/"):
        Image.new("RGB", (SIZE, SIZE), (128, 128, 128)).save(folder / name)
    trimesh.Trimesh(vertices, faces, process=False).export(folder / OTHER_MESH)
    write_cameras(folder / OTHER_CAMERAS, cameras, names("images/"), np.zeros(N_PHOTOS, bool))
    return folder


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return write_capture(tmp_path / "facade", *plane(), photos())


def scored(
    capture: Path, mesh: tuple[np.ndarray, np.ndarray], cameras: Path | None = None
) -> dict[str, float]:
    return score_against(*mesh, load_reference(capture, n_samples=N_SAMPLES), cameras, N_SAMPLES)


def test_the_same_mesh_agrees(capture):
    figures = scored(capture, plane())
    assert figures["agreement"] == figures["precision"] == figures["recall"] == 1
    assert figures["missed"] == figures["elsewhere"] == 0
    assert figures["median"] == pytest.approx(0, abs=1e-9)


def test_a_hole_is_missed_but_for_its_rim(capture):
    figures = scored(capture, plane(hole=0.25))
    assert figures["missed"] / 100 == pytest.approx(0.25 - 0.01 * DIAGONAL, abs=FRACTION)
    assert figures["elsewhere"] == 0 and figures["precision"] == 1
    assert figures["recall"] == pytest.approx(0.75 * FOUND, abs=FRACTION)


def test_what_the_other_lacks_is_elsewhere_and_costs_no_precision(tmp_path):
    capture = write_capture(tmp_path / "facade", *plane(hole=0.25), photos())
    low, high = 0.25 + 0.75 * 0.02, 1 - 0.75 * 0.02
    diagonal = np.hypot(high - low, INNER)
    figures = scored(capture, plane())
    assert figures["elsewhere"] / 100 == pytest.approx(0.25 - 0.01 * diagonal, abs=FRACTION)
    assert figures["missed"] == 0 and figures["precision"] == 1


def test_a_shift_is_the_median_and_decides_precision(capture):
    for percent, precision in ((0.15, 1), (0.3, 0)):
        figures = scored(capture, plane(height=percent / 100 * DIAGONAL))
        assert figures["median"] == pytest.approx(percent, rel=0.01)
        assert figures["precision"] == precision and figures["missed"] == 0


def test_nothing_near_is_all_missed_and_has_no_median(capture):
    figures = scored(capture, plane(height=0.5))
    assert figures == {"missed": 100, "elsewhere": 100, "recall": 0, "agreement": 0}


@pytest.mark.slow
def test_a_frame_of_its_own_is_aligned(tmp_path):
    """Cameras that are off by 0.5 % leave the surface to finish the alignment; a hole does not pull it."""
    capture = write_capture(tmp_path / "facade", *plane(bump=0.08), photos())
    turn = torch.linalg.qr(torch.tensor([[1.0, 2, 0], [-1, 1, 3], [2, 0, 1]], dtype=torch.float64))[0]
    turn *= torch.linalg.det(turn).sign()
    shift = torch.tensor([5.0, -3.0, 2.0], dtype=torch.float64)
    moved = similarity(photos(), 3.0, turn, shift)
    moved.c2w[:, :, 3] += 0.015 * torch.from_numpy(np.random.default_rng(0).standard_normal((N_PHOTOS, 3)))
    write_cameras(tmp_path / "cameras.json", moved, names(), np.zeros(N_PHOTOS, bool))
    vertices, faces = plane(bump=0.08, hole=0.25)
    mesh = 3 * vertices @ turn.numpy().T + shift.numpy(), faces
    figures = scored(capture, mesh, tmp_path / "cameras.json")
    exact = scored(capture, (vertices, faces))
    assert figures["median"] < 0.02 and figures["precision"] > 0.999
    assert figures["missed"] == pytest.approx(exact["missed"], abs=0.1)
    assert scored(capture, mesh)["missed"] == 100  # as it lies


def test_cameras_of_another_capture_are_refused(capture, tmp_path):
    others = [f"other-{name}" for name in names()]
    write_cameras(tmp_path / "cameras.json", photos(), others, np.zeros(N_PHOTOS, bool))
    with pytest.raises(CaptureError, match="0 photos of the run"):
        scored(capture, plane(), tmp_path / "cameras.json")


def test_only_what_enough_photos_have_in_their_frame_counts(tmp_path):
    """Two of the eight cameras look at the plane: a quarter, but fewer than three."""
    cameras = photos()
    cameras.c2w[2:, :, 1:3] *= -1  # turned about their own x axes, to look away
    capture = write_capture(tmp_path / "facade", *plane(), cameras)
    with pytest.raises(SurfaceError, match="too few photos"):
        load_reference(capture, n_samples=1000)


def test_only_what_the_masks_have_inside_counts(capture):
    """The masks are black where x < 1/2 projects to, so that a mesh without that half misses nothing."""
    (capture / "masks").mkdir()
    cameras = photos()
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    for view, name in enumerate(names()):
        fx, fy, cx, cy = cameras.intrinsics[view].tolist()
        rays = np.stack([(columns - cx) / fx, (rows - cy) / fy, np.ones_like(rows)], -1)
        c2w = cameras.c2w[view].numpy()
        directions = rays @ c2w[:, :3].T
        x = c2w[0, 3] - c2w[2, 3] / directions[..., 2] * directions[..., 0]
        Image.fromarray(np.where(x > 0.5, 255, 0).astype(np.uint8)).save(capture / "masks" / name)
    points = load_reference(capture, inside_masks=True, n_samples=20_000).samples.points
    pixel = 2.5 / 60 * 1.5  # of a camera that looks down at a slant
    assert 0.5 - pixel < points[:, 0].min() < 0.5 + pixel and points[:, 0].max() > 0.99


def test_a_capture_with_the_other_cameras_is_read_with_them(capture, tmp_path):
    for _ in range(2):  # again, for the next minutes
        place = capture_with_cameras(capture, tmp_path / "made")
    scene = read_scene(place, ReadOptions(max_pixels=SIZE**2, use_masks=False, say=lambda line: None))
    assert torch.allclose(scene.cameras.c2w.double(), photos().c2w) and len(scene.images) == N_PHOTOS
    (capture / OTHER_CAMERAS).unlink()
    with pytest.raises(OutputError, match="expected images/"):
        capture_with_cameras(capture, tmp_path / "made")


def test_cases_need_the_other_mesh(capture):
    cases = [case for case in CASES if case.against is not None]
    assert {case.against for case in cases} == {Against(g, m) for g in (False, True) for m in (False, True)}
    assert all(case.options[-2:] == ("--keep", "scene") and case.minutes == (3, 10) for case in cases)
    capture.rename(capture.with_name("sceaux"))
    pattern = "sceaux"
    assert [case.inputs for case in select(pattern, capture.parent).present] == [ALONE, GIVEN]
    (capture.with_name("sceaux") / OTHER_MESH).unlink()
    assert select(pattern, capture.parent).present == []


def test_a_run_says_what_it_cost(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"format": "quicksurf run", "version": 1, "source": "x"}))
    summary = {"psnr_held_out": 21.0, "registered": 8, "seconds": {"total": 180.5}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    reports = [(1.0, 10.0, 60.0), (2.0, 20.0, 20.0), (3.0, 25.0, 30.0)]
    keys = ("seconds", "psnr", "evaluations_per_ray")
    lines = [json.dumps(dict(zip(keys, report, strict=True))) for report in reports]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    figures = {"psnr": 21, "psnr_training": 25, "evaluations": 30, "photos": 8, "seconds": 180.5}
    assert figures_of(open_run(tmp_path)) == figures


def test_a_run_that_is_there_is_scored_in_one_line(capture, tmp_path, capsys, monkeypatch):
    for name in ("load_reference", "score_against"):
        monkeypatch.setattr(measure, name, partial(getattr(measure, name), n_samples=N_SAMPLES))
    run = tmp_path / "run"
    run.mkdir()
    trimesh.Trimesh(*plane(hole=0.25), process=False).export(run / "mesh.ply")
    assert bench_quality.main(["--against", str(capture), str(run), "--given"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"facade, {GIVEN}, {run} | ") and "missed % 23" in line and "F 0.2 %" in line
    assert bench_quality.main(["--against", str(capture), str(tmp_path / "none")]) != 0
    with pytest.raises(SystemExit):
        bench_quality.main(["--given"])
    assert "--against CAPTURE RUN" in capsys.readouterr().err
