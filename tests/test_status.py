"""What a person sees: lines for a log, a panel for a terminal, nothing when asked."""

import io
import math
from typing import NamedTuple

import pytest
from rich.console import Console

from quicksurf.app.budget import Budget
from quicksurf.app.progress import Lines, Panel, Several, Silent, clock, fit_figures, reporting


class Status(NamedTuple):
    """A FitStatus with figures of a real fit."""

    step: int = 812
    progress: float = 0.42
    seconds: float = 61.0
    seconds_left: float = 85.0
    loss: float = 0.0213
    psnr: float = 27.4
    psnr_held_out: float | None = 26.31
    hit_rate: float = 0.41
    interval: float = 0.0412
    samples_per_ray: float = 18.2
    evaluations_per_ray: float = 23.9
    rays_per_second: float = 11234.0
    sharpness: float = 120.0


class Hands:
    """A clock set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (-3, "0:00"), (59.6, "1:00"), (61, "1:01"), (3725, "1:02:05")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_every_figure_asked_for_is_shown() -> None:
    names = {name for name, _ in fit_figures(Status())}  # type: ignore[arg-type]
    assert {"loss", "held out", "hit rate", "interval", "samples/ray", "rays/s", "fit ends in"} <= names
    assert dict(fit_figures(Status(psnr_held_out=None)))["held out"] == "-"  # type: ignore[arg-type]


def test_figures_survive_nan() -> None:
    assert dict(fit_figures(Status(loss=math.nan)))["loss"] == "nan"  # type: ignore[arg-type]


def test_lines_are_plain_ascii_and_spaced_in_time() -> None:
    stream, hands = io.StringIO(), Hands()
    lines = Lines(Budget(60.0, clock=hands), stream)  # type: ignore[arg-type]
    lines.stage("fit")
    for second in range(20):
        hands.now = float(second)
        lines.fit(Status())  # type: ignore[arg-type]
    lines.note("47 of 50 photos registered")
    lines.warn("masks/ has no file for 0031.png")
    text = stream.getvalue()
    assert text.isascii()
    assert text.count("loss 0.0213") == 4
    assert "[  19.0 s] warning: masks/ has no file for 0031.png\n" in text


class Closed(io.StringIO):
    """A pipe whose reader has left; counts the attempts."""

    attempts = 0

    def write(self, text: str, /) -> int:
        self.attempts += 1
        raise BrokenPipeError


def test_a_closed_pipe_silences_the_lines() -> None:
    stream = Closed()
    lines = Lines(Budget(60.0), stream)
    lines.stage("fit")
    lines.fit(Status())  # type: ignore[arg-type]
    lines.warn("w")
    assert stream.attempts == 1


def test_panel_shows_stages_figures_and_facts() -> None:
    hands = Hands()
    console = Console(file=Terminal(), width=88, force_terminal=True, record=True)
    panel = Panel("dev-a", Budget(180, clock=hands), console)
    panel.stage("read")
    hands.now = 1.5
    panel.stage("fit")
    panel.fit(Status())  # type: ignore[arg-type]
    panel.note("48 of 48 images read")
    hands.now = 61.5
    panel.close()
    hands.now = 500.0
    console.print(panel)
    text = console.export_text()
    for expected in (
        "quicksurf: dev-a",
        "read 1.5 s",
        "fit 60.0 s",
        "1:58 left of 3:00",
        "26.31 dB",
        "48 of 48",
    ):
        assert expected in text
    assert max(len(line) for line in text.splitlines()) <= 88


def test_a_panel_fits_a_narrow_terminal() -> None:
    console = Console(file=Terminal(), width=40, force_terminal=True, record=True)
    panel = Panel("a capture with a long name that does not fit", Budget(180.0), console)
    panel.stage("fit")
    panel.fit(Status())  # type: ignore[arg-type]
    panel.close()
    console.print(panel)
    assert max(len(line) for line in console.export_text().splitlines()) <= 40


def test_the_stream_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for stream, quiet, kind in (
        (io.StringIO(), False, Lines),
        (Terminal(), False, Panel),
        (Terminal(), True, Silent),
    ):
        with reporting("x", Budget(10.0), quiet=quiet, stream=stream) as reporter:
            assert type(reporter) is kind
    monkeypatch.setenv("TERM", "dumb")
    with reporting("x", Budget(10.0), quiet=False, stream=Terminal()) as reporter:
        assert type(reporter) is Lines


def test_quiet_prints_nothing() -> None:
    stream = io.StringIO()
    with reporting("x", Budget(10.0), quiet=True, stream=stream) as reporter:
        reporter.stage("read")
        reporter.fit(Status())  # type: ignore[arg-type]
        reporter.warn("w")
        reporter.note("n")
    assert stream.getvalue() == ""


def test_several_reporters_hear_the_same() -> None:
    streams = io.StringIO(), io.StringIO()
    both = Several(*(Lines(Budget(600, clock=Hands()), stream) for stream in streams))
    both.stage("fit")
    both.note("a fact")
    both.warn("a problem")
    both.fit(Status())  # type: ignore[arg-type]
    first, second = (stream.getvalue() for stream in streams)
    assert first == second and first.count("\n") == 4
