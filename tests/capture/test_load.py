"""A capture is recognised for what it is, read, and reported."""

import json

import numpy as np
import pytest
from PIL import Image

from quicksurf.capture import load
from quicksurf.capture.assemble import ReadOptions, every_eighth
from quicksurf.capture.load import read_scene
from quicksurf.capture.scene import Scene
from quicksurf.capture.transforms import write_cameras
from quicksurf.errors import CaptureError, ImageError, RoiError
from quicksurf.geometry.region import Roi


@pytest.fixture
def saved(tmp_path, capture):
    names = [path.relative_to(tmp_path).as_posix() for path in capture.save_images(tmp_path / "images")]
    write_cameras(tmp_path / "transforms.json", capture.cameras, names, every_eighth(10))
    return tmp_path


def test_folder_and_file_give_the_same_scene(saved, options):
    by_folder, by_file = read_scene(saved, options), read_scene(saved / "transforms.json", options)
    assert by_folder.names == by_file.names
    assert by_folder.roi == by_file.roi
    assert by_folder.name == saved.name


def lines_of(source, **options) -> tuple[list[str], Scene]:
    lines: list[str] = []
    return lines, read_scene(source, ReadOptions(max_pixels=10**6, say=lines.append, **options))


def test_what_was_found_and_used_is_said_in_two_lines(saved):
    lines, scene = lines_of(saved)
    assert lines == [
        f"{saved}: cameras from transforms.json; 10 photos (10 in images/)",
        "10 of 10 photos used",
    ]
    assert (f"{saved}: {scene.report.found}", scene.report.used) == tuple(lines)
    assert scene.report.seconds_read > 0


def test_what_was_left_out_is_said_with_its_reason(saved, capture):
    capture.save_masks(saved / "masks")
    capture.save_images(saved / "images_2", "{}.png")
    (saved / "images/walk.mp4").write_bytes(b"x")
    (saved / "images/raw.DNG").write_bytes(b"x")
    (saved / "images/._000.png").write_bytes(b"x")
    (saved / "images/000_thumb.png").write_bytes(b"x")
    (saved / "images/003.png").write_bytes(b"")
    lines, _ = lines_of(saved)
    assert lines == [
        f"{saved}: cameras from transforms.json; 20 photos (10 in images/, 10 in images_2/), 10 masks (10 in masks/); "
        "left out: 1 preview (1 in images/), 1 film (1 in images/), "
        "1 picture of kinds that are not read (1 in images/)",
        "9 of 10 photos used, 9 with masks; left out: 1 (the file is empty), 10 photos not of this capture "
        "(10 in images_2/)",
    ]


def test_masks_beside_photos_are_used_as_masks(tmp_path, capture):
    capture.save_images(tmp_path / "images", "{:03d}.jpg")
    capture.save_masks(tmp_path / "images", "{:03d}_mask.png")
    names = [f"images/{index:03d}.jpg" for index in range(10)]
    write_cameras(tmp_path / "transforms.json", capture.cameras, names, every_eighth(10))
    lines, scene = lines_of(tmp_path)
    assert lines[0].endswith("10 photos (10 in images/), 10 masks (10 in images/)")
    assert lines[1] == "10 of 10 photos used, 10 with masks"
    for found, mask in zip(scene.masks, capture.masks, strict=True):
        np.testing.assert_array_equal(found, mask)
    assert lines_of(tmp_path, use_masks=False)[1].masks == [None] * 10


@pytest.mark.parametrize("folder", ["images", "input", "photos", "rgb"])
def test_photos_lie_in_any_usual_folder(tmp_path, capture, folder):
    capture.save_images(tmp_path / folder)
    kind, path, _ = load._recognise(tmp_path)
    assert path == tmp_path / folder and kind.startswith(f"photos in {folder}/")


def test_a_folder_that_holds_a_film_is_told_to_give_it(tmp_path, options):
    (tmp_path / "IMG_1.MOV").write_bytes(b"x")
    with pytest.raises(ImageError, match=r"film: IMG_1\.MOV; give that, as .*/IMG_1\.MOV"):
        read_scene(tmp_path, options)


