"""A whole fit on a pretended device: no tensor of the host is mixed in, and the host seldom waits."""

from pathlib import Path

import pytest
import torch
from pretend_device import DEVICE, PretendDevice
from tiny_capture import write_capture

from quicksurf import backends
from quicksurf.backends import torch_networks
from quicksurf.config import load_config
from quicksurf.data.load import ReadOptions, read_scene
from quicksurf.reconstruction import Reconstruction
from quicksurf.train.trainer import Trainer

CONFIG = load_config(Path(__file__).with_name("tiny.toml"), {"train.n_samples": 1024})
MAX_WAITS = 14  # of a step without lens distortion


def trained(scene, n_steps):
    backend = backends.on_device("pretended", DEVICE, "for tests", torch_networks.run_network)
    trainer = Trainer(scene, CONFIG, backend, None)
    for step in range(n_steps):
        trainer.step(0.1 + 0.2 * step)
    return trainer


@pytest.mark.parametrize("masks", [True, False])
def test_a_fit_stays_on_its_device(tmp_path, masks):
    capture = write_capture(tmp_path / "capture")
    scene = read_scene(capture, ReadOptions(max_pixels=10_000, use_masks=masks, say=lambda line: None))
    with PretendDevice() as pretended:
        trainer = trained(scene, 2)
        assert pretended.owns(trainer.result.field.geometry.params)
        pretended.waits.clear()
        trainer.step(0.5)
        waits = dict(pretended.waits)
        trainer.step(0.7)  # photos are compared, too
        trainer.alignment.review(0.7)
        trainer.alignment.refined = True
        trainer.step(0.75)
        trainer.measure_held_out(64)
        trainer.snapshot().save(tmp_path)
        inside = trainer.result.occupancy(torch.zeros(5, 3))
        assert not pretended.owns(inside)
        assert not pretended.owns(trainer.result.render(trainer.result.cameras).color)
    assert sum(waits.values()) <= MAX_WAITS, waits
    loaded = Reconstruction.load(tmp_path, backends.load("cpu"))
    assert torch.allclose(loaded.occupancy(torch.zeros(5, 3)), inside, atol=1e-4)


def test_mixing_sides_is_noticed():
    with PretendDevice(), pytest.raises(RuntimeError, match="on the device and on the host"):
        torch.ones(3, device=DEVICE) + torch.ones(3)


def test_waiting_is_noticed():
    with PretendDevice() as pretended:
        values = torch.ones(3, device=DEVICE)
        assert float(values.sum()) == 3 and len(torch.nonzero(values)) == 3
    assert pretended.waits == {"value": 1, "nonzero": 1}
