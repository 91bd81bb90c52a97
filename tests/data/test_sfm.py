"""Planning, pair choice, accounts of what was lost, the frame, and the worker's deadline. No photo is read here."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from quicksurf.data.sfm_plan import plan_poses, plan_retry

import quicksurf
from quicksurf import cameras as lens
from quicksurf.data import sfm, sfm_worker
from quicksurf.data.scene import SparsePoints
from quicksurf.errors import BudgetError, PosesError

ROOT = Path(quicksurf.__file__).parents[1]  # where child processes find the package that is tested
EXACT = 1e-9  # float64, a few dozen operations


@given(
    n_images=st.integers(3, 2000),
    megapixels=st.floats(0.01, 100),
    seconds=st.floats(0, 3600),
    n_threads=st.integers(1, 64),
    ordered=st.booleans(),
)
def test_plan_fits_or_is_refused(
    n_images: int, megapixels: float, seconds: float, n_threads: int, ordered: bool
) -> None:
    try:
        plan = plan_poses(n_images, megapixels, seconds, n_threads, ordered)
    except BudgetError:
        more = plan_poses(n_images, megapixels, 1e9, n_threads, ordered)
        assert more.seconds > seconds
    else:
        assert plan.seconds <= seconds
        assert plan.n_partners <= n_images - 1


def test_less_time_never_plans_more_work() -> None:
    plans = [plan_poses(60, 2.0, seconds, 2, ordered=False) for seconds in (40, 60, 100, 300)]
    assert [plan.seconds for plan in plans] == sorted(plan.seconds for plan in plans)
    assert plans[0].n_features < plans[-1].n_features


def test_few_photos_match_all_pairs_many_choose() -> None:
    assert plan_poses(25, 1.0, 300, 2, ordered=False).n_partners == 24
    assert plan_poses(200, 1.0, 600, 2, ordered=False).n_partners < 40


def test_frames_in_order_get_more_neighbors() -> None:
    ordered, loose = (plan_poses(80, 1.0, 300, 2, ordered=flag) for flag in (True, False))
    assert ordered.n_neighbors > loose.n_neighbors


def test_small_photos_are_doubled_first() -> None:
    assert plan_poses(30, 0.3, 300, 2, ordered=False).upsample
    assert not plan_poses(30, 12.0, 300, 2, ordered=False).upsample


def test_retry_looks_harder_or_not_at_all() -> None:
    first = plan_poses(50, 2.0, 300, 2, ordered=False)
    again = plan_retry(50, 2.0, 200, 2, ordered=False)
    assert again is not None and again.seconds <= 200
    assert again.feature_pixels > first.feature_pixels and again.n_features > first.n_features
    assert plan_retry(50, 2.0, 5, 2, ordered=False) is None


def test_budget_error_names_both_times() -> None:
    with pytest.raises(BudgetError, match=r"about \d+ s .* 50 photos, 3 s are left: give more --minutes"):
        plan_poses(50, 2.0, 3.0, 2, ordered=False)


def test_reasons_say_why_each_photo_is_lost() -> None:
    counts = [900, 900, 900, 5, 800, 700, 600, -1, 500]
    inliers = [(0, 1, 80), (1, 2, 90), (2, 5, 20), (6, 4, 200), (8, 1, 40), (8, 4, 60)]
    reasons = sfm.lost_reasons(counts, inliers, registered=[0, 1, 2])
    assert sorted(reasons) == [3, 4, 5, 6, 7, 8]
    assert reasons[3].startswith("no features: 5 found")
    assert reasons[4].startswith("not in the largest model: it matches 2 other photos")
    assert reasons[8].startswith("not placed: it shares points with one photo of the model")
    assert reasons[5] == "too few matches: 20 with its best partner"
    assert reasons[7] == "no time was left to look at it"
    assert sfm.lost_reasons(counts, inliers[:2], [0, 1, 2])[4].startswith("too few matches: it overlaps")


def test_best_partners_are_symmetric_and_include_each_ones_best() -> None:
    likeness = np.random.default_rng(0).random((9, 9))
    likeness = likeness + likeness.T
    np.fill_diagonal(likeness, -1)
    chosen = sfm_worker.best_partners(likeness, 2)
    assert (chosen == chosen.T).all() and not chosen.diagonal().any()
    for index in range(9):
        assert chosen[index, np.argsort(-likeness[index])[:2]].all()
        assert chosen[index].sum() >= 2


def test_distinct_counts_ratio_test_matches() -> None:
    """Against Lowe's test written out, one feature at a time."""
    generator = np.random.default_rng(1)
    one, others = generator.random((40, 128)) ** 4, generator.random((3, 30, 128)) ** 4
    others[0, :10] = one[5:15] + 0.02 * generator.random((10, 128))
    one, others = (
        (array / np.linalg.norm(array, axis=-1, keepdims=True)).astype(np.float32) for array in (one, others)
    )
    expected = [0, 0, 0]
    for image in range(3):
        for feature in one:
            angles = sorted(np.arccos(min(1.0, float(feature @ other))) for other in others[image])
            expected[image] += angles[0] < 0.8 * angles[1] and np.cos(angles[0]) > 0.7
    assert sfm_worker._distinct(one, others).tolist() == expected
    assert expected[0] >= 10


