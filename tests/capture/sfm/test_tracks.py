"""Matches of posed photos become points: right ones to the noise, wrong ones not at all."""

from itertools import combinations

import numpy as np
import pytest
import torch
from synthetic_capture import ring

from quicksurf.capture.sfm.tracks import MAX_ERROR, Tracks, join_matches, triangulate
from quicksurf.geometry import cameras as lens
from quicksurf.geometry.cameras import Cameras, project

N_POINTS = 200
NOISE = 0.2  # pixels
# A fifth of a pixel at a focal length of 480 and a distance of 3 is 1.3e-3; depth is three times less certain.
RIGHT = 1e-2


@pytest.fixture(scope="module")
def cameras() -> Cameras:
    return lens.resize(ring((0.0, 0.0, 0.0)), torch.tensor([[384, 320]] * 10))


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (N_POINTS, 3))


def seen(cameras: Cameras, points: np.ndarray) -> list[np.ndarray]:
    """Pixels of all points in each photo, with noise."""
    generator = np.random.default_rng(1)
    return [
        project(cameras, index, torch.from_numpy(points))[0].numpy()
        + NOISE * generator.standard_normal((len(points), 2))
        for index in range(len(cameras))
    ]


def matches_of(photos: range, features: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    return {pair: np.stack([features, features], 1) for pair in combinations(photos, 2)}


def test_tracks_join_what_matches_through_others() -> None:
    matches = {(0, 1): np.array([[0, 2]]), (1, 2): np.array([[2, 1], [0, 0]]), (0, 2): np.zeros((0, 2), int)}
    tracks = join_matches(matches, [3, 3, 2])
    sets = {
        frozenset(zip(tracks.images[mine].tolist(), tracks.features[mine].tolist(), strict=True))
        for mine in (tracks.points == point for point in range(tracks.points.max() + 1))
    }
    assert sets == {frozenset({(0, 0), (1, 2), (2, 1)}), frozenset({(1, 0), (2, 0)})}


def test_no_matches_give_no_points(cameras: Cameras) -> None:
    found = triangulate(join_matches({}, [5] * 10), [np.zeros((5, 2))] * 10, cameras)
    assert found.positions.shape == (0, 3) and len(found.tracks.points) == 0


def test_points_are_found_to_the_noise(cameras: Cameras, points: np.ndarray) -> None:
    pixels = seen(cameras, points)
    found = triangulate(
        join_matches(matches_of(range(4), np.arange(N_POINTS)), [N_POINTS] * 10), pixels, cameras
    )
    assert len(found.positions) == N_POINTS
    truth = np.zeros_like(found.positions)
    truth[found.tracks.points] = points[found.tracks.features]
    assert np.linalg.norm(found.positions - truth, axis=1).max() < RIGHT
    assert np.bincount(found.tracks.points).min() >= 3


def test_a_distorted_lens_is_taken_into_account(cameras: Cameras, points: np.ndarray) -> None:
    bent = Cameras(
        cameras.c2w, cameras.intrinsics, cameras.distortion.clone(), cameras.fisheye, cameras.sizes
    )
    bent.distortion[:, 0] = -0.3
    tracks = join_matches(matches_of(range(4), np.arange(N_POINTS)), [N_POINTS] * 10)
    found = triangulate(tracks, seen(bent, points), bent)
    assert len(found.positions) == N_POINTS
    assert (
        np.linalg.norm(found.positions[found.tracks.points] - points[found.tracks.features], axis=1).max()
        < RIGHT
    )


def test_two_points_that_a_wrong_match_joins_are_both_found(cameras: Cameras, points: np.ndarray) -> None:
    matches = matches_of(range(4), np.arange(20))
    matches[0, 1] = np.concatenate([matches[0, 1], [[0, 1]]])
    found = triangulate(join_matches(matches, [N_POINTS] * 10), seen(cameras, points), cameras)
    nearest = np.linalg.norm(found.positions[:, None] - points[None, :20], axis=2)
    assert len(found.positions) == 20 and nearest.min(0).max() < RIGHT


def test_matches_of_different_points_give_none(cameras: Cameras, points: np.ndarray) -> None:
    shuffled = np.random.default_rng(2).permutation(N_POINTS)
    wrong = {pair: np.stack([np.arange(N_POINTS), shuffled], 1) for pair in ((0, 1), (2, 3))}
    found = triangulate(join_matches(wrong, [N_POINTS] * 10), seen(cameras, points), cameras)
    chance = 0.1  # of two rays at random that pass within MAX_ERROR of each other, in front of both cameras
    assert len(found.positions) < chance * 2 * N_POINTS


def test_rays_that_are_nearly_parallel_and_points_behind_a_camera_give_none(cameras: Cameras) -> None:
    far = np.array([[0.0, 0.0, 1e4]])
    together = cameras.select(torch.tensor([0, 0]))
    together.c2w[1, :, 3] += 1e-3
    pixels = [np.array([[190.0, 160.0]])] * 2
    tracks = Tracks(np.zeros(2, int), np.arange(2), np.zeros(2, int))
    assert len(triangulate(tracks, pixels, together).positions) == 0
    behind = [project(cameras, index, torch.from_numpy(far))[0].numpy() for index in range(2)]
    assert len(triangulate(tracks, behind, cameras.select(slice(0, 2))).positions) == 0


def test_observations_are_within_the_error_that_is_allowed(cameras: Cameras, points: np.ndarray) -> None:
    pixels = seen(cameras, points)
    pixels[2] = pixels[2] + 10.0
    found = triangulate(
        join_matches(matches_of(range(4), np.arange(N_POINTS)), [N_POINTS] * 10), pixels, cameras
    )
    assert 2 not in found.tracks.images
    for image in np.unique(found.tracks.images):
        mine = found.tracks.images == image
        at = project(cameras, int(image), torch.from_numpy(found.positions[found.tracks.points[mine]]))[
            0
        ].numpy()
        assert np.linalg.norm(at - pixels[image][found.tracks.features[mine]], axis=1).max() <= MAX_ERROR
