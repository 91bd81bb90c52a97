"""Two models of one object: the join that the object supports comes before the one that has more matches."""

import numpy as np
import pytest
from synthetic_photos import Photos, ball, degrees_between, model_of, photograph, ring

from quicksurf.capture.sfm import joining
from quicksurf.capture.sfm.matching import Matches
from quicksurf.capture.sfm.overlap import Model

EXACT = 1e-12  # float64, a singular value decomposition of 3 by 3
NOISE = 0.002  # of the ball's radius, of each model's points
JOIN_DEGREES = 0.5  # such noise over a hundred points, those of the bar in a narrow strip
JOIN_SCALE = 0.003
JOINED_PIXELS = 3.0  # that noise, seen from four radii by a lens of 1920 pixels, is 1 pixel
N_OBJECT, N_BAR, N_PHOTOS = 700, 150, 9
OTHER_FRAME = 1.7, np.array([0.3, -2.0, 5.0])  # scale and shift of the second model
TURN = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])  # of the object between the two


def _photos(turn: np.ndarray) -> Photos:
    """The object, turned, and a scale bar that lies beside it."""
    bar = np.random.default_rng(1).uniform([1.2, -1.0, -0.9], [1.4, 1.0, -0.9], (N_BAR, 3))
    upward = ball(N_BAR, seed=2)
    upward[:, 2] = abs(upward[:, 2])
    turned = ball(N_OBJECT) @ turn.T
    return photograph(np.concatenate([turned, bar]), np.concatenate([turned, upward]), ring(N_PHOTOS))


def _in_other_frame(model: Model) -> Model:
    scale, shift = OTHER_FRAME
    poses = model.cam_from_world.copy()
    poses[:, :, 3] = scale * poses[:, :, 3] - poses[:, :, :3] @ shift
    return model._replace(
        photos=model.photos + N_PHOTOS, positions=scale * model.positions + shift, cam_from_world=poses
    )


@pytest.fixture(scope="module")
def captured() -> tuple[Model, Model, dict[tuple[int, int], Matches]]:
    """Photos 0 to 8 and 9 to 17: the object was turned over between them, and the bar stayed on the table."""
    before, after = _photos(np.eye(3)), _photos(TURN)
    matches = {}
    for i in range(N_PHOTOS):
        for j in range(N_PHOTOS):
            _, first, second = np.intersect1d(before.ids[i], after.ids[j], return_indices=True)
            matches[i, N_PHOTOS + j] = np.stack([first, second], 1).astype(np.int32)
    return model_of(before, noise=NOISE), _in_other_frame(model_of(after, noise=NOISE)), matches


def test_join_that_the_object_supports_comes_before_that_of_more_matches(captured) -> None:
    right, wrong = joining.joins(*captured)
    assert degrees_between(right.rotation, TURN.T) < JOIN_DEGREES
    assert degrees_between(wrong.rotation, np.eye(3)) < JOIN_DEGREES
    assert right.scale * OTHER_FRAME[0] == pytest.approx(1, rel=JOIN_SCALE)
    assert len(wrong.shared) > 1.2 * len(right.shared)
    assert right.support > 1.5 * wrong.support > 0


def test_models_without_common_matches_have_no_join(captured) -> None:
    first, second, matches = captured
    few = {pair: found[:0] for pair, found in matches.items()}
    assert joining.joins(first, second, few) == joining.joins(first, second, {}) == []


def test_matches_at_random_join_nothing(captured) -> None:
    """A model shrunk to a point would lie near many: similarities of more than a factor of 20 are none."""
    first, second, _ = captured
    generator = np.random.default_rng(0)
    features = [model.features[model.observations[:, 1] == 0] for model in (first, second)]
    mixed = np.stack([generator.choice(found, 400) for found in features], 1).astype(np.int32)
    assert joining.joins(first, second, {(0, N_PHOTOS): np.unique(mixed, axis=0)}) == []


def test_shared_photos_join_without_matches() -> None:
    """Two models that have three photos in common; each photo is in the whole once."""
    points = ball(900)
    photos = photograph(points, points, ring(9, degrees=100))
    first = model_of(photos, range(6), NOISE)
    second = model_of(photos, range(3, 9), NOISE)
    join, *_ = joining.joins(first, second, {})
    assert degrees_between(join.rotation, np.eye(3)) < JOIN_DEGREES
    merged = joining.merge(first, second, join)
    assert merged.photos.tolist() == list(range(9))
    assert merged.observations[:, 1].max() == 8
    assert len(merged.observations) == len(merged.features)


