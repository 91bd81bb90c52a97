"""Features of large scale first, at pixel centres of +0.5, with descriptors whose distance is Hellinger's."""

from pathlib import Path

import numpy as np
import pytest
import rendered_box
from PIL import Image

from quicksurf.capture.sfm.features import Features, detect, extract, root_sift, spread
from quicksurf.errors import ImageError

ROUNDED = 0.02  # of a cosine: 128 components rounded to 1 / 512
BLOB_PIXELS = 0.1  # the centre of a blob is found to less than a tenth of a pixel


@pytest.fixture(scope="module")
def texture() -> np.ndarray:
    grey = rendered_box.noise(0, (200, 260)).clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def test_few_features_are_those_of_largest_scale(texture: np.ndarray) -> None:
    many, few = detect(texture, 8192), detect(texture, 50)
    assert len(many.points) > 200 and len(few.points) == 50
    assert (np.diff(many.scales) <= 0).all()
    np.testing.assert_array_equal(few.scales, many.scales[:50])
    assert few.size == (260, 200)


def test_centre_of_the_upper_left_pixel_is_at_one_half() -> None:
    """A blob that is symmetric about the centre of pixel (40, 30) lies at (40.5, 30.5), and has its colour."""
    rows, columns = np.mgrid[0:64, 0:96]
    light = 200 * np.exp(-((columns - 40) ** 2 + (rows - 30) ** 2) / (2 * 4.0**2))
    image = np.stack([light, light, 0 * light], 2).astype(np.uint8)
    found = detect(image, 10)
    assert len(found.points) > 0
    np.testing.assert_allclose(found.points[0], [40.5, 30.5], atol=BLOB_PIXELS)
    np.testing.assert_array_equal(found.colors[0], [200, 200, 0])


def test_faint_texture_has_features(texture: np.ndarray) -> None:
    """Plain surfaces are what objects are made of: a tenth of the contrast still gives features."""
    faint = (118 + texture * 0.08).astype(np.uint8)
    assert len(detect(faint, 8192).points) > 100


def test_blank_photo_has_none_of_any() -> None:
    found = detect(np.full((48, 64, 3), 90, np.uint8), 100)
    assert [len(item) for item in found[:4]] == [0, 0, 0, 0] and found.size == (64, 48)


def test_products_of_descriptors_are_bhattacharyya_coefficients() -> None:
    histograms = np.random.default_rng(0).gamma(2.0, size=(20, 128))
    found = root_sift(histograms).astype(float)
    shares = histograms / histograms.sum(1, keepdims=True)
    expected = np.sqrt(shares[:, None] * shares[None]).sum(2)
    np.testing.assert_allclose(found @ found.T / 512.0**2, expected, atol=ROUNDED)


def test_damaged_photos_come_back_as_errors_in_their_places(tmp_path: Path, texture: np.ndarray) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path in paths:
        Image.fromarray(texture).save(path)
    paths[1].write_bytes(paths[1].read_bytes()[:9000])
    first, torn, last = extract(paths, 25_000, 300, n_threads=2)
    assert isinstance(torn, ImageError) and "1.png" in str(torn)
    assert isinstance(first, Features) and isinstance(last, Features)
    np.testing.assert_array_equal(first.points, last.points)
    assert first.size[0] * first.size[1] <= 25_000


@pytest.mark.parametrize("n_images", [0, 1, 5, 23])
def test_every_photo_is_looked_at_once_and_the_first_half_is_everywhere(n_images: int) -> None:
    order = spread(n_images)
    assert sorted(order) == list(range(n_images))
    half = sorted(order[: (n_images + 1) // 2])
    assert max(np.diff(half), default=0) <= 2
