"""The pose bench's own logic: measures against slow twins, verdicts, truth files, resuming, order of runs."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import bench_poses
from pose_bench import measure, runs, worker
from pose_bench.captures import Case, read_truth, select
from pose_bench.measure import Plan, rows_of
from pose_bench.measures import (
    aligned_residuals,
    area_under_recall,
    compare,
    pair_errors,
    placed_right,
)
from pose_bench.runs import OURS, PEER, Found
from pose_bench.table import Ledger, Row, describe, markdown, verdicts

TOOLS = Path(__file__).parents[1] / "tools"
EXACT = 1e-5  # degrees: the arc cosine keeps half the digits of float64 near 0
GOOD = {"placed": 30, "compared": 30, "right": 30, "auc": 90.0, "rms": 0.1, "median": 0.1, "seconds": 30.0}
ROW = Row("castle_p30", 30, 30, ours={**GOOD, "timed": 1.0}, made="here; commit 1; today")


def random_poses(n_poses: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    turns = Rotation.random(n_poses, rng=rng).as_matrix()
    return np.concatenate([turns, rng.normal(size=(n_poses, 3, 1))], axis=2)


def in_another_frame(c2w: np.ndarray) -> np.ndarray:
    """The same cameras after a similarity of the world."""
    turn = Rotation.from_rotvec([0.3, -1.0, 2.0]).as_matrix()
    return np.concatenate([turn @ c2w[:, :, :3], 2.5 * turn @ c2w[:, :, 3:] + [[1], [2], [3]]], axis=2)


def degrees_between(u: np.ndarray, v: np.ndarray) -> float:
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(u, v)), u @ v))


def named(c2w: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{index:02d}": pose for index, pose in enumerate(c2w)}


def test_errors_of_pairs_are_those_of_a_loop():
    ours, true = random_poses(7, 0), random_poses(7, 1)
    rotations, directions = pair_errors(ours, true)
    for a in range(7):
        for b in range(7):
            if a == b:
                continue
            turns = [poses[a, :, :3].T @ poses[b, :, :3] for poses in (ours, true)]
            ways = [poses[a, :, :3].T @ (poses[b, :, 3] - poses[a, :, 3]) for poses in (ours, true)]
            angle = np.degrees(Rotation.from_matrix(turns[0].T @ turns[1]).magnitude())
            assert abs(rotations[a, b] - angle) < EXACT
            assert abs(directions[a, b] - degrees_between(*ways)) < EXACT


def test_neither_frame_nor_scale_matters():
    true = random_poses(9)
    figures = compare(named(in_another_frame(true)), named(true))
    assert figures["right"] == figures["compared"] == 9
    assert figures["auc"] > 99.999 and figures["rms"] < 1e-9


@pytest.mark.parametrize("n_wrong", [0, 1, 4])
def test_a_photo_turned_by_six_degrees_or_moved_is_the_one_that_is_wrong(n_wrong):
    true = random_poses(11)
    ours = in_another_frame(true)
    ours[:n_wrong, :, :3] = ours[:n_wrong, :, :3] @ Rotation.from_euler("x", 6, degrees=True).as_matrix()
    assert placed_right(ours, true).tolist() == [False] * n_wrong + [True] * (11 - n_wrong)
    moved = in_another_frame(true)
    moved[:n_wrong, :, 3] = moved[:n_wrong, :, 3] * -1.5 + 10
    assert placed_right(moved, true).tolist() == [False] * n_wrong + [True] * (11 - n_wrong)


def test_of_two_groups_joined_wrongly_the_smaller_is_wrong():
    true = random_poses(20)
    ours = true.copy()
    turn = Rotation.from_euler("y", 158, degrees=True).as_matrix()
    ours[13:] = np.concatenate([turn @ ours[13:, :, :3], turn @ ours[13:, :, 3:]], axis=2)
    assert placed_right(ours, true).tolist() == [True] * 13 + [False] * 7


def test_no_direction_is_asked_between_cameras_at_one_place():
    true = random_poses(8)
    true[:5, :, 3] = true[0, :, 3]  # a tripod that only turned
    ours = true + np.random.default_rng(0).normal(scale=1e-4, size=true.shape) * (np.arange(4) == 3)
    assert placed_right(ours, true).all()


def test_too_few_photos_are_not_judged():
    true = named(random_poses(5))
    assert compare({}, true) == {"compared": 0, "right": 0}
    assert compare(dict(list(true.items())[:2]), true) == {"compared": 2, "right": 0}
    assert not placed_right(random_poses(1), random_poses(1)).any()


def test_area_is_the_integral_of_recall():
    errors = np.random.default_rng(0).exponential(3.0, 500)
    steps = (np.arange(20_000) + 0.5) * 5 / 20_000
    recall = np.searchsorted(np.sort(errors), steps) / len(errors)
    assert abs(area_under_recall(errors, 5.0) - recall.mean()) < 1e-4


def test_residuals_are_what_noise_leaves_and_mirrors_are_not_undone():
    points = np.random.default_rng(0).normal(size=(50, 3))
    moved = points.copy()
    moved[3] += [0.5, 0, 0]
    left = aligned_residuals(2 * points @ Rotation.from_rotvec([1.0, 2, 3]).as_matrix().T + 5, moved)
    assert left.argmax() == 3 and 0.4 < left[3] < 0.5 and np.median(left) < 0.05
    assert np.median(aligned_residuals(points * [1, 1, -1], points)) > 0.5


def write_photos(folder: Path, n_photos: int) -> None:
    folder.mkdir(parents=True)
    for index in range(n_photos):
        Image.new("RGB", (16, 12)).save(folder / f"{index:02d}.jpg")


def test_truth_of_both_forms_is_read_and_needs_no_photo(tmp_path):
    poses = random_poses(4)
    write_photos(tmp_path / "image", 4)
    frames = [
        {"file_path": f"gone/{name}.jpg", "transform_matrix": (np.vstack([pose, [0, 0, 0, 1]])).tolist()}
        for name, pose in named(poses * [1, -1, -1, 1]).items()
    ]
    shared = {"fl_x": 20.0, "fl_y": 20.0, "cx": 8.0, "cy": 6.0, "w": 16, "h": 12}
    (tmp_path / "truth.json").write_text(json.dumps({**shared, "frames": frames}))
    turns = np.swapaxes(poses[:, :, :3], 1, 2)
    projections = np.diag([20.0, 20.0, 1.0]) @ np.concatenate([turns, -turns @ poses[:, :, 3:]], axis=2)
    matrices = {
        f"world_mat_{index}": np.vstack([matrix, [0, 0, 0, 1]]) for index, matrix in enumerate(projections)
    }
    np.savez(tmp_path / "cameras.npz", **matrices)
    for file in ("truth.json", "cameras.npz"):
        case = Case("any", tmp_path / "image", tmp_path / file, turned="0[13]")
        truth = read_truth(case)
        assert list(truth) == ["00", "01", "02", "03"]
        signs = np.where(np.arange(4)[:, None, None] % 2, [-1, -1, 1, 1], 1)  # half a turn about the view
        assert np.abs(np.stack(list(truth.values())) - poses * signs).max() < 1e-6
    assert read_truth(case._replace(truth=None)) == {}


def test_captures_are_chosen_by_name_and_presence(tmp_path):
    write_photos(tmp_path / "dev-a" / "images", 1)
    write_photos(tmp_path / "dtu_scan24" / "image", 1)
    assert [case.name for case in select(tmp_path, "")] == ["dev-a", "dtu_scan24"]
    assert [case.photos.name for case in select(tmp_path, "dtu")] == ["image"]


@pytest.mark.parametrize(
    ("figures", "warnings", "expected"),
    [
        ({}, [], []),
        ({}, ["only 29 of 30 photos could be posed"], ["false alarm"]),
        ({}, ["1 file was not used: a.jpg (no pose was found)"], []),
        ({}, ["the region of interest holds 1 of 30 cameras"], []),
        ({"placed": 29, "compared": 29, "right": 29}, ["29 of 30 photos could be posed"], []),
        ({"right": 28}, [], ["silent: 2 wrong"]),
        ({"right": 28}, ["1 file was not used: a.jpg (no pose was found)"], ["silent: 2 wrong"]),
        ({"right": 28}, ["two groups of photos contradict each other"], []),
    ],
)
def test_a_run_that_is_wrong_must_say_so_and_no_other(figures, warnings, expected):
    row = dataclasses.replace(ROW, ours=ROW.ours | figures, warnings=warnings)
    assert [verdict.replace("*", "") for verdict in verdicts(row)] == expected


@pytest.mark.parametrize(
    ("ours", "peer", "note", "expected"),
    [
        ({}, {}, "", []),
        ({"right": 28, "compared": 28}, {}, "", ["fewer right than C"]),
        ({"right": 28, "compared": 28}, {}, "doubtful", []),
        ({"auc_both": 89.8}, {}, "", ["less exact than C"]),
        ({"rms_both": 0.2}, {}, "", ["less exact than C"]),
        ({"auc": 80.0}, {}, "", []),
        ({"seconds": 61.0}, {}, "", ["above 0.6 of C's time"]),
        ({"seconds": 61.0}, {"timed": 0.0}, "", []),
    ],
)
def test_a_row_is_held_against_colmap(ours, peer, note, expected):
    both = {"auc_both": 90.0, "rms_both": 0.1}
    peer = ROW.ours | both | {"seconds": 100.0} | peer
    row = dataclasses.replace(ROW, ours=ROW.ours | both | ours, peer=peer, note=note)
    assert [verdict.replace("*", "") for verdict in verdicts(row)] == expected
    assert markdown([row]).splitlines()[0].count("|") == markdown([row]).splitlines()[2].count("|")
    assert ("~100" in describe(row)) == (not peer["timed"]) == ("s / C's" not in describe(row))


def found(poses: np.ndarray, **values) -> Found:
    return Found(3.0, {name: pose.tolist() for name, pose in named(poses).items()}, made="here", **values)


@pytest.fixture
def plan(tmp_path):
    poses = random_poses(5)
    write_photos(tmp_path / "photos", 5)
    matrices = [np.vstack([pose, [0, 0, 0, 1]]).tolist() for pose in poses * [1, -1, -1, 1]]
    frames = [
        {"file_path": f"{index:02d}.jpg", "transform_matrix": matrix} for index, matrix in enumerate(matrices)
    ]
    frames.append({"file_path": "absent.jpg", "transform_matrix": matrices[0]})
    shared = {"fl_x": 20.0, "fl_y": 20.0, "cx": 8.0, "cy": 6.0, "w": 16, "h": 12}
    (tmp_path / "truth.json").write_text(json.dumps({**shared, "frames": frames}))
    case = Case("herzjesu", tmp_path / "photos", tmp_path / "truth.json")
    return Plan([case], 60.0, tmp_path / "runs", tmp_path / "cache", time_peer=False)


@pytest.fixture
def called(monkeypatch):
    """The runs that are made, in order; COLMAP places one photo less."""
    calls = []

    def run(method, case, folder, seconds, timed=True):
        calls.append((method, timed))
        result = found(random_poses(5)[: 4 if method == PEER else 5], timed=timed)
        folder.mkdir(exist_ok=True)
        (folder / f"{case.name}.json").write_text(json.dumps(dataclasses.asdict(result)))
        return result

    monkeypatch.setattr(measure, "run", run)
    return calls


def measured(plan: Plan, folder: Path) -> Row:
    (row,) = rows_of(plan, Ledger(folder, ["herzjesu"]))
    return row


def test_a_row_holds_both_and_is_measured_once(plan, called, tmp_path):
    row = measured(plan, tmp_path / "out")
    assert called == [(OURS, True), (PEER, False)]
    assert (row.photos, row.known, row.ours["right"], row.peer["right"]) == (5, 5, 5, 4)
    assert row.ours["compared_both"] == row.peer["compared_both"] == 4
    assert measured(plan, tmp_path / "out") == row and len(called) == 2
    assert "herzjesu" in (tmp_path / "out" / "poses.md").read_text()


def test_kept_poses_of_colmap_are_used_until_it_is_timed(plan, called, tmp_path):
    measured(plan, tmp_path / "first")
    measured(plan, tmp_path / "second")
    assert called[2:] == [(OURS, True)]
    timed = plan._replace(time_peer=True)
    assert measured(timed, tmp_path / "second").peer["timed"]
    assert called[3:] == [(OURS, True), (PEER, True)]
    measured(timed, tmp_path / "second")
    assert len(called) == 5
    measured(timed._replace(seconds=90.0), tmp_path / "second")
    assert len(called) == 7


def test_a_failed_row_is_shown_and_tried_again(plan, called, tmp_path, monkeypatch):
    failing = Found(0.0, {}, failure="exit code -9: killed")
    with monkeypatch.context() as patch:
        patch.setattr(measure, "run", lambda *_, **__: failing)
        assert verdicts(measured(plan, tmp_path / "out")) == ["failed: exit code -9: killed"]
    assert verdicts(measured(plan, tmp_path / "out")) == []


@pytest.mark.slow
def test_a_worker_that_dies_costs_one_row(tmp_path):
    (tmp_path / "photos").mkdir()
    result = runs.run(OURS, Case("empty", tmp_path / "photos", None), tmp_path / "runs", 10.0)
    assert (
        result.failure is not None and "exit code 1: " in result.failure and "no images in" in result.failure
    )
    assert not result.poses and runs.kept(Case("empty", tmp_path / "photos", None), tmp_path / "runs") is None


def test_a_worker_sees_photos_alone(tmp_path):
    write_photos(tmp_path / "images", 3)
    (tmp_path / "images" / "transforms.json").write_text("{}")
    (tmp_path / "work").mkdir()
    alone = worker.alone(tmp_path / "images", tmp_path / "work" / "photos")
    assert [path.name for path in sorted(alone.iterdir())] == ["00.jpg", "01.jpg", "02.jpg"]


@pytest.mark.parametrize(
    "arguments", [[], ["--all", "absent"], ["absent"], ["--all", str(TOOLS), "--only", "("]]
)
def test_a_wrong_command_line_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        bench_poses.main(arguments)
    assert left.value.code == 2 and "error:" in capsys.readouterr().err
