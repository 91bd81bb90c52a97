"""Exposure: maps are relative to their mean, and a view is matched by its other half."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_capture import write_capture
from tolerances import relative

from quicksurf import kernels
from quicksurf.capture.load import ReadOptions, read_scene
from quicksurf.config import load_config
from quicksurf.fields.appearance import Appearance, matched_by_halves
from quicksurf.train.held_out import score
from quicksurf.train.trainer import Trainer

MATCHED = 1e-2  # relative L2: the pull to the identity remains


def test_maps_are_relative_to_their_mean():
    appearance = Appearance(torch.zeros(4, dtype=torch.bool))
    with torch.no_grad():
        appearance.offsets += torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    colors = torch.rand(9, 3, generator=torch.Generator().manual_seed(1))
    assert relative(appearance(colors, torch.arange(9) % 4).detach(), colors) < 1e-6


def test_photos_that_join_get_their_own_maps_and_the_others_keep_theirs():
    held_out = torch.arange(5) == 2
    appearance = Appearance(held_out)
    with torch.no_grad():
        appearance.offsets += torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(0))
    before = appearance.from_identity().detach()
    wanted = torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(1))
    appearance.join(wanted)
    after = appearance.from_identity().detach()
    assert torch.equal(after[~held_out], before[~held_out])
    assert relative(after[2], wanted[2]) < 1e-6
    loaded = Appearance(held_out, joined=True)
    loaded.load_state_dict(appearance.state_dict())
    assert torch.equal(loaded.from_identity(), after)
    colors = torch.rand(20, 3, generator=torch.Generator().manual_seed(2))
    appearance(colors, torch.full((20,), 2)).sum().backward()
    assert appearance.offsets.grad[2].abs().max() > 0.1


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


@pytest.mark.parametrize(("gains", "varies"), [((0.6,) * 6, False), ((0.6, 1.3, 0.8, 1.0, 1.2, 0.7), True)])
def test_what_all_views_have_in_common_is_not_exposure(gains, varies):
    generator = torch.Generator().manual_seed(0)
    targets = 0.7 * torch.rand(6 * 400, 3, generator=generator)
    seen = torch.rand(len(targets), generator=generator) < 0.5
    targets[~seen] = 1.0
    noise = 0.02 * torch.randn(targets.shape, generator=generator)
    dimmed = torch.tensor(gains).repeat_interleave(400)[:, None] * targets + noise
    colors = torch.where(seen[:, None], dimmed, targets)
    first = torch.rand(len(targets), generator=generator) < 0.5
    result = score(colors, targets, first, seen, 400)
    assert result.exposure_varies == varies
    assert result.maps.shape == (6, 3, 4) and bool(result.maps.any()) == varies
    errors = (colors - targets).square().view(6, -1).mean(1)
    plain = float(-10 * errors.log10().mean())
    assert result.psnr > plain + 5 if varies else result.psnr == pytest.approx(plain, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("masks", [False, True])
def test_maps_learn_faster_where_the_exposure_of_held_out_photos_varies(tmp_path, masks):
    scene = read_scene(
        write_capture(tmp_path), ReadOptions(max_pixels=10_000, use_masks=masks, say=lambda line: None)
    )
    config = load_config(Path(__file__).with_name("tiny.toml"), {})
    held_out = np.flatnonzero(scene.held_out).tolist()
    assert len(held_out) > 1
    for low, high, factor in ((1.0, 1.0, 1.0), (0.4, 1.0, 10.0)):
        gains = dict(zip(held_out, np.linspace(low, high, len(held_out)), strict=True))
        images = [(gains.get(i, 1.0) * image).astype(np.uint8) for i, image in enumerate(scene.images)]
        trainer = Trainer(dataclasses.replace(scene, images=images), config, kernels.load("cpu"), None)
        for step in range(60):
            trainer.step(0.005 * step)
        trainer.measure_held_out(2000)
        rates = {group.name: group.learning_rate for group in trainer._optimizer._groups}
        assert rates["appearance"] == pytest.approx(factor * config.train.learning_rate_appearance)
