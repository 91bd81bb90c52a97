"""transforms.json in three dialects: round trips, splits, and every way such a file can be broken."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from quicksurf.capture.assemble import ReadOptions
from quicksurf.capture.transforms import read_transforms, write_cameras
from quicksurf.errors import CaptureError, ImageError
from quicksurf.geometry.cameras import Cameras

POSE64 = 1e-9  # poses pass through decimal text and an SVD in float64


def opengl(c2w: torch.Tensor) -> list[list[float]]:
    matrix = np.eye(4)
    matrix[:3] = c2w.numpy()
    matrix[:3, 1:3] *= -1
    return matrix.tolist()


def content_of(capture, suffix: str = ".png") -> dict[str, Any]:
    """Nerfstudio's form with a lens per frame."""
    frames = []
    for index in range(len(capture.images)):
        fx, fy, cx, cy = capture.cameras.intrinsics[index].tolist()
        frames.append(
            {
                "file_path": f"images/{index:03d}{suffix}",
                "transform_matrix": opengl(capture.cameras.c2w[index]),
                **{"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": 48, "h": 40},
            }
        )
    return {"camera_model": "OPENCV", "frames": frames}


def write(folder: Path, content: Any, name: str = "transforms.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def saved(tmp_path, capture) -> tuple[Path, dict[str, Any]]:
    capture.save_images(tmp_path / "images")
    return tmp_path, content_of(capture)


def assert_same_cameras(found: Cameras, expected: Cameras) -> None:
    assert (found.c2w - expected.c2w).abs().max() < POSE64
    assert (found.intrinsics - expected.intrinsics).abs().max() < POSE64
    assert (found.distortion - expected.distortion).abs().max() < POSE64
    assert torch.equal(found.fisheye, expected.fisheye)
    assert torch.equal(found.sizes, expected.sizes)


def test_per_frame_lenses_round_trip(saved, capture, options):
    scene = read_transforms(write(*saved), options)
    assert_same_cameras(scene.cameras, capture.cameras)
    assert scene.names == [f"images/{index:03d}.png" for index in range(10)]
    for found, image in zip(scene.images, capture.images, strict=True):
        np.testing.assert_array_equal(found, image)
    assert scene.masks == [None] * 10
    assert np.flatnonzero(scene.held_out).tolist() == [0, 8]
    assert scene.report.photos == 10
    assert scene.name == saved[0].name


def test_written_cameras_read_back(tmp_path, capture, options):
    capture.save_images(tmp_path / "images")
    generator = torch.Generator().manual_seed(0)
    distortion = 0.01 * torch.randn(10, 6, generator=generator, dtype=torch.float64)
    fisheye = torch.arange(10) % 3 == 0
    distortion[fisheye, 4:] = 0  # a fisheye has no tangential terms
    cameras = Cameras(
        capture.cameras.c2w, capture.cameras.intrinsics, distortion, fisheye, capture.cameras.sizes
    )
    names = [f"images/{index:03d}.png" for index in range(10)]
    held_out = np.arange(10) % 4 == 1
    write_cameras(tmp_path / "cameras.json", cameras, names, held_out)
    scene = read_transforms(tmp_path / "cameras.json", options)
    assert_same_cameras(scene.cameras, cameras)
    assert scene.names == names
    np.testing.assert_array_equal(scene.held_out, held_out)


def test_written_file_is_nerfstudio_s(tmp_path, capture):
    names = [f"{index}.png" for index in range(10)]
    write_cameras(tmp_path / "cameras.json", capture.cameras, names, np.arange(10) == 3)
    content = json.loads((tmp_path / "cameras.json").read_text())
    assert content["test_filenames"] == ["3.png"]
    frame = content["frames"][4]
    assert np.allclose(frame["transform_matrix"], opengl(capture.cameras.c2w[4]), rtol=0, atol=1e-15)
    assert frame["camera_model"] == "OPENCV"
    assert {"fl_x", "fl_y", "cx", "cy", "w", "h", "k1", "k2", "k3", "k4", "p1", "p2"} < set(frame)


def test_global_lens_of_instant_ngp(saved, options):
    folder, content = saved
    for frame in content["frames"]:
        for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
            del frame[key]
    content = {
        "camera_angle_x": 0.7,
        "fl_x": 50.0,
        "fl_y": 51.0,
        "cx": 24.0,
        "cy": 20.5,
        "w": 48,
        "h": 40,
        "k1": 0.05,
        "k2": -0.08,
        "p1": -1e-3,
        "p2": 1e-4,
        "aabb_scale": 4,
        "frames": content["frames"],
    }
    cameras = read_transforms(write(folder, content), options).cameras
    assert cameras.intrinsics[7].tolist() == [50.0, 51.0, 24.0, 20.5]
    assert cameras.distortion[7].tolist() == [0.05, -0.08, 0, 0, -1e-3, 1e-4]


def synthetic_split(capture, folder: Path, split: str, indices: list[int], first: int = 0) -> None:
    frames = []
    (folder / split).mkdir()
    for index in indices:
        rgba = np.dstack([capture.images[index], capture.masks[index]])
        Image.fromarray(rgba).save(folder / split / f"r_{index + first}.png")
        frames.append(
            {
                "file_path": f"./{split}/r_{index + first}",
                "rotation": 0.1,
                "transform_matrix": opengl(capture.cameras.c2w[index]),
            }
        )
    write(folder, {"camera_angle_x": 0.8, "frames": frames}, f"transforms_{split}.json")


def test_nerf_synthetic_with_its_split_and_alpha(tmp_path, capture, options):
    synthetic_split(capture, tmp_path, "train", [0, 1, 2, 3, 4, 5])
    synthetic_split(capture, tmp_path, "test", [6, 7])
    synthetic_split(capture, tmp_path, "val", [8])
    scene = read_transforms(tmp_path / "transforms_train.json", options)
    assert np.flatnonzero(scene.held_out).tolist() == [6, 7]  # val is not read where there is test
    assert (scene.cameras.c2w - capture.cameras.c2w[:8]).abs().max() < POSE64
    focal = 48 / (2 * math.tan(0.4))
    assert scene.cameras.intrinsics[3].tolist() == pytest.approx([focal, focal, 24.0, 20.0])
    for found, mask in zip(scene.masks, capture.masks, strict=False):
        assert found is not None
        np.testing.assert_array_equal(found, mask)
    np.testing.assert_array_equal(
        scene.images[2][scene.masks[2] > 0], capture.images[2][capture.masks[2] > 0]
    )
    assert (scene.images[2][scene.masks[2] == 0] == 255).all()


def test_alpha_is_ignored_when_masks_are(tmp_path, capture):
    synthetic_split(capture, tmp_path, "train", list(range(10)))
    options = ReadOptions(max_pixels=10**6, use_masks=False)
    assert read_transforms(tmp_path / "transforms_train.json", options).masks == [None] * 10


def test_masks_named_by_frames_win_over_the_folder(saved, capture, options):
    folder, content = saved
    capture.save_masks(folder / "silhouettes", "s{}.png")
    (folder / "masks").mkdir()
    for index, frame in enumerate(content["frames"]):
        frame["mask_path"] = f"silhouettes/s{index}.png"
    scene = read_transforms(write(folder, content), options)
    for found, mask in zip(scene.masks, capture.masks, strict=True):
        np.testing.assert_array_equal(found, mask)


@pytest.mark.parametrize("lists", [("train", "test"), ("train",), ("test",), ("train", "test", "val")])
def test_filenames_give_the_split(saved, options, lists):
    folder, content = saved
    names = [frame["file_path"] for frame in content["frames"]]
    parts = {"train": [n for n in names if n != names[4]], "test": [names[4]], "val": []}
    content |= {f"{part}_filenames": parts[part] for part in lists}
    scene = read_transforms(write(folder, content), options)
    assert np.flatnonzero(scene.held_out).tolist() == [4]


def test_frames_without_image_are_skipped_with_a_count(saved, options):
    folder, content = saved
    for index in (2, 5):
        (folder / f"images/{index:03d}.png").unlink()
    scene = read_transforms(write(folder, content), options)
    assert len(scene.images) == len(scene.cameras) == 8
    assert any(
        "2 of 10 frames" in warning and "images/002.png" in warning for warning in scene.report.warnings
    )


def test_one_damaged_image_is_lost_alone(saved, capture, options):
    folder, content = saved
    capture.save_masks(folder / "masks")
    (folder / "images/003.png").write_bytes(b"")
    scene = read_transforms(write(folder, content), options)
    assert list(scene.report.lost) == ["003.png"]
    assert "empty" in scene.report.lost["003.png"]
    assert len(scene.images) == len(scene.masks) == len(scene.names) == len(scene.cameras) == 9
    assert (scene.cameras.c2w[3] - capture.cameras.c2w[4]).abs().max() < POSE64
    np.testing.assert_array_equal(scene.masks[3], capture.masks[4])


def test_images_of_another_size_scale_their_lens(tmp_path, capture, options):
    capture.save_images(tmp_path / "images", scale=3)
    scene = read_transforms(write(tmp_path, content_of(capture)), options)
    assert scene.images[0].shape == (120, 144, 3)
    assert (scene.cameras.intrinsics - 3 * capture.cameras.intrinsics).abs().max() < POSE64


def test_large_images_shrink_with_their_cameras_and_masks(saved, capture):
    folder, content = saved
    capture.save_masks(folder / "masks")
    scene = read_transforms(write(folder, content), ReadOptions(max_pixels=24 * 20))
    assert scene.images[0].shape == (20, 24, 3)
    assert scene.masks[0].shape == (20, 24)
    assert scene.cameras.sizes[0].tolist() == [24, 20]
    assert (scene.cameras.intrinsics - capture.cameras.intrinsics / 2).abs().max() < POSE64


def test_mixed_sizes_are_kept(saved, capture, options):
    folder, content = saved
    Image.fromarray(capture.images[4].repeat(2, 0).repeat(2, 1)).save(folder / "images/004.png")
    scene = read_transforms(write(folder, content), options)
    assert [image.shape[:2] for image in scene.images[3:6]] == [(40, 48), (80, 96), (40, 48)]


@pytest.mark.parametrize("turned_camera", [False, True])
def test_exif_orientation_follows_the_camera(saved, capture, options, turned_camera):
    folder, content = saved
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(capture.images[2]).save(folder / "images/002.png", exif=exif)
    if turned_camera:
        content["frames"][2] |= {"w": 40, "h": 48, "cx": 20.0, "cy": 24.0}
    scene = read_transforms(write(folder, content), options)
    expected = np.rot90(capture.images[2], -1) if turned_camera else capture.images[2]
    np.testing.assert_array_equal(scene.images[2], expected)


def damage_frame(key: str, value: Any):
    def damage(content):
        content["frames"][3][key] = value

    return damage


def scale_rotation(content):
    content["frames"][3]["transform_matrix"][0] = [2 * v for v in content["frames"][3]["transform_matrix"][0]]


def mirror(content):
    for row in content["frames"][3]["transform_matrix"][:3]:
        row[0] *= -1


def damage_pose(value: Any):
    def damage(content):
        content["frames"][3]["transform_matrix"][1][3] = value

    return damage


def rename(old: str, new: str):
    def damage(content):
        content["frames"][3][new] = content["frames"][3].pop(old)

    return damage


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda c: c.pop("frames"), "lacks `frames`"),
        (lambda c: c.update(frames=[]), "non-empty list"),
        (lambda c: c.update(frames="many"), "non-empty list"),
        (
            rename("transform_matrix", "transfrom_matrix"),
            "frame 3.*lacks `transform_matrix`.*`transfrom_matrix`",
        ),
        (rename("file_path", "filepath"), "frame 3 lacks `file_path`.*`filepath`"),
        (rename("fl_x", "fx"), "003.png.*lacks `fl_x`"),
        (damage_frame("fl_x", "wide"), "fl_x must be a finite number, found 'wide'"),
        (damage_frame("fl_x", math.nan), "fl_x must be a finite number"),
        (damage_frame("fl_x", 0.0), "positive"),
        (damage_frame("k1", math.inf), "k1 must be a finite number"),
        (damage_frame("w", -5), "w must be from 1 to 1,000,000 pixels, found -5"),
        (
            lambda c: c.update(frames=[f | {"w": 200} for f in c["frames"]]),
            "48 x 40 pixels but its camera says 200 x",
        ),
        (damage_frame("camera_model", "EQUIRECTANGULAR"), "camera_model 'EQUIRECTANGULAR'"),
        (damage_frame("transform_matrix", [[1, 2], [3, 4]]), "must be 4 x 4"),
        (damage_frame("transform_matrix", "identity"), "must be 4 x 4"),
        (damage_frame("file_path", "../../etc/passwd.png"), "leaves the folder"),
        (damage_frame("file_path", "/etc/passwd.png"), "leaves the folder"),
        (damage_frame("file_path", "C:\\photos\\a.png"), "leaves the folder"),
        (damage_frame("file_path", 7), "a path of at most 4096 letters is expected, found 7"),
        (damage_frame("file_path", "x" * 100_000), "a path of at most 4096 letters"),
        (damage_frame("mask_path", "x" * 100_000), "a path of at most 4096 letters"),
        *(
            (damage_frame(key, 10**401), f"{key} must be a finite number")
            for key in ("fl_x", "cx", "k1", "w")
        ),
        *((damage_frame(key, 1e308), f"{key} must be a finite number") for key in ("fl_x", "cy", "k2", "h")),
        (damage_frame("h", 2**70), "h must be a finite number"),
        (damage_frame("w", 1e9), "w must be from 1 to"),
        (damage_pose(10**401), "frame 3.*transform_matrix: an entry must be a finite number"),
        (damage_pose(-1e200), "frame 3.*transform_matrix: an entry must be a finite number"),
        (damage_pose("1"), "frame 3.*transform_matrix: an entry must be a finite number"),
        (damage_frame("file_path", "images/002.png"), "second time"),
        (damage_frame("mask_path", "masks/003.png"), "are not there"),
        (damage_frame("mask_path", "../masks/003.png"), "leaves the folder"),
        (damage_pose(math.nan), "frame 3.*must be a finite number, found nan"),
        (scale_rotation, "frame 3 .*003.png.*not rigid"),
        (mirror, "mirrored"),
    ],
)
def test_broken_files_are_explained(saved, options, damage, says):
    folder, content = saved
    content = copy.deepcopy(content)
    damage(content)
    with pytest.raises(CaptureError, match=says) as caught:
        read_transforms(write(folder, content), options)
    assert "transforms.json" in str(caught.value) or "images" in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("text", ["", "{", '{"frames": [', "[" * 100_000, "\xff\xfe", "[1, 2]", "null"])
