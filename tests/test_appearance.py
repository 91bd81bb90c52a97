"""Exposure: maps are relative to their mean, varied exposure is noticed, and a view is matched by its other half."""

import torch
from tolerances import relative

from quicksurf.model.appearance import Appearance, matched_by_halves

MATCHED = 1e-2  # relative L2: the pull to the identity remains


def test_maps_are_relative_to_their_mean():
    appearance = Appearance(4)
    with torch.no_grad():
        appearance.offsets += torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    colors = torch.rand(9, 3, generator=torch.Generator().manual_seed(1))
    assert relative(appearance(colors, torch.arange(9) % 4), colors) < 1e-6


def test_varied_exposure_is_noticed_in_training_photos_alone():
    appearance, training = Appearance(6), torch.arange(6) != 5
    assert not appearance.varies(training)
    with torch.no_grad():
        appearance.offsets[5, :, 3] = 1.0
    assert not appearance.varies(training)
    with torch.no_grad():
        appearance.offsets[:, range(3), range(3)] += torch.linspace(-0.2, 0.2, 6)[:, None]
    assert appearance.varies(training)


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
