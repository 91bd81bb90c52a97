"""One image file: every form decodes to the same picture, every damaged one is named."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.ExifTags import Base

from quicksurf.capture import images
from quicksurf.capture.listing import list_images
from quicksurf.errors import ImageError

WIDTH, HEIGHT = 48, 32


@pytest.fixture
def picture() -> np.ndarray:
    """A smooth colour picture whose corners differ, so that a turn or a flip shows."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([columns * 5, rows * 7, 255 - columns * 2 - rows * 3], -1).astype(np.uint8)


def save_png16(path: Path, values: np.ndarray, color_type: int) -> None:
    """A 16-bit PNG (Pillow writes none in colour): colour type 0 grey, 2 RGB, 6 RGBA."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def exif_with(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    return exif


@pytest.mark.parametrize(
    ("suffix", "options", "levels"),
    [  # the worst error in grey levels: none for lossless forms
        (".png", {}, 0),
        (".tif", {}, 0),
        (".tiff", {"compression": "tiff_lzw"}, 0),
        (".webp", {"lossless": True}, 0),
        (".jpg", {"quality": 98, "subsampling": 0}, 6),
        (".heic", {"quality": 98}, 12),
    ],
)
def test_every_format_decodes_to_the_picture(tmp_path, picture, suffix, options, levels):
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(picture).save(path, **options)
    pixels = images.read_pixels(path, 10**6)
    assert pixels.alpha is None
    assert pixels.size == (WIDTH, HEIGHT)
    assert np.abs(pixels.rgb.astype(int) - picture).max() <= levels


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_sixteen_bit_colour_scales_to_eight(tmp_path, picture, kind):
    path = tmp_path / f"deep.{kind}"
    if kind == "png":
        save_png16(path, picture.astype(np.uint16) * 257, 2)
    else:
        tifffile.imwrite(path, picture.astype(np.uint16) * 257, photometric="rgb")
    np.testing.assert_array_equal(images.read_pixels(path, 10**6).rgb, picture)


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_sixteen_bit_grey_scales_to_eight(tmp_path, picture, kind):
    path = tmp_path / f"deep.{kind}"
    if kind == "png":
        save_png16(path, picture[..., 0].astype(np.uint16) * 257, 0)
    else:
        tifffile.imwrite(path, picture[..., 0].astype(np.uint16) * 257)
    np.testing.assert_array_equal(
        images.read_pixels(path, 10**6).rgb, np.repeat(picture[..., :1], 3, axis=-1)
    )


def test_grey_and_palette_become_three_channels(tmp_path, picture):
    grey = Image.fromarray(picture[..., 1])
    grey.save(tmp_path / "grey.png")
    grey.convert("P").save(tmp_path / "palette.png")
    for name in ("grey.png", "palette.png"):
        rgb = images.read_pixels(tmp_path / name, 10**6).rgb
        np.testing.assert_array_equal(rgb, np.repeat(picture[..., 1:2], 3, axis=-1))


def test_alpha_is_returned_and_transparent_is_white(tmp_path, picture):
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[:, : WIDTH // 2] = 255
    Image.fromarray(np.dstack([picture, alpha])).save(tmp_path / "cut.png")
    pixels = images.read_pixels(tmp_path / "cut.png", 10**6)
    assert pixels.alpha is not None
    np.testing.assert_array_equal(pixels.alpha, alpha)
    np.testing.assert_array_equal(pixels.rgb[:, : WIDTH // 2], picture[:, : WIDTH // 2])
    assert (pixels.rgb[:, WIDTH // 2 :] == 255).all()


def test_opaque_alpha_is_no_mask(tmp_path, picture):
    Image.fromarray(np.dstack([picture, np.full((HEIGHT, WIDTH), 255, np.uint8)])).save(tmp_path / "a.png")
    assert images.read_pixels(tmp_path / "a.png", 10**6).alpha is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_undone_or_left(tmp_path, picture, orientation):
    # The eight ways a camera stores an upright picture (EXIF 2.3, tag 0x0112).
    stored = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: np.rot90(picture),
        7: picture[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(picture, -1),
    }[orientation]
    path = tmp_path / "turned.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif_with(orientation))
    header = images.read_header(path)
    assert (header.width, header.height) == (WIDTH, HEIGHT)
    assert header.stored_size == (stored.shape[1], stored.shape[0])
    np.testing.assert_array_equal(images.read_pixels(path, 10**6).rgb, picture)
    np.testing.assert_array_equal(images.read_pixels(path, 10**6, upright=False).rgb, stored)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_downsampling_is_an_area_mean(tmp_path, suffix):
    checks = (np.indices((64, 96)).sum(0) % 2 * 255).astype(np.uint8)  # aliasing would leave black or white
    path = tmp_path / f"checks{suffix}"
    Image.fromarray(checks).save(path, **({"quality": 100} if suffix == ".jpg" else {}))
    pixels = images.read_pixels(path, 16 * 24)
    assert pixels.rgb.shape == (16, 24, 3)
    assert pixels.size == (96, 64)
    assert np.abs(pixels.rgb.astype(int) - 128).max() <= 2


@pytest.mark.parametrize(
    ("width", "height", "bound"), [(7, 5, 35), (7, 5, 34), (4032, 3024, 10**6), (9, 9000, 80)]
)
def test_fit_size_is_bounded_and_keeps_the_aspect(width, height, bound):
    small = images.fit_size(width, height, bound)
    assert 0 < small[0] * small[1] <= max(bound, small[1])
    assert (small == (width, height)) == (width * height <= bound)
    assert small[0] == 1 or abs(small[0] / small[1] * height / width - 1) < 2 / min(small)


def huge_png(path: Path, size: int = 20_000) -> None:
    """A square of 20,000 x 20,000 pixels in a file of a few hundred bytes: the header alone."""
    save_png16(path, np.zeros((1, 1), np.uint16), 0)
    body = bytearray(path.read_bytes())
    body[16:24] = struct.pack(">II", size, size)
    body[29:33] = struct.pack(">I", zlib.crc32(bytes(body[12:29])))
    path.write_bytes(bytes(body))


def text_as_jpeg(path: Path) -> None:
    path.write_text("this is no photo\n" * 20)


def truncated_jpeg(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[:-900])


def corrupt_png(path: Path) -> None:
    Image.fromarray(np.arange(48 * 32, dtype=np.uint8).reshape(32, 48)).save(path, format="PNG")
    body = bytearray(path.read_bytes())
    body[60:80] = bytes(20)
    path.write_bytes(bytes(body))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_bytes(b""), "empty"),
        (text_as_jpeg, "not an image"),
        (truncated_jpeg, "truncated"),
        (corrupt_png, "corrupt"),
        (huge_png, "megapixels"),
        (lambda path: Image.new("RGB", (3, 3)).save(path, format="PNG"), "too small"),
        (lambda path: Image.new("F", (32, 32)).save(path, format="TIFF"), "8 or 16"),
    ],
)
def test_damaged_files_are_named(tmp_path, damage, says):
    path = tmp_path / "IMG_0042.jpg"
    damage(path)
    with pytest.raises(ImageError, match=says) as caught:
        images.read_pixels(path, 10**6)
    assert "IMG_0042.jpg" in str(caught.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_oversized_image_is_refused_by_its_header(tmp_path):
    huge_png(tmp_path / "huge.png")
    with pytest.raises(
        ImageError, match=r"huge\.png: larger than the 120 megapixels that are read: shrink it$"
    ):
        images.read_header(
            tmp_path / "huge.png"
        )  # Pillow refuses it, by a limit that is not to be named as well
    huge_png(tmp_path / "large.png", 11_000)  # within Pillow's own bound of 179 megapixels, above ours
    with pytest.raises(ImageError, match=r"large.png: 11000 x 11000 is 121 megapixels"):
        images.read_header(tmp_path / "large.png")


def test_list_is_natural_and_skips_other_files(tmp_path, picture):
    for name in ("IMG_10.JPG", "img_9.jpg", "IMG_100.png", "notes.txt", "._IMG_9.jpg"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sub.jpg").mkdir()
    assert [p.name for p in list_images(tmp_path)] == ["img_9.jpg", "IMG_10.JPG", "IMG_100.png"]


@pytest.mark.parametrize("names", [("a.jpg", "a.png"), ("A.jpg", "a.jpg"), ("b.JPG", "b.jpeg")])
def test_two_photos_of_one_name_are_refused(tmp_path, names):
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ImageError, match="one name") as caught:
        list_images(tmp_path)
    assert all(name in str(caught.value) for name in names)


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(ImageError, match="no images"):
        list_images(tmp_path)


def test_one_bad_file_among_many_gives_its_error(tmp_path, picture):
    for index in range(4):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    (tmp_path / "2.png").write_text("no")
    paths = list_images(tmp_path)
    read = images.each_or_error(paths, lambda path: images.read_pixels(path, 10**6))
    assert [isinstance(item, ImageError) for item in read] == [False, False, True, False]


def test_too_few_images_are_refused_with_reasons(tmp_path):
    images.require_images(3, {}, tmp_path)
    with pytest.raises(ImageError, match=r"(?s)2 usable images.*bad.jpg: it is empty"):
        images.require_images(2, {"bad.jpg": "it is empty"}, tmp_path)


def test_files_that_are_not_used_are_named_in_one_line(tmp_path):
    truncated_jpeg(tmp_path / "a.jpg")
    text_as_jpeg(tmp_path / "b.jpg")
    lost = {}
    for name in ("a.jpg", "b.jpg"):
        with pytest.raises(ImageError) as caught:
            images.read_pixels(tmp_path / name, 10**6)
        lost[name] = str(caught.value)
    lost["c.jpg"] = "too few matches: 20 with its best partner"
    expected = "a.jpg (truncated or corrupt), b.jpg (not an image), c.jpg (too few matches: 20 with its best partner)"
    assert images.lost_warnings(lost) == [f"3 files were not used: {expected}"]
    assert images.lost_warnings({"a.jpg": lost["a.jpg"]}) == [
        "1 file was not used: a.jpg (truncated or corrupt)"
    ]
    assert images.lost_warnings({}) == []


def test_many_files_that_are_not_used_are_counted():
    (line,) = images.lost_warnings({f"{index}.jpg": "blurred" for index in range(42)})
    assert line.startswith("42 files were not used: 0.jpg (blurred)") and line.endswith(
        "4.jpg (blurred) and 37 more"
    )


def fill(folder: Path, n_images: int) -> None:
    folder.mkdir(parents=True)
    for index in range(n_images):
        (folder / f"{index}.jpg").write_bytes(b"x")


def test_images_in_subfolders_are_counted(tmp_path):
    fill(tmp_path / "a", 24)
    with pytest.raises(ImageError) as caught:
        list_images(tmp_path)
    assert str(caught.value) == f"no images in {tmp_path}; 24 in {tmp_path}/a: give that"
    fill(tmp_path / "b/left", 31)
    fill(tmp_path / ".trash", 2)
    (tmp_path / "notes").mkdir()
    with pytest.raises(ImageError) as caught:
        list_images(tmp_path)
    found = f"24 in {tmp_path}/a and 31 in {tmp_path}/b/left"
    assert str(caught.value) == f"no images in {tmp_path}; {found}: give one of these"


def test_many_subfolders_are_cut_to_five(tmp_path):
    for index in range(8):
        fill(tmp_path / f"s{index}", 1)
    with pytest.raises(ImageError, match=r"1 in \S+/s4 and 3 others: give one of these"):
        list_images(tmp_path)


def test_masks_previews_and_hidden_files_are_no_photos(tmp_path):
    photos = ["a_mask.jpg", "0.jpg", "1.jpg"]  # the first is a photo: there is no a
    for name in (*photos, "._0.jpg", "0_mask.png", "0.jpg.mask.png", "0-thumb.jpg", "thumb_1.jpg"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in list_images(tmp_path)] == photos


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "bmp", "JFIF"])
def test_rarer_suffixes_are_photos(tmp_path, suffix):
    values = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    form = "BMP" if suffix == "bmp" else "JPEG"
    Image.fromarray(values).save(tmp_path / f"a.{suffix}", form)
    (path,) = list_images(tmp_path)
    found = images.read_pixels(path, 10**6)
    assert found.rgb.shape == (24, 32, 3)
    if form == "BMP":
        np.testing.assert_array_equal(found.rgb, values)


@pytest.mark.parametrize(
    ("films", "says"),
    [
        (["IMG_1.MOV"], r"no images in .*, but film: IMG_1\.MOV; give that, as .*/IMG_1\.MOV"),
        (["a.mp4", "b.mkv"], r"but film: a\.mp4 and b\.mkv; give one of these, as .*/a\.mp4"),
    ],
)
def test_a_folder_of_films_is_told_to_give_one(tmp_path, films, says):
    for name in films:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ImageError, match=says):
        list_images(tmp_path)
