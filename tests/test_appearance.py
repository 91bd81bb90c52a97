"""Exposure: maps are relative to their mean, and a view is matched by its other half."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_capture import write_capture
from tolerances import relative

from quicksurf import backends
from quicksurf.config import load_config
from quicksurf.data.load import ReadOptions, read_scene
from quicksurf.model.appearance import Appearance, matched_by_halves
from quicksurf.train.trainer import Trainer

MATCHED = 1e-2  # relative L2: the pull to the identity remains


def test_maps_are_relative_to_their_mean():
    appearance = Appearance(torch.zeros(4, dtype=torch.bool))
    with torch.no_grad():
        appearance.offsets += torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    colors = torch.rand(9, 3, generator=torch.Generator().manual_seed(1))
    assert relative(appearance(colors, torch.arange(9) % 4).detach(), colors) < 1e-6


def test_held_out_photos_have_the_identity_and_take_nothing_that_the_others_have_in_common():
    held_out = torch.arange(5) == 2
    appearance = Appearance(held_out)
    with torch.no_grad():
        appearance.offsets += torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(0))
    maps = appearance.from_identity().detach()
    assert torch.equal(maps[2], torch.zeros(3, 4)) and maps[~held_out].mean(0).abs().max() < 1e-6
    assert maps[~held_out].abs().max() > 0.1
    colors = torch.rand(20, 3, generator=torch.Generator().manual_seed(1))
    weights = torch.rand(20, 3, generator=torch.Generator().manual_seed(2))
    (appearance(colors, torch.arange(20) % 5) * weights).sum().backward()
    gradients = appearance.offsets.grad
    assert torch.equal(gradients[2], torch.zeros(3, 4)) and gradients.sum(0).abs().max() < 1e-5
    assert gradients.abs().max() > 0.1


def test_an_affine_change_is_undone_and_nothing_is_learned_from_the_pixels_judged():
    generator = torch.Generator().manual_seed(0)
    colors = torch.rand(400, 3, generator=generator)
    mixed = colors @ torch.tensor([[0.8, 0.05, 0], [0.02, 1.2, 0], [0, 0.03, 0.7]]) + 0.05
    first = torch.rand(400, generator=generator) < 0.5
    assert relative(matched_by_halves(colors, mixed, first), mixed) < MATCHED
    unrelated = torch.where(first[:, None], mixed, colors)  # the halves say different things
    matched = matched_by_halves(colors, unrelated, first)
    assert (
        relative(matched[first], colors[first]) < MATCHED
        and relative(matched[~first], mixed[~first]) < MATCHED
    )


def test_a_view_of_one_color_or_without_a_half_stays_finite():
    for first in (torch.zeros(8, dtype=torch.bool), torch.ones(8, dtype=torch.bool)):
        assert torch.isfinite(
            matched_by_halves(torch.full((8, 3), 0.5), torch.full((8, 3), 0.4), first)
        ).all()


def test_maps_learn_faster_where_held_out_photos_differ_in_exposure_alone(tmp_path):
    scene = read_scene(
        write_capture(tmp_path), ReadOptions(max_pixels=10_000, use_masks=False, say=lambda line: None)
    )
    config = load_config(Path(__file__).with_name("tiny.toml"), {})
    for gain, factor in ((1.0, 1.0), (0.5, 10.0)):
        images = [
            (gain * image).astype(np.uint8) if out else image
            for image, out in zip(scene.images, scene.held_out, strict=True)
        ]
        trainer = Trainer(dataclasses.replace(scene, images=images), config, backends.load("cpu"), None)
        for step in range(60):
            trainer.step(0.005 * step)
        trainer.measure_held_out(2000)
        rates = {group.name: group.learning_rate for group in trainer._optimizer._groups}
        assert rates["appearance"] == pytest.approx(factor * config.train.learning_rate_appearance)
