"""Points that photos should have in common by their poses, and have: counted as written out; wrong places show."""

import numpy as np
import pytest
from synthetic_photos import HEIGHT, WIDTH, ball, inverse, model_of, photograph, ring

from quicksurf.capture.sfm.overlap import Model, expected, falling_rate, overlaps

# Of the points that they should have in common: half and more is the rule, a wrong place has none.
SUPPORTED = 0.2


@pytest.fixture(scope="module")
def model() -> Model:
    points = ball(700)
    return model_of(photograph(points, points, ring(8, degrees=160)))


def _from_all_pairs(model: Model) -> tuple[np.ndarray, np.ndarray]:
    should, do = overlaps(model)
    return expected(should, do, np.ones(should.shape[:2], bool))


def test_points_are_counted_as_written_out(model: Model) -> None:
    """A pan to one side leaves some points outside its frame, a camera that looks away has all of them behind it."""
    turned = np.diag([-1.0, 1.0, -1.0])
    poses = model.cam_from_world.copy()
    poses[3] = turned @ poses[3]
    poses[5, 0, 3] += 1.2
    model = model._replace(cam_from_world=poses)
    should, do = overlaps(model)
    seen = [set(model.observations[model.observations[:, 1] == i, 0].tolist()) for i in range(8)]
    counted = np.zeros((2, *should.shape))
    for i in range(8):
        for j in range(8):
            for point in seen[i]:
                x, y, z = poses[j] @ [*model.positions[point], 1.0]
                focal, cx, cy = model.intrinsics[j]
                rays = [model.positions[point] - inverse(poses[k])[:, 3] for k in (i, j)]
                cosine = rays[0] @ rays[1] / np.prod(np.linalg.norm(rays, axis=1))
                bin_ = int(np.degrees(np.arccos(min(cosine, 1.0))) // 5)
                inside = z > 0 and 0 < focal * x / z + cx < WIDTH and 0 < focal * y / z + cy < HEIGHT
                if inside and bin_ < should.shape[2]:
                    counted[0, i, j, bin_] += 1
                    counted[1, i, j, bin_] += point in seen[j]
    np.testing.assert_array_equal(should, counted[0])
    np.testing.assert_array_equal(do, counted[1])
    assert 0 < should[4, 5].sum() < should[4, 4].sum() and should[:, 3].sum() == 0


def test_photos_in_their_places_have_the_common_points_they_should(model: Model) -> None:
    wanted, found = _from_all_pairs(model)
    beside = np.arange(7), np.arange(1, 8)
    assert (wanted[beside] > 50).all()
    assert (found[beside] > 0.5 * wanted[beside]).all()


def test_two_photos_at_one_place_that_have_no_common_point_contradict_each_other(model: Model) -> None:
    """Photo 0 once more, of points of its own that lie where the others' do: an alike face taken for this one."""
    mine = model.observations[:, 1] == 0
    points = model.observations[mine, 0]
    own = np.stack([len(model.positions) + np.arange(len(points)), np.full(len(points), 8)], 1)
    doubled = Model(
        np.append(model.photos, 8),
        model.cam_from_world[[*range(8), 0]],
        model.intrinsics[[*range(8), 0]],
        model.sizes[[*range(8), 0]],
        np.concatenate([model.positions, model.positions[points]]),
        np.concatenate([model.observations, own]),
        np.concatenate([model.features, model.features[mine]]),
    )
    wanted, found = _from_all_pairs(doubled)
    assert wanted[0, 8] > 50 and found[0, 8] == 0
    assert wanted[0, 1] > 50 and found[0, 1] > SUPPORTED * wanted[0, 1]


def test_rate_of_points_found_again_is_learned_from_reference_pairs_alone() -> None:
    should = np.full((3, 3, 2), 100.0)
    do = np.zeros((3, 3, 2))
    do[0, 1] = do[1, 0] = 60.0, 20.0
    do[0, 2] = do[2, 0] = 90.0, 90.0
    reference = np.zeros((3, 3), bool)
    reference[0, 1] = reference[1, 0] = True
    wanted, found = expected(should, do, reference)
    np.testing.assert_allclose(wanted, 80.0)
    np.testing.assert_allclose(found, [[0, 80, 180], [80, 0, 0], [180, 0, 0]])


def test_rate_falls_with_the_angle_and_fits_best() -> None:
    counted, found = np.array([4.0, 100, 0, 50, 60, 20, 0]), np.array([0.0, 80, 0, 20, 30, 2, 0])
    rate = falling_rate(counted, found)
    np.testing.assert_allclose(rate, [80 / 104, 80 / 104, 50 / 110, 50 / 110, 50 / 110, 0.1, 0.0])


def test_angles_between_no_reference_photos_take_the_rate_of_the_next_larger_ones() -> None:
    """Photos at even steps have no small angles between them; two that a model puts at one place do."""
    should, do = np.zeros((2, 3, 3, 5))
    should[0, 1, 2] = should[1, 0, 2] = 100.0
    do[0, 1, 2] = do[1, 0, 2] = 60.0
    should[0, 2, 0] = should[2, 0, 0] = 50.0
    should[1, 2, 4] = should[2, 1, 4] = 50.0
    reference = np.zeros((3, 3), bool)
    reference[0, 1] = reference[1, 0] = True
    wanted, _ = expected(should, do, reference)
    assert wanted[0, 2] == 30.0
    assert wanted[1, 2] == 0.0  # nothing says that points are found again at so large an angle


def test_counts_of_a_sample_are_scaled_up() -> None:
    points = ball(3000)
    model = model_of(photograph(points, points, ring(4, degrees=60)))
    should, do = overlaps(model)
    n_points = np.bincount(model.observations[:, 1])
    assert (n_points > 400).all()
    np.testing.assert_allclose(np.einsum("iib->i", should), n_points)
    np.testing.assert_allclose(np.einsum("iib->i", do), n_points)
