"""Markers as a ruler: photos of a sheet of markers are traced exactly, and its size is found again."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from quicksurf.app.export.frame import export_frame
from quicksurf.app.export.markers import find_ruler
from quicksurf.app.export.products import ExportedMesh
from quicksurf.app.export.request import MeshRequest
from quicksurf.capture.scene import PhotoFile, ReadReport, Scene
from quicksurf.errors import ConfigError
from quicksurf.geometry.cameras import Cameras, pixel_rays
from quicksurf.geometry.paths import look_at
from quicksurf.geometry.region import Roi

SIDE = 0.37  # of each marker, in units of the cameras
CELL = 16  # pixels of the sheet a cell of a marker
SHEET_UNITS = SIDE / (6 * CELL)  # a 4x4 marker has a rim of one cell: 6 x 6
SIDE_ERROR = 0.01  # corners lie within half a pixel, a marker is 80 to 120 wide
SIZE = (320, 240)


def sheet(ids: list[int], family: int = cv2.aruco.DICT_4X4_50) -> np.ndarray:
    """Markers side by side on grey-white, a rim of two cells around each."""
    dictionary = cv2.aruco.getPredefinedDictionary(family)
    cells = dictionary.markerSize + 2
    tiles = [
        np.pad(cv2.aruco.generateImageMarker(dictionary, i, cells * CELL), 2 * CELL, constant_values=230)
        for i in ids
    ]
    return np.concatenate(tiles, 1)


def cameras_at(azimuths: list[float]) -> Cameras:
    """Cameras with a bent lens, 50° above the plane z = 0, that look at the origin."""
    a, e = torch.tensor(azimuths, dtype=torch.float64).deg2rad(), torch.tensor(50.0).double().deg2rad()
    centers = 2.5 * torch.stack([e.cos() * a.cos(), e.cos() * a.sin(), e.sin().expand(len(a))], -1)
    up, middle = torch.tensor([0.0, 0.0, 1.0]).double(), torch.zeros(3).double()
    lens = torch.tensor([330.0, 330.0, SIZE[0] / 2, SIZE[1] / 2], dtype=torch.float64)
    distortion = torch.zeros(len(a), 6, dtype=torch.float64)
    distortion[:, 0] = -0.1
    return Cameras(
        look_at(centers, middle, up),
        lens.repeat(len(a), 1),
        distortion,
        torch.zeros(len(a), dtype=torch.bool),
        torch.tensor(SIZE).repeat(len(a), 1),
    )


def write_photos(
    folder: Path, cameras: Cameras, printed: np.ndarray, photographed: int = 2
) -> list[tuple[Path, bool]]:
    """Photos of the sheet on z = 0, `photographed` times as large as the cameras say."""
    width, height = (photographed * side for side in SIZE)
    files = []
    for index in range(len(cameras)):
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        pixels = (torch.stack([columns, rows], -1).reshape(-1, 2).double() + 0.5) / photographed
        origins, directions = pixel_rays(cameras, torch.full((len(pixels),), index), pixels)
        points = origins - origins[:, 2:] / directions[:, 2:] * directions
        at = points[:, :2].numpy() * (1, -1) / SHEET_UNITS + np.array(printed.shape[::-1]) / 2
        inside = ((at >= 0) & (at < printed.shape[::-1])).all(1)
        x, y = np.where(inside[:, None], at, 0).astype(int).T
        shades = np.where(inside, printed[y, x], 90.0)
        grey = shades.reshape(height, width).astype(np.uint8)
        path = folder / f"{index}.png"
        imageio.imwrite(path, np.repeat(grey[..., None], 3, -1))
        files.append((path, True))
    return files


def test_the_side_of_the_markers_is_found(tmp_path: Path) -> None:
    cameras = cameras_at([0, 40, 200])
    ruler = find_ruler(cameras, write_photos(tmp_path, cameras, sheet([3, 7])))
    assert ruler.side == pytest.approx(SIDE, rel=SIDE_ERROR)
    assert (ruler.family, ruler.ids) == ("DICT_4X4_250", [3, 7])
    assert ruler.spread < 4 * SIDE_ERROR


def test_the_mesh_is_scaled_to_the_markers(tmp_path: Path) -> None:
    cameras = cameras_at([0, 40])
    files = write_photos(tmp_path, cameras, sheet([5]))
    names, roi = [path.name for path, _ in files], Roi((0.0, 0.0, 0.0), 1.0)
    photos = [PhotoFile(path, upright) for path, upright in files]
    held_out = np.zeros(len(files), bool)
    scene = Scene("", tmp_path, cameras, [], [], names, held_out, roi, None, ReadReport(), photos)
    taken = ExportedMesh(SimpleNamespace(cameras=cameras), scene, None)  # type: ignore[arg-type]
    export = export_frame(taken, MeshRequest(scale_from=("markers", 0.05)))
    assert export.similarity.scale == pytest.approx(0.05 / SIDE, rel=SIDE_ERROR)
    assert export.ruler is not None and export.ruler.ids == [5]
    with pytest.raises(ConfigError, match="must be above 0"):
        MeshRequest(scale_from=("markers", 0.0)).check()


def test_a_photo_with_a_wrong_camera_is_left_out(tmp_path: Path) -> None:
    """The fourth photo's camera is turned by 3° after it was taken; the others place the marker."""
    cameras = cameras_at([0, 40, 80, 120])
    files = write_photos(tmp_path, cameras, sheet([5]))
    turn = torch.eye(3, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[0.9986, -0.0523], [0.0523, 0.9986]])
    c2w = cameras.c2w.clone()
    c2w[3, :, :3] = turn @ c2w[3, :, :3]
    assert find_ruler(replace(cameras, c2w=c2w), files).side == pytest.approx(SIDE, rel=SIDE_ERROR)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("azimuths", "printed", "message"),
    [
        ([0.0, 40.0], np.full((200, 300), 230, np.uint8), r"no photo shows a marker of 4x4_250, .*white rim"),
        ([0.0], sheet([5]), r"ids 5.*none is a square placed by two photos"),
        ([0.0, 0.3], sheet([5]), r"ids 5.*from different sides"),
        ([0.0, 40.0], sheet([5, 5]), "no photo shows a marker"),
    ],
    ids=["none", "one photo", "from one place", "an id twice"],
)
def test_without_a_ruler_it_says_why(
    tmp_path: Path, azimuths: list[float], printed: np.ndarray, message: str
) -> None:
    cameras = cameras_at(azimuths)
    with pytest.raises(ConfigError, match=message):
        find_ruler(cameras, write_photos(tmp_path, cameras, printed))
