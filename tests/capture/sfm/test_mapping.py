"""What mapping takes of each photo, and what it makes of it: one model, at the true poses."""

from pathlib import Path

import numpy as np
from synthetic_photos import (
    SIZE,
    as_features,
    ball,
    degrees_between,
    graph_of,
    photograph,
    ring,
    two_view,
)

from quicksurf.capture.sfm.mapping import N_MAPPED, connecting_features, map_photos
from quicksurf.capture.sfm.view_graph import Camera, ViewGraph

POSE_DEGREES = 0.3  # half a pixel of noise in some fifty features, over a few steps from photo to photo


def _graph(points: np.ndarray, matched: list[np.ndarray]) -> ViewGraph:
    """Photo 0 with these features, each other photo matched in those of one array."""
    features = [as_features(points)] * (1 + len(matched))
    pairs = {(0, 1 + i): two_view(np.stack([found, found], 1)) for i, found in enumerate(matched)}
    return ViewGraph(features, [Camera(list(range(len(features))), SIZE, 1900.0, False)], pairs)


def test_few_features_are_all_taken_but_those_without_a_match() -> None:
    points = np.random.default_rng(0).uniform(0, SIZE, (100, 2))
    marks = connecting_features(_graph(points, [np.arange(0, 60), np.arange(40, 80)]))(0)
    np.testing.assert_array_equal(marks, np.arange(100) < 80)


def test_features_that_match_in_more_photos_come_first() -> None:
    """All 2000 match in one photo, every fifth in three."""
    points = np.random.default_rng(0).uniform(0, SIZE, (2000, 2))
    fifth = np.arange(0, 2000, 5)
    marks = connecting_features(_graph(points, [np.arange(2000), fifth, fifth]))(0)
    assert marks.sum() == N_MAPPED and marks[fifth].all()


def test_features_are_spread_over_the_picture() -> None:
    """Nine in ten lie in a corner of a sixty-fourth of the picture: the others are taken all the same."""
    generator = np.random.default_rng(0)
    crowd, others = generator.uniform(0, 120, (1800, 2)), generator.uniform(200, 1000, (200, 2))
    marks = connecting_features(_graph(np.concatenate([crowd, others]), [np.arange(2000)] * 2))(0)
    assert marks.sum() == N_MAPPED and marks[1800:].all()


def test_photos_are_mapped_where_they_were_taken(tmp_path: Path) -> None:
    """Only those asked for; relative rotations are free of the choice of frame."""
    points = ball(1200)
    photos = photograph(points, points, ring(8, degrees=80))
    (model,) = map_photos(graph_of(photos), range(1, 8), tmp_path, 30.0, n_threads=2)
    assert sorted(model.reg_image_ids()) == [2, 3, 4, 5, 6, 7, 8]
    found = {i: model.image(i + 1).cam_from_world().matrix()[:, :3] for i in range(1, 8)}
    for i in range(2, 8):
        true = photos.poses[i][:, :3] @ photos.poses[1][:, :3].T
        assert degrees_between(found[i] @ found[1].T, true) < POSE_DEGREES
