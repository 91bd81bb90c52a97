"""From the view graph to one model: what contradicts itself is taken apart, what is not clear is not joined."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from synthetic_photos import (
    MIDDLE,
    SIZE,
    Photos,
    ball,
    degrees_between,
    graph_of,
    inverse,
    model_of,
    photograph,
    ring,
    simple_radial,
    true_matches,
)

from quicksurf.capture.sfm import joining, mapping, overlap, reconstruct
from quicksurf.capture.sfm.overlap import Model
from quicksurf.capture.sfm.reconstruct import Posed

POSE_DEGREES = 0.3  # half a pixel of noise in some hundred features, over a few steps from photo to photo


@pytest.fixture(scope="module")
def photos() -> Photos:
    points = ball(1500)
    return photograph(points, points, ring(9, degrees=90))


def _reconstructed(photos: Photos, graph, folder: Path) -> tuple[reconstruct.Result, list[str]]:
    said: list[str] = []
    *_, last = reconstruct.reconstruct(graph, true_matches(photos), folder, 60.0, 2, said.append)
    return last, said


def test_photos_are_placed_and_nothing_speaks_against_them(photos: Photos, tmp_path: Path) -> None:
    result, said = _reconstructed(photos, graph_of(photos), tmp_path)
    assert result.model is not None and said == []
    assert result.findings["groups"] == [] and result.findings["doubtful"] == []
    found = reconstruct.posed(result.model).poses
    assert sorted(found) == list(range(9))
    for index in range(1, 9):
        true = photos.poses[index][:, :3] @ photos.poses[0][:, :3].T
        assert degrees_between(found[index][:, :3] @ found[0][:, :3].T, true) < POSE_DEGREES


def test_photo_that_no_pair_places_is_placed_by_the_points_of_all(photos: Photos, tmp_path: Path) -> None:
    graph = graph_of(photos)
    pairs = {pair: geometry for pair, geometry in graph.pairs.items() if 4 not in pair}
    graph = type(graph)(graph.features, graph.cameras, pairs)
    result, said = _reconstructed(photos, graph, tmp_path)
    assert result.model is not None and result.model.num_reg_images() == 9
    assert any("1 more photos placed" in line for line in said)


def test_no_overlap_is_no_model(photos: Photos, tmp_path: Path) -> None:
    graph = graph_of(photos, {})
    assert list(reconstruct.reconstruct(graph, {}, tmp_path, 60.0, 2, lambda line: None)) == []


@pytest.mark.parametrize(
    ("n_placed", "best", "n_starts"), [((9,), 0, 1), ((0, 9), 1, 2), ((5, 7, 6), 1, 3), ((4, 4, 4), 0, 3)]
)
def test_other_lenses_are_tried_where_photos_are_left_out(
    photos: Photos,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_placed: tuple[int, ...],
    best: int,
    n_starts: int,
) -> None:
    """The model of most photos is taken, with the cameras of its start; no start is tried twice."""
    graph = graph_of(photos)
    graph.write(tmp_path / "graph.db")
    poses, lenses = dict(enumerate(photos.poses)), dict.fromkeys(range(9), simple_radial(MIDDLE))
    asked = []

    def place_some(graph, photos, folder, seconds, n_threads, adjust_distortion) -> list:
        asked.append((graph.cameras, adjust_distortion))
        chosen = {photo: poses[photo] for photo in range(n_placed[len(asked) - 1])}
        return [mapping.build(tmp_path / "graph.db", chosen, lenses)] if chosen else []

    monkeypatch.setattr(mapping, "map_photos", place_some)
    begun, found = reconstruct._map(graph, tmp_path, lambda: 9.0, 2, lambda line: None)
    assert len(asked) == n_starts and all(asked.count(start) == 1 for start in asked)
    assert found[0].num_reg_images() == n_placed[best] and begun.cameras == asked[best][0]


def _twice_in_one_place(photos: Photos) -> Model:
    """Photos 9 to 17 lie where 0 to 8 do and show other points: alike sides taken for one."""
    model = model_of(photos)
    shifted = model.observations + np.array([len(model.positions), 9])
    return Model(
        np.arange(18),
        np.tile(model.cam_from_world, (2, 1, 1)),
        np.tile(model.intrinsics, (2, 1)),
        np.tile(model.sizes, (2, 1)),
        np.tile(model.positions, (2, 1)),
        np.concatenate([model.observations, shifted]),
        np.tile(model.features, 2),
    )


def test_groups_that_have_no_common_point_at_one_place_contradict_each_other(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty matches join them, a tenth of what neighbours in either have in common."""
    both = photos._replace(
        features=photos.features * 2, ids=[*photos.ids, *(ids + 1500 for ids in photos.ids)]
    )
    matches = true_matches(both) | {(3, 12): np.stack([np.arange(20)] * 2, 1).astype(np.int32)}
    monkeypatch.setattr(overlap, "arrays", lambda _: _twice_in_one_place(photos))
    assert reconstruct.contradicted(graph_of(both, matches), pycolmap.Reconstruction()) == [
        list(range(9)),
        list(range(9, 18)),
    ]


