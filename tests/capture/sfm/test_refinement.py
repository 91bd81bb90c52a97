"""The last bundle adjustment: a wide lens shows where its principal point is; what shows nothing leaves it."""

from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
from synthetic_photos import (
    HEIGHT,
    WIDTH,
    Photos,
    as_features,
    ball,
    graph_of,
    photograph,
    ring,
    simple_radial,
)

from quicksurf.capture.sfm import refinement

PRINCIPAL_PIXELS = 1.0  # half a pixel of noise in some 4000 features; it was 20 off
FOCAL_SHARE = 0.002
OFF_CENTRE = WIDTH / 2 + 20, HEIGHT / 2 - 10
N_PHOTOS = 12


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
    built = refinement.build(folder / "full.db", poses, dict.fromkeys(poses, lens))
    model = refinement.triangulate(built, folder / "full.db", n_threads=2)
    refinement.refine(model)
    return model


@pytest.fixture(scope="module")
def wide() -> Photos:
    return _captured(0.7 * WIDTH, 2.6)


def test_principal_point_of_a_wide_lens_is_found(wide: Photos, tmp_path: Path) -> None:
    (camera,) = _refined(wide, tmp_path).cameras.values()
    np.testing.assert_allclose(camera.params[1:3], OFF_CENTRE, atol=PRINCIPAL_PIXELS)
    np.testing.assert_allclose(camera.params[0], 0.7 * WIDTH, rtol=FOCAL_SHARE)


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
    built = refinement.build(
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
