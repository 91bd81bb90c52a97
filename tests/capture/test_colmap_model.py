"""COLMAP models: every lens, both forms, sparse points, and what is wrong with a damaged one."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from scipy.spatial.transform import Rotation

import quicksurf
from quicksurf.capture.colmap import find_model, read_colmap, sparse_points
from quicksurf.capture.colmap_files import read_model
from quicksurf.capture.load import read_scene
from quicksurf.errors import CaptureError, ImageError
from quicksurf.geometry.cameras import project

ROOT = Path(quicksurf.__file__).parents[1]  # where child processes find the package that is tested
POSE64 = 1e-9
MODELS = {
    "SIMPLE_PINHOLE": [60.0, 24.5, 19.5],
    "PINHOLE": [60.0, 61.0, 24.5, 19.5],
    "SIMPLE_RADIAL": [60.0, 24.5, 19.5, 0.05],
    "RADIAL": [60.0, 24.5, 19.5, 0.05, -0.02],
    "OPENCV": [60.0, 61.0, 24.5, 19.5, 0.05, -0.02, 1e-3, -2e-3],
    "OPENCV_FISHEYE": [40.0, 41.0, 24.5, 19.5, 0.02, -0.01, 2e-3, -1e-3],
    "SIMPLE_RADIAL_FISHEYE": [40.0, 24.5, 19.5, 0.02],
    "RADIAL_FISHEYE": [40.0, 24.5, 19.5, 0.02, -0.01],
}


def model_of(capture, lens: str = "PINHOLE", params: list[float] | None = None) -> pycolmap.Reconstruction:
    """The capture as a reconstruction: points on its ball, each observed by three or more images."""
    reconstruction = pycolmap.Reconstruction()
    for index, c2w in enumerate(capture.cameras.c2w.numpy()):
        camera = pycolmap.Camera(
            camera_id=index + 1, model=lens, width=48, height=40, params=params or MODELS[lens]
        )
        reconstruction.add_camera_with_trivial_rig(camera)
        rotation = c2w[:, :3].T
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(rotation), -rotation @ c2w[:, 3])
        image = pycolmap.Image(f"{index:03d}.png", pycolmap.Point2DList(), index + 1, index + 1)
        image.points2D = pycolmap.Point2DList([pycolmap.Point2D(np.array([1.0, 1.0])) for _ in range(40)])
        reconstruction.add_image_with_trivial_frame(image, pose)
    directions = Rotation.random(40, random_state=0).as_matrix()[:, :, 0]
    for number, direction in enumerate(directions):
        track = pycolmap.Track()
        for image_id in [1 + number % 10, 1 + (number + 1) % 10, 1 + (number + 4) % 10]:
            track.add_element(image_id, number)
        position = np.array(capture.center) + capture.radius * direction
        point_id = reconstruction.add_point3D(position, track, np.array([number, 7, 9], np.uint8))
        reconstruction.points3D[point_id].error = 0.5
    return reconstruction


@pytest.fixture
def saved(tmp_path, capture) -> Path:
    capture.save_images(tmp_path / "images")
    return tmp_path


def write(reconstruction: pycolmap.Reconstruction, folder: Path, text: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (reconstruction.write_text if text else reconstruction.write_binary)(str(folder))


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("lens", MODELS)
def test_every_lens_projects_as_colmap_does(saved, capture, options, lens, text):
    reconstruction = model_of(capture, lens)
    write(reconstruction, saved / "sparse/0", text)
    scene = read_colmap(saved, options)
    assert (scene.cameras.c2w - capture.cameras.c2w).abs().max() < POSE64
    points = np.array(capture.center) + np.random.default_rng(0).uniform(-0.5, 0.5, (50, 3))
    for index in (0, 5):
        image = reconstruction.images[index + 1]
        expected = np.stack([image.project_point(point) for point in points])
        found, _ = project(scene.cameras, index, torch.from_numpy(points))
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-7)
    np.testing.assert_array_equal(scene.images[5], capture.images[5])
    assert scene.names[5] == "images/005.png"


@pytest.mark.parametrize("place", ["sparse/0", "sparse", "colmap/sparse/0", "."])
def test_models_are_found_in_the_usual_places(saved, capture, options, place):
    write(model_of(capture), saved / place)
    model = find_model(saved)
    assert model is not None
    assert model.resolve() == (saved / place).resolve()
    assert len(read_colmap(saved, options).images) == 10


def test_no_model_is_none(saved):
    (saved / "sparse").mkdir()
    assert find_model(saved) is None


def test_sparse_points_come_with_their_observers(saved, capture, options):
    write(model_of(capture), saved / "sparse/0")
    points = read_colmap(saved, options).points
    assert points is not None
    assert len(points.positions) == 40
    distances = np.linalg.norm(points.positions.numpy() - capture.center, axis=1)
    np.testing.assert_allclose(distances, capture.radius, atol=1e-9)
    seventh = int(torch.nonzero(points.colors[:, 0] == 7)[0, 0])
    observers = points.observations[points.observations[:, 0] == seventh, 1]
    assert sorted(observers.tolist()) == [1, 7, 8]


def test_short_tracks_and_large_errors_are_dropped(tmp_path, capture):
    reconstruction = model_of(capture)
    point_ids = sorted(reconstruction.points3D)
    reconstruction.points3D[point_ids[0]].error = 2.5
    reconstruction.delete_observation(1 + 1 % 10, 1)
    for text in (False, True):
        write(reconstruction, tmp_path / str(text), text)
        points = read_model(tmp_path / str(text)).points or []
        assert len(sparse_points(points, range(1, 11)).positions) == 38
        # Without image 1, the points it saw have two observers left (numbers 0, 6 and 9 modulo 10).
        fewer = sparse_points(points, range(2, 11))
        assert len(fewer.positions) == 40 - 4 * 3 - 1
        assert int(fewer.observations[:, 1].max()) == 8


def test_missing_images_are_skipped_with_a_count(saved, capture, options):
    write(model_of(capture), saved / "sparse/0")
    (saved / "images/004.png").unlink()
    scene = read_colmap(saved, options)
    assert len(scene.images) == len(scene.cameras) == 9
    assert any("1 of 10 posed images are not on disk (004.png" in text for text in scene.report.warnings)
    assert scene.points is not None
    assert int(scene.points.observations[:, 1].max()) == 8


def test_unreadable_image_renumbers_observations(saved, capture, options):
    write(model_of(capture), saved / "sparse/0")
    (saved / "images/000.png").write_bytes(b"")
    scene = read_colmap(saved, options)
    assert list(scene.report.lost) == ["000.png"]
    assert scene.points is not None
    for point, image in scene.points.observations.tolist():
        number = int(scene.points.colors[point, 0])
        assert (image + 1) in {number % 10, (number + 1) % 10, (number + 4) % 10}


def test_unknown_lens_is_named_with_the_fix(saved, capture, options):
    params = [60.0, 61.0, 24.5, 19.5, 0.05, -0.02, 1e-3, -2e-3, 0.0, 0.1, 0.0, 0.0]
    write(model_of(capture, "FULL_OPENCV", params), saved / "sparse/0")
    with pytest.raises(CaptureError, match=r"000\.png.*FULL_OPENCV.*image_undistorter"):
        read_colmap(saved, options)


def test_too_few_images_are_refused(saved, capture, options):
    write(model_of(capture), saved / "sparse/0")
    for index in range(2, 10):
        (saved / f"images/{index:03d}.png").unlink()
    with pytest.raises(ImageError, match="2 usable images"):
        read_colmap(saved, options)


def test_an_image_outside_the_folder_is_never_read(saved, capture, options):
    reconstruction = model_of(capture)
    reconstruction.images[3].name = "../../secret.png"
    write(reconstruction, saved / "sparse/0")
    (saved.parent / "secret.png").write_bytes((saved / "images/002.png").read_bytes())
    scene = read_colmap(saved, options)
    assert len(scene.images) == 9
    assert scene.report.lost["002.png"].endswith("no camera in the COLMAP model")


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("damage", ["truncated", "garbage"])
def test_damaged_models_are_explained(saved, capture, options, name, text, damage):
    write(model_of(capture), saved / "sparse/0", text)
    path = saved / "sparse/0" / f"{name}{'.txt' if text else '.bin'}"
    body = path.read_bytes()
    path.write_bytes(body[: len(body) // 2] if damage == "truncated" else b"\xff\xfe garbage \n" * 20)
    if (name, text, damage) == ("images", True, "truncated"):  # whole lines are a smaller model
        lost = read_colmap(saved, options).report.lost
        assert lost and all("no camera in the COLMAP model" in reason for reason in lost.values())
        return
    with pytest.raises((CaptureError, ImageError), match=r"sparse/0|usable images|COLMAP"):
        read_colmap(saved, options)


READ_THEN_TERMINATE = """
import os, signal, sys
from pathlib import Path
from quicksurf.capture.assemble import ReadOptions
from quicksurf.capture.load import read_scene

