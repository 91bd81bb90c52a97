"""Features of large scale at pixel centres of +0.5; which pairs are matched; what counts as more than chance."""

from pathlib import Path

import numpy as np
import pytest
import rendered_box
from PIL import Image
from synthetic_photos import SIZE, Photos, as_features, ball, photograph, ring, true_matches

from quicksurf.capture.sfm.matching import (
    Features,
    best_partners,
    choose_pairs,
    coarse_similarity,
    detect,
    extract,
    interleave,
    is_significant,
    match_pairs,
    no_features,
    root_sift,
)
from quicksurf.errors import ImageError

ROUNDED = 0.02  # of a cosine: 128 components rounded to 1 / 512
BLOB_PIXELS = 0.1  # the centre of a blob is found to less than a tenth of a pixel
FOUND_AGAIN = 0.9  # of the points in common of two photos, by descriptors with noise


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
    fractions = histograms / histograms.sum(1, keepdims=True)
    expected = np.sqrt(fractions[:, None] * fractions[None]).sum(2)
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
def test_every_photo_is_searched_once_and_the_first_half_is_everywhere(n_images: int) -> None:
    order = interleave(n_images)
    assert sorted(order) == list(range(n_images))
    half = sorted(order[: (n_images + 1) // 2])
    assert max(np.diff(half), default=0) <= 2


@pytest.fixture(scope="module")
def photos() -> Photos:
    points = ball(500)
    return photograph(points, points, ring(24))


def test_best_partners_are_symmetric_and_include_each_ones_best() -> None:
    similarity = np.random.default_rng(0).random((9, 9))
    similarity = similarity + similarity.T
    np.fill_diagonal(similarity, -1)
    chosen = best_partners(similarity, 2)
    assert (chosen == chosen.T).all() and not chosen.diagonal().any()
    for index in range(9):
        assert chosen[index, np.argsort(-similarity[index])[:2]].all()
        assert chosen[index].sum() >= 2


def test_few_photos_are_matched_in_all_pairs_the_nearest_first() -> None:
    features = [as_features(np.ones((3, 2)))] * 5
    pairs = choose_pairs(features, n_partners=4, n_neighbors=1)
    assert sorted(pairs) == [(i, j) for i in range(5) for j in range(i + 1, 5)]
    gaps = [j - i for i, j in pairs]
    assert gaps == sorted(gaps)


def test_coarse_similarity_counts_the_points_in_common(photos: Photos) -> None:
    similarity = coarse_similarity(photos.features[:9])
    for (i, j), found in true_matches(photos).items():
        if j < 9:
            assert FOUND_AGAIN * len(found) <= similarity[i, j] == similarity[j, i] <= len(found)


def test_many_photos_are_matched_with_those_that_show_the_same(photos: Photos) -> None:
    """The photos are shuffled: only their features tell which are beside each other on the ring."""
    order = np.random.default_rng(1).permutation(24)
    pairs = choose_pairs([photos.features[i] for i in order], n_partners=4, n_neighbors=0)
    steps = [abs(int(order[i] - order[j])) for i, j in pairs]
    assert len(pairs) < 24 * 4
    assert max(min(step, 24 - step) for step in steps) <= 3
    beside = {frozenset((int(order[i]), int(order[j]))) for i, j in pairs}
    assert all(frozenset((i, (i + 1) % 24)) in beside for i in range(24))


def test_neighbours_in_order_are_matched_first_and_in_any_case() -> None:
    """Photos without a common point: similarity is 0 throughout."""
    generator = np.random.default_rng(2)
    features = [
        as_features(np.ones((40, 2)), generator.integers(0, 80, (40, 128), dtype=np.uint8)) for _ in range(9)
    ]
    pairs = choose_pairs(features, n_partners=1, n_neighbors=2)
    near = {(i, j) for i in range(9) for j in range(i + 1, 9) if j - i <= 2}
    assert set(pairs[: len(near)]) == near


@pytest.mark.parametrize("n_partners", [2, 5])
def test_photos_without_features_are_matched_with_none(photos: Photos, n_partners: int) -> None:
    features = [*photos.features[:3], no_features(), *photos.features[3:5]]
    pairs = choose_pairs(features, n_partners, n_neighbors=3)
    assert pairs and not any(3 in pair for pair in pairs)


def test_matches_are_of_the_same_points(photos: Photos) -> None:
    found = match_pairs(photos.features, [(0, 1), (4, 2)], lambda: False)
    for (i, j), matches in found.items():
        n_shared = len(np.intersect1d(photos.ids[i], photos.ids[j]))
        right = photos.ids[i][matches[:, 0]] == photos.ids[j][matches[:, 1]]
        assert right.mean() > FOUND_AGAIN and right.sum() > FOUND_AGAIN * n_shared


def test_pairs_are_matched_in_order_until_time_is_out(photos: Photos) -> None:
    pairs = [(i, j) for i in range(24) for j in range(i + 1, 24)]
    looks = iter([False, False, True])
    found = match_pairs(photos.features, pairs, lambda: next(looks))
    assert list(found) == pairs[: len(found)] and 0 < len(found) < len(pairs)


def test_inliers_count_as_part_of_the_matches() -> None:
    assert is_significant(20, 40, SIZE)
    assert not is_significant(20, 200, SIZE)


def test_more_inliers_or_fewer_matches_are_never_less_significant() -> None:
    found = np.array(
        [[is_significant(k, n, SIZE) for k in range(8, 60, 4)] for n in range(60, 400, 20)], dtype=int
    )
    assert (np.diff(found, axis=1) >= 0).all() and (np.diff(found, axis=0) <= 0).all()
    assert 0 < found.mean() < 1
