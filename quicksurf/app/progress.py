"""What a person sees while a command works: one live panel, plain lines where there is no terminal, or nothing.

A reporter is told of stages, facts, warnings and the fit's figures; it never decides anything. All three kinds are
one class each with the same five calls, so that the pipeline does not know which one it talks to.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Protocol, cast, runtime_checkable

from quicksurf.app.plain import plain

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from quicksurf.app.budget import Budget
    from quicksurf.train.loop import FitStatus

STAGES = ("read", "fit", "mesh")
"""Reading includes camera poses: where the capture has none, structure from motion reports in lines of its own."""
LINE_SECONDS = 5.0  # between two plain lines: a ten-minute log stays within a screen or two
FIGURE_WIDTH = 28  # characters of a figure in the panel: the longest name, a value with its unit, gaps
REFRESHES_PER_SECOND = 4  # of the panel; the fit reports about as often


@runtime_checkable
class Stream(Protocol):
    """What is asked of the place that progress goes to: sys.stdout has it, and so has a StringIO."""

    def write(self, text: str, /) -> int: ...
    def flush(self) -> None: ...
    def isatty(self) -> bool: ...


class Silent:
    """Says nothing: `--quiet`, and the base of the others."""

    def stage(self, name: str) -> None:
        """Work has gone on to a stage of STAGES."""

    def note(self, text: str) -> None:
        """Tell a fact worth a line, once."""

    def warn(self, text: str) -> None:
        """Warn of something that the user may want to fix."""

    def fit(self, status: "FitStatus") -> None:
        """Show the figures of the fit at this moment."""

    def close(self) -> None:
        """End: nothing more will come."""


class Several(Silent):
    """Tells each of `reporters`; they are closed by those who made them."""

    def __init__(self, *reporters: Silent) -> None:
        self._reporters = reporters

    def stage(self, name: str) -> None:
        """Tell all."""
        for reporter in self._reporters:
            reporter.stage(name)

    def note(self, text: str) -> None:
        """Tell all."""
        for reporter in self._reporters:
            reporter.note(text)

    def warn(self, text: str) -> None:
        """Tell all."""
        for reporter in self._reporters:
            reporter.warn(text)

    def fit(self, status: "FitStatus") -> None:
        """Tell all."""
        for reporter in self._reporters:
            reporter.fit(status)


class Warnings:
    """What the user is told now and in summary.json."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.reporter = Silent()

    def add(self, text: str) -> None:
        """Keep it, and say it where somebody listens by now."""
        self.texts.append(text)
        self.reporter.warn(text)


