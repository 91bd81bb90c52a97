"""The pool of the native kernels: number of threads, nested and concurrent calls, fork."""

import os
import threading
import time

import pytest
import torch

from quicksurf import kernels
from quicksurf.geometry.rays import pack_counts
from quicksurf.kernels import _native, cpu


def work():
    """A call that takes several tasks."""
    counts = torch.full((5000,), 8)
    packed = pack_counts(counts)
    logits = 0.1 * torch.randn(40000, generator=torch.Generator().manual_seed(0))
    return cpu.render_weight_from_logits(
        logits, torch.full_like(logits, 0.01), packed, 20.0, "transmittance"
    )[0]


def test_the_number_of_threads_is_bounded():
    before = _native.num_threads()
    for bad in (0, -1, 100_000):
        with pytest.raises(ValueError):
            kernels.set_num_threads(bad)
    kernels.set_num_threads(3)
    assert _native.num_threads() == 3
    kernels.set_num_threads(before)


def test_calls_from_two_python_threads_do_not_mix():
    expected = work()
    found = []
    threads = [threading.Thread(target=lambda: found.append(work())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(found) == 4 and all(torch.equal(result, expected) for result in found)


def test_a_forked_child_has_a_pool_of_its_own():
    before = _native.num_threads()
    kernels.set_num_threads(2)
    torch.set_num_threads(1)  # torch's own threads do not survive a fork
    expected = work()
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(work(), expected) else 1)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.02)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child hangs in a kernel")
    kernels.set_num_threads(before)
    assert os.waitstatus_to_exitcode(status) == 0
