"""Commands killed at random moments: nothing is lost or half-written, and the next command sweeps up and goes on.

    python tools/kill.py --kills 40 --full 10 --seed 0 --seconds 900

Each command runs in a process forked from this one, which has imported all and computed nothing. Every other kill
falls just before a random one of the command's file operations, the rest at a random time. `--full` runs commands on
a disk that fills up: a tmpfs where this may be mounted, else a limit on the size of a file. What is wrong is printed,
and the tool leaves with 1.
"""

import argparse
import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # a process that forks must have no threads
os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from cut_fit import cut_to
from leftovers import fault_of, litter, lost
from tiny_capture import write_capture

import quicksurf
from quicksurf.app import fit as app_fit
from quicksurf.app.cli import main as run_cli
from quicksurf.app.run import checkpoint
from quicksurf.app.run.folder import open_run
from quicksurf.errors import OutputError
from quicksurf.mesh.export import FORMATS
from quicksurf.train import loop

for _name in ("batch.run", "commands", "render"):
    importlib.import_module(f"quicksurf.app.{_name}")  # before the forks: it takes seconds

TINY = str(Path(__file__).parents[1] / "tests" / "tiny.toml")
FIT_SECONDS = 1.5  # processor time of a fit: enough for a surface
CHECKPOINT_SECONDS = 0.2  # so that kills fall between the renames of checkpoints
LIMIT = 600.0  # seconds of a command: the longest, a batch, takes 35 where nothing else runs
FILLED = 12 << 20  # bytes, at most, that a disk has left at the start: a run is 2 MB
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}
KILLED, TOO_LONG, NOT_ASKED = -signal.SIGKILL, 1000, -1


class Kind(NamedTuple):
    """A command, as arguments for a folder of work, and where it starts from."""

    arguments: Callable[[Path], list[str]]
    base: str
    """Folder that is copied first: `nothing`, `finished`, `unfinished`, `failed` or `batch`."""


def _fit(work: Path) -> list[str]:
    return ["fit", str(work / "capture"), "--output", str(work / "run"), "--preset", TINY, "--minutes", "0.5"]


KINDS: dict[str, Kind] = {
    "fit": Kind(_fit, "nothing"),
    "extend": Kind(lambda work: ["fit", str(work / "run"), "--minutes", "0.5"], "finished"),
    "resume": Kind(
        lambda work: ["fit", str(work / "capture"), "--output", str(work / "run"), "--resume"], "unfinished"
    ),
    "mesh": Kind(lambda work: ["mesh", str(work / "run"), "--format", *FORMATS, "--confidence"], "finished"),
    "export": Kind(
        lambda work: ["mesh", str(work / "run"), "--up", "cameras", "--texture", "--texture-size", "256"],
        "finished",
    ),
    "anew": Kind(_fit, "failed"),
    "elsewhere": Kind(
        lambda work: ["mesh", str(work / "run"), "--format", *FORMATS, "--output", str(work / "out")],
        "finished",
    ),
    "render": Kind(lambda work: ["render", str(work / "run"), "--frames", "3", "--size", "24"], "finished"),
    "report": Kind(lambda work: ["report", str(work / "run")], "finished"),
    "batch": Kind(
        lambda work: [
            *("batch", str(work / "captures"), "--output", str(work / "batch")),
            *("--preset", TINY, "--minutes", "0.5"),
        ],
        "batch",
    ),
}


