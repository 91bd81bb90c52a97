"""A fraction of tools/fuzz.py: damaged captures, runs and meshes are used or refused, and none ends as a bug."""

import random
import sys
from pathlib import Path

import pytest

from quicksurf.capture.load import ReadOptions, read_scene

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from damage import damage_json  # pyright: ignore[reportMissingImports]
from fuzz import fuzz, run_case, write_captures  # pyright: ignore[reportMissingImports]


@pytest.mark.slow
def test_no_damaged_file_ends_as_a_bug() -> None:
    counts = {"captures": 80, "runs": 60, "meshes": 60}
    made, faults = fuzz(counts, seed=7, seconds=240.0)
    assert not faults, "\n".join(faults[:5])
    assert made == counts


def test_the_captures_to_damage_are_whole(tmp_path: Path) -> None:
    for folder in write_captures(tmp_path):
        scene = read_scene(folder, ReadOptions(max_pixels=32 * 32, say=lambda line: None))
        assert len(scene.images) == 8 and all(mask is not None for mask in scene.masks), folder
        assert scene.report.warnings == [], folder


def test_faults_are_seen_and_cases_repeat(tmp_path: Path) -> None:
    assert "ZeroDivisionError" in (run_case(lambda folder, number: 1 / 0, tmp_path, 0) or "")  # type: ignore[arg-type, return-value]
    texts = [damage_json('{"a": [1, 2], "b": {"c": 3}}', random.Random("5")) for _ in range(2)]
    assert texts[0] == texts[1] != '{"a": [1, 2], "b": {"c": 3}}'