def test_merged_models_project_as_each_did(captured) -> None:
    """By the right join both models' points stay where their photos see them, and shared points are one."""
    first, second, matches = captured
    join = joining.joins(first, second, matches)[0]
    merged = joining.merge(first, second, join)
    assert merged.photos.tolist() == list(range(2 * N_PHOTOS))
    before, after = _projected(second), _projected(merged)[len(first.observations) :]
    alone = ~np.isin(second.observations[:, 0], join.shared[:, 1])
    np.testing.assert_allclose(after[alone], before[alone], atol=1e-6)  # pixels
    moved = np.linalg.norm(after[~alone] - before[~alone], axis=1)
    assert 0 < np.median(moved) < JOINED_PIXELS


def test_part_shared_is_that_of_the_worst_two_groups() -> None:
    """Three groups of three photos; the points of the last are others than those of the first two."""
    points = ball(1200)
    photos = photograph(points, points, ring(9, degrees=80))
    model = model_of(photos)
    labels = np.arange(9) // 3
    assert joining.least_overlap(model, labels)[0] > 0.6
    last = model.observations[:, 1] >= 6
    observations = model.observations.copy()
    observations[last, 0] += len(model.positions)
    torn = model._replace(observations=observations, positions=np.tile(model.positions, (2, 1)))
    support, wanted = joining.least_overlap(torn, labels)
    assert support == 0.0 and wanted > 300


def test_groups_that_should_not_overlap_prove_nothing() -> None:
    photos = photograph(ball(300), ball(300), ring(6))
    assert joining.least_overlap(model_of(photos), np.zeros(6, int)) == (1.0, 0.0)


def test_two_cliques_with_weak_links_are_two_groups() -> None:
    strengths = np.full((9, 9), 20)
    strengths[:5, :5] = strengths[5:, 5:] = 100
    np.fill_diagonal(strengths, 0)
    assert joining.groups(strengths) == [[0, 1, 2, 3, 4], [5, 6, 7, 8]]


def test_a_chain_is_one_group() -> None:
    """Each photo matches its neighbours alone, as around a turntable."""
    strengths = np.zeros((12, 12), int)
    index = np.arange(11)
    strengths[index, index + 1] = strengths[index + 1, index] = 100 - 5 * index
    assert joining.groups(strengths) == [list(range(12))]


def test_pairs_of_photos_go_to_the_group_they_match_best_and_strangers_to_none() -> None:
    strengths = np.zeros((10, 10), int)
    strengths[:3, :3] = strengths[3:6, 3:6] = strengths[6:8, 6:8] = 100
    strengths[7, 4] = strengths[4, 7] = 12
    strengths[6, 1] = strengths[1, 6] = 7
    np.fill_diagonal(strengths, 0)
    assert joining.groups(strengths) == [[3, 4, 5, 6, 7], [0, 1, 2]]
    assert joining.groups(np.zeros((4, 4), int)) == []


@pytest.mark.parametrize("flat", [False, True])
def test_similarity_of_points_is_exact(flat: bool) -> None:
    """Points of a plane too, for which a reflection fits as well as the rotation."""
    generator = np.random.default_rng(0)
    source = generator.standard_normal((5, 7, 3))
    source[:, :, 2] *= not flat
    rotations = np.linalg.qr(generator.standard_normal((5, 3, 3))).Q
    rotations *= np.linalg.det(rotations)[:, None, None]
    scales, shifts = generator.uniform(0.1, 9, 5), generator.standard_normal((5, 3))
    target = scales[:, None, None] * source @ rotations.transpose(0, 2, 1) + shifts[:, None]
    for found, true in zip(joining.umeyama(source, target), (scales, rotations, shifts), strict=True):
        np.testing.assert_allclose(found, true, atol=EXACT)


def _projected(model: Model) -> np.ndarray:
    """Pixels of each observation's point in its photo."""
    points, places = model.observations.T
    poses = model.cam_from_world[places]
    local = np.einsum("mij,mj->mi", poses[:, :, :3], model.positions[points]) + poses[:, :, 3]
    return model.intrinsics[places, :1] * local[:, :2] / local[:, 2:] + model.intrinsics[places, 1:]
