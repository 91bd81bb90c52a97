"""The clock of a whole command: what is left of `--minutes`, and what must be kept back for the mesh.

A command's seconds are counted from the start of its process, imports included. They are divided in order: reading
the capture, camera poses, the fit, then the mesh and its files. The last part cannot be shortened, so the fit ends
early enough for it: the reserve starts as a fraction of the budget and follows what was measured since.

Only what a person asks for moves the end: time in which somebody holds the command up (`held`) does not count, and
minutes may be added (`extend`).
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from quicksurf.errors import BudgetError

# Seconds: reading back a checkpoint-sized model, a small mesh and its files, on two slow cores.
MIN_RESERVE = 8.0
RESERVE_FRACTION = 0.06
MAX_GROWTH = 1.5  # of the reserve: beyond it a coarser mesh serves the user better than a shorter fit
MIN_FIT_SECONDS = 3.0  # less leaves the sphere that the field begins as
# Of what is left after reading; on 50 photos at the default 10 minutes about half is used.
POSES_FRACTION = 0.45
POINTS_FROM_SECONDS = 60.0  # of the budget; a shorter fit needs every second
POINTS_FRACTION = 0.1  # of the budget at most
POINTS_SECONDS, POINTS_SECONDS_A_PHOTO = 6.0, 0.18  # 15 s for 50 photos, 10 s for 25
WRITE_SECONDS = 2.0  # colours, normals, files and summary, apart from evaluating the field
MIN_MESH_SECONDS = 2.0  # a late coarse mesh is better than none
EXTRAS_FRACTION = 0.2  # of the budget: a texture of a bad surface helps nobody
REPORT_FRACTION = 0.02  # of the budget, at most REPORT_SECONDS, that the mesh leaves to the report
REPORT_SECONDS = 4.0  # left after what is made of the mesh: the report takes 3 to 5 s, less if it must
SAFETY = 1.3  # the other core may be taken while the mesh is made

# SIGHUP comes when a terminal or a connection is closed.
CAUGHT = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


class Budget:
    """Seconds of one command, read from `clock` (monotonic, any origin)."""

    def __init__(
        self, seconds: float, *, started: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """A budget of `seconds` from the moment `started` of `clock`; from now if None.

        Raises:
            BudgetError: unless `seconds` is a positive finite number.
        """
        if not 0 < seconds < float("inf"):
            raise BudgetError(
                f"a budget of {seconds / 60:g} minutes cannot be used: --minutes must be above 0, and finite"
            )
        self.seconds = float(seconds)
        self._clock = clock
        self._start = clock() if started is None else started
        self._planned = self._reserve = max(MIN_RESERVE, RESERVE_FRACTION * self.seconds)
        self._kept_back = 0.0
        self._fit_end = float("inf")
        self._held_at: float | None = None
        self.seconds_held = 0.0
        """Seconds that did not count."""

    def now(self) -> float:
        """Read a clock that stands still while the command is held."""
        return (self._clock() if self._held_at is None else self._held_at) - self.seconds_held

    def elapsed(self) -> float:
        """Count the seconds since the command began, but for those in which it was held."""
        return self.now() - self._start

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the seconds inside the block not count: a person holds the command up. Not to be nested."""
        self._held_at = self._clock()
        try:
            yield
        finally:
            self.seconds_held += self._clock() - self._held_at
            self._held_at = None

    def extend(self, seconds: float) -> None:
        """Add `seconds` to the budget, and to the fit's end if that is fixed."""
        self.seconds += seconds
        self._fit_end += seconds

    def left(self) -> float:
        """Count the seconds until the command should have ended; negative when it is late."""
        return self.seconds - self.elapsed()

    def reserve(self) -> float:
        """Tell the seconds kept back for the mesh, its files and what is made of it."""
        return self._reserve + self._kept_back

    def keep_back(self, seconds: float) -> None:
        """Keep up to EXTRAS_FRACTION of the budget back for what is made of the mesh, such as a texture."""
        self._kept_back = min(SAFETY * seconds, EXTRAS_FRACTION * self.seconds)

    def extras_seconds(self) -> float:
        """Compute the seconds to aim at for what is made of the mesh, its files counted in, before the report."""
        return (self.left() - REPORT_SECONDS) / SAFETY

    def last_seconds(self) -> float:
        """Count the seconds that are left at most, the report given up: it was not asked for."""
        return self.left() - WRITE_SECONDS

    def poses_seconds(self) -> float:
        """Compute the seconds that structure from motion may take.

        Raises:
            BudgetError: if nothing would be left to fit with.
        """
        self._demand()
        return POSES_FRACTION * (self.left() - self.reserve())

    def points_seconds(self, n_photos: int) -> float:
        """Compute the seconds that points for given cameras may take; 0 where the minutes are too few for them."""
        if self.seconds < POINTS_FROM_SECONDS:
            return 0.0
        return min(POINTS_FRACTION * self.seconds, POINTS_SECONDS + POINTS_SECONDS_A_PHOTO * n_photos)

    def begin_fit(self) -> None:
        """Fix the end of the fit, which a smaller reserve does not move any more.

        Raises:
            BudgetError: if they are fewer than a fit needs.
        """
        self._demand()
        self._fit_end = self.seconds - self.reserve()

    def fit_seconds_left(self) -> float:
        """Count the seconds until the mesh must be begun, as the refined reserve says now; 0 or less: begin it."""
        return min(self.left() - self.reserve(), self._fit_end - self.elapsed())

    def mesh_seconds(self) -> float:
        """Compute the seconds for the mesh without its files and the report; at least MIN_MESH_SECONDS."""
        report = min(REPORT_FRACTION * self.seconds, REPORT_SECONDS)
        return max(MIN_MESH_SECONDS, self.left() - self._kept_back - WRITE_SECONDS - report)

    def expect_mesh(self, n_evaluations: float, evaluations_per_second: float) -> None:
        """Refine the reserve: `n_evaluations` of the field at a measured rate, and the files.

        The reserve follows the newest measurement in both directions, but never falls below MIN_RESERVE: a fit that
        ends a second early costs nothing, a late command breaks its promise. Nor does it grow beyond MAX_GROWTH of
        the plan: the end of the schedules matters more than the last cells of the mesh, which is made coarser.
        """
        if evaluations_per_second > 0:
            self.expect_mesh_seconds(n_evaluations / evaluations_per_second + WRITE_SECONDS)

    def expect_mesh_seconds(self, seconds: float) -> None:
        """Refine the reserve with the seconds that the mesh is expected to take, or an earlier one of this run took."""
        self._reserve = min(max(MIN_RESERVE, SAFETY * seconds), MAX_GROWTH * self._planned)

    def _demand(self) -> None:
        spare = self.left() - self.reserve()
        if spare < MIN_FIT_SECONDS:
            needed = self.elapsed() + self.reserve() + MIN_FIT_SECONDS
            raise BudgetError(
                f"{self.seconds / 60:.3g} minutes leave no time to fit: {self.elapsed():.0f} s have passed and "
                f"{self.reserve():.0f} s are kept for the mesh; give --minutes {_round_up(2 * needed / 60)} or more"
            )