class Lines(Silent):
    """A line per stage and fact, and one every few seconds of the fit. ASCII only: logs go anywhere.

    Silent once a line cannot be written: the mesh is worth more than the words (`quicksurf fit ... | head -1`).
    """

    def __init__(self, budget: "Budget", stream: Stream) -> None:
        self._budget = budget
        self._stream: Stream | None = stream
        self._last = float("-inf")

    def stage(self, name: str) -> None:
        """Print the stage and let the next figures of the fit through."""
        self._last = float("-inf")
        self._print(f"{name} ...")

    def note(self, text: str) -> None:
        """Print the fact."""
        self._print(plain(text))

    def warn(self, text: str) -> None:
        """Print the warning."""
        self._print(f"warning: {plain(text)}")

    def fit(self, status: "FitStatus") -> None:
        """Print the figures if the last ones are LINE_SECONDS old."""
        if self._budget.elapsed() - self._last >= LINE_SECONDS:
            self._last = self._budget.elapsed()
            self._print("fit " + ", ".join(f"{name} {value}" for name, value in fit_figures(status)))

    def _print(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            print(f"[{self._budget.elapsed():6.1f} s] {text}", file=self._stream, flush=True)
        except OSError:  # the reader of a pipe has left, or the disk of a log is full
            self._stream = None


class Panel(Silent):
    """One live panel: stages with their seconds, the clock of the whole command, the fit's figures, the facts."""

    def __init__(self, title: str, budget: "Budget", console: "Console") -> None:
        from rich.live import Live

        self._title, self._budget, self._console = plain(title, 60), budget, console
        self._began: dict[str, float] = {}
        self._facts: list[str] = []
        self._status: FitStatus | None = None
        self._ended: float | None = None
        self._live = Live(self, console=console, refresh_per_second=REFRESHES_PER_SECOND)
        with suppress(OSError):
            self._live.start()

    def stage(self, name: str) -> None:
        """Mark the stage as the running one."""
        self._began[name] = self._budget.elapsed()

    def note(self, text: str) -> None:
        """Add the fact to the panel."""
        self._facts.append(plain(text))

    def warn(self, text: str) -> None:
        """Print the warning above the panel, where it stays."""
        from rich.text import Text

        with suppress(OSError):  # the terminal was closed
            self._console.print(Text(f"warning: {plain(text)}", style="yellow"))

    def fit(self, status: "FitStatus") -> None:
        """Show the figures."""
        self._status = status

    def close(self) -> None:
        """Stop the clock and leave the last picture standing."""
        if self._ended is None:
            self._ended = self._budget.elapsed()
            with suppress(OSError):
                self._live.stop()

    def __rich__(self) -> "RenderableType":
        """The panel as it is now; called by rich at every refresh."""
        from rich.console import Group
        from rich.panel import Panel as Frame
        from rich.text import Text

        parts: list[RenderableType] = [self._stage_line(), self._clock_line()]
        if self._status is not None:
            parts.append(_figure_table(self._status, self._width() - 4))
        parts += [Text(fact, style="dim") for fact in self._facts]
        return Frame(
            Group(*parts), title=Text(f"quicksurf: {self._title}"), title_align="left", width=self._width()
        )

    def _width(self) -> int:
        return min(self._console.width, 88)

    def _stage_line(self) -> "RenderableType":
        from rich.text import Text

        line, now = Text(), self._budget.elapsed() if self._ended is None else self._ended
        for name, following in zip(STAGES, [*STAGES[1:], None], strict=True):
            if name not in self._began:
                line.append(f"{name}   ", style="dim")
                continue
            end = self._began.get(following, now) if following else now
            running = end == now and self._ended is None
            line.append(
                f"{name} {end - self._began[name]:.1f} s   ", style="bold cyan" if running else "green"
            )
        return line

    def _clock_line(self) -> "RenderableType":
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        elapsed = self._budget.elapsed() if self._ended is None else self._ended
        left = max(0.0, self._budget.seconds - elapsed)
        row = Table.grid(expand=True, padding=(0, 1))
        row.add_column(ratio=1)
        row.add_column(justify="right", no_wrap=True)
        bar = ProgressBar(total=self._budget.seconds, completed=min(elapsed, self._budget.seconds))
        row.add_row(bar, f"{clock(left)} left of {clock(self._budget.seconds)}")
        return row


def fit_figures(status: "FitStatus") -> list[tuple[str, str]]:
    """Return names and values of the figures worth a person's look, formatted with their units."""
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
    """Return seconds as m:ss or h:mm:ss; negative ones as 0:00."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


@contextmanager
def reporting(title: str, budget: "Budget", *, quiet: bool, stream: Stream | None = None) -> Iterator[Silent]:
    """Return the reporter that suits `stream` (standard output if None): panel, lines, or silence; closed at the
    end.
    """
    reporter = _choose(title, budget, quiet, sys.stdout if stream is None else stream)
    try:
        yield reporter
    finally:
        reporter.close()


def _choose(title: str, budget: "Budget", quiet: bool, stream: Stream) -> Silent:
    if quiet:
        return Silent()
    if not stream.isatty():
        return Lines(budget, stream)
    from rich.console import Console

    console = Console(file=cast(IO[str], stream))
    return Lines(budget, stream) if console.is_dumb_terminal else Panel(title, budget, console)


def _figure_table(status: "FitStatus", width: int) -> "RenderableType":
    """The figures in as many columns as `width` characters hold; the clock's are left to the bar above."""
    from rich.table import Table

    cells = [cell for name, value in fit_figures(status) if name != "progress" for cell in (name, value)]
    per_row = 2 * max(1, width // FIGURE_WIDTH)
    table = Table.grid(padding=(0, 2))
    for column in range(per_row):
        table.add_column(style="" if column % 2 else "dim", min_width=9 if column % 2 else 11, no_wrap=True)
    for start in range(0, len(cells), per_row):
        table.add_row(*cells[start : start + per_row])
    return table
