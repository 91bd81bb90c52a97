"""tools/soak.py and tools/bench_budget.py: what counts as growth, and what as a promise kept."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from bench_budget import Case, Row, cases  # pyright: ignore[reportMissingImports]
from soak import State, growth  # pyright: ignore[reportMissingImports]

PLAIN = State(500 << 20, 4, 10, 0, 0)


def test_the_first_fits_may_grow_and_noise_is_no_growth() -> None:
    noisy = [PLAIN._replace(bytes=PLAIN.bytes + (shift << 20)) for shift in (-300, -100, 0, 3, -2, 4)]
    assert growth(noisy) == []


@pytest.mark.parametrize("name", ["threads", "files", "children", "litter"])
def test_one_more_of_anything_is_growth(name: str) -> None:
    more = PLAIN._replace(**{name: getattr(PLAIN, name) + 1})
    (said,) = growth([PLAIN] * 4 + [more])
    assert name in said
    assert growth([PLAIN, PLAIN, more, more]) == []


def test_a_field_that_is_kept_each_time_is_growth() -> None:
    states = [PLAIN._replace(bytes=PLAIN.bytes + index * (5 << 20)) for index in range(6)]
    assert growth(states) == ["memory by 5.0 MiB a fit"]


def test_half_of_the_fits_run_beside_another() -> None:
    planned = cases((1.0, 3.0, 5.0, 10.0), 12)
    assert len(planned) == 12 and sum(case.busy for case in planned) == 6
    assert {case.minutes for case in planned if case.busy} == {1.0, 3.0, 5.0, 10.0}


@pytest.mark.parametrize(
    ("late", "report", "left_out", "kept"),
    [
        (4.9, True, [], True),
        (5.1, True, [], False),
        (-20.0, False, ["no time for report.html: quicksurf report run makes it"], True),
        (0.0, False, ["mesh at resolution 96"], False),
    ],
)
def test_a_promise_is_kept_in_time_and_with_the_report_or_a_word(
    late: float, report: bool, left_out: list[str], kept: bool
) -> None:
    assert Row(Case("c", (), 1.0, False), 60 + late, 0, report, left_out).kept() == kept
    assert Row(Case("c", (), 10.0, False), 600 + 3.6 * late, 0, report, left_out).kept() == kept
    assert not Row(Case("c", (), 1.0, False), 60 + late, 1, report, left_out).kept()