def test_upright_frame_keeps_projections_and_points_up() -> None:
    cameras, points = _tilted_capture()
    moved, moved_points = sfm.stand_upright(cameras, points)
    for index in range(len(cameras)):
        before, _ = lens.project(cameras, index, points.positions)
        after, _ = lens.project(moved, index, moved_points.positions)
        torch.testing.assert_close(after, before, atol=1e-6, rtol=0)  # pixels
    up = -moved.c2w[:, :, 1].mean(0)
    torch.testing.assert_close(up / up.norm(), torch.tensor([0.0, 0.0, 1.0]).double(), atol=EXACT, rtol=0)
    assert abs(moved.centers().norm(dim=1).median().item() - 1) < EXACT


def test_upright_frame_of_cameras_without_common_up_is_finite() -> None:
    cameras, points = _tilted_capture()
    flipped = cameras.c2w.clone()
    flipped[::2, :, :2] *= -1  # every other camera upside down: the average up is about zero
    moved, _ = sfm.stand_upright(lens.Cameras(flipped, *list(vars(cameras).values())[1:]), points)
    assert moved.c2w.isfinite().all()


def test_worker_past_its_time_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = _replace_worker(monkeypatch, "import time; time.sleep(60)")
    begin = time.monotonic()
    with pytest.raises(BudgetError, match=r"time for poses ran out \(finished: nothing\)"):
        _find(tmp_path, seconds=0.2)
    assert time.monotonic() - begin < 5
    assert started[0].poll() is not None


def test_worker_that_dies_is_an_error_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _replace_worker(monkeypatch, "import sys; sys.exit('out of memory')")
    with pytest.raises(PosesError, match=r"code 1\); its last words: out of memory"):
        _find(tmp_path, seconds=30)


def test_interrupt_kills_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = _replace_worker(monkeypatch, "import time; time.sleep(60)")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            _find(tmp_path, seconds=30)
    finally:
        signal.signal(signal.SIGINT, before)
    assert started[0].poll() is not None


def test_worker_ends_when_its_input_closes() -> None:
    program = (
        "import threading, time; from quicksurf.data.sfm_worker import _exit_with_parent;"
        "threading.Thread(target=_exit_with_parent, daemon=True).start(); print('up', flush=True); time.sleep(60)"
    )
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, cwd=ROOT)
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.stdin.close()
    assert process.wait(timeout=10) == 3
    process.stdout.close()


