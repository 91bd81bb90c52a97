"""The growing mesh takes its fraction of the fit's time and no more."""

import pytest

from quicksurf.app.live.preview import COARSEST, FINEST, FIRST, FRACTION, POWER, Pacer, WorkClock


def meshes(cost: float, fit_seconds: float) -> list[tuple[float, float, int]]:
    """Moment, seconds and resolution of each mesh of a fit where one at COARSEST takes `cost`."""
    pacer, now, made = Pacer(), 0.0, []
    while now < fit_seconds:
        if pacer.due(now):
            seconds = cost * (pacer.resolution / COARSEST) ** POWER
            now += seconds
            made.append((now, seconds, pacer.resolution))
            pacer.made(now, seconds, fit_seconds)
        now += 0.05
    return made


@pytest.mark.slow
@pytest.mark.parametrize("cost", [0.005, 0.05, 0.5])
@pytest.mark.parametrize("fit_seconds", [60.0, 600.0, 3600.0])
def test_meshes_take_no_more_than_their_fraction(cost: float, fit_seconds: float) -> None:
    made = meshes(cost, fit_seconds)
    first, last = made[0][1], made[-1][1]  # the last one may fall on the very end
    assert sum(seconds for _, seconds, _ in made) <= FRACTION * fit_seconds + first + last


def test_a_fast_machine_gets_finer_meshes() -> None:
    slow, fast = meshes(0.2, 600.0)[-1][2], meshes(0.01, 600.0)[-1][2]
    assert COARSEST <= slow < fast <= FINEST


def test_a_slow_mesh_makes_the_next_one_coarser_and_later() -> None:
    pacer = Pacer()
    for _ in range(5):
        pacer.made(0.0, 0.001, 600.0)
    fine = pacer.resolution
    pacer.made(10.0, 3.0, 600.0)
    assert pacer.resolution < fine
    assert not Pacer().due(FIRST - 0.1) and Pacer().due(FIRST)
    assert not pacer.due(10.0 + 3.0 / FRACTION - 0.1) and pacer.due(10.0 + 3.0 / FRACTION)


def test_time_that_other_programs_took_is_no_work() -> None:
    wall, processor = [0.0], [0.0]
    work = WorkClock(lambda: wall[0], lambda: processor[0])
    for seconds, busy in (
        (1.0, 2.0),
        (1.0, 0.9),
        (30.0, 0.1),
    ):  # two cores, one core, set aside by the system
        wall[0] += seconds
        processor[0] += busy
        work()
    assert work() == pytest.approx(1.0 + 0.9 + 0.1)
