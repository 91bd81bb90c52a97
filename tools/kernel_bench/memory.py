"""Row of the memory that a large training step takes, measured in a process of its own.

    growth = VmHWM after some steps of 2^16 samples − VmRSS before the first

with parameters, moments and images already in memory. Read from /proc: Linux with glibc only.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

from kernel_bench.results import Figure, Row
from kernel_bench.scene import painted_ellipsoid
from kernel_bench.step import PROGRESS, resumed, warmed_up
from kernel_bench.timing import spread

NAME = "memory of a 64 k-sample step"
N_SAMPLES = 1 << 16
LIMIT_MB = 200.0
_MAX_STEPS = 40  # the number of rays grows by a tenth a step until the samples are reached
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure() -> Row:
    """Run the child on a saved fit and read the line it prints."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    command = [sys.executable, "-m", "kernel_bench.memory", warmed_up()[1].name]
    environment = os.environ | {"PYTHONPATH": path}
    result = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env=environment, check=True, timeout=120
    )
    row = Row(NAME)
    growth = spread([float(result.stdout)])
    row.figures.append(Figure("beyond the parameters", growth, "MB", LIMIT_MB, at_most=True))
    return row


def growth_mb(folder: Path) -> float:
    """What this process's memory grows by over steps of `N_SAMPLES`."""
    trainer = resumed(painted_ellipsoid(), folder, "cpu", N_SAMPLES)
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before may not hide what a step takes
    _CLEAR.write_text("5")  # sets VmHWM to what is resident now
    before = _status_mb("VmRSS")
    for _ in range(_MAX_STEPS):
        if trainer.step(PROGRESS)[0].n_samples > 0.95 * N_SAMPLES:
            return _status_mb("VmHWM") - before
    raise RuntimeError(f"no step of {_MAX_STEPS} had {N_SAMPLES} samples")


def _status_mb(key: str) -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(key + ":"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    print(growth_mb(Path(sys.argv[1])))
