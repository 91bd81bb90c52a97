"""Progress of a command: a live panel in a terminal, plain lines elsewhere, or nothing.

A reporter receives stages, facts, warnings and the fit's figures; it decides nothing. The command does not know which
kind it reports to.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Protocol, cast, runtime_checkable

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel as RichPanel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from quicksurf.app.plain import plain

if TYPE_CHECKING:
    from quicksurf.app.budget import Budget
    from quicksurf.train.loop import FitStatus

# "read" includes camera poses, where structure from motion reports lines of its own.
STAGES = ("read", "fit", "mesh")
LINE_SECONDS = 5.0  # between two plain lines: a ten-minute log stays within a screen or two
FIGURE_WIDTH = 28  # characters of a figure in the panel: the longest name and a value with its unit
REFRESHES_PER_SECOND = 4  # of the panel; the fit reports about as often


@runtime_checkable
class Stream(Protocol):
    """The output for progress: sys.stdout, a StringIO, …"""

    def write(self, text: str, /) -> int: ...
    def flush(self) -> None: ...
    def isatty(self) -> bool: ...


class Silent:
    """Reports nothing: `--quiet`, and the base of the others."""

    def stage(self, name: str) -> None:
        """Begin a stage of STAGES."""

    def note(self, text: str) -> None:
        """Report a fact, once."""

    def warn(self, text: str) -> None:
        """Warn of a problem that the user may want to fix."""

    def fit(self, status: "FitStatus") -> None:
        """Report the current figures of the fit."""

    def close(self) -> None:
        """End the report."""


class Several(Silent):
    """Passes all calls but `close` on to `reporters`."""

    def __init__(self, *reporters: Silent) -> None:
        self._reporters = reporters
        for name in ("stage", "note", "warn", "fit"):
            setattr(self, name, partial(self._all, name))

    def _all(self, name: str, argument: object) -> None:
        for reporter in self._reporters:
            getattr(reporter, name)(argument)


class Warnings:
    """Warnings for the user, now and in summary.json."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.left_out: list[str] = []
        """Those that say what there was no time for."""
        self.reporter = Silent()

    def add(self, text: str) -> None:
        """Keep the warning and report it."""
        self.texts.append(text)
        self.reporter.warn(text)

    def leave_out(self, text: str) -> None:
        """Tell the user what there is no time for."""
        self.left_out.append(text)
        self.add(text)