@pytest.mark.parametrize(
    ("roi", "text"),
    [
        (Roi((500000.1234, 4600000.5, 300.0), 2.3456), "500000.123,4600000.5,300,2.346"),
        (Roi((0.2, -0.1, 40.0), 1.0), "0.2,-0.1,40,1"),
        (Roi((5e8, 4.6e9, 1.25), 2345.6), "500000000,4600000000,1,2346"),
        (Roi((0.0, 0.0, 1e-5), 1.234e-5), "0,0,1e-05,1.234e-05"),
        (Roi((0.0, 0.0, 0.0), float("nan")), "0,0,0,nan"),
    ],
)
def test_a_region_is_told_as_it_can_be_given(roi, text):
    assert roi.describe() == text


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["transforms.json", "sparse/0/cameras.bin"], "cameras from transforms.json"),
        (["transforms_train.json"], "cameras from transforms_train.json"),
        (["cameras_sphere.npz", "cameras.npz"], "cameras from cameras_sphere.npz"),
        (["cameras.npz"], "cameras from cameras.npz"),
        (
            ["sparse/0/cameras.bin", "sparse/0/images.bin", "sparse/0/points3D.bin"],
            "COLMAP model in sparse/0",
        ),
        (["cameras.txt", "images.txt", "points3D.txt"], "COLMAP model in ."),
        (["images/a.jpg", "transforms_other.json"], "photos in images/"),
        (["a.jpg"], "photos without cameras"),
        (["sparse/0/cameras.bin", "images/a.jpg"], "photos in images/"),
    ],
)
def test_folders_are_recognised(tmp_path, files, kind):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert kind in load._recognise(tmp_path)[0]


def test_video_is_recognised(tmp_path):
    (tmp_path / "walk.MOV").write_bytes(b"x")
    assert "video" in load._recognise(tmp_path / "walk.MOV")[0]


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("absent", ImageError, "no such file or folder"),
        ("photo.jpg", ImageError, "is one photo"),
        ("mesh.ply", CaptureError, "unknown kind of file"),
    ],
)
def test_other_sources_are_refused(tmp_path, options, name, error, says):
    if name != "absent":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(error, match=says) as caught:
        read_scene(tmp_path / name, options)
    assert name in str(caught.value)


def test_the_users_roi_wins(saved):
    options = ReadOptions(max_pixels=10**6, roi=Roi((0.1, 0.0, 0.2), 0.7), say=lambda line: None)
    assert read_scene(saved, options).roi == options.roi


def test_roi_that_holds_a_camera_is_a_warning(saved):
    options = ReadOptions(max_pixels=10**6, roi=Roi((0.2, -0.1, 0.3), 4.0), say=lambda line: None)
    assert any("holds 10 of 10 cameras" in text for text in read_scene(saved, options).report.warnings)


def test_reading_goes_on_with_a_roi_around_one_camera(saved, capture):
    """The ball is kept as given and everything is read; the warning counts the camera and says what to do."""
    x, y, z = capture.cameras.centers()[4].tolist()
    options = ReadOptions(max_pixels=10**6, roi=Roi((x, y, z), 0.3), say=lambda line: None)
    scene = read_scene(saved, options)
    assert scene.roi == options.roi
    assert len(scene.images) == len(scene.cameras) == 10
    (warning,) = [text for text in scene.report.warnings if "region of interest" in text and "holds" in text]
    assert "holds 1 of 10 cameras: their rays start inside it; a smaller radius" in warning


def test_roi_out_of_sight_is_an_error(saved):
    options = ReadOptions(max_pixels=10**6, roi=Roi((0.0, 0.0, 90.0), 1.0), say=lambda line: None)
    with pytest.raises(RoiError, match="no camera sees"):
        read_scene(saved, options)


