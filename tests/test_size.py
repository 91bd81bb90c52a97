"""The size of the hash tables by the minutes and the machine."""

from dataclasses import replace

from quicksurf.config import Config, ModelConfig, TrainConfig, load_config
from quicksurf.fields import table_size as size

SMALL = Config(ModelConfig(n_levels=4, log2_hashmap_size=8, n_neurons=16), train=TrainConfig(n_samples=1024))


def test_tables_are_larger_where_the_time_holds_many_samples(backend):
    assert size.with_tables_for(1e-6, SMALL, backend) == SMALL
    larger = replace(SMALL, model=replace(SMALL.model, log2_hashmap_size=size.LARGER))
    assert size.with_tables_for(1e9, SMALL, backend) == larger


def test_speed_is_of_samples_not_of_trials(backend, monkeypatch):
    monkeypatch.setattr(size, "_trial", lambda field, points: 0.5)
    expected = size._GEOMETRY_FRACTION * 1024 * backend.batch_multiplier / 0.5
    assert size.samples_per_second(SMALL, backend) == expected


def test_a_presets_own_size_is_kept(tmp_path):
    preset = tmp_path / "mine.toml"
    preset.write_text("[model]\nlog2_hashmap_size = 12\n")
    larger = replace(Config(), model=ModelConfig(log2_hashmap_size=size.LARGER))
    assert load_config(preset, {}, larger).model.log2_hashmap_size == 12
    assert load_config(None, {}, larger) == larger
