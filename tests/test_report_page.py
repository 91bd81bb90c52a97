"""The report of whole runs: its page as text and in a browser, its figures beside those of other commands."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import trimesh
from cut_fit import cut_to
from playwright.sync_api import Browser
from tiny_capture import write_capture

from quicksurf.app.evaluate import evaluate
from quicksurf.app.fit import run_fit
from quicksurf.app.report.collect import Findings, TimeLimit, collect, surface_seconds
from quicksurf.app.report.page import report_run
from quicksurf.app.requests import FitRequest
from quicksurf.app.run.folder import open_run
from quicksurf.capture.assemble import ReadOptions
from quicksurf.mesh.export import read_mesh, write_mesh
from quicksurf.mesh.types import Mesh


class Page(HTMLParser):
    """What a browser would make of the page: tags, and the text outside of style and script."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


FIGURE = 0.1  # dB: the page rounds to a tenth and compares with 8-bit photos


@pytest.fixture(scope="module")
def masked_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny capture with masks before a red wall, whose cameras were moved after they were read."""
    folder = write_capture(tmp_path_factory.mktemp("masked") / "capture")
    for path in (folder / "images").iterdir():
        photo, mask = imageio.imread(path), imageio.imread(folder / "masks" / path.name)
        imageio.imwrite(path, np.where(mask[..., None] > 0, photo, np.array([200, 30, 30], np.uint8)))
    path, preset = folder.parent / "run", str(Path(__file__).parent / "tiny.toml")
    run_fit(FitRequest(folder, 20.0, path, preset=preset, hold_out="keep"), fit=cut_to(3.0))
    run = open_run(path)
    reconstruction = run.model("cpu")
    assert reconstruction.masked
    reconstruction.cameras.c2w[:, :, 3] += 0.3 * reconstruction.cameras.c2w[:, :, 0]  # three pixels
    run.save_checkpoint(reconstruction)
    return path


def findings(path: Path, clock: TimeLimit, max_pixels: int = 48 * 48) -> Findings:
    """What the page of a run says, its photos kept with `max_pixels`."""
    run = open_run(path)
    reconstruction = run.model("cpu")
    scene = run.scene(reconstruction, ReadOptions(max_pixels, say=lambda line: None))
    return collect(run, {}, reconstruction, scene, read_mesh(path / "mesh.ply"), clock)


@pytest.mark.slow
def test_photos_are_not_read_again_for_the_page(masked_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_again(path: Path, *rest: object) -> None:
        pytest.fail(f"{path} is read again")

    monkeypatch.setattr("quicksurf.app.export.products.read_pixels", read_again)
    found = findings(masked_run, TimeLimit(None), max_pixels=20 * 20)
    assert found.surface is not None and found.surface.n_views.max() >= 2


@pytest.mark.slow
def test_the_mesh_is_left_out_where_its_photos_take_longer(masked_run: Path) -> None:
    n_faces = len(read_mesh(masked_run / "mesh.ply").faces)
    for spare in (-0.01, 0.01):
        clock = TimeLimit(surface_seconds(n_faces, 12) + spare, now=lambda: 0.0)
        found = findings(masked_run, clock)
        assert (found.surface is not None) == (spare > 0) == (not any("the mesh" in n for n in found.notes))
    assert surface_seconds(n_faces, 312) > surface_seconds(n_faces, 12) + 5  # a photo takes 23 to 40 ms


@pytest.mark.slow
def test_curves_of_a_run_that_went_on_run_forward(masked_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(masked_run, path)
    with open(path / "metrics.jsonl", "a") as file:
        for seconds in (0.5, 2.0, 4.0):
            file.write(
                json.dumps({"seconds": seconds, "psnr": 20.0, "psnr_held_out": 19.0, "loss": 0.1}) + "\n"
            )
    drawn = re.findall(r'<polyline class="line s\d" points="([^"]+)"', report_run(path, "cpu").read_text())
    assert len(drawn) == 3, "two kinds of photos, and the loss"
    for line in drawn:
        across = [float(point.split(",")[0]) for point in line.split()]
        assert len(across) >= 4 and across == sorted(across)


@pytest.mark.slow
def test_figures_of_a_masked_run_are_those_of_eval(masked_run: Path) -> None:
    measured = "\n".join(evaluate(masked_run, None, None, 3, "cpu"))
    known = [float(value) for value in re.findall(r"PSNR ([\d.]+) dB, SSIM .*\n", measured)]
    on_page = re.findall(r"kept from the fit; ([\d.]+) dB", report_run(masked_run, "cpu").read_text())
    assert len(known) == len(on_page) == 2
    assert [float(value) for value in on_page] == pytest.approx(known, abs=FIGURE)


HOSTILE = "<img src=x onerror=alert(1)>&\"'.png"


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a capture whose files are named to break a page, fitted for a moment."""
    folder = write_capture(tmp_path_factory.mktemp("page") / "<script>alert(2)<")
    images = folder / "images"
    (images / "00.png").rename(images / HOSTILE.replace("/", ""))
    cameras = folder / "transforms.json"
    escaped = HOSTILE.replace('"', '\\"')
    cameras.write_text(cameras.read_text().replace("images/00.png", f"images/{escaped}"))
    (folder / "masks").rename(folder / "unused")
    preset = str(Path(__file__).parent / "tiny.toml")
    run = folder.parent / "run"
    run_fit(FitRequest(folder, minutes=0.5, output=run, preset=preset, masks="none"))
    return run


@pytest.mark.slow
def test_report_of_a_run_with_hostile_names(hostile_run: Path) -> None:
    text = report_run(hostile_run, "cpu").read_text()
    assert len(text) < 10_000_000
    page = Page()
    page.feed(text)
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert [tag for tag, _ in page.tags].count("script") == 2, "the mesh and the viewer"
    assert any(HOSTILE in piece for piece in page.text), "the name is shown as it is"
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:"), "nothing is loaded"
    assert "default-src 'none'" in text
    captions = {"photo", "render", "normals"}
    assert captions <= {piece.strip() for piece in page.text}


@pytest.mark.slow
def test_report_in_a_browser_asks_for_nothing_and_fits_a_phone(hostile_run: Path, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(300_000)  # milliseconds: a machine with much other work
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(report_run(hostile_run, "cpu").resolve().as_uri())
    page.locator("#viewer.live").wait_for()
    page.get_by_role("button", name="Confidence").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
    assert asked and all(url.startswith(("file:", "data:", "blob:")) for url in asked)
    assert not wrong


@pytest.mark.slow
def test_report_without_photos_and_with_another_mesh(hostile_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(hostile_run, run)
    record = (run / "run.json").read_text().replace("alert(2)", "gone")
    (run / "run.json").write_text(record)
    (run / "summary.json").unlink()
    for path in run.glob("mesh.*"):
        path.unlink()
    text = report_run(run, "cpu").read_text()
    assert "the photos are not shown" in text
    assert "the mesh is not shown" in text
    write_mesh(ball(), run, "mesh", ("obj",))
    assert 'id="mesh"' in report_run(run, "cpu").read_text()


def ball() -> Mesh:
    sphere = trimesh.creation.icosphere(2)
    vertices = np.asarray(sphere.vertices, np.float64)
    colors = np.full((len(vertices), 3), 180, np.uint8)
    return Mesh(vertices, np.asarray(sphere.faces, np.int64), colors, vertices)
