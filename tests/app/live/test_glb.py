"""GLBs, textured and coloured, as three.js shows them: viser's page is three.js, so its own loader is in the test."""

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import trimesh
from playwright.sync_api import Browser
from test_page import PATIENCE, wait_until

from quicksurf.app.live.server import Address, serving, url_of
from quicksurf.mesh.export import write_mesh
from quicksurf.mesh.texture.bake import TexturedMesh
from quicksurf.mesh.texture.files import write_textured
from quicksurf.mesh.types import Mesh

pytestmark = pytest.mark.slow

QUARTERS = np.array([[[220, 20, 20], [20, 220, 20]], [[20, 20, 220], [220, 220, 20]]], np.uint8)
"""Red, green; blue, yellow: each flip or turn of the texture shows."""


def square() -> TexturedMesh:
    """A square in x and y, y up, that faces +z and shows QUARTERS as they stand."""
    corners = np.array([[-1.0, 1, 0], [1, 1, 0], [-1, -1, 0], [1, -1, 0]])
    uvs = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32)
    faces = np.array([[0, 2, 1], [1, 2, 3]])
    texture = np.repeat(np.repeat(QUARTERS, 32, 0), 32, 1)
    return TexturedMesh(corners, faces, np.tile([0.0, 0, 1], (4, 1)), uvs, texture, 1.0)


def test_three_js_shows_the_texture_the_right_way_round(browser: Browser, tmp_path: Path) -> None:
    glb = write_textured(square(), tmp_path, "square")[0]
    assert trimesh.load(glb, force="mesh").extents[2] == 0
    with serving(Address(), "quicksurf") as server:
        server.scene.world_axes.visible = False
        server.initial_camera.position, server.initial_camera.look_at = (0.0, 0.0, 3.0), (0.0, 0.0, 0.0)
        server.initial_camera.up = (0.0, 1.0, 0.0)
        server.scene.add_glb("/square", glb.read_bytes(), cast_shadow=False, receive_shadow=False)
        page = browser.new_page(viewport={"width": 1200, "height": 600})  # the panel covers the right
        page.set_default_timeout(PATIENCE)
        page.goto(url_of(server))
        found = tmp_path / "page.png"
        colors = QUARTERS.reshape(-1, 3)
        wait_until(page, found, lambda image: min(int(like(image, c).sum()) for c in colors) > 2000)
        page.close()
    middles = np.array(
        [[np.median(np.argwhere(like(imageio.imread(found), c)), 0) for c in row] for row in QUARTERS]
    )
    below, right = middles[1] - middles[0], middles[:, 1] - middles[:, 0]  # rows and columns of the picture
    assert (below[:, 0] > 5 * np.abs(below[:, 1])).all()
    assert (right[:, 1] > 5 * np.abs(right[:, 0])).all()


def like(image: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Where a picture is of a pure colour's hue: the page's tone mapping changes the shades."""
    shades = image[..., :3].astype(int)
    high, low = shades.max(-1), shades.min(-1)
    return (high - low > 80) & ((2 * shades > (high + low)[..., None]) == (color > 128)).all(-1)


def test_three_js_shows_vertex_colors_as_it_shows_a_texture_of_the_same(
    browser: Browser, tmp_path: Path
) -> None:
    """Dark and middle shades tell sRGB from linear ones, and a metal in no light from one that needs none."""
    shade, corners = np.array([200, 100, 30], np.uint8), square().vertices
    plain = square()._replace(texture=np.broadcast_to(shade, (64, 64, 3)).copy())
    textured = write_textured(plain, tmp_path, "textured")[0]
    mesh = Mesh(corners, plain.faces, np.tile(shade, (4, 1)), plain.normals)
    (colored,) = write_mesh(mesh, tmp_path, "colored", ["glb"])
    with serving(Address(), "quicksurf") as server:
        server.scene.world_axes.visible = False
        server.initial_camera.position, server.initial_camera.look_at = (0.0, 0.0, 6.0), (0.0, 0.0, 0.0)
        server.initial_camera.up = (0.0, 1.0, 0.0)
        for path, height in ((textured, 1.2), (colored, -1.2)):
            server.scene.add_glb(
                f"/{path.stem}",
                path.read_bytes(),
                position=(0, height, 0),
                cast_shadow=False,
                receive_shadow=False,
            )
        page = browser.new_page(viewport={"width": 1200, "height": 600})
        page.set_default_timeout(PATIENCE)
        page.goto(url_of(server))
        found = tmp_path / "page.png"
        wait_until(page, found, lambda image: all(int(reddish(half).sum()) > 4000 for half in halves(image)))
        page.close()
    shown = [np.median(half[reddish(half)], 0) for half in halves(imageio.imread(found)[..., :3])]
    assert np.abs(shown[0] - shown[1]).max() <= 3, shown


def halves(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Above and below the middle."""
    return image[: len(image) // 2], image[len(image) // 2 :]


def reddish(image: np.ndarray) -> np.ndarray:
    """Where red is well above blue."""
    return image[..., 0].astype(int) > image[..., 2].astype(int) + 60
