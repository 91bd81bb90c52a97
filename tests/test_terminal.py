"""What a terminal is told: one plain line, in the words of the command, without what names of files smuggle in."""

import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import quicksurf
from quicksurf import errors
from quicksurf.app.budget import Budget
from quicksurf.app.cli import main
from quicksurf.app.plain import MAX_LINE, plain
from quicksurf.app.progress import Lines, Panel

ESCAPES = "a\x1b]0;PWNED\x07\x1b[31mb\u202e\x9b\x7f\n.jpg"


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a wrong command line is answered with."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith("quicksurf: ") and err.count("\n") == 1 and len(err) < 400, (out, err)
    return err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fti", "x"], "unknown command 'fti': did you mean fit?"),
        (["reprot", "x"], "did you mean report?"),
        (["zzzz"], "known are fit, mesh, render"),
        (["fit"], "needs SOURCE"),
        (["fit", "x", "y"], "does not expect 'y'"),
        (["fit", ""], "SOURCE is empty"),
        (["mesh", ""], "RUN is empty"),
        (["fit", "x", "--output", ""], "--output is empty"),
        (["fit", "x", "--output="], "--output is empty"),
        (["fit", "x", "--minuets", "3"], "unknown option '--minuets': did you mean --minutes?"),
        (["mesh", "x", "--minutes", "3"], "unknown option '--minutes'"),
        (["fit", "x", "--job", "3"], "unknown option '--job'"),
        (["fit", "x", "--minutes", "abc"], "--minutes is 'abc': a number is expected"),
        (["fit", "x", "--minutes=abc"], "--minutes is 'abc': a number is expected"),
        (["fit", "x", "--minutes"], "--minutes lacks its value"),
        (["fit", "x", "--minutes", "--json"], "--minutes lacks its value"),
        (["fit", "x", "--seed", "1.5"], "--seed is '1.5': a whole number is expected"),
        (["fit", "x", "--texture_size", "big"], "--texture-size is 'big': a whole number is expected"),
        (["fit", "x", "--trim", "a"], "--trim is 'a': a number is expected"),
        (["fit", "x", "--keep", "all"], "--keep is 'all': choose from object, scene"),
        (["fit", "x", "--device", "gpu"], "--device is 'gpu': choose from auto, cpu, cuda, torch"),
        (["fit", "x", "--format", "ply", "fbx"], "--format is 'fbx': choose from ply, obj, glb, stl"),
        (["mesh", "x", "--up", "down"], "--up is 'down': choose from auto, gravity, plane, cameras"),
        (["mesh", "x", "--scale-from", "a", "b"], "two points and their distance"),
        (["mesh", "x", "--scale-from", "markers", "wide"], "markers and their side"),
        (["render", "x", "--light-of"], "--light-of lacks its value"),
        (["render", "x", "--light-of", "a.jpg", "b.jpg", "c.jpg"], "does not expect 'c.jpg'"),
        (["batch", "x", "--jobs", "many"], "--jobs is 'many': a whole number is expected"),
        (["fit", "x", "--quiet=yes"], "takes none"),
        (["doctor", "x"], "does not expect 'x'"),
    ],
)
def test_what_is_wrong_is_said_in_one_plain_line(arguments: list[str], words: str, capsys: Any) -> None:
    err = said(arguments, capsys)
    assert words in err
    assert "NoneType" not in err and "typing" not in err and "[bold]" not in err


def test_what_tyro_takes_is_still_taken(tmp_path: Path, capsys: Any) -> None:
    run = str(tmp_path)
    for more in (
        ["--minutes=3"],
        ["--texture_size", "64"],
        ["--format", "ply", "obj", "--masks", "none"],
        ["--seed", "-1"],
    ):
        assert main(["fit", run, *more, "--minutes", "0"]) == errors.BudgetError.exit_code, (
            capsys.readouterr().err
        )
    for lights in (["a.jpg"], ["a.jpg", "b.jpg"]):
        assert main(["render", run, "--light-of", *lights]) == errors.OutputError.exit_code
    for scale in (["0,0,0", "-1,0,0", "0.5"], ["markers", "0.05"]):
        assert main(["mesh", run, "--scale-from", *scale, "--up", "auto"]) == errors.OutputError.exit_code
    assert main(["mesh", run, "--trim", "-1", "--faces", "-5"]) == errors.OutputError.exit_code


def test_the_version_is_printed_and_known_to_python(capsys: Any) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"quicksurf {quicksurf.__version__}\n"
    assert re.fullmatch(r"\d+\.\d+.*|unknown", quicksurf.__version__)
    assert "__version__" in dir(quicksurf)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_leaves_with_0(shell: str, capsys: Any) -> None:
    assert main(["--tyro-print-completion", shell]) == 0
    assert "quicksurf" in capsys.readouterr().out


