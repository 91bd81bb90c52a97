"""Pairs are kept where chance would not give them; what stands still in the picture connects nothing."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from synthetic_photos import (
    HEIGHT,
    SIZE,
    WIDTH,
    Photos,
    as_features,
    ball,
    graph_of,
    photograph,
    ring,
    true_matches,
)

from quicksurf.capture.sfm.matching import Matches
from quicksurf.capture.sfm.view_graph import drop_still, verify

N_STILL, N_MOVING = 30, 60
KEPT = 0.9  # of right matches: RANSAC drops those that the noise moves far


@pytest.fixture(scope="module")
def photos() -> Photos:
    points = ball(2000)
    return photograph(points, points, ring(6, degrees=90))


def _turntable(moves: bool) -> tuple[list, dict[tuple[int, int], Matches]]:
    """Twelve photos; 30 features stand still, 60 others move by 20 pixels a photo, or do not."""
    points = np.random.default_rng(0).uniform(300, 700, (N_STILL + N_MOVING, 2))
    step = np.zeros((N_STILL + N_MOVING, 2))
    step[N_STILL:, 0] = 20.0 * moves
    features = [as_features(points + index * step) for index in range(12)]
    every = np.stack([np.arange(N_STILL + N_MOVING)] * 2, 1).astype(np.int32)
    return features, {(i, j): every for i in range(12) for j in range(i + 1, 12)}


def test_backdrop_that_stands_still_is_dropped_where_others_move() -> None:
    features, matches = _turntable(moves=True)
    kept = drop_still(features, matches)
    assert kept.keys() == matches.keys()
    for found in kept.values():
        np.testing.assert_array_equal(found, matches[0, 1][N_STILL:])


def test_all_is_kept_where_nothing_moves_against_it() -> None:
    features, matches = _turntable(moves=False)
    for pair, found in drop_still(features, matches).items():
        np.testing.assert_array_equal(found, matches[pair])


def test_two_photos_of_one_place_keep_their_matches() -> None:
    """Features that stand still in fewer than four photos are no backdrop."""
    features, matches = _turntable(moves=True)
    features[1] = features[0]
    np.testing.assert_array_equal(drop_still(features, matches)[0, 1], matches[0, 1][N_STILL:])


def test_photos_of_different_sizes_have_no_common_place() -> None:
    features, matches = _turntable(moves=True)
    features = [as_features(item.points, size=(WIDTH + index, HEIGHT)) for index, item in enumerate(features)]
    assert all(len(found) == N_STILL + N_MOVING for found in drop_still(features, matches).values())


def _verified(photos: Photos, matches: dict[tuple[int, int], Matches], folder: Path):
    def run(call) -> bool:
        call(pycolmap.CancellationToken())
        return True

    cameras = graph_of(photos, {}).cameras
    return verify(folder / "verification.db", photos.features, cameras, matches, run)


def test_true_pairs_are_verified_and_pairs_at_random_are_not(photos: Photos, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    right = true_matches(photos)[0, 1]
    wrong = generator.permutation(len(photos.features[3].points))[: len(right) // 2]
    mixed = np.concatenate([right, np.stack([right[: len(wrong), 0], right[::-1][: len(wrong), 1]], 1)])
    random = np.stack([np.sort(wrong), generator.permutation(len(wrong))], 1).astype(np.int32)
    graph, complete = _verified(photos, {(0, 1): mixed, (2, 3): random}, tmp_path)
    assert complete and list(graph.pairs) == [(0, 1)]
    kept = {tuple(pair) for pair in np.asarray(graph.pairs[0, 1].inlier_matches).tolist()}
    assert len(kept & {tuple(pair) for pair in right.tolist()}) > KEPT * len(right)
    assert graph.strengths()[0, 1] == graph.strengths()[1, 0] == len(graph.pairs[0, 1].inlier_matches)
    assert graph.strengths().sum() == 2 * graph.strengths()[0, 1]


def test_a_verification_that_was_interrupted_is_reported(photos: Photos, tmp_path: Path) -> None:
    cameras = graph_of(photos, {}).cameras
    database = tmp_path / "verification.db"
    graph, complete = verify(database, photos.features, cameras, true_matches(photos), lambda call: False)
    assert not complete and not graph.pairs


def test_database_holds_photos_cameras_and_kept_matches(photos: Photos, tmp_path: Path) -> None:
    """Matches of kept features come first; pairs that they leave with few have others too, up to 150."""
    graph = graph_of(photos)
    path = tmp_path / "graph.db"
    graph.write(path, lambda index: np.arange(len(photos.ids[index])) % 2 == 0)
    with closing(pycolmap.Database.open(path)) as database:
        assert [image.name for image in database.read_all_images()] == [f"{i:06d}" for i in range(6)]
        (camera,) = database.read_all_cameras()
        assert (camera.width, camera.height) == SIZE and not camera.has_prior_focal_length
        np.testing.assert_allclose(
            database.read_keypoints(3)[:, :2], photos.features[2].points.astype(np.float32)
        )
        for (first, second), geometry in graph.pairs.items():
            every = np.asarray(geometry.inlier_matches)
            even = (every % 2 == 0).all(1)
            found = database.read_two_view_geometry(first + 1, second + 1).inlier_matches
            rows = {tuple(row) for row in found.tolist()}
            assert rows >= {tuple(row) for row in every[even].tolist()}
            assert len(rows) == len(found) == max(int(even.sum()), min(150, len(every)))
