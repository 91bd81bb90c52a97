"""The training step on a tiny capture: it learns, is reproducible, equal on both back ends, and survives saving."""

import dataclasses
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_capture import write_capture
from tolerances import relative

from quicksurf import kernels
from quicksurf.app.budget import Budget
from quicksurf.app.run.checkpoint import load_checkpoint, save_checkpoint
from quicksurf.capture.load import ReadOptions, read_scene
from quicksurf.config import load_config
from quicksurf.errors import OutputError, SurfaceError
from quicksurf.mesh.refine import SurfacePoints
from quicksurf.model import TrainedModel
from quicksurf.train.loop import fit_scene
from quicksurf.train.pixels import PixelBank, border_of
from quicksurf.train.trainer import Trainer

CONFIG = load_config(Path(__file__).with_name("tiny.toml"), {})


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    return write_capture(tmp_path_factory.mktemp("capture"))


def scene_of(capture, masks):
    return read_scene(capture, ReadOptions(max_pixels=10_000, use_masks=masks, say=lambda line: None))


@pytest.mark.parametrize("masks", [True, False])
def test_steps_lower_the_error(capture, masks):
    trainer = Trainer(scene_of(capture, masks), CONFIG, kernels.load("cpu"), None)
    errors = [trainer.step(0.005 * i)[2] for i in range(120)]
    assert np.mean(errors[-10:]) < 0.5 * np.mean(errors[:10])


def test_what_is_behind_a_masked_object_says_nothing_of_the_photos_exposure(capture):
    """The map of a photo is applied to the random colours, too; they must not draw it to the identity."""
    trainer = Trainer(scene_of(capture, True), CONFIG, kernels.load("cpu"), None)
    appearance = trainer.result.appearance
    brighter = 0.2 * torch.eye(3, 4) * torch.linspace(-1, 1, len(appearance.offsets))[:, None, None]
    appearance.offsets.data += brighter
    trainer._bank.masks.zero_()  # every pixel is one of the backdrop
    trainer.result.renderer.grid.estimator.binaries.zero_()  # and nothing is in its way
    trainer.result.step = 1  # the grid is looked at in every 32nd
    before = appearance.offsets.detach().clone()
    trainer.step(0.3)
    assert torch.equal(appearance.offsets, before)


def test_refined_cameras_are_known_as_such_after_a_resumption(capture):
    trainer = Trainer(scene_of(capture, True), CONFIG, kernels.load("cpu"), None)
    trainer.alignment.refined = True
    resumed = Trainer(scene_of(capture, True), CONFIG, kernels.load("cpu"), trainer.snapshot())
    assert resumed.snapshot().cameras_refined


@pytest.fixture
def some_masked(capture, tmp_path):
    """Frames name masks but for the first two."""
    shutil.copytree(capture, tmp_path / "capture")
    cameras = json.loads((tmp_path / "capture/transforms.json").read_text())
    for frame in cameras["frames"][2:]:
        frame["mask_path"] = frame["file_path"].replace("images", "masks")
    (tmp_path / "capture/transforms.json").write_text(json.dumps(cameras))
    return tmp_path / "capture"


def test_photos_without_a_mask_among_masked_ones_are_named(some_masked):
    scene = scene_of(some_masked, True)
    assert [mask is None for mask in scene.masks] == [True] * 2 + [False] * 10
    assert np.flatnonzero(scene.held_out).tolist() == [6]
    (warning,) = scene.report.warnings
    assert "10 of 12 photos have a mask; fitted without one, and never held out: 00.png, 01.png" in warning
    assert scene_of(some_masked, False).masks == [None] * 12


def test_clear_rays_of_a_photo_without_a_mask_cost_nothing(some_masked):
    """Neither the field nor the photo's map learns from what stands beside the object there."""
    trainer = Trainer(scene_of(some_masked, True), CONFIG, kernels.load("cpu"), None)
    appearance = trainer.result.appearance
    appearance.offsets.data += 0.2 * torch.randn(
        appearance.offsets.shape, generator=torch.Generator().manual_seed(0)
    )
    trainer._has_mask[:] = False
    trainer._bank.masks.fill_(255)  # as of photos that have none
    trainer.result.renderer.grid.estimator.binaries.zero_()  # nothing is in the way
    trainer.result.step = 1  # the grid is looked at in every 32nd
    before = appearance.offsets.detach().clone()
    _, _, error = trainer.step(0.3)
    assert float(error) < 1e-10
    assert (appearance.offsets - before).abs().max() < 1e-6


