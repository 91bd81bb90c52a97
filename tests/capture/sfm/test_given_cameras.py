"""Cameras without points get them from the photos, and are told where the photos contradict them."""

import re
from itertools import pairwise

import numpy as np
import pytest
import rendered_box
import torch
from synthetic_capture import ring

from quicksurf.capture.assemble import ReadOptions
from quicksurf.capture.load import read_scene
from quicksurf.capture.scene import PhotoFile
from quicksurf.capture.sfm import given_cameras
from quicksurf.capture.sfm.given_cameras import Pair, choose_pairs, contradicted, contradictions, find_points
from quicksurf.capture.transforms import write_cameras
from quicksurf.geometry.cameras import Cameras

pytestmark = pytest.mark.slow

N_PHOTOS = 9
PATIENT = 300.0  # seconds: the test must not depend on the machine
ON_SURFACE = 0.02  # of a box one wide, seen by 520 pixels of focal length from 3 away: two pixels are 0.012


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[PhotoFile], Cameras]:
    folder = tmp_path_factory.mktemp("box") / "images"
    cameras = rendered_box.save(folder, N_PHOTOS)
    return [PhotoFile(path, True) for path in sorted(folder.iterdir())], cameras


def from_surface(points: np.ndarray) -> np.ndarray:
    """Distance from the box or the floor that it stands on."""
    half = rendered_box._HALF
    outside = np.abs(points) - half
    box = np.linalg.norm(np.maximum(outside, 0), axis=1) + np.abs(np.minimum(outside.max(1), 0))
    return np.minimum(box, np.abs(points[:, 2] + half[2]))


def test_points_lie_on_what_the_photos_show(box: tuple[list[PhotoFile], Cameras]) -> None:
    files, cameras = box
    said: list[str] = []
    found = find_points(files, [None] * N_PHOTOS, cameras, PATIENT, said.append)
    assert found is not None and not found.warnings
    positions, observations = found.points.positions.numpy(), found.points.observations.numpy()
    assert len(positions) > 300 and np.median(from_surface(positions)) < ON_SURFACE / 4
    assert (from_surface(positions) < ON_SURFACE).mean() > 0.97
    assert np.bincount(observations[:, 0]).min() >= 2 and len(np.unique(observations[:, 1])) == N_PHOTOS
    assert f"{len(positions):,} points" in found.line and f"matching {N_PHOTOS} photos" in said[0]


@pytest.mark.parametrize("wrong", [[3, 6], [0, 2, 5], [1, 4, 7]])
def test_turned_cameras_are_named_and_give_no_points(
    box: tuple[list[PhotoFile], Cameras], wrong: list[int]
) -> None:
    files, cameras = box
    turned = Cameras(
        cameras.c2w.clone(), *(vars(cameras)[key] for key in ("intrinsics", "distortion", "fisheye", "sizes"))
    )
    turned.c2w[wrong, :, :2] *= -1  # by 180 degrees about the axis
    found = find_points(files, [None] * N_PHOTOS, turned, PATIENT, lambda line: None)
    assert found is not None
    (warning,) = found.warnings
    named = [int(number) for number in re.findall(r"view_(\d\d)\.jpg", warning)]
    assert warning.startswith(f"{len(wrong)} of 9 given cameras contradict the photos")
    assert named == wrong
    assert not np.isin(found.points.observations[:, 1].numpy(), named).any()
    assert (from_surface(found.points.positions.numpy()) < ON_SURFACE).mean() > 0.97


def test_features_beside_the_object_are_left_out(box: tuple[list[PhotoFile], Cameras]) -> None:
    files, cameras = box
    mask = np.zeros((96, 128), np.uint8)
    mask[:, :64] = 255
    found = find_points(files, [mask] * N_PHOTOS, cameras, PATIENT, lambda line: None)
    assert found is not None
    for index in range(N_PHOTOS):
        mine = found.points.observations[:, 1] == index
        seen = found.points.positions[found.points.observations[mine, 0]]
        at = given_cameras.lens.project(cameras, index, seen)[0]
        assert at[:, 0].max() < rendered_box.WIDTH / 2 + 4  # a mask's pixel is four wide


