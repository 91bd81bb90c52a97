"""Matches of SIFT descriptors: equal to the twin under every instruction set, and what they must satisfy."""

import numpy as np
import pycolmap
import pytest
from match_twin import match_pair, match_twin

from quicksurf.kernels import _native

RATIO, DISTANCE = 0.8, 0.7  # COLMAP's
SIZES = [(0, 0), (0, 5), (5, 0), (1, 1), (1, 9), (9, 1), (2, 2), (95, 97), (96, 48), (300, 1000), (4100, 700)]


@pytest.fixture(params=_native.instruction_sets())
def instruction_set(request):
    before = _native.instruction_set()
    _native.set_instruction_set(request.param)
    yield request.param
    _native.set_instruction_set(before)


@pytest.fixture(autouse=True)
def number_of_threads():
    before = _native.num_threads()
    yield
    _native.set_num_threads(before)


def sift(values):
    """RootSIFT as COLMAP stores it: norm 512, rounded, at most 255."""
    values = np.sqrt(values / values.sum(1, keepdims=True))
    return np.minimum(np.round(512 * values), 255).astype(np.uint8)


def images(n, m, seed=0):
    """Descriptors of which half, in another order, come from the same points as the others, with noise."""
    rng = np.random.default_rng(seed)
    first, second = (rng.gamma(0.3, size=(k, 128)) + 1e-6 for k in (n, m))
    shared = min(n, m) // 2 if min(n, m) > 1 else min(n, m)
    noise = rng.uniform(0.3, 1.7, (shared, 128))
    second[rng.permutation(m)[:shared]] = first[rng.permutation(n)[:shared]] * noise
    return sift(first), sift(second)


def match(first, second, ratio=RATIO, distance=DISTANCE):
    (found,) = _native.match_descriptors([first, second], np.array([[0, 1]], np.int32), ratio, distance)
    return found


def normed(products):
    """One descriptor a row whose product with [255, 0, 0, ...] and whose norm are set by its first two values."""
    rows = np.zeros((len(products), 128), np.uint8)
    rows[:, :2] = products
    return rows


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("limits", [(RATIO, DISTANCE), (1.0, 9.0), (0.5, 0.3)])
def test_matches_equal_the_twins(instruction_set, sizes, limits):
    first, second = images(*sizes)
    expected = match_pair(first, second, *limits)
    assert np.array_equal(match(first, second, *limits), expected)
    if min(sizes) > 100 and limits[0] >= RATIO:
        assert len(expected) > min(sizes) // 4


@pytest.mark.parametrize("low", [0, 250])
def test_any_bytes_are_legal(instruction_set, low):
    """The largest products, many ties, repeated descriptors and some of zeros."""
    rng = np.random.default_rng(1)
    first, second = (rng.integers(low, 256, (n, 128), np.uint8) for n in (200, 333))
    second[100:150] = first[:50]
    second[150:160] = first[:10]
    first[60:70] = second[200:210] = 0
    found = match(first, second)
    assert np.array_equal(found, match_pair(first, second, RATIO, DISTANCE))
    if low == 0:
        assert {*map(tuple, found)} >= {(i, 100 + i) for i in range(10, 50)}


def test_one_value_at_each_place_counts(instruction_set):
    """Descriptors with a single value that is not zero match those with the same place."""
    first = 200 * np.eye(128, dtype=np.uint8)
    order = np.random.default_rng(2).permutation(128)
    found = match(first, first[order])
    assert np.array_equal(found, np.stack([np.arange(128), np.argsort(order)], 1))


def test_repeated_descriptors_match_nothing(instruction_set):
    first, _ = images(50, 0)
    assert len(match(first, np.concatenate([first, first]), 1.0, 9.0)) == 0
    assert len(match(np.concatenate([first, first]), first, 1.0, 9.0)) == 0


def test_descriptors_of_zeros_match_nothing(instruction_set):
    first, _ = images(3, 0)
    zeros = np.zeros_like(first)
    assert [len(match(*pair, 1.0, 9.0)) for pair in ((first, zeros), (zeros, first), (zeros, zeros))] == [
        0
    ] * 3