def test_an_absent_input_is_said_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom quicksurf.app.cli import main\n"
        "for command in ('fit', 'mesh', 'render', 'report', 'view'):\n"
        "    print(main([command, 'absent']), 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(quicksurf.__file__).parents[1])},
    )
    assert done.stdout.split() == ["3", "False", *["8", "False"] * 4], done.stderr
    assert done.stderr.count("\n") == 5 and "model" not in done.stderr


def on_a_terminal(arguments: list[str], **environment: str) -> str:
    """What the command prints on a terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "quicksurf", *arguments],
        stdout=slave,
        stderr=slave,
        cwd=Path(quicksurf.__file__).parents[1],
        env={**os.environ, "TERM": "xterm-256color", **environment},
    )
    os.close(slave)
    parts = []
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        parts.append(part)
    process.wait(60)
    os.close(master)
    return b"".join(parts).decode()


def test_no_color_holds_for_help_too() -> None:
    assert "\x1b" in on_a_terminal(["fit", "--help"])
    for arguments in (["fit", "--help"], ["--help"], ["fit", "x", "--format", "fbx"], ["-x"]):
        assert "\x1b" not in on_a_terminal(arguments, NO_COLOR="1")


@pytest.mark.parametrize("limit", [20, MAX_LINE])
@pytest.mark.parametrize("text", [ESCAPES, "\x1b" * 10_000, "x" * 1_000_000, "\udcff\ud800", "\r\b\t\x00"])
def test_plain_text_is_printable_and_bounded(text: str, limit: int) -> None:
    assert plain(text, limit).isprintable()
    assert len(plain(text, limit)) <= limit
    assert plain("straße 日本 ∇l ✓ 16³") == "straße 日本 ∇l ✓ 16³"


def test_names_bring_no_escape_sequences_to_reporters() -> None:
    stream, terminal = io.StringIO(), io.StringIO()
    budget = Budget(60.0)
    lines = Lines(budget, stream)
    lines.note(ESCAPES)
    lines.warn(ESCAPES)
    plain_console = Console(file=terminal, force_terminal=False)
    panel = Panel(ESCAPES, budget, plain_console)
    panel.note(ESCAPES)
    panel.warn(ESCAPES)
    panel.close()
    for text in (stream.getvalue(), terminal.getvalue()):
        assert "PWNED" in text
        assert all(letter.isprintable() or letter == "\n" for letter in text), repr(text)
    assert stream.getvalue().count("\n") == 2


def test_errors_bring_no_escape_sequences_and_no_novels(
    tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ESCAPES.replace("\n", "")
    folder.mkdir()
    assert main(["fit", folder.name, "--output", "run"]) == errors.ImageError.exit_code
    assert main(["fit", "x" * 250 + "\x1b[31m"]) == errors.ImageError.exit_code
    assert main(["fit", str(folder), "--roi", "1," * 5000]) == errors.RoiError.exit_code
    err = capsys.readouterr().err
    assert all(letter.isprintable() or letter == "\n" for letter in err) and err.count("\n") == 3
    assert max(map(len, err.splitlines())) <= MAX_LINE + 20


@pytest.mark.parametrize("length", [300, 5000])
def test_names_that_no_file_system_takes_are_no_bug(length: int, tmp_path: Path, capsys: Any) -> None:
    long = "x" * length
    for arguments in (
        ["fit", long],
        ["fit", str(tmp_path), "--output", long],
        ["fit", str(tmp_path), "--preset", f"{long}.toml"],
        ["mesh", long],
        ["eval", long],
        ["batch", long],
        ["view", long],
        ["batch", str(tmp_path), "--output", long],
    ):
        assert main(arguments) not in (0, 1), arguments
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["fit", "absent", "--json"], errors.ImageError.exit_code),
        (["fit", "--json"], 2),
        (["fit", ".", "--json", "--minutes", "0"], errors.BudgetError.exit_code),
        (["fit", ".", "--json", "--minutes", "ten"], 2),
    ],
)
def test_json_says_what_went_wrong(arguments: list[str], code: int, capsys: Any) -> None:
    assert main(arguments) == code
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert said == {"error": said["error"], "code": code}
    assert said["error"] in err


def test_json_tells_a_bug_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    monkeypatch.setattr("quicksurf.app.cli._dispatch", lambda *anything: 1 / 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["fit", "x", "--json"]) == 1
    assert "ZeroDivisionError" in json.loads(capsys.readouterr().out)["error"]


def test_parsing_takes_no_time(capsys: Any) -> None:
    began = time.process_time()
    said(["fit", "x", *["--format"] * 2000, *["ply"] * 20_000, "--seed", "x"], capsys)
    assert time.process_time() - began < 5
