"""A whole fit on a pretended device: no tensor of the host is mixed in, and a step waits for the device once."""

from dataclasses import replace
from pathlib import Path

import back_ends
import pytest
import torch
from pretend_device import DEVICE, PretendDevice
from tiny_capture import write_capture

from quicksurf import kernels
from quicksurf.app.run.checkpoint import load_checkpoint, save_checkpoint
from quicksurf.capture.load import ReadOptions, read_scene
from quicksurf.config import load_config
from quicksurf.fields import surface as field
from quicksurf.kernels.reference import networks as torch_networks
from quicksurf.train.trainer import Trainer

pytestmark = pytest.mark.slow

CONFIG = load_config(Path(__file__).with_name("tiny.toml"), {"train.n_samples": 1024})
WAITS = 1  # of a step: how many rays cross the surface, and in how many steps; both are read at once
GRID_WAITS = 3  # more where nerfacc's grid is probed, each 32nd step: it chooses cells by masks
_PROBED = 32, 96  # steps between two probes of the grid; the first steps, whose probes choose otherwise
_LENS = 0.03, -0.01, 0.0, 0.0, 0.001, 0.002


@pytest.fixture(autouse=True)
def _no_constants_of_other_devices():
    """What is kept of a device that is only pretended is of no use to others."""
    field._taps.cache_clear()
    yield
    field._taps.cache_clear()


def scene_of(tmp_path, masks):
    capture = write_capture(tmp_path / "capture")
    return read_scene(capture, ReadOptions(max_pixels=10_000, use_masks=masks, say=lambda line: None))


def trained(scene, n_steps):
    trainer = Trainer(scene, CONFIG, back_ends.doubled(torch_networks.run_network, DEVICE), None)
    for step in range(n_steps):
        trainer.step(0.1 + 0.2 * step)
    return trainer


@pytest.mark.parametrize("masks", [True, False])
def test_a_fit_stays_on_its_device(tmp_path, masks):
    with PretendDevice() as pretended:
        trainer = trained(scene_of(tmp_path, masks), 3)
        assert pretended.owns(trainer.result.field.geometry.network.params)
        trainer.step(0.7)  # photos are compared, too
        trainer.alignment.review(0.7)
        trainer.alignment.refined = True
        trainer.step(0.75)
        trainer.measure_held_out(64)
        save_checkpoint(trainer.snapshot(), tmp_path)
        inside = trainer.result.occupancy(torch.zeros(5, 3))
        assert not pretended.owns(inside)
        assert not pretended.owns(trainer.result.render(trainer.result.cameras).color)
    loaded = load_checkpoint(tmp_path, kernels.load("cpu"))
    assert torch.allclose(loaded.occupancy(torch.zeros(5, 3)), inside, atol=1e-4)


@pytest.mark.parametrize("kind", ["masks", "solid", "background", "lens"])
def test_a_step_waits_for_the_device_once(tmp_path, kind):
    """With everything in it: photos compared, cameras refined, a lens to invert."""
    scene = scene_of(tmp_path, kind == "masks")
    if kind == "background":
        for index, image in enumerate(scene.images):
            image[:3] = 20 * index
    if kind == "lens":
        lens = torch.tensor(_LENS, dtype=torch.float64).repeat(len(scene.cameras), 1)
        scene = replace(scene, cameras=replace(scene.cameras, distortion=lens))
    with PretendDevice() as pretended:
        trainer = trained(scene, 2)
        trainer.alignment.refined, trainer.alignment._next_update = True, 1.0
        trainer.step(0.75)
        trainer.result.step = 8 * (trainer.result.step // 8 + 1)  # photos are compared though they disagreed
        pretended.waits.clear()
        trainer.step(0.76)
        assert sum(pretended.waits.values()) <= WAITS, pretended.waits
        trainer.result.step = _PROBED[0] * (_PROBED[1] // _PROBED[0] + 1)
        pretended.waits.clear()
        trainer.step(0.77)
        assert WAITS < sum(pretended.waits.values()) <= WAITS + GRID_WAITS, pretended.waits


def test_mixing_sides_is_noticed():
    with PretendDevice(), pytest.raises(RuntimeError, match="on the device and on the host"):
        torch.ones(3, device=DEVICE) + torch.ones(3)


def test_waiting_is_noticed_with_its_place():
    with PretendDevice() as pretended:
        values = torch.ones(3, device=DEVICE)
        assert float(values.sum()) == 3 and len(torch.nonzero(values)) == 3
        assert values.tolist() == [1, 1, 1] and len(values[values > 0]) == 3
        torch.arange(3, device=DEVICE).repeat_interleave(torch.ones(3, device=DEVICE).long())
        torch.tensor([1.0], device=DEVICE).cpu()
        torch.ones(1).to(DEVICE)
        torch.ones(2, device=DEVICE).sum().to(torch.device("cpu"), non_blocking=True)
    kinds = [name.split(" at ")[0] for name in pretended.waits.elements()]
    assert sorted(kinds) == ["copy", "copy", "copy", "shape", "shape", "shape", "value", "value"]
    assert all("test_device.py:" in name for name in pretended.waits)
