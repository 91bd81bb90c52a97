"""Seconds and memory of a command."""

import subprocess
import sys

from quicksurf.app.summary import peak_memory_mb


def test_peak_memory_counts_the_processes_that_were_started() -> None:
    before = peak_memory_mb()
    megabytes = int(before) + 50
    subprocess.run([sys.executable, "-c", f"b'x' * ({megabytes} << 20)"], check=True, timeout=30)
    assert peak_memory_mb() >= megabytes