@pytest.mark.slow
def test_a_fit_with_some_masks_lowers_the_error_of_masked_photos(some_masked):
    trainer = Trainer(scene_of(some_masked, True), CONFIG, kernels.load("cpu"), None)
    assert trainer.result.masked
    errors = []
    for i in range(120):
        trainer.step(0.005 * i)
        if i % 60 == 59:
            trainer.measure_held_out(2000)
            errors.append(trainer.result.psnr_held_out)
    assert errors[1] > max(errors[0], 12)


def test_the_same_seed_gives_the_same_bits(capture):
    results = []
    for _ in range(2):
        trainer = Trainer(scene_of(capture, True), CONFIG, kernels.load("cpu"), None)
        for i in range(20):
            trainer.step(0.02 * i)
        results.append(trainer.result.field.geometry.network.params.detach().clone())
    assert torch.equal(*results)


def test_one_step_is_the_same_on_both_back_ends(capture):
    """Same pixels, same jitter: parameters after one step agree as far as float32 sums do."""
    gradients = []
    for name in ("cpu", "torch"):
        trainer = Trainer(scene_of(capture, True), CONFIG, kernels.load(name), None)
        trainer._n_rays = 64
        batch, rays = trainer._draw()
        rendering = trainer.result.renderer.render(
            rays, trainer._method.schedule(0.3), trainer._generator, torch.ones(1, 3)
        )
        (rendering.colors - batch.colors).abs().sum().backward()
        fields = trainer.result.field
        gradients.append(
            (rendering.colors.detach(), fields.geometry.network.params.grad, fields.color.network.params.grad)
        )
    for found, expected in zip(*gradients, strict=True):
        assert relative(found, expected) < 1e-3


def test_a_saved_fit_goes_on_as_if_it_had_not_stopped(capture, tmp_path):
    trainer = Trainer(scene_of(capture, True), CONFIG, kernels.load("cpu"), None)
    for i in range(10):
        trainer.step(0.01 * i)
    save_checkpoint(trainer.snapshot(), tmp_path)
    loaded = load_checkpoint(tmp_path, kernels.load("cpu"))
    assert loaded.step == 10 and loaded.names == trainer.result.names
    resumed = Trainer(scene_of(capture, True), CONFIG, kernels.load("cpu"), loaded)
    points = torch.rand(100, 3) - 0.5
    assert torch.equal(loaded.field.logits(points), trainer.result.field.logits(points))
    assert torch.equal(
        resumed.snapshot().optimizer_state["second.geometry"],
        trainer.snapshot().optimizer_state["second.geometry"],
    )


def test_a_checkpoint_of_one_back_end_loads_in_the_other(capture, tmp_path):
    trainer = Trainer(scene_of(capture, False), CONFIG, kernels.load("cpu"), None)
    for i in range(5):
        trainer.step(0.1 * i)
    save_checkpoint(trainer.snapshot(), tmp_path)
    views = [load_checkpoint(tmp_path, kernels.load(name)) for name in ("cpu", "torch")]
    small = views[0].cameras.select(torch.tensor([1]))
    images = [view.render(small, 0).color for view in views]
    assert float((images[0] - images[1]).abs().mean()) < 1e-3


def test_time_and_stop_are_obeyed(capture):
    scene, backend = scene_of(capture, True), kernels.load("cpu")
    steps = []
    result = fit_scene(
        scene, CONFIG, backend, seconds=60, on_status=steps.append, should_stop=lambda: len(steps) > 0
    )
    assert result.seconds_fitted < 20 and result.step > 0
    assert steps[-1].psnr_held_out is not None and 0 <= steps[-1].hit_rate <= 1


