"""A photo among wrong matches is placed by the points of all others; a photo that fits by chance is not."""

import numpy as np
import pytest
from synthetic_photos import (
    MIDDLE,
    Photos,
    as_features,
    ball,
    degrees_between,
    graph_of,
    inverse,
    model_of,
    photograph,
    ring,
    simple_radial,
)

from quicksurf.capture.sfm.matching import Features
from quicksurf.capture.sfm.resection import Placed, place

POSE_DEGREES = 0.1  # half a pixel of noise is 0.015 degrees, averaged over some fifty points
CENTER = 0.02  # of the ball's radius, seen from four of them
LOST = 4


@pytest.fixture(scope="module")
def photos() -> Photos:
    points = ball(400)
    return photograph(points, points, ring(9, degrees=120))


def _placed(photos: Photos, features: Features, known: bool = True, expired: bool = False) -> Placed | None:
    changed = [features if index == LOST else item for index, item in enumerate(photos.features)]
    graph = graph_of(photos._replace(features=changed), {})
    model = model_of(photos, [index for index in range(9) if index != LOST])
    lens = simple_radial(MIDDLE) if known else None
    return place(graph, model, [LOST], lambda _: lens, lambda: expired).get(LOST)


def _mostly_wrong(photos: Photos) -> Features:
    """The lost photo's features, two of three moved anywhere."""
    generator = np.random.default_rng(0)
    item = photos.features[LOST]
    points = item.points.copy()
    wrong = np.arange(len(points)) % 3 != 0
    points[wrong] = generator.uniform(0, item.size, (int(wrong.sum()), 2))
    return as_features(points, item.descriptors)


def test_photo_among_wrong_matches_is_placed(photos: Photos) -> None:
    found = _placed(photos, _mostly_wrong(photos))
    assert found is not None
    assert degrees_between(found.cam_from_world[:, :3], photos.poses[LOST][:, :3]) < POSE_DEGREES
    centers = inverse(found.cam_from_world)[:, 3], inverse(photos.poses[LOST])[:, 3]
    assert np.linalg.norm(centers[0] - centers[1]) < CENTER


def test_links_join_features_of_one_point(photos: Photos) -> None:
    found = _placed(photos, _mostly_wrong(photos))
    assert found is not None and set(found.links) <= set(range(9)) - {LOST}
    links = [(other, *link) for other, rows in found.links.items() for link in rows.tolist()]
    assert len(links) > 50
    assert all(photos.ids[other][theirs] == photos.ids[LOST][mine] for other, theirs, mine in links)


def test_unrelated_matches_are_refused(photos: Photos) -> None:
    """All descriptors match points of the model, but no feature is where its point is."""
    item = photos.features[LOST]
    points = np.random.default_rng(0).uniform(0, item.size, item.points.shape)
    assert _placed(photos, as_features(points, item.descriptors)) is None


@pytest.mark.parametrize(("known", "expired"), [(False, False), (True, True)])
def test_no_photo_is_placed_without_a_lens_or_time(photos: Photos, known: bool, expired: bool) -> None:
    assert _placed(photos, photos.features[LOST], known, expired) is None