def test_a_descriptors_own_norm_does_not_count(instruction_set):
    first, second = images(400, 500)
    dim = (second // 2).astype(np.uint8)
    found = {*map(tuple, match(first, dim))}
    expected = {*map(tuple, match(first, second))}
    assert len(found & expected) > 0.9 * len(found | expected)


def test_a_single_candidate_needs_no_second(instruction_set):
    row = normed([(200, 0)])
    assert len(match(row, normed([(200, 150)]))) == 1  # 0.64
    assert len(match(row, normed([(200, 180)]))) == 0  # 0.73 is beyond the distance
    assert len(match(row, normed([(200, 180)]), 0.8, 1.0)) == 1
    assert len(match(row, normed([(200, 180)]), 0.4, 1.0)) == 0  # not below 0.4 * pi / 2


def test_the_ratio_counts_from_either_side(instruction_set):
    near, far, other = (200, 20), (200, 45), (0, 200)  # 0.1 and 0.22 from the axis
    axis = normed([(200, 0), other])
    assert len(match(axis[:1], normed([near, far]), 0.5)) == 1
    assert len(match(axis[:1], normed([near, far]), 0.4)) == 0
    assert len(match(normed([near, far]), axis[:1], 0.4)) == 0


def test_the_other_direction_gives_the_same_matches(instruction_set):
    first, second = images(700, 400)
    found = match(first, second)[:, ::-1]
    assert np.array_equal(found[np.argsort(found[:, 0])], match(second, first))


@pytest.mark.slow
@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_many_pairs_are_as_each_alone(instruction_set, n_threads):
    _native.set_num_threads(n_threads)
    arrays = [*images(2500, 300), *images(0, 90, 1), *images(2000, 2100, 2)]
    pairs = np.array([(0, 1), (4, 5), (1, 0), (2, 3), (0, 0), (5, 1), (3, 5)], np.int32)
    found = _native.match_descriptors(arrays, pairs, RATIO, DISTANCE)
    for matches, expected in zip(found, match_twin(arrays, pairs, RATIO, DISTANCE), strict=True):
        assert matches.dtype == np.int32 and np.array_equal(matches, expected)


def test_colmap_agrees():
    """Its brute force, but for a few at the limits: it takes every norm for 512."""
    first, second = images(1500, 1300)
    options = pycolmap.FeatureMatchingOptions(use_gpu=False)
    options.sift.cpu_brute_force_matcher = True
    matcher = pycolmap.FeatureMatcher.create(options, pycolmap.Device.cpu)
    keypoints = [pycolmap.FeatureKeypoints() for _ in range(2)]
    features = [pycolmap.FeatureDescriptors(pycolmap.FeatureExtractorType.SIFT, x) for x in (first, second)]
    expected = {*map(tuple, matcher.match(keypoints[0], features[0], keypoints[1], features[1]).tolist())}
    found = {*map(tuple, match(first, second).tolist())}
    assert len(expected) > 400
    assert len(found & expected) >= 0.99 * len(found | expected)


def test_no_pairs_give_no_matches():
    assert _native.match_descriptors([], np.zeros((0, 2), np.int32), RATIO, DISTANCE) == []


@pytest.mark.parametrize("bad", [(0, 2), (-1, 0), (2**31 - 1, 0)])
def test_a_pair_outside_is_refused(bad):
    with pytest.raises(ValueError, match=r"pairs\[1\] is .* the 2 arrays"):
        _native.match_descriptors([*images(2, 2)], np.array([(0, 1), bad], np.int32), RATIO, DISTANCE)


@pytest.mark.parametrize(
    ("ratio", "distance", "name"),
    [
        (0.0, 0.7, "max_ratio"),
        (1.1, 0.7, "max_ratio"),
        (np.nan, 0.7, "max_ratio"),
        (0.8, 0.0, "max_distance"),
    ],
)
def test_limits_out_of_range_are_refused(ratio, distance, name):
    with pytest.raises(ValueError, match=name):
        match(*images(2, 2), ratio, distance)