def test_broken_json_is_a_capture_error(tmp_path, options, text):
    (tmp_path / "transforms.json").write_text(text, encoding="latin-1")
    with pytest.raises(CaptureError, match=r"transforms\.json"):
        read_transforms(tmp_path / "transforms.json", options)


def test_slightly_rounded_rotations_are_made_rigid(saved, capture, options):
    folder, content = saved
    for frame in content["frames"]:
        frame["transform_matrix"] = np.round(frame["transform_matrix"], 4).tolist()
    rotations = read_transforms(write(folder, content), options).cameras.c2w[:, :, :3]
    assert (rotations.mT @ rotations - torch.eye(3)).abs().max() < POSE64
    assert (rotations - capture.cameras.c2w[:, :, :3]).abs().max() < 2e-4  # what four decimals leave


def test_too_few_images_are_refused(saved, options):
    folder, content = saved
    content["frames"] = content["frames"][:2]
    with pytest.raises(ImageError, match="2 usable images"):
        read_transforms(write(folder, content), options)


def test_no_image_at_all_is_refused(saved, options):
    folder, content = saved
    for path in (folder / "images").iterdir():
        path.unlink()
    with pytest.raises(CaptureError, match="none of its frames"):
        read_transforms(write(folder, content), options)


@pytest.mark.parametrize("form", ["{folder}/{name}", "../{name}", "/somebody/else/{name}", "D:\\x\\{name}"])
def test_paths_of_elsewhere_are_read_where_their_ends_are_here(saved, capture, options, form):
    folder, content = saved
    for frame in content["frames"]:
        frame["file_path"] = form.format(folder=folder, name=frame["file_path"])
    scene = read_transforms(write(folder, content), options)
    assert scene.names == [f"images/{index:03d}.png" for index in range(10)]
    assert_same_cameras(scene.cameras, capture.cameras)
    inside = form.startswith("{folder}")
    assert (
        scene.report.notes == []
        if inside
        else "10 photos are not where the file says" in scene.report.notes[0]
    )


