"""A comparison of methods on the tiny capture: its page, a method that fails, resuming, shared poses."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import trimesh
from batch_folders import never, replaced_fit
from playwright.sync_api import Browser
from tiny_capture import AXES, CENTER, write_capture

from quicksurf.app.batch.task import Outcome, Task
from quicksurf.app.cli import main
from quicksurf.app.compare import run as compare_run
from quicksurf.app.compare.lineage import Section, idr_and_masks
from quicksurf.app.compare.measure import Findings, Result
from quicksurf.app.compare.page import in_rows
from quicksurf.app.compare.pictures import at_size, draw, render_surface
from quicksurf.app.compare.request import CompareRequest, open_comparison
from quicksurf.app.metrics import psnr
from quicksurf.app.report.charts import marks
from quicksurf.app.run.folder import Run, open_run
from quicksurf.capture.assemble import ReadOptions
from quicksurf.capture.load import read_scene
from quicksurf.capture.scene import Scene
from quicksurf.capture.transforms import CameraFile
from quicksurf.errors import ConfigError, OutputError, RoiError
from quicksurf.files import write_json
from quicksurf.mesh.types import Mesh
from quicksurf.model import TrainedModel

TINY = str(Path(__file__).with_name("tiny.toml"))
MINUTES = 0.3  # 18 s, of which a busy machine leaves five to the fit
LEAST_AGREEMENT = (
    20.0  # dB between the two renderings of a field after five seconds; a ball beside it gives 9
)
LEAST_OVERLAP = 0.9  # of outlines some 15 pixels wide, drawn at a pixel's middle and counted by area


def request_in(folder: Path, **changes: Any) -> CompareRequest:
    given: dict[str, Any] = {
        "source": folder / "capture",
        "methods": ("nerf", "unisurf", "colmap"),
        "minutes": MINUTES,
        "output": folder / "out",
        "preset": TINY,
        "device": "cpu",
    }
    return CompareRequest(**{**given, **changes})


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Outcome], list[str]]:
    """A comparison by the public command's function: a method that is fitted, and one that finds no points."""
    folder = tmp_path_factory.mktemp("compared")
    write_capture(folder / "capture")
    lines: list[str] = []
    outcomes = list(compare_run.run_compare(request_in(folder), never, lines.append))
    return folder, outcomes, lines


@pytest.mark.slow
def test_a_method_that_fails_stands_in_the_table_with_its_reason(
    compared: tuple[Path, list[Outcome], list[str]],
) -> None:
    folder, outcomes, lines = compared
    assert [(one.name, one.state) for one in outcomes] == [
        ("nerf", "done"),
        ("unisurf", "done"),
        ("colmap", "failed"),
    ]
    assert lines[-2:] == [str(folder / "out" / name) for name in ("index.html", "index.md")]
    for page in (folder / "out" / "index.html", folder / "out" / "index.md"):
        text = page.read_text()
        assert re.search(r"classical stereo.{0,60}failed: the photos show fewer than 100 points", text, re.S)
        for part in ("Density levels", "volume rendering", "Interval", "evaluations a ray", "silhouettes"):
            assert part in text
        assert "IDR with and without masks" not in text, "it was not asked for"


@pytest.mark.slow
def test_pictures_of_the_markdown_page_exist(compared: tuple[Path, list[Outcome], list[str]]) -> None:
    out = compared[0] / "out"
    named = re.findall(r"\]\((images/[^)]+)\)", (out / "index.md").read_text())
    assert len(named) > 5
    assert {out / name for name in named} == set((out / "images").iterdir())


@pytest.mark.slow
def test_the_page_loads_nothing(compared: tuple[Path, list[Outcome], list[str]], browser: Browser) -> None:
    page = browser.new_page()
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto((compared[0] / "out" / "index.html").as_uri())
    page.evaluate("document.querySelectorAll('img').forEach(image => { image.loading = 'eager'; })")
    page.wait_for_function("[...document.images].every(image => image.complete)")
    widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) > 6 and min(widths) > 0
    assert len([url for url in asked if not url.startswith("data:")]) == 1, "the page itself"
    assert not complaints
    page.close()


