"""Masks are found under every usual name, fit their images, and say when they do not."""

import time

import numpy as np
import pytest
from PIL import Image

from quicksurf.capture import masks
from quicksurf.capture.images import read_pixels
from quicksurf.capture.listing import list_images
from quicksurf.errors import CaptureError


def touch(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    return [folder / name for name in names]


@pytest.mark.parametrize("folder", ["masks", "mask", "Masks"])
@pytest.mark.parametrize(
    ("image_names", "mask_names"),
    [
        (["a.jpg", "b.jpg", "c.jpg"], ["a.png", "b.png", "c.png"]),
        (["a.jpg", "b.jpg"], ["a.jpg.png", "b.jpg.png"]),
        (["a.jpg", "b.jpg"], ["a_mask.png", "b_mask.png"]),
        (["a.jpg", "b.jpg"], ["mask_a.png", "mask_b.png"]),
        (["IMG_1.JPG", "IMG_2.JPG"], ["img_1.png", "img_2.png"]),
        (["000000.jpg", "000001.jpg"], ["000.png", "001.png"]),
        (["000008.jpg", "000009.jpg", "000010.jpg"], ["8.png", "9.png", "10.png"]),
        (["0.jpg", "1.jpg", "2.jpg"], ["1.png", "2.png", "3.png"]),  # by order: numbers from 0 and from 1
        (["5.jpg"], ["4.png", "5.png", "6.png"]),  # images may be a subset
    ],
)
def test_usual_namings_are_matched(tmp_path, folder, image_names, mask_names):
    paths = touch(tmp_path / "images", image_names)
    touch(tmp_path / folder, mask_names)
    found, warnings = masks.find_masks(tmp_path, paths)
    expected = ["5.png"] if image_names == ["5.jpg"] else mask_names
    assert [path.name for path in found] == expected
    assert warnings == []


def test_masks_beside_the_images_folder_are_found(tmp_path):
    paths = touch(tmp_path / "images", ["a.jpg", "b.jpg"])
    touch(tmp_path / "masks", ["a.png", "b.png"])
    assert masks.find_masks(tmp_path / "images", paths)[0] == [
        tmp_path / "masks" / n for n in ("a.png", "b.png")
    ]


def test_same_names_in_subfolders_are_told_apart(tmp_path):
    paths = touch(tmp_path / "images", ["left/0.jpg", "right/0.jpg"])
    expected = touch(tmp_path / "masks", ["left/0.png", "right/0.png"])
    assert masks.find_masks(tmp_path, paths)[0] == expected


def test_no_folder_means_no_masks(tmp_path):
    paths = touch(tmp_path / "images", ["a.jpg"])
    assert masks.find_masks(tmp_path, paths) == ([None], [])


def test_folder_without_images_is_said(tmp_path):
    paths = touch(tmp_path / "images", ["a.jpg"])
    touch(tmp_path / "masks", ["readme.txt"])
    found, warnings = masks.find_masks(tmp_path, paths)
    assert found == [None]
    assert "holds no image files" in warnings[0]


def test_images_without_mask_have_none(tmp_path):
    paths = touch(tmp_path / "images", [f"{index:04d}.png" for index in range(42)])
    touch(tmp_path / "masks", [f"{index:04d}.png" for index in range(42) if index not in (31, 32)])
    found, _ = masks.find_masks(tmp_path, paths)
    assert [index for index, mask in enumerate(found) if mask is None] == [31, 32]
    assert found[33] == tmp_path / "masks/0033.png"


def test_masks_of_other_images_are_refused(tmp_path):
    paths = touch(tmp_path / "images", [f"a{index}.png" for index in range(20)])
    touch(tmp_path / "masks", ["other.png"])
    with pytest.raises(
        CaptureError, match=r"masks/ has 1 files.*20 images.*no mask is named like.*and 15 more"
    ):
        masks.find_masks(tmp_path, paths)


def test_two_images_never_share_a_mask(tmp_path):
    paths = touch(tmp_path / "images", ["left/0.jpg", "right/0.jpg", "left/1.jpg"])
    touch(tmp_path / "masks", ["0.png", "1.png"])
    assert masks.find_masks(tmp_path, paths)[0] == [None, None, tmp_path / "masks/1.png"]


@pytest.mark.parametrize(
    "form",
    [
        "{}_mask.png",
        "{}.jpg.mask.png",
        "mask_{}.png",
        "{}-mask.jpg",
        "{}_seg.png",
        "{} mask.png",
        "{}_MASK.PNG",
    ],
)
def test_masks_beside_their_images_are_used(tmp_path, form):
    paths = touch(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    expected = touch(tmp_path, [form.format(stem) for stem in "abc"])
    assert masks.find_masks(tmp_path, paths) == (expected, [])
    assert list_images(tmp_path) == paths


def test_a_photo_is_never_its_own_mask(tmp_path):
    """A folder of masks that is a link to a folder above the photos holds the photos, too."""
    paths = touch(tmp_path / "images", ["a.jpg", "b.jpg"])
    (tmp_path / "masks").symlink_to(tmp_path)
    assert "holds no image files" in masks.find_masks(tmp_path, paths)[1][0]
    (mask,) = touch(tmp_path / "other", ["a.png"])
    assert [found and found.resolve() for found in masks.find_masks(tmp_path, paths)[0]] == [mask, None]


@pytest.mark.slow
def test_a_folder_of_masks_that_is_the_whole_disk_ends_soon(tmp_path):
    """Within 100,000 files and folders; whether pictures are among them is the disk's affair."""
    paths = touch(tmp_path / "images", ["no-such-name-anywhere.jpg"])
    (tmp_path / "masks").symlink_to("/")
    began = time.process_time()
    try:
        assert "holds no image files" in masks.find_masks(tmp_path, paths)[1][0]
    except CaptureError as error:
        assert "no mask is named like an image" in str(error)
    assert time.process_time() - began < 20


def test_masks_of_some_photos_are_used_and_said():
    given = np.full((4, 4), 255, np.uint8)
    names = ["a", "b", "c", "d"]
    found, warnings = masks.use_some([given, None, given, given], names)
    assert found == [given, None, given, given]
    assert "3 of 4 photos have a mask; fitted without one, and never held out: b" in warnings[0]
    found, warnings = masks.use_some([given, None, None, given], names)
    assert found == [None] * 4
    assert warnings == ["only 2 of 4 photos have a mask, at least 3 are needed: masks are not used"]
    assert masks.use_some([given] * 4, names) == ([given] * 4, [])
    assert masks.use_some([None] * 4, names) == ([None] * 4, [])


def save(path, values):
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("top", [1, 38, 255])
def test_any_two_valued_mask_becomes_0_and_255(top):
    values = np.zeros((4, 6), np.uint8)
    values[1:3, 2:5] = top
    np.testing.assert_array_equal(masks.coverage(values), np.where(values > 0, 255, 0))


def test_grey_masks_keep_their_coverage():
    values = np.array([[0, 60, 127, 128, 255]], np.uint8)
    np.testing.assert_array_equal(masks.coverage(values), values)


def test_a_larger_binary_mask_becomes_the_share_of_each_pixel(tmp_path):
    image = save(tmp_path / "image.png", np.full((8, 8, 3), 90, np.uint8))
    mask = np.zeros((32, 32), np.uint8)
    mask[:, :13] = 255  # 3 pixels and a quarter
    found = masks.read_mask(save(tmp_path / "mask.png", mask), read_pixels(image, 10**6), False)
    np.testing.assert_array_equal(found[0], [255, 255, 255, 64, 0, 0, 0, 0])


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("max_pixels", [10**6, 12 * 16])
def test_mask_of_another_size_but_the_same_aspect_fits(tmp_path, scale, max_pixels):
    image = save(tmp_path / "image.png", np.full((24, 32, 3), 90, np.uint8))
    mask = np.zeros((24, 32), np.uint8)
    mask[8:16, 8:24] = 255
    path = save(tmp_path / "mask.png", mask.repeat(scale, 0).repeat(scale, 1))
    pixels = read_pixels(image, max_pixels)
    found = masks.read_mask(path, pixels, False)
    step = 24 // pixels.rgb.shape[0]
    np.testing.assert_array_equal(found, mask[::step, ::step])


def test_mask_of_another_aspect_is_refused(tmp_path):
    image = save(tmp_path / "image.png", np.zeros((24, 32, 3), np.uint8))
    path = save(tmp_path / "turned.png", np.zeros((32, 24), np.uint8))
    with pytest.raises(CaptureError, match=r"turned.png is 24 x 32 pixels, its image 32 x 24"):
        masks.read_mask(path, read_pixels(image, 10**6), False)


def test_damaged_mask_is_named(tmp_path):
    image = save(tmp_path / "image.png", np.zeros((24, 32, 3), np.uint8))
    (tmp_path / "mask.png").write_text("no")
    with pytest.raises(CaptureError, match=r"mask\.png: not an image"):
        masks.read_mask(tmp_path / "mask.png", read_pixels(image, 10**6), False)


def test_alpha_of_a_mask_file_counts_where_it_cuts(tmp_path):
    image = save(tmp_path / "image.png", np.zeros((24, 32, 3), np.uint8))
    alpha = np.zeros((24, 32), np.uint8)
    alpha[4:9] = 255
    path = save(tmp_path / "cut.png", np.dstack([np.full((24, 32, 3), 7, np.uint8), alpha]))
    np.testing.assert_array_equal(masks.read_mask(path, read_pixels(image, 10**6), False), alpha)


def test_empty_and_inverted_masks_are_said():
    disc = np.zeros((20, 20), np.uint8)
    disc[6:14, 6:14] = 255
    names = ["a", "b", "c"]
    assert masks.mask_warnings([disc, disc, None], names) == []
    assert "without any object: b;" in masks.mask_warnings([disc, np.zeros_like(disc), disc], names)[0]
    assert "3 of 3 masks look inverted" in masks.mask_warnings([255 - disc] * 3, names)[0]
    assert masks.mask_warnings([np.full_like(disc, 255)] * 3, names) == []


def test_masks_that_are_all_black_are_refused_with_their_place():
    black, disc = np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8)
    with pytest.raises(CaptureError, match=r"all 2 masks in capture/masks are black.*--masks none"):
        masks.require_object([black, None, black], "capture/masks")
    for given in ([black, disc], [None, None], []):
        masks.require_object(given, "capture/masks")
