"""Settings: round trip, types, ranges, and the nearest name of a misspelt one."""

from pathlib import Path

import pytest

from quicksurf.config import Config, load_config, preset_names, to_toml, with_settings
from quicksurf.errors import ConfigError


def test_toml_round_trip_is_complete(tmp_path: Path) -> None:
    config = with_settings(
        Config(),
        {"model.n_levels": 3, "unisurf.interval_reach": 1.25e-3, "train.seed": 7, "mesh.resolution": 99},
    )
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config))
    assert load_config(path, {}) == config
    assert load_config(path, {}) != Config()


def test_defaults_without_preset() -> None:
    assert load_config(None, {}) == Config()


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_valid_and_hold_only_deltas(name: str) -> None:
    config = load_config(name, {})
    given = sum("=" in line for line in (_presets() / f"{name}.toml").read_text().splitlines())
    default_lines = set(to_toml(Config()).splitlines())
    changed = [line for line in to_toml(config).splitlines() if line not in default_lines]
    assert len(changed) == given


def test_there_are_presets() -> None:
    assert {"draft", "fine"} <= set(preset_names())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model]\nn_level = 3", "did you mean model.n_levels"),
        ("[modle]\nn_levels = 3", "did you mean model.n_levels"),
        ("n_levels = 3", "did you mean model.n_levels"),
        ("[model]\nn_levels = 3.5", r"model.n_levels is 3.5 \(float\); expected int"),
        ("[model]\nn_levels = true", r"model.n_levels is True \(bool\); expected int"),
        ("[model]\nn_levels = 0", "model.n_levels is 0; expected 1 to 32"),
        ("[model]\nn_features_per_level = 3", "expected one of 1, 2, 4, 8"),
        ("[model]\nn_features_per_level = true", "expected one of 1, 2, 4, 8"),
        ("[model]\nn_features_per_level = []", "expected one of 1, 2, 4, 8"),
        ("[mesh]\nfaces = 3", r"mesh.faces is 3; expected 0, or 4 to 1e\+08"),
        ("[unisurf]\ninterval_start = nan", "interval_start is nan"),
        ("[unisurf]\ninterval_start = 'wide'", r"\(str\); expected float"),
        ("[model\n", "is not TOML"),
        ("\udcff", "is not TOML"),
    ],
)
def test_bad_presets_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=message):
        load_config(path, {})


def test_int_is_accepted_for_float(tmp_path: Path) -> None:
    path = tmp_path / "whole.toml"
    path.write_text("[unisurf]\ninterval_start = 1\n")
    value = load_config(path, {}).unisurf.interval_start
    assert value == 1.0
    assert isinstance(value, float)


def test_all_faces_or_at_least_those_of_a_tetrahedron() -> None:
    for faces in (0, 4):
        assert with_settings(Config(), {"mesh.faces": faces}).mesh.faces == faces


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean draft"):
        load_config("darft", {})


def test_missing_preset_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "absent.toml", {})


def test_overrides_win_over_the_preset() -> None:
    assert load_config("draft", {"mesh.resolution": 177}).mesh.resolution == 177
    with pytest.raises(ConfigError, match=r"options: mesh.resolution is 1; expected 96 to 2048"):
        load_config("draft", {"mesh.resolution": 1})


def _presets() -> Path:
    from quicksurf import config

    return config._preset_folder()
