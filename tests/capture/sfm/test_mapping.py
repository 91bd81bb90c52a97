"""Mapping selects features and places photos; the last bundle adjustment finds the principal point of a wide lens."""

from pathlib import Path

import cv2
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
    degrees_between,
    graph_of,
    photograph,
    ring,
    simple_radial,
    two_view,
)

from quicksurf.capture.sfm import mapping
from quicksurf.capture.sfm.mapping import N_MAPPED, connecting_features, map_photos
from quicksurf.capture.sfm.view_graph import Camera, ViewGraph

POSE_DEGREES = 0.3  # half a pixel of noise in some fifty features, over a few steps from photo to photo
PRINCIPAL_PIXELS = 1.0  # half a pixel of noise in some 4000 features; it was 20 off
FOCAL_FRACTION = 0.002
OFF_CENTRE = WIDTH / 2 + 20, HEIGHT / 2 - 10
N_PHOTOS = 12


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


def _captured(focal: float, distance: float) -> Photos:
    """A cloud of points, seen from all sides and two heights by one camera whose principal point is off centre."""
    points = ball(350)
    poses = ring(N_PHOTOS, distance, 0.3)
    poses[1::2] = ring(N_PHOTOS, distance, 1.2)[1::2]
    return photograph(points, np.zeros_like(points), poses, (focal, *OFF_CENTRE))


def _as_mapped(photos: Photos) -> dict[int, np.ndarray]:
    """The poses by which a lens without a shift explains the photos best: turned by the angle of the shift."""
    turn, _ = cv2.Rodrigues(
        np.array([OFF_CENTRE[1] - HEIGHT / 2, WIDTH / 2 - OFF_CENTRE[0], 0]) / -photos.lens[0]
    )
    return {index: turn @ pose for index, pose in enumerate(photos.poses)}


def _refined(photos: Photos, folder: Path, n_photos: int = N_PHOTOS) -> pycolmap.Reconstruction:
    """From the poses that a principal point in the middle gives."""
    (folder / "models").mkdir()
    graph_of(photos).write(folder / "full.db")
    lens = simple_radial((photos.lens[0], WIDTH / 2, HEIGHT / 2))
    poses = {i: pose for i, pose in _as_mapped(photos).items() if i < n_photos}
    built = mapping.build(folder / "full.db", poses, dict.fromkeys(poses, lens))
    model = mapping.triangulate(built, folder / "full.db", n_threads=2)
    mapping.refine(model)
    return model


@pytest.fixture(scope="module")
def wide() -> Photos:
    return _captured(0.7 * WIDTH, 2.6)


def test_principal_point_of_a_wide_lens_is_found(wide: Photos, tmp_path: Path) -> None:
    (camera,) = _refined(wide, tmp_path).cameras.values()
    np.testing.assert_allclose(camera.params[1:3], OFF_CENTRE, atol=PRINCIPAL_PIXELS)
    np.testing.assert_allclose(camera.params[0], 0.7 * WIDTH, rtol=FOCAL_FRACTION)


def test_principal_point_of_a_narrow_lens_stays_in_the_middle(tmp_path: Path) -> None:
    """A turn of the camera does there what a shift of the principal point does."""
    (camera,) = _refined(_captured(9.0 * WIDTH, 26.0), tmp_path).cameras.values()
    assert tuple(camera.params[1:3]) == (WIDTH / 2, HEIGHT / 2)


def test_principal_point_of_few_photos_stays_in_the_middle(wide: Photos, tmp_path: Path) -> None:
    (camera,) = _refined(wide, tmp_path, n_photos=7).cameras.values()
    assert tuple(camera.params[1:3]) == (WIDTH / 2, HEIGHT / 2)


def test_model_starts_at_the_poses_and_lenses_given(wide: Photos, tmp_path: Path) -> None:
    graph_of(wide).write(tmp_path / "full.db")
    lens = simple_radial((777.0, 800.0, 500.0))
    chosen = [1, 4, 7]
    built = mapping.build(
        tmp_path / "full.db", {i: wide.poses[i] for i in chosen}, dict.fromkeys(chosen, lens)
    )
    assert sorted(built.reg_image_ids()) == [2, 5, 8]
    for photo in chosen:
        image = built.image(photo + 1)
        np.testing.assert_allclose(image.cam_from_world().matrix(), wide.poses[photo], atol=1e-12)
        assert image.camera.params[0] == 777.0


def test_points_that_do_not_fit_are_dropped(wide: Photos, tmp_path: Path) -> None:
    """One point in ten is moved by 30 pixels in one of its photos: none of those observations stays."""
    moved = np.arange(len(wide.features[2].points)) % 10 == 0
    points = wide.features[2].points + 30.0 * moved[:, None]
    spoilt = [*wide.features[:2], as_features(points, wide.features[2].descriptors), *wide.features[3:]]
    model = _refined(wide._replace(features=spoilt), tmp_path)
    observed = {index for index, point in enumerate(model.image(3).points2D) if point.has_point3D()}
    assert not observed & set(np.flatnonzero(moved).tolist())
    assert len(observed) > 0.8 * (~moved).sum()