@pytest.mark.slow
def test_what_is_done_is_left_alone_and_keeps_its_date(
    compared: tuple[Path, list[Outcome], list[str]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(compared[0] / "out", out)
    record = json.loads((out / "compare.json").read_text())
    record["methods"]["nerf"]["date"] = "long ago"
    write_json(out / "compare.json", record)
    (out / "index.html").unlink()
    before = (out / "nerf" / "summary.json").stat().st_mtime
    request = request_in(compared[0], output=out, methods=("nerf",))
    (outcome,) = compare_run.run_compare(request, never, lambda text: None)
    assert (outcome.state, outcome.seconds) == ("done", 0.0)
    assert (out / "nerf" / "summary.json").stat().st_mtime == before
    kept = json.loads((out / "compare.json").read_text())["methods"]
    assert kept["nerf"]["date"] == "long ago" and kept["colmap"]["state"] == "failed"
    assert "classical stereo" in (out / "index.html").read_text(), "rows of earlier commands stay"


@pytest.mark.slow
def test_both_renderings_of_a_sharp_field_agree(compared: tuple[Path, list[Outcome], list[str]]) -> None:
    model = open_run(compared[0] / "out" / "unisurf").model("cpu")
    camera = at_size(model.cameras, 0, 48)
    volume, surface = model.render(camera), render_surface(model, camera)
    assert psnr(surface, volume.color.numpy()) > LEAST_AGREEMENT
    assert (surface[~np.isfinite(volume.depth.numpy())] == 1).all(), (
        "rays that miss are white in masked captures"
    )


def ellipsoid() -> Mesh:
    """The surface of the tiny capture, in red."""
    sphere = trimesh.creation.icosphere(4)
    normals = sphere.vertices / AXES.numpy()
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    colors = np.full((len(normals), 3), [250, 0, 0], np.uint8)
    return Mesh(
        sphere.vertices * AXES.numpy() + CENTER.numpy(), sphere.faces.astype(np.int64), colors, normals
    )


def test_a_mesh_is_drawn_where_its_mask_is(tmp_path: Path) -> None:
    scene = read_scene(write_capture(tmp_path / "capture"), ReadOptions(48 * 48, say=lambda text: None))
    for view in (0, 5):
        drawing, mask = draw(ellipsoid(), at_size(scene.cameras, view, 48)), scene.masks[view]
        assert mask is not None
        inside = mask > 127
        assert (drawing.covered & inside).sum() / (drawing.covered | inside).sum() > LEAST_OVERLAP
        assert (drawing.colors[drawing.covered & inside][:, 0] > 200).all()
        assert (drawing.clay[:4] == 255).all(), "before white"


def result_of(name: str, scene: Scene, masked: bool, failure: str = "") -> Result:
    cameras = CameraFile(scene.cameras, scene.names, scene.held_out)
    model = Mock(spec=TrainedModel, masked=masked)
    return Result(
        name, {}, cameras=cameras, model=model, mesh=None if failure else ellipsoid(), failure=failure
    )


def test_idr_stands_beside_its_fit_without_masks(tmp_path: Path) -> None:
    scene = read_scene(write_capture(tmp_path / "capture"), ReadOptions(48 * 48, say=lambda text: None))
    comparison = open_comparison(request_in(tmp_path))
    with_masks, without = result_of("idr", scene, True), result_of("idr-no-masks", scene, False, "no surface")

    def section(*results: Result) -> Section | None:
        return idr_and_masks(Findings(comparison, list(results), scene, [0], True, None))

    shown = section(with_masks, without)
    assert shown is not None and "no mesh: no surface" in shown.text and len(shown.pictures) == 2
    both = section(with_masks, result_of("idr-no-masks", scene, False))
    assert both is not None and [one.caption for one in both.pictures] == ["photo", "IDR", "IDR, no masks"]
    assert section(with_masks) is None
    assert section(result_of("idr", scene, False), without) is None, "the capture has no masks"


def test_marks_stand_at_their_values() -> None:
    drawn = str(marks("t", "radii", {"a": ([0.0, 1.0, 2.0], [1.0]), "b": ([0.5], [])}))
    places = [float(x) for x in re.findall(r'class="line s\d" x1="([\d.]+)"', drawn)]
    first, middle, last, thick, quarter = places
    assert middle == thick == pytest.approx((first + last) / 2, abs=0.1)
    assert quarter == pytest.approx((3 * first + last) / 4, abs=0.1)


def test_a_folder_of_another_comparison_is_refused(tmp_path: Path) -> None:
    write_capture(tmp_path / "capture")
    open_comparison(request_in(tmp_path)).save()
    known = open_comparison(request_in(tmp_path, methods=("idr",))).methods
    assert list(known) == ["nerf", "unisurf", "colmap", "idr"]
    for changes, named in (({"minutes": 2.0}, "minutes"), ({"seed": 3}, "options")):
        with pytest.raises(OutputError, match=f"with other {named}"):
            open_comparison(request_in(tmp_path, **changes))
    record = json.loads((tmp_path / "out" / "compare.json").read_text())
    for damage in ({"methods": None}, {"methods": {"../..": {}}}, {"methods": {"idr": {"load": "x"}}}):
        write_json(tmp_path / "out" / "compare.json", {**record, **damage})
        with pytest.raises(OutputError, match="damaged"):
            open_comparison(request_in(tmp_path))


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    refused: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"minutes": 0.0}, ConfigError),
        ({"minutes": float("nan")}, ConfigError),
        ({"views": 0}, ConfigError),
        ({"methods": ()}, ConfigError),
        ({"truth": tmp_path / "none.ply"}, ConfigError),
        ({"roi": "1,2,3"}, RoiError),
    ]
    for changes, kind in refused:
        with pytest.raises(kind):
            list(compare_run.run_compare(request_in(tmp_path, **changes), never, lambda text: None))
    assert not (tmp_path / "out").exists()


