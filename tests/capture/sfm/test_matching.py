"""Which pairs are matched: all of few, of many the most alike and the neighbours; the clock ends it."""

import numpy as np
import pytest
from synthetic_photos import Photos, as_features, ball, photograph, ring, true_matches

from quicksurf.capture.sfm.features import nothing
from quicksurf.capture.sfm.matching import best_partners, choose_pairs, coarse_likeness, match_pairs

FOUND_AGAIN = 0.9  # of the points that two photos share, by descriptors with noise


@pytest.fixture(scope="module")
def photos() -> Photos:
    points = ball(500)
    return photograph(points, points, ring(24))


def test_best_partners_are_symmetric_and_include_each_ones_best() -> None:
    likeness = np.random.default_rng(0).random((9, 9))
    likeness = likeness + likeness.T
    np.fill_diagonal(likeness, -1)
    chosen = best_partners(likeness, 2)
    assert (chosen == chosen.T).all() and not chosen.diagonal().any()
    for index in range(9):
        assert chosen[index, np.argsort(-likeness[index])[:2]].all()
        assert chosen[index].sum() >= 2


def test_few_photos_are_matched_in_all_pairs_the_nearest_first() -> None:
    features = [as_features(np.ones((3, 2)))] * 5
    pairs = choose_pairs(features, n_partners=4, n_neighbors=1)
    assert sorted(pairs) == [(i, j) for i in range(5) for j in range(i + 1, 5)]
    gaps = [j - i for i, j in pairs]
    assert gaps == sorted(gaps)


def test_coarse_likeness_counts_the_points_that_photos_share(photos: Photos) -> None:
    likeness = coarse_likeness(photos.features[:9])
    for (i, j), found in true_matches(photos).items():
        if j < 9:
            assert FOUND_AGAIN * len(found) <= likeness[i, j] == likeness[j, i] <= len(found)


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
    """Photos without a common point: likeness is 0 throughout."""
    generator = np.random.default_rng(2)
    features = [
        as_features(np.ones((40, 2)), generator.integers(0, 80, (40, 128), dtype=np.uint8)) for _ in range(9)
    ]
    pairs = choose_pairs(features, n_partners=1, n_neighbors=2)
    near = {(i, j) for i in range(9) for j in range(i + 1, 9) if j - i <= 2}
    assert set(pairs[: len(near)]) == near


@pytest.mark.parametrize("n_partners", [2, 5])
def test_photos_without_features_are_matched_with_none(photos: Photos, n_partners: int) -> None:
    features = [*photos.features[:3], nothing(), *photos.features[3:5]]
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
