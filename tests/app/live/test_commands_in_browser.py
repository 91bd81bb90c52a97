"""`fit --view` and `view RUN` as they are used: the command in a process of its own, the page in a real browser."""

import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from playwright.sync_api import Browser, Page
from processes import wait_for
from test_page import PATIENCE, wait_until
from tiny_capture import write_capture

TINY = str(Path(__file__).parents[2] / "tiny.toml")
MINUTES = 5  # more than anybody waits for: the click ends the fit
STEPS = 300  # after which the ellipsoid is no sphere any more
PASTEL = 40  # between the channels of a pixel: the page is grey but for the mesh and its buttons

FEW = 800  # pixels: the mesh covers thousands


@contextmanager
def command(*arguments: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """`quicksurf ARGUMENTS` and the address of its page; killed at the end of the block if it still runs."""
    line = [sys.executable, "-m", "quicksurf", *arguments]
    elsewhere = tempfile.gettempdir()  # a source folder must not hide what is installed
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=elsewhere
    ) as process:
        try:
            assert process.stdout is not None
            address = next((m[0] for text in process.stdout if (m := re.search(r"http://\S+", text))), None)
            assert address is not None, f"no page; exit code {process.wait()}"
            yield process, address
        finally:
            process.kill()


@contextmanager
def page_at(browser: Browser, address: str) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 900, "height": 700}, accept_downloads=True)
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    yield page
    page.close()


def n_steps(metrics: Path) -> int:
    """Of the last whole line."""
    lines = metrics.read_text().split("\n")[:-1] if metrics.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def load(path: Path) -> Any:
    return trimesh.load(path, process=False)


def press(page: Page, button: str) -> None:
    page.get_by_role("button", name=button).click()


@pytest.fixture(scope="module")
def run(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that a click on Stop and keep ended."""
    folder = tmp_path_factory.mktemp("browser")
    capture, output = write_capture(folder / "capture"), folder / "run"
    fit = "fit", str(capture), "--view", "--minutes", str(MINUTES), "--preset", TINY, "--output", str(output)
    with command(*fit) as (process, address), page_at(browser, address) as page:
        press(page, "Start the fit")
        page.get_by_text("rays/s").wait_for()
        wait_for(lambda: n_steps(output / "metrics.jsonl") >= STEPS)
        press(page, "Stop and keep")
        rest, _ = process.communicate(timeout=PATIENCE / 1000)
    assert process.returncode == 0, rest
    return output


@pytest.mark.slow
def test_stop_and_keep_leaves_mesh_and_report(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert summary["stopped_early"] and summary["seconds"]["total"] < 60 * MINUTES / 2
    assert len(load(run / "mesh.ply").faces) == summary["faces"] > 100
    assert 'id="viewer"' in (run / "report.html").read_text()


@pytest.mark.slow
def test_a_finished_run_is_shown_painted_anew_and_exported(
    run: Path, browser: Browser, tmp_path: Path
) -> None:
    pictures: list[np.ndarray] = []

    def middle(image: np.ndarray) -> np.ndarray:
        return image[100:600, 50:550, :3].astype(int)

    def colourful(image: np.ndarray) -> bool:
        part = middle(image)
        pictures.append(part)
        return int((np.ptp(part, axis=-1) > PASTEL).sum()) > FEW

    def repainted(image: np.ndarray) -> bool:
        return int((np.abs(middle(image) - in_colour).max(-1) > PASTEL).sum()) > FEW

    with command("view", str(run)) as (process, address), page_at(browser, address) as page:
        page.get_by_text(f"{run.name}: ").wait_for()
        page.get_by_role("checkbox").first.uncheck()  # a photo stands before the mesh
        wait_until(page, tmp_path / "colour.png", colourful)
        in_colour = pictures[-1]
        page.get_by_label("Surface").click()
        page.get_by_role("option", name="normals").click()
        wait_until(page, tmp_path / "normals.png", repainted)
        with page.expect_download() as download:
            press(page, "Export the mesh shown")
        download.value.save_as(tmp_path / "mesh.ply")
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE / 1000)
    shown, exported = load(run / "mesh.ply"), load(tmp_path / "mesh.ply")
    assert exported.vertices == pytest.approx(shown.vertices, rel=1e-5)
    assert (exported.faces == shown.faces).all()
    assert process.returncode == 0
