"""The clock of a command, with a clock that the test turns."""

import os
import signal
import time

import pytest

from quicksurf.app.budget import (
    MIN_FIT_SECONDS,
    MIN_RESERVE,
    Budget,
    StopRequest,
    mesh_evaluations,
    process_start,
    signals_noted,
)
from quicksurf.errors import BudgetError


class Hands:
    """A clock set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_seconds_before_the_budget_was_made_count() -> None:
    hands = Hands()
    budget = Budget(60, started=hands.now - 5, clock=hands)
    hands.now += 10
    assert budget.elapsed() == pytest.approx(15)
    assert budget.left() == pytest.approx(45)


def test_fit_gets_what_is_left_but_the_reserve() -> None:
    hands = Hands()
    budget = Budget(600, clock=hands)
    hands.now += 100
    budget.begin_fit()
    assert budget.fit_seconds_left() == pytest.approx(500 - 36)
    assert Budget(60, clock=hands).reserve() == MIN_RESERVE


def test_poses_leave_more_than_half_for_the_rest() -> None:
    budget = Budget(600, clock=Hands())
    assert 0.3 * 600 < budget.poses_seconds() < 0.5 * 600


@pytest.mark.parametrize(
    ("minutes", "n_photos", "seconds"), [(0.5, 50, 0), (1, 50, 6), (10, 50, 15), (10, 11, 8)]
)
def test_points_for_given_cameras_take_a_tenth_of_the_minutes_at_most(
    minutes: float, n_photos: int, seconds: float
) -> None:
    assert Budget(60 * minutes, clock=Hands()).points_seconds(n_photos) == pytest.approx(seconds, rel=0.1)


def test_fit_is_over_when_only_the_reserve_is_left() -> None:
    hands = Hands()
    budget = Budget(100, clock=hands)
    hands.now += 91.9
    assert budget.fit_seconds_left() > 0
    hands.now += 0.2
    assert budget.fit_seconds_left() <= 0


def test_a_slow_field_widens_the_reserve_and_ends_the_fit_sooner() -> None:
    hands = Hands()
    budget = Budget(100, clock=hands)
    hands.now += 90
    assert budget.fit_seconds_left() > 0
    budget.expect_mesh(n_evaluations=3e5, evaluations_per_second=5e4)
    assert budget.reserve() == pytest.approx(1.3 * 8)
    assert budget.fit_seconds_left() <= 0


def test_time_in_which_a_person_holds_the_command_does_not_count() -> None:
    hands = Hands()
    budget = Budget(100, clock=hands)
    hands.now += 10
    with budget.held():
        hands.now += 500
        assert budget.elapsed() == pytest.approx(10)
    hands.now += 5
    assert budget.elapsed() == pytest.approx(15)
    assert budget.left() == pytest.approx(85)
    assert budget.seconds_held == pytest.approx(500)


def test_added_minutes_move_the_end_of_the_fit_and_a_smaller_reserve_does_not() -> None:
    hands = Hands()
    budget = Budget(600, clock=hands)
    hands.now += 100
    budget.begin_fit()
    budget.expect_mesh(1.0, 1e9)
    assert budget.reserve() == MIN_RESERVE
    assert budget.fit_seconds_left() == pytest.approx(500 - 36)
    budget.extend(300)
    assert budget.fit_seconds_left() == pytest.approx(800 - 36)
    assert budget.left() == pytest.approx(800)


def test_stopping_gently_is_heard_where_it_gives_something() -> None:
    stop = StopRequest()
    stop.stop_gently()
    assert not stop()
    stop.worthwhile = True
    stop.stop_gently()
    assert stop()


def test_reserve_stays_within_its_bounds() -> None:
    budget = Budget(1000, clock=Hands())
    assert budget.reserve() == pytest.approx(60)
    budget.expect_mesh(1e9, 1.0)
    assert budget.reserve() == pytest.approx(90)
    budget.expect_mesh(1.0, 1e9)
    assert budget.reserve() == MIN_RESERVE
    budget.expect_mesh(1e9, 0.0)
    assert budget.reserve() == MIN_RESERVE


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_senseless_budgets_are_refused(seconds: float) -> None:
    with pytest.raises(BudgetError, match="--minutes"):
        Budget(seconds)


@pytest.mark.parametrize("stage", ["poses_seconds", "begin_fit"])
def test_no_time_left_is_an_error_that_says_how_much_is_needed(stage: str) -> None:
    hands = Hands()
    budget = Budget(30, clock=hands)
    hands.now += 30 - MIN_RESERVE - MIN_FIT_SECONDS + 0.1
    with pytest.raises(BudgetError, match=r"0.5 minutes leave no time to fit.* give --minutes 1.1 or more"):
        getattr(budget, stage)()


def test_a_finer_mesh_is_expected_to_take_longer() -> None:
    assert mesh_evaluations(512) == pytest.approx(4 * mesh_evaluations(256))


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="process start time is known on Linux only")
def test_process_start_is_a_fixed_moment_in_the_past() -> None:
    first = process_start()
    time.sleep(0.05)
    assert process_start() == pytest.approx(first, abs=0.02)  # the kernel counts in ticks of 10 ms
    assert 0 < time.monotonic() - first < 3600


def test_first_signal_is_a_wish_and_the_second_leaves() -> None:
    with signals_noted(StopRequest()) as stop:
        stop.worthwhile = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_first_signal_leaves_while_there_is_nothing_to_save() -> None:
    with signals_noted(StopRequest()) as stop:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        assert not stop()


def test_signals_are_taken_back_from_a_library_inside_the_block_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with signals_noted(StopRequest()) as stop:
        stop.worthwhile = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stop.listen_again()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
    stop.listen_again()
    assert signal.getsignal(signal.SIGTERM) is before


def test_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with signals_noted(StopRequest()):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
