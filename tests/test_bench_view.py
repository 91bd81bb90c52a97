"""The accounts of the page's benchmark: nothing is counted twice, nothing is lost."""

import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import bench_view

SPIN = 0.3  # seconds: thirty times the steps that some systems' thread clocks have


def test_what_runs_inside_another_item_is_counted_once() -> None:
    now, beside = [0.0], [0.0]

    def spend(seconds: float, server: float) -> None:
        now[0] += seconds + server
        beside[0] += server

    account = bench_view.Account(lambda: now[0], lambda: beside[0])
    inner = account.timed("inner", lambda: spend(1.0, 0.25))

    def outer() -> None:
        spend(2.0, 0.0)
        inner()

    account.timed("outer", outer)()
    spend(10.0, 0.5)  # the fit, and the server beside it
    inner()
    total = account.close()
    assert total == pytest.approx(15.0)
    assert account.seconds == pytest.approx({"outer": 2.0, "inner": 2.5, "server's threads": 0.5})
    assert account.calls == {"outer": 1, "inner": 2}
    assert bench_view.table(account, total)[-1].startswith(
        "the page: 5.00 of 15.0 processor seconds, 33.33 %"
    )


def test_the_clock_of_other_threads_leaves_this_one_out() -> None:
    spun, done = threading.Event(), threading.Event()

    def spin() -> None:
        start = time.thread_time()
        while time.thread_time() < start + SPIN:
            pass
        spun.set()
        done.wait()

    before = bench_view.server_seconds()
    thread = threading.Thread(target=spin)
    thread.start()
    start = time.thread_time()
    while not spun.is_set() or time.thread_time() < start + SPIN:
        pass
    took = bench_view.server_seconds() - before
    done.set()
    thread.join()
    assert SPIN <= took < 1.5 * SPIN
