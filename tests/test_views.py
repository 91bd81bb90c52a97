"""Camera paths look at the object, and what is rendered can be read back from the files."""

import math
import zlib
from pathlib import Path

import av
import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from PIL import Image

from quicksurf.app.film import (
    color_image,
    depth_image,
    film,
    normal_image,
    write_depth_exr,
    write_depth_png,
    write_gif,
    write_png,
)
from quicksurf.app.render import RenderRequest, render_run
from quicksurf.capture.transforms import write_cameras
from quicksurf.errors import ConfigError
from quicksurf.geometry.cameras import Cameras, project
from quicksurf.geometry.paths import flight, look_at, mean_up, orbit

ANGLE = 1e-9  # float64, a few operations


def ring(azimuths: list[float], height: float = 1.0, radius: float = 3.0) -> Cameras:
    """Cameras at `azimuths` around the z axis, looking at (0, 0, 0.2)."""
    angles = torch.tensor(azimuths, dtype=torch.float64)
    centers = torch.stack([radius * angles.cos(), radius * angles.sin(), torch.full_like(angles, height)], -1)
    target, up = torch.tensor([[0.0, 0.0, 0.2], [0.0, 0.0, 1.0]], dtype=torch.float64)
    count = len(azimuths)
    return Cameras(
        c2w=look_at(centers, target, up),
        intrinsics=torch.tensor([500.0, 500.0, 320.0, 240.0], dtype=torch.float64).repeat(count, 1),
        distortion=torch.zeros(count, 6, dtype=torch.float64),
        fisheye=torch.zeros(count, dtype=torch.bool),
        sizes=torch.tensor([640, 480]).repeat(count, 1),
    )


def azimuths_of(cameras: Cameras) -> np.ndarray:
    centers = cameras.centers().numpy()
    return np.arctan2(centers[:, 1], centers[:, 0])


def test_look_at_is_a_rotation_that_sees_the_target_upright() -> None:
    cameras = ring([0.3, 2.0, 4.0])
    rotations = cameras.c2w[:, :, :3]
    assert torch.allclose(
        rotations.transpose(1, 2) @ rotations, torch.eye(3, dtype=torch.float64), atol=ANGLE
    )
    assert torch.allclose(torch.linalg.det(rotations), torch.ones(3, dtype=torch.float64), atol=ANGLE)
    points = torch.tensor([[0.0, 0.0, 0.2], [0.0, 0.0, 0.7]], dtype=torch.float64)
    for index in range(3):
        pixels, depths = project(cameras, index, points)
        assert torch.allclose(pixels[0], torch.tensor([320.0, 240.0], dtype=torch.float64))
        assert pixels[1, 1] < 240
        assert (depths > 0).all()


def test_up_is_up_for_cameras_on_one_side_that_look_down() -> None:
    for azimuths in ([0.0, 0.5, 1.0, 1.5, 2.0], [2 * math.pi * k / 9 for k in range(9)]):
        up = mean_up(ring(azimuths, height=4.0))
        assert math.degrees(math.acos(min(1.0, float(up[2])))) < 2
    assert mean_up(ring([0.3], height=0.2))[2] > 0.99


def test_orbit_of_a_capture_all_around_is_a_closed_turn() -> None:
    capture = ring([2 * math.pi * k / 12 for k in range(12)])
    path = orbit(capture, (0.0, 0.0, 0.2), 0.5, 8, (320, 240))
    steps = np.diff(np.unwrap(azimuths_of(path)))
    assert np.allclose(steps, steps[0])
    assert abs(steps[0]) == pytest.approx(2 * math.pi / 8)
    assert torch.allclose(path.centers()[0], capture.centers()[0])
    center, _ = project(path, 3, torch.tensor([[0.0, 0.0, 0.2]], dtype=torch.float64))
    assert torch.allclose(center, torch.tensor([[160.0, 120.0]], dtype=torch.float64))


def test_orbit_of_a_wall_stays_in_front_of_it() -> None:
    capture = ring([5.9, 6.2, 0.2, 0.4])
    path = orbit(capture, (0.0, 0.0, 0.2), 0.5, 40, (320, 240))
    angles = azimuths_of(path)
    assert angles.min() >= 5.9 - 2 * math.pi - 0.01
    assert angles.max() <= 0.4 + 0.01
    assert angles.max() - angles.min() > 0.7


