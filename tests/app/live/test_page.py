"""The page in a real browser: it opens, the mesh appears, a click exports a file, nothing is asked of the network."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import trimesh
from playwright.sync_api import Browser, Page
from tiny_capture import write_capture

from quicksurf.app.live.nodes import Nodes
from quicksurf.app.live.panel import SidePanel
from quicksurf.app.live.server import Address, serving, url_of
from quicksurf.capture.load import ReadOptions, read_scene
from quicksurf.mesh.types import Mesh

pytestmark = pytest.mark.slow

PATIENCE = 300_000  # milliseconds: WebGL is drawn in software here
GREEN = (20, 220, 40)  # nothing else on the page is


def test_page_opens_shows_the_mesh_and_exports_it(browser: Browser, tmp_path: Path) -> None:
    scene = read_scene(write_capture(tmp_path / "capture"), ReadOptions(max_pixels=48 * 48))
    ball = trimesh.creation.icosphere(3, 0.6 * scene.roi.radius)
    ball.apply_translation(scene.roi.center)
    colors = ball.vertices.astype("uint8") * 0 + GREEN
    mesh = Mesh(ball.vertices, ball.faces.astype("int64"), colors.astype("uint8"), ball.vertex_normals.copy())
    with serving(Address(), "quicksurf") as server:
        panel = SidePanel(server, lambda action: None)
        panel.nodes = Nodes(server, scene)
        panel.nodes.show_mesh(mesh)
        panel.headline("Fitting: 1:23 left", 0.5)
        page = browser.new_page(viewport={"width": 900, "height": 700}, accept_downloads=True)
        page.set_default_timeout(PATIENCE)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url_of(server))
        page.get_by_text("Fitting: 1:23 left").wait_for()
        wait_for_green(page, tmp_path)
        with page.expect_download() as download:
            page.get_by_role("button", name="Export the mesh shown").click()
        download.value.save_as(tmp_path / "mesh.ply")
        page.close()
    assert asked and all(url.startswith((url_of(server), "data:", "blob:")) for url in asked)
    exported = trimesh.load(tmp_path / "mesh.ply", process=False)
    assert len(exported.faces) == len(ball.faces)
    assert exported.vertices == pytest.approx(ball.vertices, rel=1e-5)


def wait_for_green(page: Page, folder: Path) -> None:
    """Until at least 2000 pixels of a picture of the page are as green as the mesh."""

    def green(image: np.ndarray) -> bool:
        red, green, blue = image[..., :3].astype(int).transpose(2, 0, 1)
        return int(((green > red + 60) & (green > blue + 60)).sum()) > 2000

    wait_until(page, folder / "page.png", green)


def wait_until(page: Page, picture: Path, shown: Callable[[np.ndarray], bool]) -> None:
    """Take pictures of the page until one is as it should be."""
    end = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < end:
        page.screenshot(path=picture, timeout=PATIENCE)
        if shown(imageio.imread(picture)):
            return
        threading.Event().wait(0.5)
    pytest.fail("the mesh does not appear")