def test_photos_without_mask_are_said_and_never_held_out(saved, capture, options):
    capture.save_masks(saved / "masks")
    (saved / "masks/008.png").unlink()
    scene = read_scene(saved, options)
    assert [index for index, mask in enumerate(scene.masks) if mask is None] == [8]
    assert np.flatnonzero(scene.held_out).tolist() == [0]
    assert any("9 of 10 photos have a mask" in text and "008.png" in text for text in scene.report.warnings)
    scene = read_scene(saved, ReadOptions(max_pixels=10**6, use_masks=False, say=lambda line: None))
    assert scene.masks == [None] * 10
    assert np.flatnonzero(scene.held_out).tolist() == [0, 8]


def test_alpha_is_the_mask_where_there_are_no_files(saved, capture, options):
    for index in range(10):
        rgba = np.dstack([capture.images[index], capture.masks[index]])
        Image.fromarray(rgba).save(saved / f"images/{index:03d}.png")
    scene = read_scene(saved, options)
    for found, mask in zip(scene.masks, capture.masks, strict=True):
        np.testing.assert_array_equal(found, mask)


def test_black_masks_are_refused_a_few_are_said(saved, capture, options):
    paths = capture.save_masks(saved / "masks")
    black = Image.new("L", Image.open(paths[0]).size)
    for path in paths[:3]:
        black.save(path)
    assert any(
        "masks without any object: 000.png" in text for text in read_scene(saved, options).report.warnings
    )
    for path in paths:
        black.save(path)
    with pytest.raises(CaptureError, match=rf"all 10 masks in {saved}/masks are black"):
        read_scene(saved, options)


def test_alpha_that_hides_everything_is_refused(saved, capture, options):
    for index in range(10):
        rgba = np.dstack([capture.images[index], np.zeros_like(capture.masks[index])])
        Image.fromarray(rgba).save(saved / f"images/{index:03d}.png")
    with pytest.raises(CaptureError, match="all 10 masks in the alpha channels of"):
        read_scene(saved, options)


def test_damaged_photos_are_warned_of(saved, options):
    (saved / "images/003.png").write_bytes(b"")
    (saved / "images/007.png").write_text("not a photo")
    report = read_scene(saved, options).report
    assert set(report.lost) == {"003.png", "007.png"}
    assert "2 files were not used: 003.png (the file is empty), 007.png (not an image)" in report.warnings


def test_a_folder_of_folders_is_told_where_the_photos_are(tmp_path, capture, options):
    for name in ("front", "back"):
        capture.save_images(tmp_path / name)
    with pytest.raises(
        ImageError, match=r"no images in .*; 10 in \S+/back and 10 in \S+/front: give one of these"
    ):
        read_scene(tmp_path, options)


def test_a_split_that_leaves_nothing_to_fit_is_dropped_and_said(saved, options):
    content = json.loads((saved / "transforms.json").read_text())
    content |= {"train_filenames": [], "test_filenames": [f["file_path"] for f in content["frames"]]}
    (saved / "transforms.json").write_text(json.dumps(content))
    scene = read_scene(saved, options)
    assert not scene.held_out.any()
    assert any("too few views to hold any out" in text for text in scene.report.warnings)


@pytest.mark.parametrize(("n_images", "expected"), [(3, []), (7, []), (8, [0]), (17, [0, 8, 16])])
def test_every_eighth_view_is_held_out(n_images, expected):
    assert np.flatnonzero(every_eighth(n_images)).tolist() == expected


def test_fox_skips_its_seventeen_absent_frames(data_folder, options):
    scene = read_scene(data_folder / "fox", options)
    assert len(scene.images) == 50
    assert any("17 of 67 frames" in text for text in scene.report.warnings)
    assert scene.cameras.distortion[0, :2].tolist() == [0.0578421, -0.0805099]


def test_dtu_keeps_its_millimetres(data_folder):
    scene = read_scene(data_folder / "dtu_scan24", ReadOptions(max_pixels=10**5, say=lambda line: None))
    assert len(scene.images) == 49
    assert scene.roi.radius == pytest.approx(231.07, abs=0.01)
    assert all(mask is not None and 0 < mask.mean() < 255 for mask in scene.masks)