def test_too_little_time_gives_none_and_says_nothing(box: tuple[list[PhotoFile], Cameras]) -> None:
    files, cameras = box
    said: list[str] = []
    assert find_points(files, [None] * N_PHOTOS, cameras, 0.1, said.append) is None and not said


def test_a_capture_with_cameras_alone_has_points_where_there_is_time(
    box: tuple[list[PhotoFile], Cameras],
) -> None:
    files, cameras = box
    root = files[0].path.parents[1]
    names = [file.path.relative_to(root).as_posix() for file in files]
    write_cameras(root / "transforms.json", cameras, names, np.zeros(N_PHOTOS, bool))
    options = {"max_pixels": 10**5, "say": lambda line: None}
    assert read_scene(root, ReadOptions(**options)).points is None
    scene = read_scene(
        root, ReadOptions(**options, points_seconds=lambda n_photos: PATIENT * (n_photos == N_PHOTOS))
    )
    assert scene.points is not None and len(scene.points.positions) > 300
    assert scene.report.seconds_points > 0 and any(
        "points triangulated" in note for note in scene.report.notes
    )
    assert scene.points.observations[:, 1].max() == N_PHOTOS - 1


def test_pairs_are_near_and_look_the_same_way() -> None:
    cameras = ring((0.0, 0.0, 0.0), n_images=60)
    pairs = choose_pairs(cameras)
    apart = np.array([min(second - first, 60 - second + first) for first, second in pairs])
    assert (
        apart.max() <= 12 and len(pairs) == len(set(pairs)) and all(first < second for first, second in pairs)
    )
    assert all(len([pair for pair in pairs if index in pair]) >= 8 for index in range(60))
    assert apart[0] <= 2


def test_cameras_that_look_apart_are_no_pair() -> None:
    cameras = ring((0.0, 0.0, 0.0), n_images=4)
    assert choose_pairs(cameras) == []
    assert choose_pairs(cameras.select(torch.tensor([0, 0]))) == [(0, 1)]


def judged(groups: list[list[int]], against: list[tuple[int, int]]) -> dict[tuple[int, int], Pair]:
    """Groups whose photos agree one after the other; pairs that contradict their cameras."""
    agreeing = [pair for group in groups for pair in pairwise(group)]
    matches = np.zeros((40, 2), int)
    return {pair: Pair(matches, 40, False) for pair in agreeing} | {
        pair: Pair(matches[:0], 40, True) for pair in against
    }


def test_the_smaller_group_is_wrong_also_where_its_photos_agree_with_each_other() -> None:
    pairs = judged([[0, 1, 2, 3], [4, 5]], [(3, 4), (2, 5)])
    assert contradicted(pairs, 6) == [4, 5]
    (warning,) = contradictions([4, 5], pairs, [f"{index}.jpg" for index in range(6)])
    assert "2 of 6 given cameras contradict the photos (4.jpg, 5.jpg): 0 %" in warning and "100 %" in warning


def test_a_small_group_is_right_if_only_wrong_cameras_contradict_it() -> None:
    pairs = judged([[0, 1, 2, 3, 4], [5, 6, 7], [8, 9]], [(0, 5), (1, 6), (5, 8), (6, 9)])
    assert contradicted(pairs, 10) == [5, 6, 7]


@pytest.mark.parametrize("against", [[], [(3, 4)], [(0, 2), (1, 3)]])
def test_one_pair_or_pairs_within_a_group_prove_nothing(against: list[tuple[int, int]]) -> None:
    assert contradicted(judged([[0, 1, 2, 3], [4, 5]], against), 6) == []


def test_few_wrong_cameras_are_left_out_without_a_word() -> None:
    assert contradictions([7], {}, [str(index) for index in range(40)]) == []
