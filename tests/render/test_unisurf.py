"""Opacity from occupancy: sums, independence from sampling, and what each reading does to depth."""

import pytest
import torch

from quicksurf.rays import Samples, pack_counts
from quicksurf.render.unisurf import alphas_from_logits


def samples_of(counts, ts=None):
    indices = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    ts = torch.zeros(len(indices)) if ts is None else ts
    return Samples(ts, torch.ones_like(ts), indices, pack_counts(torch.tensor(counts)))


def opacity(alphas):
    return float(1 - (1 - alphas).prod())


def test_a_rise_sums_to_the_occupancy_it_reaches_and_a_fall_adds_nothing():
    logits = torch.tensor([-0.2, -0.05, 0.01, 0.03, -0.1, -0.4, -0.4, -0.1])
    alphas = alphas_from_logits(logits, samples_of([6, 0, 2]), 50.0, "transmittance")
    occupancy = torch.sigmoid(50 * logits)
    assert opacity(alphas[:4]) == pytest.approx(float(occupancy[3]), abs=1e-5)
    assert not alphas[4:6].any()
    assert opacity(alphas[6:]) == pytest.approx(float(occupancy[7]), abs=1e-5)


@pytest.mark.parametrize("factor", [2, 8])
def test_transmittance_does_not_depend_on_the_number_of_samples(factor):
    """Opacity of a soft wall seen through n and factor · n samples; the paper's formula differs."""
    found = {}
    for kind in ("transmittance", "occupancy"):
        for n in (20, 20 * factor):
            ts = torch.linspace(-0.1, -0.03, n)  # ends half-way in: neither reading is saturated
            found[kind, n] = opacity(alphas_from_logits(ts, samples_of([n], ts), 40.0, kind))
    assert found["transmittance", 20] == pytest.approx(found["transmittance", 20 * factor], abs=1e-4)
    assert abs(found["occupancy", 20] - found["occupancy", 20 * factor]) > 0.1


def test_the_papers_formula_is_the_occupancy():
    logits = torch.tensor([-0.1, 0.0, 0.1])
    assert torch.allclose(
        alphas_from_logits(logits, samples_of([3]), 10.0, "occupancy"), torch.sigmoid(10 * logits)
    )


@pytest.mark.parametrize("kind", ["transmittance", "occupancy"])
def test_huge_logits_stay_finite_and_below_one(kind):
    logits = torch.tensor([-1e4, -1.0, 1.0, 1e4, 1e4], requires_grad=True)
    alphas = alphas_from_logits(logits, samples_of([5]), 600.0, kind)
    alphas.sum().backward()
    assert bool((alphas < 1).all()) and bool(logits.grad.isfinite().all())


def test_no_samples():
    assert len(alphas_from_logits(torch.zeros(0), samples_of([0, 0]), 10.0, "transmittance")) == 0