def stop(signum, frame):
    print("stopped in order", flush=True)
    sys.exit(7)

signal.signal(signal.SIGTERM, stop)
read_scene(Path(sys.argv[1]), ReadOptions(max_pixels=10**6, say=lambda line: None))
assert "pycolmap" not in sys.modules
os.kill(os.getpid(), signal.SIGTERM)
signal.pause()
"""


def run_python(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60
    )


@pytest.mark.slow
def test_reading_a_model_leaves_signals_alone(saved, capture):
    write(model_of(capture), saved / "sparse/0")
    ended = run_python(READ_THEN_TERMINATE, str(saved))
    assert (ended.returncode, ended.stdout) == (7, "stopped in order\n"), ended.stderr


@pytest.mark.slow
def test_photos_and_videos_leave_pycolmap_to_the_worker():
    modules = ", ".join(f"quicksurf.capture.{name}" for name in ("load", "photos", "video", "sfm.poses"))
    ended = run_python(f"import sys, {modules}; assert 'pycolmap' not in sys.modules")
    assert ended.returncode == 0, ended.stderr


def text_model(capture, folder: Path, name: str = "{:03d}.png", second: str = "\n") -> None:
    """As people write it who know their poses: every image by hand, no points."""
    folder.mkdir(parents=True)
    cameras, images = (
        ["# CAMERA_ID MODEL WIDTH HEIGHT PARAMS"],
        ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"],
    )
    for index, c2w in enumerate(capture.cameras.c2w.numpy()):
        params = " ".join(map(repr, capture.cameras.intrinsics[index].tolist()))
        cameras.append(f"{index + 1} PINHOLE 48 40 {params}")
        inverse = c2w[:, :3].T
        pose = [*Rotation.from_matrix(inverse).as_quat(scalar_first=True), *(-inverse @ c2w[:, 3])]
        images.append(
            f"{index + 1} {' '.join(map(repr, map(float, pose)))} {index + 1} {name.format(index)}{second}"
        )
    (folder / "cameras.txt").write_text("\n".join(cameras))
    (folder / "images.txt").write_text("\n".join(images))


def assert_reads(saved: Path, capture, options, pattern: str = "images/{:03d}.png") -> list[str]:
    """The capture is read with its own cameras; returns what was said of how."""
    scene = read_scene(saved, options)
    assert scene.names == [pattern.format(index) for index in range(10)]
    assert (scene.cameras.c2w - capture.cameras.c2w).abs().max() < POSE64
    assert (scene.cameras.intrinsics - capture.cameras.intrinsics).abs().max() < POSE64
    return scene.report.notes


@pytest.mark.parametrize("second", ["\n", "", "\n\n", "\n1.5 2.5 -1 3 4 7", "\n# no points"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_poses_without_points_are_used(saved, capture, options, second, newline):
    text_model(capture, saved / "sparse/0", second=second)
    for path in (saved / "sparse/0").iterdir():
        path.write_bytes(path.read_text().replace("\n", newline).encode())
    assert "no points3D" in assert_reads(saved, capture, options)[0]


def test_a_binary_model_without_points_is_used(saved, capture, options):
    write(model_of(capture), saved / "sparse/0")
    (saved / "sparse/0/points3D.bin").unlink()
    scene = read_scene(saved, options)
    assert len(scene.images) == 10
    assert "no points3D" in scene.report.notes[0]


@pytest.mark.parametrize(
    "name", ["IMG {:04d} (1).png", "  two  blanks {}.png", "größe {}.png", "1 2 3 4 {}.png", "{} .png"]
)
def test_names_hold_blanks(tmp_path, capture, options, name):
    name = name.strip()
    capture.save_images(tmp_path / "images", name)
    text_model(capture, tmp_path / "sparse/0", name)
    assert_reads(tmp_path, capture, options, f"images/{name}")


@pytest.mark.parametrize(
    ("folder", "scale", "name"),
    [
        ("images_4", 1, "{:03d}.png"),
        ("images_2", 2, "{:03d}.png"),
        ("input", 1, "{:03d}.png"),
        ("photos", 1, "{:03d}.png"),
        ("My Photos", 1, "{:03d}.png"),
        ("images", 1, "images/{:03d}.png"),
        ("images/cam1", 1, "cam1\\{:03d}.png"),
        ("images", 1, "/home/them/capture/images/{:03d}.png"),
        ("images", 1, "{:03d}.PNG"),
        ("images", 1, "{:03d}.jpg"),
    ],
)
def test_images_are_found_by_their_names(tmp_path, capture, options, folder, scale, name):
    capture.save_images(tmp_path / folder, scale=scale)
    text_model(capture, tmp_path / "sparse/0", name)
    scene = read_scene(tmp_path, options)
    assert scene.names == [f"{folder}/{index:03d}.png" for index in range(10)]
    assert (scene.cameras.intrinsics - scale * capture.cameras.intrinsics).abs().max() < POSE64


def test_where_was_looked_is_said(tmp_path, capture, options):
    capture.save_images(tmp_path / "images", "other{}.png")
    text_model(capture, tmp_path / "sparse/0", "cam1\\{:03d}.png")
    with pytest.raises(ImageError, match=r"looked in images/ and \S+ for cam1\\000\.png and 9 more"):
        read_scene(tmp_path, options)


def test_the_largest_model_is_taken_and_said(saved, capture, options):
    scrap = model_of(capture)
    for index in range(4, 10):
        scrap.deregister_frame(index + 1)
    write(scrap, saved / "sparse/0")
    text_model(capture, saved / "sparse/1")
    note = assert_reads(saved, capture, options)[0]
    assert note == ("of 2 COLMAP models the largest is taken, sparse/1 with 10 images; sparse/0 has 4")


@pytest.mark.parametrize("place", ["sparse/1", "sparse/7", "colmap/sparse/3", "distorted/sparse/0"])
def test_models_of_any_number_are_found(saved, capture, options, place):
    text_model(capture, saved / place)
    assert_reads(saved, capture, options)


def test_the_folder_of_a_model_is_a_source(saved, capture, options):
    text_model(capture, saved / "sparse/0")
    text_model(capture, saved / "sparse/1")
    scene = read_scene(saved / "sparse/1", options)
    assert scene.names[0] == "images/000.png"
    assert not any("models" in note for note in scene.report.notes)


def test_photos_that_the_model_lacks_are_named(saved, capture, options):
    reconstruction = model_of(capture)
    for index in (2, 5, 6):
        reconstruction.deregister_frame(index + 1)
    write(reconstruction, saved / "sparse/0")
    report = read_scene(saved, options).report
    assert sorted(report.lost) == ["002.png", "005.png", "006.png"]
    assert report.photos == 10
    assert any(
        "3 files were not used: 002.png (no camera in the COLMAP model)" in text for text in report.warnings
    )


def in_images(old: str, new: str):
    def damage(folder: Path) -> None:
        path = folder / "images.txt"
        path.write_text(path.read_text().replace(old, new, 1))

    return damage


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (in_images(" 3 002.png", " 3"), r"images\.txt line \d+: expected ID QW"),
        (in_images(" 3 002.png", " 99 002.png"), r"image 3 \(002\.png\) has camera 99, which is not there"),
        (in_images("002.png", "001.png"), r"image 3 \(001\.png\) is there twice"),
        (in_images("3 0.", "3 7."), r"image 3 \(002\.png\): its quaternion"),
        (in_images("3 0.", "3 nan 0."), r"images\.txt|pose must be a finite number"),
        (in_images("\n3 ", "\n3 1e999 "), r"images\.txt line|pose must be a finite number"),
        (in_images("\n3 ", "\nthree "), r"images\.txt line \d+: expected ID QW"),
        (in_images("# IMAGE", "hello # IMAGE"), r"images\.txt line 1: expected ID QW"),
    ],
)
def test_damaged_lines_are_named(saved, capture, options, damage, says):
    text_model(capture, saved / "sparse/0")
    damage(saved / "sparse/0")
    with pytest.raises(CaptureError, match=says):
        read_colmap(saved, options)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("1 PINHOLE 48 40 60 61 24", "PINHOLE has 4 parameters, found 3"),
        ("1 PINHOLE 0 40 60 61 24 20", "its width must be from 1"),
        ("1 PINHOLE 48 40 nan 61 24 20", "a parameter must be a finite number"),
        ("1 PINHOLE 48 40 1e300 61 24 20", "a parameter must be a finite number"),
        ("1 PINHOLE 48 40 -60 61 24 20", "focal length of -60"),
        ("1 PINHOLE wide 40 60 61 24 20", r"cameras\.txt line 2"),
    ],
)
def test_damaged_lenses_are_named(saved, capture, options, line, says):
    text_model(capture, saved / "sparse/0")
    path = saved / "sparse/0/cameras.txt"
    lines = path.read_text().split("\n")
    path.write_text("\n".join([lines[0], line, *lines[2:]]))
    with pytest.raises(CaptureError, match=says):
        read_colmap(saved, options)


def test_a_whole_scene_is_not_taken_for_an_object(saved, capture, options):
    """Its region and background are those of a facade; masks say that an object is wanted."""
    write(model_of(capture), saved / "sparse/0")
    whole = replace(options, whole_scene=True)
    assert [read_scene(saved, o).kind for o in (options, whole)] == ["around", "facade"]
    assert read_scene(saved, replace(whole, kind="around")).kind == "around"
    capture.save_masks(saved / "masks")
    assert read_scene(saved, whole).kind == "around"
