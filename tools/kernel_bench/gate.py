"""The committed ratios and the comparison with them.

Only ratios of things measured in the same run are kept: times differ from machine to machine and from hour to hour.
Ratios still depend on the kind of processor (an instruction set, the size of a cache), so its name stands beside them.
"""

import json
from pathlib import Path
from typing import Any

from quicksurf.files import write_json
from quicksurf.kernels import _native

# Medians of ratios of one build moved by up to a fifth between runs on two shared virtual cores.
TOLERANCE = 0.25
# Copy bandwidth on a shared machine is anything from 6 to 35 GB/s within one run; a scan that lost its vectors or its
# threads loses two thirds.
COPY_TOLERANCE = 0.5
# The twins run on torch's threads, which a neighbour on one core slows down far more than ours.
TWIN_TOLERANCE = 0.4
# A neighbour on one core takes up to a third of what a second thread gains; a kernel that lost its threads loses half.
THREADS_TOLERANCE = 0.4


def tolerance_of(name: str) -> float:
    """Fraction of the committed ratio that a new one may fall short."""
    if "threads against" in name:
        return THREADS_TOLERANCE
    if "fraction of copy" in name:
        return COPY_TOLERANCE
    return TWIN_TOLERANCE if "twin" in name else TOLERANCE


def regressions(found: dict[str, float], committed: dict[str, float]) -> list[str]:
    """One line for each ratio that fell by more than its tolerance, or that is no longer measured."""
    lines = []
    for name, before in committed.items():
        now, tolerance = found.get(name), tolerance_of(name)
        if now is None:
            lines.append(f"{name}: was {before:.3g}, is not measured any more")
        elif not now >= before * (1 - tolerance):
            lines.append(f"{name}: {now:.3g}, was {before:.3g} (at most {tolerance:.0%} less is let pass)")
    return lines


def read_baseline(path: Path) -> dict[str, Any]:
    """The committed file: "machine" and "ratios"."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_baseline(path: Path, ratios: dict[str, float]) -> None:
    """Write the ratios, rounded to what a median of a few repetitions knows."""
    rounded = {name: float(f"{value:.3g}") for name, value in ratios.items()}
    write_json(path, {"machine": machine(), "ratios": rounded})


def machine() -> str:
    """Processor, instruction set and number of processors, in words."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else "unknown processor"
    return f"{name}, {_native.instruction_set()}, {_native.usable_cpus()} processors"
