"""Schedules at their ends and in between."""

import pytest

from quicksurf import kernels
from quicksurf.config import ModelConfig
from quicksurf.fields.surface import Geometry
from quicksurf.methods import unisurf
from quicksurf.train import schedules


def test_interval_shrinks_to_its_least():
    values = [unisurf.interval_half_width(p / 10, 0.5, 0.015) for p in range(11)]
    assert values[0] == 0.5 and values[-1] == 0.015 and values == sorted(values, reverse=True)


@pytest.mark.parametrize(
    ("progress", "expected"), [(0, 20), (0.4, 20), (0.625, 200), (0.85, 2000), (1, 2000)]
)
def test_sharpness_waits_is_exponential_and_then_rests(progress, expected):
    assert unisurf.sharpness(progress, 20, 2000) == pytest.approx(expected)


def active_levels(progress, n_levels, first):
    model = ModelConfig(n_levels=n_levels, log2_hashmap_size=8, finest_resolution=64)
    geometry = Geometry(model, kernels.load("torch"), seed=0)
    geometry.activate_levels(progress, first)
    return geometry.network.n_active_levels


@pytest.mark.parametrize(("progress", "expected"), [(0, 5), (0.25, 10), (0.5, 14), (1, 14)])
def test_levels_come_in_until_half_time(progress, expected):
    assert active_levels(progress, 14, 5) == expected


def test_more_first_levels_than_there_are():
    assert active_levels(0, 4, 8) == 4


def test_noise_is_gone_after_half_time():
    assert unisurf.query_noise(0, 0.02) == 0.02 and unisurf.query_noise(0.5, 0.02) == 0
    assert unisurf.query_noise(0.75, 0.02) == 0


def test_noise_of_the_background_is_gone_long_before():
    assert schedules.background_noise(0, 0.2) == 0.2
    assert schedules.background_noise(0.1, 0.2) == pytest.approx(0.1)
    assert schedules.background_noise(0.2, 0.2) == schedules.background_noise(1, 0.2) == 0


def test_learning_rate_warms_up_holds_and_decays():
    factor = schedules.learning_rate_factor
    assert factor(0) == pytest.approx(0.1) and factor(0.01) == factor(0.4) == 1
    assert factor(1) == pytest.approx(0.05)


def test_a_step_of_the_surface_stays_below_its_width():
    factor = unisurf.geometry_rate
    assert factor(0, 20) == pytest.approx(0.1) and factor(0.3, 20) == 1
    widths = [factor(0.5, sharpness) * sharpness for sharpness in (120, 200, 1000)]
    assert widths == pytest.approx([120, 120, 120])
    assert factor(1, 1000) == pytest.approx(factor(0.8, 1000) / 2)


def test_march_step_is_bounded_by_the_cell():
    assert unisurf.march_step(1.0, 0.02) == 0.04 and unisurf.march_step(0.01, 0.02) == 0.01
    assert unisurf.march_step(0.06, 0.02) == pytest.approx(0.015)