def test_all_methods_get_the_same_options_but_for_masks(tmp_path: Path) -> None:
    request = request_in(tmp_path, seed=4, keep="scene", masks="make")
    assert request.options("idr") == (
        "--masks=make",
        "--keep=scene",
        "--seed=4",
        f"--preset={TINY}",
        "--method=idr",
        "--hold-out=keep",
    )
    assert request.options("idr-no-masks")[0] == "--masks=none"
    assert "--method=idr" in request.options("idr-no-masks")
    assert request.options("colmap") == ("--masks=make", "--keep=scene", "--seed=4")


def test_methods_run_one_after_another_with_their_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command line as a whole, with a program that writes down what it is asked in the place of the fits."""
    capture = write_capture(tmp_path / "capture")
    seen = tmp_path / "seen"
    code = f"import sys; open({str(seen)!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10)); sys.exit('quicksurf: no')"
    replaced_fit(monkeypatch, tmp_path, code)
    arguments = ["compare", str(capture), "--methods", "unisurf", "idr-no-masks", "--minutes", "1"]
    assert main([*arguments, "--seed", "7", "--output", str(tmp_path / "out")]) == 9
    said = capsys.readouterr()
    assert "unisurf: failed after" in said.out and "no method has a mesh" in said.err
    first, second = seen.read_text().splitlines()
    assert "--method=unisurf --hold-out=keep" in first and "--masks" not in first
    assert "--masks=none --seed=7" in second and "--method=idr " in second
    assert all(line.startswith(f"fit {capture} --output {tmp_path / 'out'}") for line in (first, second))


def test_poses_that_are_found_are_given_to_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos alone: the search for poses is replaced by the capture's own cameras, everything else is real."""
    capture, found = write_capture(tmp_path / "posed"), []
    shutil.copytree(capture / "images", tmp_path / "capture")

    def pose(run: Run, model: None, options: ReadOptions) -> Any:
        scene = replace(read_scene(capture, options), source=capture)
        scene.report.seconds_poses = 12.0
        found.append(run.path.name)
        return scene

    monkeypatch.setattr(Run, "scene", pose)
    monkeypatch.setattr(compare_run, "write_pages", lambda *rest: [])
    replaced_fit(monkeypatch, tmp_path, "")
    for _ in range(2):
        list(
            compare_run.run_compare(
                request_in(tmp_path, methods=("unisurf", "nerf")), never, lambda text: None
            )
        )
    assert found == ["poses"], "once, and not again"
    for method in ("unisurf", "nerf"):
        run = open_run(tmp_path / "out" / method)
        assert run.state == "new" and Path(run.record["posed_images"]) == capture.resolve()
        assert (run.path / "cameras.json").read_text() == (tmp_path / "out/poses/cameras.json").read_text()
    truth = tmp_path / "truth.ply"
    truth.write_text("")
    with pytest.raises(ConfigError, match="frame of given cameras"):
        list(compare_run.run_compare(request_in(tmp_path, truth=truth), never, lambda text: None))


def test_a_cluster_runs_the_same_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself is tested with batches: here a stand-in says what it is given."""
    write_capture(tmp_path / "capture")
    given = []

    def on_ray(tasks: list[Task], address: str, device: str, should_stop: Any) -> Any:
        given.extend([address, *tasks])
        yield from (Outcome(task.name, "done", 0, "", 1.0) for task in tasks)

    monkeypatch.setattr("quicksurf.app.batch.cluster.run_on_ray", on_ray)
    monkeypatch.setattr(compare_run, "write_pages", lambda *rest: [])
    request = request_in(tmp_path, ray="local")
    assert len(list(compare_run.run_compare(request, never, lambda text: None))) == 3
    programs = [task.program[0] for task in given[1:]]
    assert given[0] == "local" and programs == ["quicksurf", "quicksurf", "quicksurf.app.compare.classical"]
    record = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert record["methods"]["nerf"]["load"] is None, "the load of this machine says nothing"


def test_pictures_stand_in_rows_on_white() -> None:
    images = [
        np.full((4, 6, 3), 10, np.uint8),
        np.full((2, 3, 3), 20, np.uint8),
        np.full((4, 6, 3), 30, np.uint8),
    ]
    sheet = in_rows(images, most=2)
    assert sheet.shape == (8, 12, 3)
    assert (sheet[:4, :6] == 10).all() and (sheet[:2, 6:9] == 20).all() and (sheet[4:, :6] == 30).all()
    assert (sheet[2:4, 6:] == 255).all() and (sheet[4:, 6:] == 255).all()