def process_start() -> float:
    """Find when this process began, by time.monotonic, so that imports count; now if the system cannot tell.

    Linux: field 22 of /proc/self/stat is the start in clock ticks since boot (proc(5)).
    """
    with suppress(OSError, ValueError, IndexError, AttributeError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - started
        return time.monotonic() - max(0.0, age)
    return time.monotonic()


def mesh_evaluations(resolution: int) -> float:
    """Estimate the evaluations of the field that a mesh at `resolution` cells along the ROI takes.

    The occupied shell of a surface as large as the sphere of half the ROI is 0.8 resolution² cells times about 20
    layers of grid cells; positions, normals and colours of the vertices are as many again.
    """
    return 40.0 * resolution * resolution


class StopRequest:
    """A request to stop: set by the first of CAUGHT while a fit can still end in a mesh."""

    def __init__(self) -> None:
        self.requested = False
        self.listening = False
        """Whether CAUGHT are to come here."""
        self.caught: tuple[signal.Signals, ...] = CAUGHT
        """Those that do: SIGHUP stays ignored where `nohup` has made it so."""
        self.worthwhile = False
        """Whether stopping gently gives something: False until the fit begins, and then the first signal leaves."""

    def __call__(self) -> bool:
        return self.requested

    def listen_again(self) -> None:
        """Take the signals back, if they are to come here, from a library that took them when it was imported.

        pycolmap does: glog's failure handler ends the process at SIGTERM with a stack trace.
        """
        if self.listening:
            for signum in self.caught:
                signal.signal(signum, self.on_signal)

    def stop_gently(self) -> None:
        """Note the request, where stopping gives something."""
        self.requested = self.requested or self.worthwhile

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal. First: note the request to stop. Second, or with nothing to save yet: leave.

        Raises:
            KeyboardInterrupt: to leave at once.
        """
        if self.requested or not self.worthwhile:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def signals_noted(stop: StopRequest) -> Iterator[StopRequest]:
    """Send CAUGHT to `stop` inside the block, and restore the old handlers after it."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    stop.caught = tuple(signum for signum in CAUGHT if signum != signal.SIGHUP or not ignored)
    previous = [signal.signal(signum, stop.on_signal) for signum in stop.caught]
    stop.listening = True
    try:
        yield stop
    finally:
        stop.listening = False
        for signum, handler in zip(stop.caught, previous, strict=True):
            signal.signal(signum, handler)


def _round_up(minutes: float) -> str:
    """Minutes rounded up to a tenth below ten and to a whole number above."""
    tenths = int(-(-minutes * 10 // 1))
    return f"{tenths / 10:g}" if tenths < 100 else str(-(-tenths // 10))
