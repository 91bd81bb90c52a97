"""A share of tools/fuzz.py: damaged runs and meshes are used or refused, and none ends as a bug."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from fuzz import damage_json, fuzz, run_case  # pyright: ignore[reportMissingImports]


@pytest.mark.slow
def test_no_damaged_run_or_mesh_ends_as_a_bug() -> None:
    made, faults = fuzz({"runs": 60, "meshes": 60}, seed=7, seconds=240.0)
    assert not faults, "\n".join(faults[:5])
    assert made == {"runs": 60, "meshes": 60}


def test_faults_are_seen_and_cases_repeat(tmp_path: Path) -> None:
    assert "ZeroDivisionError" in (run_case(lambda folder, number: 1 / 0, tmp_path, 0) or "")  # type: ignore[arg-type, return-value]
    texts = [damage_json('{"a": [1, 2], "b": {"c": 3}}', random.Random("5")) for _ in range(2)]
    assert texts[0] == texts[1] != '{"a": [1, 2], "b": {"c": 3}}'
