"""Short fits one after another, in one process by the Python API and by the command: what grows, and should not?

    python tools/soak.py --api 30 --command 30 --seconds 1800

After each fit of the API: memory that is held, threads, open files, child processes, and entries of the temporary
folder. The first WARM fits may grow: caches, compiled kernels. After each command: what lies in the temporary folder,
and processes that outlive it. The tool leaves with 1 where something grew.
"""

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from cut_fit import cut_to
from tiny_capture import write_capture

from quicksurf.app.fit import run_fit
from quicksurf.app.requests import FitRequest

TINY = str(Path(__file__).parents[1] / "tests" / "tiny.toml")
WARM = 2  # fits
FIT_SECONDS = 1.5  # of processor time, which leaves a surface
MINUTES = 0.5  # of a command: imports, four seconds of fitting, the mesh
MAX_GROWTH = (
    2 << 20
)  # bytes a fit: the allocator's noise over five fits is below it, a photo or a field is not


class State(NamedTuple):
    """What a process holds."""

    bytes: int
    threads: int
    files: int
    children: int
    litter: int


def state_here(temporary: Path) -> State:
    """Of this process and its temporary folder, from /proc."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return State(
        pages * os.sysconf("SC_PAGE_SIZE"),
        max(threading.active_count(), len(os.listdir("/proc/self/task"))),
        len(os.listdir("/proc/self/fd")),
        _children(),
        len(os.listdir(temporary)),
    )


def _children() -> int:
    lines = (Path(f"/proc/self/task/{task}/children") for task in os.listdir("/proc/self/task"))
    return sum(len(path.read_text().split()) for path in lines if path.exists())


def growth(states: list[State]) -> list[str]:
    """What grew after the first WARM states: memory by its mean a fit, the rest at all."""
    first, last = states[WARM], states[-1]
    n_fits = len(states) - 1 - WARM
    found = []
    if n_fits > 0 and (last.bytes - first.bytes) / n_fits > MAX_GROWTH:
        found.append(f"memory by {(last.bytes - first.bytes) / n_fits / (1 << 20):.1f} MiB a fit")
    for name in ("threads", "files", "children", "litter"):
        before, after = getattr(first, name), getattr(last, name)
        if after > before:
            found.append(f"{name} from {before} to {after}")
    return found


def by_api(capture: Path, folder: Path, number: int) -> None:
    """One fit in this process."""
    run_fit(FitRequest(capture, 20.0, folder / f"api-{number}", preset=TINY), fit=cut_to(FIT_SECONDS))


def by_command(capture: Path, folder: Path, number: int) -> None:
    """One fit as a user runs it.

    Raises:
        subprocess.CalledProcessError: if it fails.
    """
    arguments = [str(capture), "--output", str(folder / f"command-{number}"), "--preset", TINY]
    command = [sys.executable, "-m", "quicksurf", "fit", *arguments, "--minutes", str(MINUTES), "--quiet"]
    subprocess.run(command, check=True, timeout=60 * 10)


def soak(count: int, end: float, fit: Callable[[int], None], temporary: Path) -> list[State]:
    """`count` fits, or as many as there is time for; the states after each."""
    states = []
    for number in range(count):
        if time.monotonic() > end:
            break
        fit(number)
        states.append(state_here(temporary))
        print(f"fit {number}: {states[-1].bytes >> 20} MiB, {states[-1]._asdict()}", flush=True)
    return states


def main() -> int:
    """Soak as the arguments say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--api", type=int, default=30, help=f"fits in this process, more than {WARM}")
    parser.add_argument("--command", type=int, default=30, help="fits by the command")
    parser.add_argument("--seconds", type=float, default=1800.0)
    given = parser.parse_args()
    end = time.monotonic() + given.seconds
    faults = []
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder, temporary = Path(name), Path(name) / "tmp"
        temporary.mkdir()
        tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)
        capture = write_capture(folder / "capture", 8, 32)
        for kind, count, fit in (("API", given.api, by_api), ("command", given.command, by_command)):

            def one(number: int, fit: Callable[[Path, Path, int], None] = fit) -> None:
                fit(capture, folder, number)

            states = soak(count, end, one, temporary)
            grew = growth(states) if len(states) > WARM + 1 else ["nothing: too few fits to tell"]
            if count:
                print(f"{len(states)} fits by the {kind}: {'; '.join(grew) or 'nothing grew'}", flush=True)
                faults += grew
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