def _replace_worker(monkeypatch: pytest.MonkeyPatch, program: str) -> list[subprocess.Popen]:
    started: list[subprocess.Popen] = []

    def start(log: object) -> subprocess.Popen:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", program]
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True))
        return started[-1]

    monkeypatch.setattr(sfm, "_start", start)
    return started


def _find(folder: Path, seconds: float) -> sfm.Poses:
    photos = sfm.Photos(["a.jpg", "b.jpg", "c.jpg"], [([0, 1, 2], None)])
    plan = plan_poses(3, 1.0, 100, 2, ordered=False)
    return sfm.find_poses(photos, folder, plan, seconds, lambda line: None)


def _tilted_capture() -> tuple[lens.Cameras, SparsePoints]:
    """Nine cameras on a ring, looking in, in a frame that is turned and far off."""
    generator = torch.Generator().manual_seed(3)
    positions = torch.randn(50, 3, generator=generator, dtype=torch.float64) * 0.3
    angles = torch.arange(9, dtype=torch.float64) * (2 * torch.pi / 9)
    centers = torch.stack([3 * angles.cos(), 3 * angles.sin(), torch.ones_like(angles)], 1)
    forward = torch.nn.functional.normalize(-centers, dim=1)
    right = torch.linalg.cross(forward, torch.tensor([[0.0, 0.0, 1.0]]).double().expand(9, 3))
    right = torch.nn.functional.normalize(right, dim=1)
    down = torch.linalg.cross(forward, right)
    cameras = lens.Cameras(
        c2w=torch.stack([right, down, forward, centers], 2),
        intrinsics=torch.tensor([[500.0, 500.0, 320.0, 240.0]]).double().expand(9, 4),
        distortion=torch.zeros(9, lens.N_DISTORTION).double(),
        fisheye=torch.zeros(9, dtype=torch.bool),
        sizes=torch.tensor([[640, 480]]).expand(9, 2),
    )
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    rotation = rotation * torch.linalg.det(rotation).sign()
    shift = torch.tensor([5.0, -7.0, 2.0]).double()
    moved = lens.similarity(cameras, 2.5, rotation, shift)
    points = 2.5 * positions @ rotation.T + shift
    return moved, SparsePoints(
        points, torch.zeros(50, 3, dtype=torch.uint8), torch.zeros(0, 2, dtype=torch.long)
    )


def test_the_worker_gets_the_cpus_that_the_kernels_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One count for all: that of the kernels also knows a container's quota."""
    jobs: list[dict] = []

    def listen(process: subprocess.Popen, *_: object) -> dict:
        process.kill()
        raise PosesError("stop here")

    monkeypatch.setattr(sfm._native, "usable_cpus", lambda: 3)
    monkeypatch.setattr(sfm.json, "dumps", lambda job: jobs.append(job) or "{}")
    monkeypatch.setattr(sfm, "_listen", listen)
    plan = plan_poses(3, 1.0, 300, 2, ordered=False)
    with pytest.raises(PosesError, match="stop here"):
        sfm.find_poses(sfm.Photos(["a", "b", "c"], []), tmp_path, plan, 1, lambda _: None)
    assert jobs[0]["n_threads"] == 3


def test_photos_are_not_blamed_where_time_ran_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    photos = sfm.Photos(["0.jpg", "1.jpg", "2.jpg"], [([0, 1, 2], None)])
    plan = plan_poses(3, 1.0, 600.0, 2, False)
    for complete, kind, said in (
        (False, BudgetError, "matches of 3 photos"),
        (True, PosesError, "no two overlap"),
    ):
        messages = {
            "features": {"counts": [900, 900, 900], "complete": True},
            "matches": {"inliers": [], "complete": complete},
            "mapping": {"found": False},
        }
        monkeypatch.setattr(sfm, "_run_worker", lambda *_, told=messages: told)
        with pytest.raises(kind, match=said):
            sfm.find_poses(photos, tmp_path, plan, 600.0, lambda _: None)
