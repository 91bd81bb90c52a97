"""A mask of any dialect is read as what its author meant: black is background, whatever else is plain is object."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy import ndimage

from quicksurf.capture import masks
from quicksurf.capture.images import read_pixels
from quicksurf.capture.masks import as_given, coverage_of
from quicksurf.errors import CaptureError

HEIGHT, WIDTH = 60, 80
ROWS, COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH]
INSIDE = (ROWS - 30) ** 2 + (COLUMNS - 40) ** 2 < 18**2
LEFT = INSIDE & (COLUMNS < 40)
RIM = ndimage.binary_dilation(INSIDE, iterations=2) & ~INSIDE
VOC = (
    [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128, 128, 0, 128, 64, 0, 0]
    + [0] * 3 * 248
    + [224, 224, 192]
)


def painted(*layers, dtype=np.uint8):
    """Layers (where, value) on black; a value is a number or a colour."""
    colored = any(isinstance(value, tuple) for _, value in layers)
    canvas = np.zeros((HEIGHT, WIDTH, 3) if colored else (HEIGHT, WIDTH), dtype)
    for where, value in layers:
        canvas[where] = value
    return canvas


def palette(values, colors=VOC):
    image = Image.fromarray(values, "L").convert("P")
    image.putdata(values.ravel().tolist())
    image.putpalette(colors)
    return image


def read(tmp_path, image, name="mask.png", **options):
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(tmp_path / "image.png")
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(tmp_path / name, **options)
    return masks.read_mask(tmp_path / name, read_pixels(tmp_path / "image.png", 10**6), False)


@pytest.mark.parametrize(
    "layers",
    [
        [(INSIDE, 255)],
        [(INSIDE, 128)],
        [(INSIDE, 200)],
        [(INSIDE, 1)],
        [(INSIDE, (0, 255, 0))],
        [(INSIDE, (255, 255, 0))],
        [(INSIDE, (128, 0, 0))],
        [(INSIDE, (0, 0, 30))],
        [(INSIDE, (128, 0, 0)), (LEFT, (0, 128, 0))],
        [(INSIDE, (0, 0, 255)), (LEFT, (255, 0, 255))],
        [(INSIDE, (10, 0, 0)), (LEFT, (0, 250, 0))],
        [(INSIDE, 255), (LEFT, 127)],
        [(INSIDE, 2), (LEFT, 1)],
        [(INSIDE, 6), (LEFT, 3)],
        [(INSIDE, 20), (LEFT, 255)],
    ],
)
def test_any_label_on_black_is_object(tmp_path, layers):
    np.testing.assert_array_equal(read(tmp_path, painted(*layers)), np.where(INSIDE, 255, 0))


@pytest.mark.parametrize("index", [1, 2, 5, 6])
def test_palettes_are_labels_and_the_void_rim_is_no_background(tmp_path, index):
    values = painted((INSIDE, index), (RIM, 255))
    np.testing.assert_array_equal(read(tmp_path, palette(values)), np.where(INSIDE | RIM, 255, 0))
    np.testing.assert_array_equal(read(tmp_path, values, "grey.png"), np.where(INSIDE | RIM, 255, 0))


def test_a_palette_without_colors_is_read_by_its_numbers(tmp_path):
    values = painted((INSIDE, 3), (LEFT, 5))
    np.testing.assert_array_equal(read(tmp_path, palette(values, [0] * 768)), np.where(INSIDE, 255, 0))


def test_a_palette_of_greys_is_read_by_its_colors(tmp_path):
    """What an editor saves to spare bytes: numbers in any order."""
    values = np.where(INSIDE, 0, 1).astype(np.uint8)
    np.testing.assert_array_equal(
        read(tmp_path, palette(values, [255, 255, 255, 0, 0, 0])), np.where(INSIDE, 255, 0)
    )


@pytest.mark.parametrize("top", [1, 6, 255, 1000, 65535])
def test_sixteen_bits_hold_labels_too(tmp_path, top):
    found = read(tmp_path, painted((INSIDE, top), dtype=np.uint16))
    np.testing.assert_array_equal(found, np.where(INSIDE, 255, 0))


def test_one_bit_and_truth_values(tmp_path):
    np.testing.assert_array_equal(read(tmp_path, Image.fromarray(INSIDE)), np.where(INSIDE, 255, 0))


@pytest.mark.parametrize("label", [(255, 255, 255), (128, 128, 128), (0, 255, 0), (128, 0, 0)])
@pytest.mark.parametrize("quality", [75, 95])
def test_jpeg_noise_is_no_label(tmp_path, label, quality):
    found = read(tmp_path, painted((INSIDE, label)), "mask.jpg", quality=quality, subsampling=0)
    far = ~ndimage.binary_dilation(INSIDE ^ ndimage.binary_erosion(INSIDE), iterations=4)
    assert np.abs(found[far].astype(int) - np.where(INSIDE, 255, 0)[far]).max() < 80  # ringing
    assert ((found > 127) == INSIDE).mean() > 0.99


@pytest.mark.parametrize("label", [255, 90])
@pytest.mark.parametrize("radius", [0.7, 3])
def test_soft_outlines_stay_soft(tmp_path, label, radius):
    soft = Image.fromarray(painted((INSIDE, 255))).filter(ImageFilter.GaussianBlur(radius))
    dim = soft.point(lambda value: round(value * label / 255))
    found = read(tmp_path, dim).astype(int)
    assert np.abs(found - np.asarray(soft)).max() <= np.ceil(255 / label)


def test_supersampled_outlines_stay_soft(tmp_path):
    fine = np.kron(INSIDE, np.ones((4, 4)))
    fine[2:] = fine[:-2]
    fractions = np.rint(fine.reshape(HEIGHT, 4, WIDTH, 4).mean((1, 3)) * 255).astype(np.uint8)
    # two values are reserved for what nobody knows: coverage passes them by
    np.testing.assert_array_equal(read(tmp_path, fractions), as_given(fractions))


def test_empty_and_full_masks_pass(tmp_path):
    assert not read(tmp_path, painted()).any()
    for value in (255, 128, 1, (0, 255, 0)):
        assert (read(tmp_path, painted((INSIDE | True, value))) == 255).all()


def test_a_tiny_object_is_found(tmp_path):
    dot = np.zeros((HEIGHT, WIDTH), bool)
    dot[7, 9] = True
    for value in (255, 128, 1, (128, 0, 0)):
        np.testing.assert_array_equal(read(tmp_path, painted((dot, value))), np.where(dot, 255, 0))


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (
            [(INSIDE | True, (255, 255, 255)), (INSIDE, (255, 0, 0))],
            r"no black: \(255, 255, 255\), \(255, 0, 0\)",
        ),
        ([(INSIDE | True, 255), (INSIDE, 128)], "no black: 255, 128"),
        ([(INSIDE | True, 1), (INSIDE, 2)], "no black: 1, 2"),
    ],
)
def test_what_has_no_black_is_refused_by_its_values(tmp_path, layers, says):
    with pytest.raises(CaptureError, match=rf"mask .*mask\.png holds {says}.*black.*--masks none"):
        read(tmp_path, painted(*layers))


def test_a_photo_is_no_mask(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(4)))
    for image in (photo, smooth):
        with pytest.raises(CaptureError, match=r"mask\.png (is shaded all over|holds no black)"):
            read(tmp_path, image)


@pytest.mark.slow
def test_large_masks_are_judged_in_a_moment():
    large = np.kron(painted((INSIDE, 38)), np.ones((50, 50), np.uint8))[..., None]
    np.testing.assert_array_equal(coverage_of(large), np.where(large[..., 0] > 0, 255, 0))


def test_files_of_a_jpeg_with_few_values_are_exact(tmp_path):
    blocks = painted((np.s_[16:40, 16:64], 255))
    stream = io.BytesIO()
    Image.fromarray(blocks).save(stream, "JPEG", quality=95)
    np.testing.assert_array_equal(
        read(tmp_path, Image.open(stream), "mask.jpg", quality=95) > 127, blocks > 0
    )