def test_photo_in_a_wrong_place_is_doubtful(photos: Photos) -> None:
    model = model_of(photos)
    assert reconstruct.contradicting(model) == []
    wrong = model.observations[:, 1] == 4
    observations = model.observations.copy()
    observations[wrong, 0] = len(model.positions) + np.arange(wrong.sum())
    positions = np.concatenate([model.positions, model.positions[model.observations[wrong, 0]]])
    assert reconstruct.contradicting(model._replace(observations=observations, positions=positions)) == [4]


def _parts(photos: Photos) -> tuple[list[Model], list[Posed]]:
    """Photos 0 to 4 and 5 to 8, the second in a frame of twice the size."""
    models = [model_of(photos, range(5)), model_of(photos, range(5, 9))]
    poses = models[1].cam_from_world * np.array([1, 1, 1, 2.0])
    models[1] = models[1]._replace(cam_from_world=poses, positions=2 * models[1].positions)
    lens = simple_radial(MIDDLE)
    parts = [
        Posed(dict(zip(model.photos.tolist(), model.cam_from_world, strict=True)), {}) for model in models
    ]
    return models, [part._replace(lenses=dict.fromkeys(part.poses, lens)) for part in parts]


def test_models_that_match_are_joined_in_the_frame_of_the_first(photos: Photos) -> None:
    whole, rest = reconstruct.join_all(*_parts(photos), true_matches(photos), lambda line: None)
    assert rest == [] and sorted(whole.poses) == sorted(whole.lenses) == list(range(9))
    for index in range(9):
        np.testing.assert_allclose(whole.poses[index], photos.poses[index], atol=1e-9)


def test_models_without_a_match_stay_apart(photos: Photos) -> None:
    whole, rest = reconstruct.join_all(*_parts(photos), {}, lambda line: None)
    assert sorted(whole.poses) == [0, 1, 2, 3, 4] and rest == [[5, 6, 7, 8]]


@pytest.mark.parametrize(
    ("support", "joined"),
    [([0.6], True), ([0.6, 0.2], True), ([0.05], False), ([0.6, 0.55], False), ([0.2, 0.1], True)],
)
def test_only_what_is_supported_and_clear_is_joined(
    photos: Photos, monkeypatch: pytest.MonkeyPatch, support: list[float], joined: bool
) -> None:
    same = joining.Join(0.5, np.eye(3), np.zeros(3), np.zeros((0, 4), np.int64), 0.0)
    monkeypatch.setattr(joining, "joins", lambda *_: [same._replace(support=part) for part in support])
    whole, rest = reconstruct.join_all(*_parts(photos), {}, lambda line: None)
    assert (len(whole.poses), rest) == ((9, []) if joined else (5, [[5, 6, 7, 8]]))


def test_arrays_of_a_model_project_to_the_features_of_their_colours(photos: Photos, tmp_path: Path) -> None:
    (model,) = mapping.map_photos(graph_of(photos), range(9), tmp_path, 30.0, n_threads=2)
    found = reconstruct.model_arrays(model, photos.features)
    assert found["images"].tolist() == list(range(9)) and (found["sizes"] == SIZE).all()
    for point, place in found["observations"][::50]:
        pose = inverse(found["c2w"][place])
        x, y, z = pose @ [*found["positions"][point], 1.0]
        focal, cx, cy, k1 = found["lenses"][place]
        bent = 1 + k1 * (x * x + y * y) / z**2
        pixel = np.array([focal * bent * x / z + cx, focal * bent * y / z + cy])
        offsets = np.linalg.norm(photos.features[place].points - pixel, axis=1)
        assert offsets.min() < 4.0  # COLMAP's largest error of an observation
    assert (found["colors"][:, 1:] == [7, 9]).all() and len(np.unique(found["colors"][:, 0])) > 50
    assert 0 < float(found["error"]) < 2.0


def test_links_join_known_matches_without_naming_a_feature_twice() -> None:
    links = np.array([[3, 4], [5, 6]])
    known = reconstruct._linked(links, None)
    both = reconstruct._linked(np.array([[5, 9], [7, 8]]), known)
    np.testing.assert_array_equal(known.inlier_matches, links)
    np.testing.assert_array_equal(both.inlier_matches, [[3, 4], [5, 6], [7, 8]])
