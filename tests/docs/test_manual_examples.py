"""The Python page's examples, run one after another on a tiny capture, and the files that a run leaves."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cut_fit import cut_to
from manual_pages import examples, page, rows, section
from tiny_capture import write_capture

from quicksurf.app import api
from quicksurf.app.fit import run_fit
from quicksurf.app.requests import FitRequest
from quicksurf.app.summary import FitResult
from quicksurf.train.loop import FitStatus

pytestmark = pytest.mark.slow

TINY = str(Path(__file__).parents[1] / "tiny.toml")
SECONDS = 4.0


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which all examples ran; minutes are cut to seconds, settings are tiny, everything else is real."""
    folder = tmp_path_factory.mktemp("examples")
    write_capture(folder / "photos")

    def short(request: FitRequest, **options: Any) -> FitResult:
        return run_fit(replace(request, preset=TINY), fit=cut_to(SECONDS), **options)

    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(api, "run_fit", short)
        for index, example in enumerate(examples(page("python"))):
            exec(compile(example, f"example {index}", "exec"), names)
    return folder


def test_examples_run_and_leave_what_they_name(outcome: Path) -> None:
    assert len(examples(page("python"))) > 8
    assert (outcome / "runs" / "first" / "mesh.ply").is_file()
    assert {"mesh.ply", "mesh.glb", "mesh.frame.json", "confidence.png"} <= names_in(outcome / "exported")


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != ".lock"}


def documented(heading: str) -> set[str]:
    """Everything in code marks in the first cells of a section's tables."""
    cells = [
        line.split("|")[1] for line in section(page("output"), heading).splitlines() if line.startswith("|")
    ]
    return {name.rstrip("/") for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_file_of_a_run_is_described(outcome: Path) -> None:
    assert names_in(outcome / "runs" / "first") | names_in(outcome / "exported") <= documented(
        "Run folder"
    ) | {"mesh.glb"}


def test_every_key_of_the_summary_is_described(outcome: Path) -> None:
    assert set(json.loads((outcome / "runs/first/summary.json").read_text())) == documented("summary.json")


def test_every_key_of_the_sidecar_is_described(outcome: Path) -> None:
    keys = set(json.loads((outcome / "exported/mesh.frame.json").read_text()))
    assert keys <= documented("Frames and units")


def test_every_figure_of_the_course_is_described() -> None:
    assert documented("metrics.jsonl") == set(FitStatus._fields)


def test_tables_have_as_many_cells_as_heads() -> None:
    for name in ("commands", "settings", "output", "input", "troubleshooting"):
        for part in re.split(r"\n\n+", page(name)):
            assert len({len(row) for row in rows(part)}) <= 1, part