def in_child(work: Callable[[], int], log: Path, kill_after: float = LIMIT) -> int:
    """Exit code of `work` in a forked process: minus the signal if killed, TOO_LONG if it did not end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            code = work()
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    end = time.monotonic() + kill_after
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return KILLED if kill_after < LIMIT else TOO_LONG


def command(arguments: list[str], folder: Path, kill_at: int = NOT_ASKED, count: Path | None = None) -> int:
    """Run a command line here, in this forked process; die just before its `kill_at`-th change below `folder`."""
    n_changes = 0

    def watch(event: str, given: tuple[Any, ...]) -> None:
        nonlocal n_changes
        changes = event in CHANGES or (event == "open" and isinstance(given[2], int) and given[2] & WRITES)
        if not changes or not str(given[0]).startswith(str(folder)):
            return
        if n_changes == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        n_changes += 1

    loop._CHECKPOINT_SECONDS = CHECKPOINT_SECONDS
    app_fit.run_fit = partial(app_fit.run_fit, fit=cut_to(FIT_SECONDS))
    sys.addaudithook(watch)
    quicksurf.set_num_threads(1)  # where the other core is taken, two wait for each other
    code = run_cli(arguments, started=time.monotonic())
    if count is not None:
        count.write_text(str(n_changes))
    return code


class Range:
    """A folder with the bases, and what each command does when nobody kills it."""

    def __init__(self, root: Path, kinds: list[str]) -> None:
        self.root, self.log = root, root / "log"
        self.bases = root / "bases"
        for name in ("nothing", "finished", "unfinished", "failed", "batch"):
            (self.bases / name).mkdir(parents=True)
        self._prepare()
        self.seconds: dict[str, float] = {}
        self.n_changes: dict[str, int] = {}
        for kind in kinds:
            self._rehearse(kind)

    def _prepare(self) -> None:
        def capture() -> int:
            for place in ("nothing/capture", "batch/captures/a"):
                write_capture(self.bases / place, 8, 32)
            return 0

        work = self.bases / "nothing"
        self._demand(capture)
        finished = self.bases / "finished"
        shutil.copytree(work, finished, dirs_exist_ok=True)
        self._demand(lambda: command(_fit(finished), finished))
        for name, failed in (("unfinished", None), ("failed", "the field stayed the sphere it began as")):
            shutil.copytree(finished, self.bases / name, dirs_exist_ok=True)
            run = self.bases / name / "run"
            (run / "summary.json").unlink()
            record = json.loads((run / "run.json").read_text())
            record.update(source=str(self.bases / name / "capture"), failed=failed)
            (run / "run.json").write_text(json.dumps(record))

    def _demand(self, work: Callable[[], int]) -> None:
        code = in_child(work, self.log)
        assert code == 0, f"code {code} where nobody killed anything:\n{self.log.read_text()[-2000:]}"

    def _rehearse(self, kind: str) -> None:
        with self.work(kind) as work:
            began = time.monotonic()
            count = self.root / "count"
            self._demand(lambda: command(KINDS[kind].arguments(work), work, count=count))
            self.seconds[kind] = time.monotonic() - began
            self.n_changes[kind] = int(count.read_text())

    @contextmanager
    def work(self, kind: str, place: Path | None = None) -> Iterator[Path]:
        """A copy of the base that `kind` starts from, at `place`."""
        work = (place or self.root) / "work"
        shutil.copytree(self.bases / KINDS[kind].base, work)
        record = work / "run" / "run.json"
        if record.exists():
            content = json.loads(record.read_text())
            record.write_text(json.dumps({**content, "source": str(work / "capture")}))
        try:
            yield work
        finally:
            shutil.rmtree(work)

    def kill(self, kind: str, chance: random.Random) -> Iterator[str]:
        """Kill a command once; what is wrong."""
        with self.work(kind) as work:
            at = chance.randrange(self.n_changes[kind]) if chance.random() < 0.5 else NOT_ASKED
            after = LIMIT if at != NOT_ASKED else chance.uniform(0, self.seconds[kind])
            arguments = KINDS[kind].arguments(work)
            in_child(lambda: command(arguments, work, at), self.log, after)
            when = f"change {at}" if at != NOT_ASKED else f"{after:.2f} s"
            for text in self.aftermath(kind, work):
                yield f"{kind} killed at {when}: {text}"

    def fill(self, kind: str, chance: random.Random) -> Iterator[str]:
        """Run a command on a disk that fills up; what is wrong."""
        n_bytes, looks = chance.randrange(FILLED), chance.random() < 0.3
        with full_disk(self.root, n_bytes) as (place, limit, grow), self.work(kind, place) as work:

            def run() -> int:
                limit()
                if not looks:  # past the look at the disk, which refuses most
                    checkpoint.MESH_BYTES = -(1 << 40)
                return command(KINDS[kind].arguments(work), work)

            code = in_child(run, self.log)
            said = f"{kind} on a disk with {n_bytes >> 10} KiB left"
            if code not in (0, OutputError.exit_code):
                yield f"{said}: code {code}"
            grow()
            for text in self.aftermath(kind, work, full=True):
                yield f"{said}: {text}"

    def aftermath(self, kind: str, work: Path, full: bool = False) -> Iterator[str]:
        """What is wrong after a command was cut short, and after the next one."""
        yield from self.faults(work)
        if not full and kind != "anew":  # these drop the field: to make room for the mesh, and as asked
            yield from (
                f"{name} is lost" for name in lost(self.bases / KINDS[kind].base / "run", work / "run")
            )
        following = self.next_command(kind, work)
        code = in_child(lambda: command(following, work), self.log)
        if code != 0:
            last = self.log.read_text().splitlines()[-1:]
            yield f"then {' '.join(following[:2])} leaves with {code}: {last}"
        yield from (f"{name} lies there after the next command" for name in litter(work))
        yield from self.faults(work)

    def next_command(self, kind: str, work: Path) -> list[str]:
        """What a user does next: the same again, or what the message of the run says."""
        again = KINDS[kind].arguments(work)
        run = work / "run"
        if kind not in ("fit", "extend", "resume", "anew") or not (run / "run.json").exists():
            return again
        state = open_run(run).state
        if state == "finished":
            return ["mesh", str(run)]
        return again if state == "new" else KINDS["resume"].arguments(work)

    def faults(self, work: Path) -> Iterator[str]:
        """Broken files, found in a process of its own."""
        answer = self.root / "answer"

        def look() -> int:
            found = [fault_of(run) for run in (work / "run", work / "out", work / "batch") if run.exists()]
            answer.write_text("\n".join(text for text in found if text))
            return 0

        if in_child(look, self.log) != 0:
            yield f"what is left cannot be read: {self.log.read_text()[-600:]}"
        elif text := answer.read_text():
            yield text


@contextmanager
def full_disk(root: Path, n_bytes: int) -> Iterator[tuple[Path, Callable[[], None], Callable[[], object]]]:
    """A folder on a disk with room for a run and `n_bytes`; what limits a process to it; what makes room."""
    base = 4 << 20  # what is copied there first
    place = root / "disk"
    place.mkdir(exist_ok=True)
    mounted = ["mount", "-t", "tmpfs", "-o", f"size={base + n_bytes}", "none", str(place)]
    if (
        os.geteuid() == 0
        and shutil.which("mount")
        and subprocess.run(mounted, capture_output=True).returncode == 0
    ):
        try:
            grow = ["mount", "-o", "remount,size=256m", str(place)]
            yield place, lambda: None, lambda: subprocess.run(grow, check=True)
        finally:
            subprocess.run(["umount", "-l", str(place)], check=True)
        return

    def limit() -> None:
        size = max(n_bytes // 16, 1)  # a file's, not the disk's
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    yield place, limit, lambda: None


def kill_all(
    kills: int, full: int, kinds: list[str], seed: int, seconds: float
) -> tuple[int, int, list[str]]:
    """Kills and full disks that there was time for, and what went wrong."""
    end, chance = time.monotonic() + seconds, random.Random(seed)
    faults: list[str] = []
    done = [0, 0]
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kill-")))
        place = Range(root, kinds)
        filled = [kind for kind in kinds if kind != "batch"]  # its fits are other processes, beyond the limit
        for index, (deed, count, among) in enumerate(
            ((place.kill, kills, kinds), (place.fill, full, filled))
        ):
            for number in range(count):
                if time.monotonic() > end:
                    break
                found = list(deed(among[number % len(among)], chance))
                print("\n".join(found), end="\n" if found else "", flush=True)
                faults += found
                done[index] += 1
    return done[0], done[1], faults


def main() -> int:
    """Kill as the arguments say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--full", type=int, default=10)
    parser.add_argument("--kinds", nargs="+", choices=sorted(KINDS), default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=900.0)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # unmount and remove
    kills, full, faults = kill_all(given.kills, given.full, given.kinds, given.seed, given.seconds)
    print(f"{kills} kills, {full} full disks: {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
