"""The demo's capture: its truth is a solid, its photos show that solid, its files are what loaders expect."""

import json

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
import trimesh

from quicksurf.app.demo import write_demo_capture
from quicksurf.app.demo.paint import Noise
from quicksurf.app.demo.render import _pinhole_rays, irradiance, make_lights
from quicksurf.app.demo.solid import distance
from quicksurf.geometry.cameras import Cameras, pixel_rays, project
from quicksurf.kernels import _native
from quicksurf.mesh.export import read_mesh

pytestmark = pytest.mark.slow

N_VIEWS, SIZE = 8, 96
ROUNDING = 1e-6  # the renderer counts pixels in float32


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    write_demo_capture(folder, n_views=N_VIEWS, size=SIZE)
    return folder


@pytest.fixture(scope="module")
def truth(capture):
    return read_mesh(capture / "truth.ply")


@pytest.fixture(scope="module")
def cameras(capture):
    """Read by the book: nerfstudio's OpenGL axes to OpenCV's."""
    transforms = json.loads((capture / "transforms.json").read_text())
    matrices = torch.tensor(
        [frame["transform_matrix"] for frame in transforms["frames"]], dtype=torch.float64
    )
    lens = transforms["frames"][0]
    intrinsics = torch.tensor([lens[k] for k in ("fl_x", "fl_y", "cx", "cy")], dtype=torch.float64)
    n = len(matrices)
    return Cameras(
        matrices[:, :3] * torch.tensor([1.0, -1, -1, 1], dtype=torch.float64),
        intrinsics.repeat(n, 1),
        torch.zeros(n, 6, dtype=torch.float64),
        torch.zeros(n, dtype=torch.bool),
        torch.tensor([[lens["w"], lens["h"]]]).repeat(n, 1),
    )


def test_the_truth_is_one_closed_solid_with_three_holes(truth):
    solid = trimesh.Trimesh(truth.vertices, truth.faces, process=False)
    assert solid.is_watertight and solid.is_winding_consistent and solid.volume > 0
    assert solid.body_count == 1
    assert solid.euler_number == 2 - 2 * 3  # under the handle, and through its two lugs


def test_the_truth_stands_on_the_table_within_its_ball(capture, truth):
    scoring = json.loads((capture / "demo_truth.json").read_text())
    assert truth.vertices[:, 2].min() == pytest.approx(scoring["table_z"], abs=1e-6)
    reach = np.linalg.norm(truth.vertices - scoring["center"], axis=1).max()
    assert reach == pytest.approx(scoring["radius"], rel=1e-5)
    diagonal = np.linalg.norm(np.ptp(truth.vertices, axis=0))
    assert scoring["bbox_diagonal"] == pytest.approx(diagonal, rel=1e-5)


def test_the_split_names_every_photo_once(capture):
    transforms = json.loads((capture / "transforms.json").read_text())
    names = sorted(transforms["train_filenames"] + transforms["test_filenames"])
    assert names == [frame["file_path"] for frame in transforms["frames"]]
    assert names == sorted(f"images/{p.name}" for p in (capture / "images").iterdir())
    assert len(transforms["test_filenames"]) == N_VIEWS // 8


def test_photos_are_sharp_and_well_exposed(capture):
    for path in (capture / "images").iterdir():
        photo = imageio.imread(path) / 255
        assert photo.shape == (SIZE, SIZE, 3)
        assert 0.2 < photo.mean() < 0.7 and (photo > 0.99).mean() < 0.1 and photo.std() > 0.1


def test_the_written_cameras_see_the_truth_where_the_photos_show_it(capture, truth, cameras):
    """The glaze is teal and the room is not: the truth, projected with the written poses, covers the teal pixels."""
    for index in range(N_VIEWS):
        pixels, depths = project(cameras, index, torch.from_numpy(truth.vertices))
        corners = torch.cat([pixels, depths[:, None]], 1).float().numpy()
        _, faces = _native.rasterize(corners, truth.faces.astype(np.int32), SIZE, SIZE)
        photo = imageio.imread(capture / f"images/{index:04d}.jpg").astype(float)
        teal = (photo[..., 1] > photo[..., 0] + 40) & (photo[..., 1] > photo[..., 2] - 10)
        assert teal.sum() > 100
        assert (faces[teal] >= 0).mean() > 0.97  # the rest are the silhouette's own mixed pixels


def test_the_whole_object_is_in_every_photo(truth, cameras):
    for index in range(N_VIEWS):
        pixels, depths = project(cameras, index, torch.from_numpy(truth.vertices))
        assert (depths > 0).all() and pixels.min() > 0 and pixels.max() < SIZE


def test_the_demo_rays_are_those_of_the_lens_model(cameras):
    """The short way for pinholes against the general one."""
    columns, rows = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="xy")
    pixels = torch.stack([columns, rows], -1).reshape(-1, 2).double()
    origins, expected = pixel_rays(cameras, torch.full((len(pixels),), 3), pixels)
    center, directions = _pinhole_rays(cameras, 3)
    assert torch.equal(center, origins[0])
    assert (directions - expected).abs().max() < ROUNDING


def test_cameras_are_above_the_table_and_outside_the_ball(capture, cameras):
    scoring = json.loads((capture / "demo_truth.json").read_text())
    centers = cameras.centers().numpy()
    assert (centers[:, 2] > scoring["table_z"]).all()
    assert (np.linalg.norm(centers - scoring["center"], axis=1) > 1.5 * scoring["radius"]).all()


def test_another_seed_gives_the_same_solid_in_another_paint(truth, tmp_path):
    write_demo_capture(tmp_path, n_views=1, size=32, seed=1)
    other = read_mesh(tmp_path / "truth.ply")
    np.testing.assert_array_equal(other.vertices, truth.vertices)
    assert (other.colors != truth.colors).mean() > 0.5


def test_noise_is_the_same_for_the_same_seed_and_fills_its_range():
    points = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) * 40 - 20
    first, second, other = (Noise(seed).fbm(points, 3.0, 4) for seed in (5, 5, 6))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert first.abs().max() < 1.5 and 0.2 < first.std() < 0.6 and first.mean().abs() < 0.05


def test_the_distance_is_negative_inside_and_positive_outside():
    inside = torch.tensor([[0.0, 0.0, 0.5], [0.0, 0.0, 1.49], [1.0, 0.0, 0.8]])
    outside = torch.tensor([[0.0, 0.0, 1.3], [0.0, 0.0, -0.1], [1.5, 0.0, 0.5]])
    assert (distance(inside) < 0).all() and (distance(outside) > 0).all()


def test_light_reaches_the_open_and_not_below_a_roof():
    """A square roof over half of the plane: beneath it no sun and little sky, beside it the full light."""
    roof = torch.tensor([[-0.8, -0.8, 0.2], [0.8, -0.8, 0.2], [0.8, 0.8, 0.2], [-0.8, 0.8, 0.2]])
    lights = make_lights(roof, np.array([[0, 1, 2], [0, 2, 3]]))
    points, up = (
        torch.tensor([[0.0, 0.0, 0.0], [2.2, -2.0, 0.0]]),
        torch.tensor([[0.0, 0.0, 1.0]]).repeat(2, 1),
    )
    sun, sky = irradiance(lights, points, up)
    assert sun[0].max() == 0 and sun[1].min() > 0.5
    assert sky[0].max() < 0.3 * sky[1].min()
