"""The worker's deadline and end, what comes back of it, reasons for what was lost, the frame. No photo is read here."""

import json
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

import quicksurf
from quicksurf.capture.scene import SparsePoints
from quicksurf.capture.sfm import poses
from quicksurf.capture.sfm.plan import plan_poses
from quicksurf.capture.sfm.poses import Photos, Poses
from quicksurf.errors import BudgetError, PosesError
from quicksurf.geometry import cameras as lens

ROOT = Path(quicksurf.__file__).parents[1]  # where child processes find the package that is tested
EXACT = 1e-9  # float64, a few dozen operations


def test_reasons_say_why_each_photo_is_lost() -> None:
    counts = [900, 900, 900, 5, 800, 700, 600, -1, 500]
    inliers = [(0, 1, 80), (1, 2, 90), (2, 5, 20), (6, 4, 200), (8, 1, 40), (8, 4, 60)]
    reasons = poses.lost_reasons(counts, inliers, registered=[0, 1, 2])
    assert sorted(reasons) == [3, 4, 5, 6, 7, 8]
    assert reasons[3].startswith("no features: 5 found")
    assert reasons[4].startswith("not in the largest model: it matches 2 other photos")
    assert reasons[8].startswith("not placed: it has too few points in common with one photo of the model")
    assert reasons[5] == "too few matches: 20 with its best partner"
    assert reasons[7] == "no time was left to look at it"
    assert poses.lost_reasons(counts, inliers[:2], [0, 1, 2])[4].startswith("too few matches: it overlaps")


@pytest.mark.slow
def test_upright_frame_keeps_projections_and_points_up() -> None:
    cameras, points = _tilted_capture()
    moved, moved_points = poses.stand_upright(cameras, points)
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
    moved, _ = poses.stand_upright(lens.Cameras(flipped, *list(vars(cameras).values())[1:]), points)
    assert moved.c2w.isfinite().all()


