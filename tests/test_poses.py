"""Refined poses: the flow of pixels, the gauge, recovery of a known error, and when the given poses are kept."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_capture import AXES, CENTER, write_capture
from tolerances import relative

from quicksurf import kernels
from quicksurf.capture.load import ReadOptions, read_scene
from quicksurf.config import load_config
from quicksurf.geometry.cameras import Cameras, pixel_rays, project
from quicksurf.geometry.poses import PoseTwists, moved, pixel_flows, without_gauge
from quicksurf.geometry.region import Roi, cameras_in_roi, cameras_in_world
from quicksurf.train.pixels import PixelBank
from quicksurf.train.pose_refinement import CameraAlignment, Trial, compare_views
from quicksurf.train.trainer import Trainer

CONFIG = load_config(Path(__file__).with_name("tiny.toml"), {})
DIFFERENCE64 = 1e-6  # relative L2 of central differences over 1e-4 in float64
WORLD32 = 1e-6  # relative L2 of poses that went through float32


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = write_capture(tmp_path_factory.mktemp("capture"), size=64)
    return read_scene(folder, ReadOptions(max_pixels=10_000, use_masks=False, say=lambda line: None))


def ellipsoid(cameras: Cameras, roi: Roi) -> tuple[Cameras, torch.Tensor, torch.Tensor]:
    """Cameras in the frame of the fit, and the true surface there: centre and axes."""
    center = torch.tensor(roi.center, dtype=torch.float64)
    return cameras_in_roi(cameras, roi), (CENTER - center) / roi.radius, AXES / roi.radius


def test_flows_are_the_derivative_of_projection(scene):
    cameras = cameras_in_roi(scene.cameras, scene.roi).to(torch.float64)
    points = 0.5 * torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    flows = pixel_flows(cameras, torch.full((7,), 3), points)
    step = 1e-4
    for axis in range(6):
        twists = torch.zeros(len(cameras), 6, dtype=torch.float64)
        twists[3, axis] = step
        ahead, behind = (project(moved(cameras, side * twists), 3, points)[0] for side in (1, -1))
        assert relative(flows[:, :, axis], (ahead - behind) / (2 * step)) < DIFFERENCE64


def test_gauge_holds_no_motion_nor_growth_of_the_whole(scene):
    centers = cameras_in_roi(scene.cameras, scene.roi).to(torch.float64).centers()
    together = torch.from_numpy(~scene.held_out)
    rigid = torch.tensor([0.1, -0.2, 0.3, 0.4, 0.5, -0.6], dtype=torch.float64).expand(len(centers), 6)
    growth = torch.cat([torch.zeros_like(centers), 0.1 * centers], 1)
    left = without_gauge(rigid + growth, centers, together)
    assert float(left[together].abs().max()) < 1e-12
    assert torch.equal(left[~together], (rigid + growth)[~together])
    twists = torch.randn(len(centers), 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    once = without_gauge(twists, centers, together)
    assert relative(without_gauge(once, centers, together), once) < 1e-12


def test_updates_recover_a_known_error(scene):
    """One camera of twelve stands wrong; the surface and its colours are exact."""
    true, center, axes = ellipsoid(scene.cameras, scene.roi)
    twists = torch.zeros(len(true), 6)
    twists[4] = torch.tensor([0.003, -0.002, 0.004, 0.01, -0.02, 0.01])
    poses = PoseTwists(moved(true, twists), torch.zeros(len(true), dtype=torch.bool))
    bank = PixelBank.of(scene, list(range(len(true))), False, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    points = (center + axes * torch.nn.functional.normalize(torch.randn(50, 3), dim=1)).float()
    places, _ = project(true, 4, points)

    def error() -> float:
        return float((project(poses.cameras(), 4, points)[0] - places).norm(dim=1).mean())

    before = error()
    for _ in range(8):
        batch = bank.draw(20_000, generator)
        origins, directions = pixel_rays(poses.cameras(), batch.image_indices, batch.pixels)
        hits, ts = _meet(origins, directions, center, axes)
        batch = batch.select(hits)
        found = origins[hits] + ts[:, None] * directions[hits]
        colors = 0.5 + 0.4 * torch.sin(2.7 * (found - center.float()) * scene.roi.radius)
        poses.note(batch.image_indices, found, bank.slopes(batch, 1), colors - batch.colors)
        poses.update()
    assert (
        before > 0.4 and error() < before / 3
    )  # slopes over the silhouette and the pull to the given pose remain


def test_slopes_of_a_ramp_are_exact_up_to_the_border(scene):
    rows, columns = np.mgrid[:6, :9]
    ramp = np.stack([10 * columns, 20 * rows, 5 * columns + 5 * rows], -1).astype(np.uint8)
    bank = PixelBank.of(dataclasses.replace(scene, images=[ramp] * 12), [2, 5], False, torch.device("cpu"))
    batch = bank.draw(200, torch.Generator().manual_seed(0))
    expected = torch.tensor([[10.0, 0], [0, 20], [5, 5]]) / 255
    for reach in (1, 4):
        assert relative(bank.slopes(batch, reach), expected.expand(200, 3, 2)) < 1e-6
    assert torch.equal(bank.in_left_half(batch), batch.pixels[:, 0] < 4.5)


def test_an_improvement_must_exceed_chance():
    views = torch.arange(6).repeat_interleave(10)
    given = torch.rand(60, generator=torch.Generator().manual_seed(0)) + 1
    assert compare_views(0.9 * given, given, views).improves()
    assert not compare_views(1.1 * given, given, views).improves()
    uneven = torch.where(views % 2 == 0, 0.8, 1.2)
    assert not compare_views(uneven * given, given, views).improves()
    assert not compare_views(0.5 * given[:10], given[:10], views[:10]).improves()  # one view tells nothing


def test_world_and_back_is_the_same_camera(scene):
    there = cameras_in_world(cameras_in_roi(scene.cameras, scene.roi), scene.roi)
    assert relative(there.c2w, scene.cameras.c2w.double()) < WORLD32


@pytest.mark.parametrize("helps", [True, False])
def test_refined_cameras_are_kept_only_if_they_help(scene, helps, monkeypatch):
    trials = iter([Trial(-0.1, 0.01), Trial(-0.1 if helps else 0.1, 0.01)])
    monkeypatch.setattr(CameraAlignment, "_try", lambda self: next(trials))
    trainer = Trainer(scene, CONFIG, kernels.load("cpu"), None)
    given = trainer.result.cameras
    for progress in (0.1, 0.3, 0.35, 0.4):
        trainer.alignment.review(progress)
        trainer.step(progress)
    tried = trainer.snapshot().cameras
    assert trainer.result.cameras_refined and not torch.equal(tried.c2w, given.c2w)
    trainer.alignment.review(0.9)
    settled = trainer.snapshot()
    assert settled.cameras_refined == helps
    assert torch.equal(settled.cameras.c2w, tried.c2w if helps else given.c2w)


def test_cameras_stay_as_given_while_nothing_speaks_against_them(scene, monkeypatch):
    monkeypatch.setattr(CameraAlignment, "_try", lambda self: Trial(-0.01, 0.01))
    trainer = Trainer(scene, CONFIG, kernels.load("cpu"), None)
    for progress in (0.1, 0.3, 0.5, 0.7, 0.9):
        trainer.alignment.review(progress)
        trainer.step(progress)
    assert trainer.snapshot().cameras is scene.cameras and not trainer.result.cameras_refined


@pytest.mark.slow
def test_a_trial_tells_wrong_poses_from_right_ones(scene):
    """Held-out cameras that stand off beside a field that was fitted to right ones; two views tell too little."""
    scene = dataclasses.replace(scene, held_out=np.arange(12) % 3 == 0)
    trainer = Trainer(scene, CONFIG, kernels.load("cpu"), None)
    for step in range(250):
        trainer.step(0.002 * step)
    with torch.no_grad():
        assert not trainer.alignment._try().improves()
        twists = torch.zeros(len(scene.cameras), 6)
        twists[torch.from_numpy(scene.held_out), 3:] = 0.06
        trainer.result.cameras = cameras_in_world(moved(trainer.result.roi_cameras(), twists), scene.roi)
        wrong = CameraAlignment(trainer.result, trainer._bank, trainer._held_out.bank)
        assert wrong._try().improves()


def _meet(origins, directions, center, axes):
    """Indices of the rays that meet the ellipsoid, and where."""
    o, d = (origins - center.float()) / axes.float(), directions / axes.float()
    a, b, c = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1
    discriminant = b * b - a * c
    hits = torch.nonzero(discriminant > 0)[:, 0]
    return hits, ((-b - discriminant.clamp_min(0).sqrt()) / a)[hits]