def test_orbit_keeps_the_field_of_view_of_the_photos() -> None:
    path = orbit(ring([0.0, 2.0, 4.0]), (0.0, 0.0, 0.2), 0.5, 2, (320, 240))
    assert path.intrinsics[0].tolist() == [250, 250, 160, 120]


def test_orbit_shows_the_whole_ball() -> None:
    center, radius = torch.tensor([0.0, 0.0, 0.2], dtype=torch.float64), 1.8
    path = orbit(ring([0.0, 2.0, 4.0]), (0.0, 0.0, 0.2), radius, 2, (320, 240))
    random = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ball = center + radius * torch.nn.functional.normalize(random, dim=-1)
    pixels, depths = project(path, 1, ball)
    assert (depths > 0).all()
    assert 0 <= pixels[:, 1].min() < 3
    assert 237 < pixels[:, 1].max() <= 240


def test_orbit_from_straight_above() -> None:
    above = ring([0.0], height=4.0, radius=1e-12)
    assert torch.isfinite(orbit(above, (0.0, 0.0, 0.0), 0.5, 4, (32, 32)).c2w).all()


def test_png_round_trip(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    color = color_image(rng.uniform(-0.2, 1.2, (5, 7, 3)))
    depth, opacity = rng.uniform(1, 3, (5, 7)), np.ones((5, 7))
    opacity[0, 0] = 0.1
    depth[0, 1] = np.inf
    unit = 4 / 65535
    write_png(tmp_path / "color.png", color)
    write_png(tmp_path / "depth.png", depth_image(depth, opacity, unit))
    assert np.array_equal(imageio.imread(tmp_path / "color.png"), color)
    read = imageio.imread(tmp_path / "depth.png")
    assert read.dtype == np.uint16
    assert read[0, 0] == read[0, 1] == 0
    assert np.abs(read * unit - depth)[1:].max() <= unit


def test_normals_are_grey_where_nothing_is_seen() -> None:
    normal = np.zeros((1, 2, 3))
    normal[..., 2] = 1
    image = normal_image(normal, np.array([[1.0, 0.0]]))
    assert image.tolist() == [[[128, 128, 255], [128, 128, 128]]]


def test_film_has_all_frames_and_an_even_size(tmp_path: Path) -> None:
    with film(tmp_path / "x.mp4", 25) as reel:
        for value in range(10):
            reel.add(np.full((33, 47, 3), 20 * value, np.uint8))
    with av.open(str(tmp_path / "x.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 25
    assert len(frames) == 10
    assert frames[0].shape == (32, 46, 3)
    assert abs(float(frames[9].mean()) - 180) < 6  # studio range and rounding of YUV


def test_a_film_that_fails_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), film(tmp_path / "x.mp4", 25) as reel:
        reel.add(np.zeros((4, 4, 3), np.uint8))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def wide_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny capture whose photos are taken to be four times as wide as high."""
    from cut_fit import cut_to
    from tiny_capture import write_capture

    from quicksurf.app.fit import run_fit
    from quicksurf.app.requests import FitRequest

    folder = tmp_path_factory.mktemp("wide")
    preset = str(Path(__file__).parent / "tiny.toml")
    request = FitRequest(write_capture(folder / "capture"), 20.0, folder / "run", preset=preset)
    result = run_fit(request, fit=cut_to(2.0))
    fitted = result.reconstruction
    fitted.cameras.sizes[:, 1] = 12
    result.run.save_checkpoint(fitted)
    write_cameras(result.run.path / "cameras.json", fitted.cameras, fitted.names, fitted.held_out)
    return result.run.path


@pytest.mark.slow
@pytest.mark.parametrize("path", ["orbit", "cameras.json"])
def test_the_smallest_films_have_frames(wide_run: Path, tmp_path: Path, path: str) -> None:
    path = path if path == "orbit" else str(wide_run / path)
    list(render_run(wide_run, RenderRequest(path, 2, 2, 25, tmp_path), "cpu"))
    for kind in ("color", "depth", "normal"):
        with av.open(str(tmp_path / f"{kind}.mp4")) as container:
            sizes = {(frame.width, frame.height) for frame in container.decode(video=0)}
        assert sizes == {(2, 2)}


def test_a_film_of_one_pixel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--size is 1: choose 2 to"):
        list(render_run(tmp_path, RenderRequest("orbit", 2, 1, 25, None), "cpu"))


def test_flight_passes_the_photos_and_keeps_clear_of_the_object() -> None:
    capture = ring([2 * math.pi * k / 9 for k in range(9)])
    path = flight(capture, (0.0, 0.0, 0.2), 0.5, 90, (320, 240))
    centers = path.centers()
    target = torch.tensor([0.0, 0.0, 0.2], dtype=torch.float64)
    distances = (centers - target).norm(dim=-1)
    photographed = (capture.centers() - target).norm(dim=-1)
    assert (distances > 0.95 * photographed.min()).all()
    assert (distances < 1.05 * photographed.max()).all()
    assert torch.cdist(capture.centers(), centers).min(1).values.max() < 0.15
    steps = (centers.roll(-1, 0) - centers).norm(dim=-1)
    assert steps.max() < 3 * steps.mean()


def test_flight_of_one_place_stands_still() -> None:
    path = flight(ring([0.3]), (0.0, 0.0, 0.2), 0.5, 5, (32, 24))
    assert torch.allclose(path.centers(), ring([0.3]).centers().expand(5, 3))


def test_depth_files_hold_the_depths(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    depth, opacity = rng.uniform(1, 3, (9, 13)).astype(np.float32), np.ones((9, 13), np.float32)
    opacity[0, 0], depth[0, 1] = 0.1, np.inf
    unit = 4 / 65535
    write_depth_png(tmp_path / "depth.png", depth_image(depth, opacity, unit), unit)
    write_depth_exr(tmp_path / "depth.exr", depth, opacity)
    stored, exr = Image.open(tmp_path / "depth.png"), read_exr(tmp_path / "depth.exr")
    png = np.asarray(stored).astype(np.float64) * float(stored.info["depth_unit"])
    assert png[0, 0] == png[0, 1] == exr[0, 0] == exr[0, 1] == 0
    assert np.abs(png - depth)[1:].max() <= unit
    assert np.array_equal(exr[1:], depth[1:])


def read_exr(path: Path) -> np.ndarray:
    """An OpenEXR file of one float channel with zip blocks, read by the format's description."""
    content = path.read_bytes()
    assert content[:4] == b"\x76\x2f\x31\x01"
    header, at = {}, 8
    while content[at]:
        name, kind, _ = content[at:].split(b"\0", 2)
        at += len(name) + len(kind) + 2
        size = int.from_bytes(content[at : at + 4], "little")
        header[name.decode()] = content[at + 4 : at + 4 + size]
        at += 4 + size
    assert header["channels"].startswith(b"Y\0\x02\0\0\0"), "one channel of 32-bit floats"
    _, _, right, bottom = np.frombuffer(header["dataWindow"], "<i4")
    width, height = right + 1, bottom + 1
    lines = {2: 1, 3: 16}[header["compression"][0]]
    blocks = -(-height // lines)
    offsets = np.frombuffer(content, "<u8", blocks, at + 1)
    image = np.zeros((height, width), "<f4")
    for offset in offsets.tolist():
        first, size = np.frombuffer(content, "<i4", 2, offset)
        rows = min(lines, height - first)
        data = content[offset + 8 : offset + 8 + size]
        if size < rows * width * 4:
            data = unzip_block(data)
        image[first : first + rows] = np.frombuffer(data, "<f4").reshape(rows, width)
    return image


def unzip_block(data: bytes) -> bytes:
    """Inflate, undo the differences, interleave the two halves."""
    steps = np.frombuffer(zlib.decompress(data), np.uint8).astype(np.int64)
    values = (np.cumsum(np.concatenate([steps[:1], steps[1:] - 128])) % 256).astype(np.uint8)
    result = np.zeros_like(values)
    half = (len(values) + 1) // 2
    result[::2], result[1::2] = values[:half], values[half:]
    return result.tobytes()


def test_gif_turns_at_the_films_speed_and_stays_bounded(tmp_path: Path) -> None:
    stills = []
    for index in range(200):
        stills.append(tmp_path / f"{index}.png")
        image = np.full((30, 600, 3), 255, np.uint8)
        image[:, 3 * index : 3 * index + 3] = (200, 30, 30)
        write_png(stills[-1], image)
    write_gif(tmp_path / "x.gif", stills, 25)
    with Image.open(tmp_path / "x.gif") as gif:
        assert getattr(gif, "n_frames", 1) == 100
        assert gif.size == (480, 24)
        assert gif.info["duration"] == 80
        assert gif.info["loop"] == 0
        gif.seek(50)
        frame = np.asarray(gif.convert("RGB")).astype(int)
    red = frame[12, :, 0] - frame[12, :, 1]
    assert abs(int(red.argmax()) - 480 * (100 * 3 + 1.5) / 600) < 3