def test_what_the_worker_finds_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six photos: three placed, one that cannot be read, one that matches nothing, one that no time was left for."""
    poses_of = np.concatenate([np.stack([np.eye(3)] * 3), np.arange(9.0).reshape(3, 3, 1)], 2)
    np.savez(
        tmp_path / "poses.npz",
        images=np.array([0, 2, 3]),
        c2w=poses_of,
        lenses=np.tile([700.0, 320.0, 240.0, 0.1], (3, 1)),
        sizes=np.tile([640, 480], (3, 1)),
        positions=np.ones((4, 3)),
        colors=np.full((4, 3), 9, np.uint8),
        observations=np.array([[0, 0], [0, 2], [3, 1]]),
        error=np.array(0.75),
    )
    messages = [
        {
            "stage": "features",
            "counts": [900, -1, 900, 900, 800, -1],
            "complete": False,
            "unreadable": {1: "torn"},
        },
        {"stage": "pairs", "pairs": 10},
        {"stage": "matches", "inliers": [(0, 2, 80), (2, 3, 90)], "complete": True},
        {"line": "joining 1 photo"},
        {"stage": "mapping", "final": True, "found": True, "groups": [[4, 5, 6]], "doubtful": [2]},
    ]
    lines = [json.dumps(message | {"seconds": float(i)}) for i, message in enumerate(messages)]
    _replace_worker(
        monkeypatch, "import time; print({!r}, flush=True); time.sleep(60)".format("\n".join(lines))
    )
    said: list[str] = []
    photos = Photos([Path(f"{index}.jpg") for index in range(6)], [])
    found = poses.find_poses(photos, tmp_path, plan_poses(6, 1.0, 300, 2, False, "v4"), 30, said.append)
    assert found.registered == [0, 2, 3] and found.unreadable == {1: "torn"}
    assert found.reasons.keys() == {4, 5} and "no time was left" in found.reasons[5]
    assert found.groups == [[4, 5, 6]] and found.doubtful == [2]
    assert found.error == 0.75
    assert found.cameras.intrinsics[0].tolist() == [700, 700, 320, 240]
    assert found.cameras.distortion[:, 0].tolist() == [0.1] * 3
    assert found.points.observations.tolist() == [[0, 0], [0, 2], [3, 1]]
    assert len(said) == 5 and "joining 1 photo" in said[3]
    assert "out of time" in said[0] and "out of time" not in said[2]


def test_worker_past_its_time_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = _replace_worker(monkeypatch, "import time; time.sleep(60)")
    begin = time.monotonic()
    with pytest.raises(BudgetError, match=r"time for poses ran out \(finished: nothing\)"):
        _find(tmp_path, seconds=0.2)
    assert time.monotonic() - begin < 5
    assert started[0].poll() is not None


def test_the_first_model_may_come_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without poses there is nothing to fit; with a model the deadline holds."""
    monkeypatch.setattr(poses, "LATE_FRACTION", 1e3)
    monkeypatch.setattr(poses, "_GRACE_SECONDS", 0.0)
    model = 'print(\'{"stage": "mapping", "seconds": 1, "found": true, "final": false}\', flush=True)'
    with subprocess.Popen(
        [sys.executable, "-c", f"import time; time.sleep(1); {model}; time.sleep(60)"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        said: list[str] = []
        assert poses._listen(process, tmp_path, 0.1, said.append)["mapping"]["found"]
        assert said == ["time for poses ran out: the best model so far is used"]
        process.kill()


def test_worker_that_dies_is_an_error_with_its_last_log_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _replace_worker(monkeypatch, "import sys; sys.exit('out of memory')")
    with pytest.raises(PosesError, match=r"code 1\); last log line: out of memory"):
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


@pytest.mark.slow
def test_worker_ends_when_its_input_closes() -> None:
    program = (
        "import threading, time; from quicksurf.capture.sfm.worker import _exit_with_parent;"
        "threading.Thread(target=_exit_with_parent, daemon=True).start(); print('up', flush=True); time.sleep(60)"
    )
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, cwd=ROOT)
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.stdin.close()
    assert process.wait(timeout=10) == 3
    process.stdout.close()


def test_the_worker_gets_the_cpus_that_the_kernels_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One count for all: that of the kernels also knows a container's quota."""
    jobs: list[dict] = []

    def listen(process: subprocess.Popen, *_: object) -> dict:
        process.kill()
        raise PosesError("stop here")

    monkeypatch.setattr(poses, "usable_cpus", lambda: 3)
    monkeypatch.setattr(poses.json, "dumps", lambda job: jobs.append(job) or "{}")
    monkeypatch.setattr(poses, "_listen", listen)
    plan = plan_poses(3, 1.0, 300, 2, False, "v4")
    with pytest.raises(PosesError, match="stop here"):
        poses.find_poses(_photos(), tmp_path, plan, 1, lambda _: None)
    assert jobs[0]["n_threads"] == 3


def test_photos_are_not_blamed_where_time_ran_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = plan_poses(3, 1.0, 600.0, 2, False, "v4")
    for complete, kind, said in (
        (False, BudgetError, "matches of 3 photos"),
        (True, PosesError, "no two overlap"),
    ):
        messages = {
            "features": {"counts": [900, 900, 900], "complete": True},
            "matches": {"inliers": [], "complete": complete},
            "mapping": {"found": False},
        }
        monkeypatch.setattr(poses, "_run_worker", lambda *_, told=messages: told)
        with pytest.raises(kind, match=said):
            poses.find_poses(_photos(), tmp_path, plan, 600.0, lambda _: None)


def _replace_worker(monkeypatch: pytest.MonkeyPatch, program: str) -> list[subprocess.Popen]:
    started: list[subprocess.Popen] = []

    def start(log: object) -> subprocess.Popen:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", program]
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True))
        return started[-1]

    monkeypatch.setattr(poses, "_start", start)
    return started


def _find(folder: Path, seconds: float) -> Poses:
    plan = plan_poses(3, 1.0, 100, 2, False, "v4")
    return poses.find_poses(_photos(), folder, plan, seconds, lambda line: None)


def _photos() -> Photos:
    return Photos([Path("a.jpg"), Path("b.jpg"), Path("c.jpg")], [([0, 1, 2], None, False)])


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