class Lines(Silent):
    """A line per stage and fact, and one every few seconds of the fit, in ASCII.

    Silent once a line cannot be written: `quicksurf fit ... | head -1` must not lose the mesh.
    """

    def __init__(self, budget: "Budget", stream: Stream) -> None:
        self._budget = budget
        self._stream: Stream | None = stream
        self._last = float("-inf")

    def stage(self, name: str) -> None:
        """Print the stage, and the next figures of the fit at once."""
        self._last = float("-inf")
        self._print(f"{name} ...")

    def note(self, text: str) -> None:
        self._print(plain(text))

    def warn(self, text: str) -> None:
        self._print(f"warning: {plain(text)}")

    def fit(self, status: "FitStatus") -> None:
        """Print the figures every LINE_SECONDS."""
        if self._budget.elapsed() - self._last >= LINE_SECONDS:
            self._last = self._budget.elapsed()
            self._print("fit " + ", ".join(f"{name} {value}" for name, value in fit_figures(status)))

    def _print(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            print(f"[{self._budget.elapsed():6.1f} s] {text}", file=self._stream, flush=True)
        except OSError:  # a closed pipe or a full disk
            self._stream = None


class Panel(Silent):
    """A live panel: stages with their seconds, the command's clock, the fit's figures, the facts."""

    def __init__(self, title: str, budget: "Budget", console: Console) -> None:
        self._title, self._budget, self._console = plain(title, 60), budget, console
        self._began: dict[str, float] = {}
        self._facts: list[str] = []
        self._status: FitStatus | None = None
        self._ended: float | None = None
        self._live = Live(self, console=console, refresh_per_second=REFRESHES_PER_SECOND)
        with suppress(OSError):
            self._live.start()

    def stage(self, name: str) -> None:
        self._began[name] = self._budget.elapsed()

    def note(self, text: str) -> None:
        self._facts.append(plain(text))

    def warn(self, text: str) -> None:
        with suppress(OSError):  # the terminal was closed
            self._console.print(Text(f"warning: {plain(text)}", style="yellow"))

    def fit(self, status: "FitStatus") -> None:
        self._status = status

    def close(self) -> None:
        """Stop the clock and leave the panel as it is."""
        if self._ended is None:
            self._ended = self._budget.elapsed()
            with suppress(OSError):
                self._live.stop()

    def __rich__(self) -> RenderableType:
        """Draw the panel; rich calls this at every refresh."""
        now = self._budget.elapsed() if self._ended is None else self._ended
        parts: list[RenderableType] = [self._stage_line(now), self._clock_line(now)]
        if self._status is not None:
            cells = [
                Text.assemble((f"{name:<17}", "dim"), value)
                for name, value in fit_figures(self._status)
                if name != "progress"  # the bar's
            ]
            parts.append(Columns(cells, width=FIGURE_WIDTH, padding=0))
        parts += [Text(fact, style="dim") for fact in self._facts]
        title = Text(f"quicksurf: {self._title}")
        return RichPanel(Group(*parts), title=title, title_align="left", width=min(self._console.width, 88))

    def _stage_line(self, now: float) -> Text:
        line = Text()
        for name, following in zip(STAGES, [*STAGES[1:], ""], strict=True):
            if name not in self._began:
                line.append(f"{name}   ", style="dim")
                continue
            end = self._began.get(following, now)
            style = "bold cyan" if end == now and self._ended is None else "green"
            line.append(f"{name} {end - self._began[name]:.1f} s   ", style=style)
        return line

    def _clock_line(self, now: float) -> Table:
        total = self._budget.seconds
        row = Table.grid(expand=True, padding=(0, 1))
        row.add_column(ratio=1)
        row.add_column(justify="right", no_wrap=True)
        row.add_row(
            ProgressBar(total=total, completed=min(now, total)),
            f"{clock(total - now)} left of {clock(total)}",
        )
        return row


def fit_figures(status: "FitStatus") -> list[tuple[str, str]]:
    """Format names and values of the figures shown to the user."""
    held_out = "-" if status.psnr_held_out is None else f"{status.psnr_held_out:.2f} dB"
    return [
        ("progress", f"{100 * status.progress:.0f} %"),
        ("loss", f"{status.loss:.4f}"),
        ("PSNR", f"{status.psnr:.2f} dB"),
        ("held out", held_out),
        ("hit rate", f"{100 * status.hit_rate:.0f} %"),
        ("interval", f"{status.interval:.3g}"),
        ("samples/ray", f"{status.samples_per_ray:.1f}"),
        ("evaluations/ray", f"{status.evaluations_per_ray:.1f}"),
        ("rays/s", f"{status.rays_per_second:.0f}"),
        ("fit ends in", clock(status.seconds_left)),
    ]


def clock(seconds: float) -> str:
    """Format seconds as m:ss or h:mm:ss; negative ones as 0:00."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


@contextmanager
def reporting(title: str, budget: "Budget", *, quiet: bool, stream: Stream | None = None) -> Iterator[Silent]:
    """Choose the reporter for `stream` (standard output if None): panel, lines, or silence; closed at the end."""
    stream = stream or cast(Stream, sys.stdout)
    if quiet:
        reporter = Silent()
    elif not stream.isatty() or (console := Console(file=cast(IO[str], stream))).is_dumb_terminal:
        reporter = Lines(budget, stream)
    else:
        reporter = Panel(title, budget, console)
    try:
        yield reporter
    finally:
        reporter.close()