class SteppedClock:
    """A sixteenth of a second a step: a busy machine makes as many steps as an idle one."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def tick(self, _: TrainedModel) -> None:
        self.seconds += 1 / 16


@pytest.mark.slow
def test_going_on_keeps_the_time_already_spent(capture):
    scene, backend, clock = scene_of(capture, True), kernels.load("cpu"), SteppedClock()
    first = fit_scene(scene, CONFIG, backend, seconds=2, now=clock, on_step=clock.tick)
    spent, step = first.seconds_fitted, first.step
    statuses = []
    second = fit_scene(
        scene,
        CONFIG,
        backend,
        seconds=2,
        now=clock,
        resume=first,
        on_step=clock.tick,
        on_status=statuses.append,
    )
    assert second.seconds_fitted == pytest.approx(spent + 2, abs=0.1) and second.step == step + 32
    assert 0.5 < statuses[0].progress < 0.9  # schedules do not start again


def kept_out(hold_out):
    return dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, hold_out=hold_out))


def fitted(capture, hold_out, n_steps=40):
    """A fit of so many steps, whatever the machine: its clock counts them."""
    scene = scene_of(capture, False)
    steps = [0]
    drawn = []

    def count(result):
        steps[0] += 1
        drawn.append(result.joined)

    result = fit_scene(
        scene,
        kept_out(hold_out),
        kernels.load("cpu"),
        seconds=n_steps,
        now=lambda: float(steps[0]),
        on_step=count,
    )
    return scene, result, drawn


@pytest.mark.slow
def test_held_out_photos_join_for_the_last_stretch_and_the_figure_is_of_the_last_look_before(
    capture, monkeypatch
):
    used, looks = [], []
    draw, join = PixelBank.draw, Trainer.join_held_out
    monkeypatch.setattr(
        Trainer, "join_held_out", lambda self, n: join(self, n) or looks.append(self.result.psnr_held_out)
    )

    def noted(bank, *arguments):
        batch = draw(bank, *arguments)
        used.append(set(batch.image_indices.tolist()))
        return batch

    monkeypatch.setattr(PixelBank, "draw", noted)
    scene, result, joined = fitted(capture, "join")
    held_out = set(np.flatnonzero(scene.held_out).tolist())
    assert 0 < sum(joined) <= 0.2 * len(joined) and joined == sorted(joined)
    assert not any(photos & held_out for photos, last in zip(used, joined, strict=True) if not last)
    assert any(photos & held_out for photos, last in zip(used, joined, strict=True) if last)
    assert looks == [result.psnr_held_out] and looks[0] is not None
    assert result.used.all() and np.array_equal(result.held_out, scene.held_out)


@pytest.mark.slow
def test_photos_that_are_kept_out_stay_out_and_are_measured_at_the_end(capture):
    scene, result, joined = fitted(capture, "keep")
    assert not any(joined) and np.array_equal(result.used, ~scene.held_out)
    assert result.psnr_held_out is not None


@pytest.mark.slow
def test_photos_that_joined_stay_when_the_fit_goes_on(capture, tmp_path):
    scene, result, _ = fitted(capture, "join")
    save_checkpoint(result, tmp_path)
    loaded = load_checkpoint(tmp_path, kernels.load("cpu"))
    assert loaded.joined and loaded.psnr_held_out == result.psnr_held_out
    trainer = Trainer(scene, loaded.config, kernels.load("cpu"), loaded)
    assert trainer._train == list(range(len(scene.images))) and not trainer.joins_later
    assert trainer.measure_held_out(1000) is None


def test_a_photo_that_joins_has_the_pose_that_both_halves_of_its_picture_gave(capture):
    trainer = Trainer(scene_of(capture, False), CONFIG, kernels.load("cpu"), None)
    alignment, held_out = trainer.alignment, torch.from_numpy(trainer.result.held_out)
    alignment.refined = True
    alignment._halves.twists[:, 3:] = 0.01
    before = alignment.world_cameras().c2w
    trainer.join_held_out(1000)
    assert torch.equal(alignment.world_cameras().c2w, before)
    moved = alignment.cameras.c2w - alignment._given.c2w
    assert moved[held_out].abs().amax() == pytest.approx(0.01, rel=1e-3)
    assert moved[~held_out].abs().amax() == 0


@pytest.mark.slow
def test_looks_at_held_out_views_are_as_short_as_the_fit(capture, monkeypatch):
    """On a slow machine a fit has few rays, and a look of fixed size would make the command late."""
    looks, n_rays, clock = [], [], SteppedClock()
    step, measure = Trainer.step, Trainer.measure_held_out

    def counted(trainer, progress):
        done = step(trainer, progress)
        n_rays.append(len(done[0].colors))
        return done

    def noted(trainer, n_pixels):
        looks.append((n_pixels, sum(n_rays)))
        measure(trainer, n_pixels)

    monkeypatch.setattr(Trainer, "step", counted)
    monkeypatch.setattr(Trainer, "measure_held_out", noted)
    config = kept_out("keep")
    fit_scene(scene_of(capture, False), config, kernels.load("cpu"), seconds=2, now=clock, on_step=clock.tick)
    *during, (final, total) = looks
    assert len(during) >= 5
    before = 0
    for n_pixels, rays in during:
        assert 0 < n_pixels <= 0.1 * (rays - before)
        before = rays
    assert total == sum(n_rays) and 0 < final <= 0.05 * total


@pytest.mark.slow
def test_schedules_end_when_the_end_moves_nearer(capture):
    """The command keeps more time for the mesh as it learns how slow the machine is."""
    start = time.monotonic()
    statuses = []
    fit_scene(
        scene_of(capture, True),
        CONFIG,
        kernels.load("cpu"),
        seconds=60,
        seconds_left=lambda: start + 4 - time.monotonic(),
        on_status=statuses.append,
    )
    assert statuses[-1].progress > 0.9 and statuses[-1].seconds < 10


@pytest.mark.slow
def test_a_pause_and_added_time_leave_the_schedules_in_order(capture):
    """A step takes 0.1 s by a clock set by hand; once somebody pauses, and once doubles the time."""
    hands, statuses = [0.0], []
    budget = Budget(3.0, clock=lambda: hands[0])

    def on_step(result):
        hands[0] += 0.1
        if result.step == 5:
            with budget.held():
                hands[0] += 1000.0
        if result.step == 20:
            budget.extend(3.0)

    fitted = fit_scene(
        scene_of(capture, True),
        CONFIG,
        kernels.load("cpu"),
        seconds_left=budget.left,
        now=budget.now,
        on_step=on_step,
        on_status=statuses.append,
    )
    progress = [status.progress for status in statuses]
    assert progress == sorted(progress) and progress[-1] > 0.9
    assert abs(fitted.step - 60) <= 1
    assert 5.8 < fitted.seconds_fitted < 6.2


@pytest.mark.slow
def test_a_fit_whose_loss_is_no_number_ends_with_advice(capture):
    trainer = Trainer(scene_of(capture, True), CONFIG, kernels.load("cpu"), None)
    trainer.result.appearance.offsets.data.fill_(torch.inf)
    with pytest.raises(SurfaceError, match="not a number"):
        for _ in range(60):
            trainer.step(0.1)


def test_pixels_are_those_of_their_image(capture):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (h, w, 3), dtype=np.uint8) for h, w in ((48, 48), (9, 2), (5, 5))]
    masks = [np.full(image.shape[:2], 255 * (i % 2), np.uint8) for i, image in enumerate(images)]
    scene = dataclasses.replace(scene_of(capture, True), images=images, masks=masks)
    bank = PixelBank.of(scene, [1, 2], True, torch.device("cpu"))
    batch = bank.draw(500, torch.Generator().manual_seed(0))
    assert set(batch.image_indices.tolist()) == {1, 2}
    for index, (column, row), color in zip(
        batch.image_indices.tolist(), (batch.pixels - 0.5).long().tolist(), batch.colors, strict=True
    ):
        assert torch.equal(color, torch.from_numpy(images[index][row, column]).float() / 255)
    assert torch.equal(batch.masks > 0, batch.image_indices == 1)
    each = bank.draw_each(7, torch.Generator().manual_seed(0))
    assert each.image_indices.tolist() == [1] * 7 + [2] * 7


def test_a_solid_surrounding_is_recognised_and_a_textured_one_is_not():
    rng = np.random.default_rng(0)
    white = [
        np.full((40, 30, 3), 250, np.uint8) + rng.integers(0, 4, (40, 30, 3), dtype=np.uint8)
        for _ in range(3)
    ]
    color, solid = border_of(white)
    assert solid and torch.allclose(color, torch.full((3,), 251.5 / 255), atol=0.01)
    assert not border_of([rng.integers(0, 255, (40, 30, 3), dtype=np.uint8)] * 3).solid


def test_a_checkpoint_of_an_older_version_is_refused_by_name(capture, tmp_path):
    save_checkpoint(Trainer(scene_of(capture, True), CONFIG, kernels.load("cpu"), None).snapshot(), tmp_path)
    meta = json.loads((tmp_path / "state.json").read_text())
    del meta["format"]
    (tmp_path / "state.json").write_text(json.dumps(meta))
    with pytest.raises(OutputError, match=r"format 1, expected 2: format 1 is of quicksurf 0\.1"):
        load_checkpoint(tmp_path, kernels.load("cpu"))


def test_a_checkpoint_keeps_the_points_that_its_mesh_is_refined_to(capture, tmp_path):
    model = Trainer(scene_of(capture, True), CONFIG, kernels.load("cpu"), None).snapshot()
    model.stereo = SurfacePoints(np.ones((5, 3), np.float32), np.full(5, 0.5, np.float32))
    save_checkpoint(model, tmp_path)
    kept = load_checkpoint(tmp_path, kernels.load("cpu")).stereo
    assert kept is not None
    assert all(np.array_equal(a, b) for a, b in zip(kept, model.stereo, strict=True))
    for broken in (
        SurfacePoints(np.ones((5, 3), np.float32), np.full(4, 0.5, np.float32)),
        SurfacePoints(np.full((5, 3), np.nan, np.float32), np.full(5, 0.5, np.float32)),
        SurfacePoints(np.ones((5, 3), np.float32), np.zeros(5, np.float32)),
    ):
        object.__setattr__(model, "stereo", broken)
        save_checkpoint(model, tmp_path)
        with pytest.raises(OutputError, match="damaged"):
            load_checkpoint(tmp_path, kernels.load("cpu"))