def test_where_was_looked_for_images_is_said(saved, options):
    folder, content = saved
    (folder / "images").rename(folder / "masks")
    with pytest.raises(
        CaptureError, match=r"none of its frames.*looked in .* for images/000\.png and 9 more"
    ):
        read_transforms(write(folder, content), options)


def test_masks_that_are_named_and_partly_gone_are_used_as_far_as_they_go(saved, capture, options):
    folder, content = saved
    capture.save_masks(folder / "silhouettes", "s{}.png")
    for index, frame in enumerate(content["frames"]):
        frame["mask_path"] = f"silhouettes/s{index}.png"
    (folder / "silhouettes/s3.png").unlink()
    scene = read_transforms(write(folder, content), options)
    assert scene.masks[3] is None
    np.testing.assert_array_equal(scene.masks[4], capture.masks[4])
    assert any("1 of 10 masks named by `mask_path` are not there" in text for text in scene.report.warnings)


def test_a_split_that_names_no_frame_is_said_and_left_aside(saved, options):
    folder, content = saved
    content |= {"train_filenames": ["other/a.png"], "test_filenames": ["other/b.png"]}
    scene = read_transforms(write(folder, content), options)
    assert np.flatnonzero(scene.held_out).tolist() == [0, 8]
    assert any("match no frame" in text for text in scene.report.warnings)


def test_one_photo_of_another_shape_is_left_out_alone(saved, capture, options):
    folder, content = saved
    Image.fromarray(np.zeros((48, 40, 3), np.uint8)).save(folder / "images/003.png")
    scene = read_transforms(write(folder, content), options)
    assert "40 x 48 pixels but its camera says 48 x 40" in scene.report.lost["003.png"]
    assert len(scene.images) == len(scene.cameras) == 9
    assert (scene.cameras.c2w[3] - capture.cameras.c2w[4]).abs().max() < POSE64
