"""The command line, in process: what it accepts, what it refuses, and with which words and codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_capture import write_capture

import quicksurf
from quicksurf import errors
from quicksurf.app.cli import main

HELP_SECONDS = 0.5


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_capture(tmp_path_factory.mktemp("capture"))


def test_help_imports_no_torch_and_names_every_command() -> None:
    code = (
        "import sys, time; start = time.perf_counter()\n"
        "from quicksurf.app.cli import main\n"
        "assert main(['--help']) == 0\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "print('seconds', time.process_time())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, cwd=_root()
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("seconds")[-1]) < HELP_SECONDS
    for command in ("fit", "mesh", "render", "eval", "view", "demo", "doctor"):
        assert f"• {command}" in done.stdout


def test_every_option_of_fit_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--help"]) == 0
    text = capsys.readouterr().out
    for option in (
        "--minutes",
        "--output",
        "--resume",
        "--roi",
        "--masks",
        "--format",
        "--resolution",
        "--faces",
    ):
        assert option in text
    for option in ("--preset", "--device", "--seed", "--quiet", "--json"):
        assert option in text


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fut"],
        ["fit"],
        ["fit", "x", "--minuts", "3"],
        ["fit", "x", "--minutes", "soon"],
        ["fit", "x", "--format", "fbx"],
    ],
)
def test_usage_errors_leave_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["fit", "absent"], errors.ImageError, "no such file or folder"),
        (["fit", "{empty}"], errors.ImageError, "empty"),
        (["fit", "{capture}", "--minutes", "0"], errors.BudgetError, "--minutes must be above 0"),
        (["fit", "{capture}", "--minutes", "nan"], errors.BudgetError, "--minutes must be above 0"),
        (["fit", "{capture}", "--minutes", "0.05"], errors.BudgetError, "or more"),
        (["fit", "{capture}", "--roi", "1,2,3"], errors.RoiError, "cx,cy,cz,r"),
        (["fit", "{capture}", "--roi", "0,0,0,-1"], errors.RoiError, "above 0"),
        (["fit", "{capture}", "--roi", "0,0,-500,1"], errors.RoiError, "no camera"),
        (["fit", "{capture}", "--preset", "drafft"], errors.ConfigError, "did you mean draft"),
        (["fit", "{capture}", "--resolution", "5"], errors.ConfigError, "mesh.resolution"),
        (["fit", "{capture}", "--faces", "3"], errors.ConfigError, "mesh.faces"),
        (["fit", "{capture}", "--format"], errors.ConfigError, "choose one or more from ply"),
        (["mesh", "{empty}", "--format"], errors.ConfigError, "choose one or more from ply"),
        (["fit", "{capture}", "--seed", "-1"], errors.ConfigError, "train.seed"),
        (["fit", "{capture}", "--output", "{full}"], errors.OutputError, "not a run's"),
        (["fit", "{capture}", "--output", "{file}"], errors.OutputError, "is a file"),
        (["fit", "{capture}", "--output", "new", "--resume"], errors.OutputError, "no run to resume"),
        (["mesh", "{empty}"], errors.OutputError, "not a run folder"),
        (["render", "absent"], errors.OutputError, "not a run folder"),
        (["render", "{empty}", "--size", "0"], errors.ConfigError, "--size"),
        (
            ["render", "{empty}", "--path", "nowhere.json"],
            errors.ConfigError,
            "orbit, flight, input or a cameras.json",
        ),
    ],
)
def test_bad_input_is_one_line_with_its_own_code(
    arguments: list[str],
    error: type[errors.QuicksurfError],
    words: str,
    capture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {name: tmp_path / name for name in ("empty", "full", "file")}
    places["empty"].mkdir()
    places["full"].mkdir()
    (places["full"] / "letter.txt").write_text("dear")
    places["file"].write_text("x")
    before = _tree(tmp_path)
    code = main([part.format(capture=capture, **places) for part in arguments])
    message = capsys.readouterr().err
    assert code == error.exit_code, message
    assert message.startswith("quicksurf: ")
    assert message.count("\n") == 1
    assert words in message
    assert _tree(tmp_path) - before <= {"runs"}, "a refused command leaves nothing behind"


def test_exit_codes_are_distinct_and_leave_the_taken_ones_free() -> None:
    codes = [kind.exit_code for kind in errors.QuicksurfError.__subclasses__()]
    assert len(set(codes)) == len(codes)
    assert not set(codes) & {0, 1, 2, 130}


def test_an_unknown_failure_is_one_line_and_a_saved_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from quicksurf.app import doctor

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(doctor, "examine", lambda: 1 / 0)
    assert main(["doctor"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("quicksurf: a bug: ZeroDivisionError")
    assert message.count("\n") == 1
    (path,) = tmp_path.glob("quicksurf-traceback-*.txt")
    assert "ZeroDivisionError" in path.read_text()
    assert str(path) in message


def test_debug_prints_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUICKSURF_DEBUG", "1")
    assert main(["mesh", str(tmp_path)]) == errors.OutputError.exit_code
    assert "Traceback" in capsys.readouterr().err


def test_interrupt_before_the_fit_leaves_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from quicksurf.app import doctor

    monkeypatch.setattr(doctor, "examine", lambda: os.kill(os.getpid(), signal.SIGINT))
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "quicksurf: interrupted\n"


def test_interrupt_while_the_parser_is_imported_leaves_with_130() -> None:
    code = (
        "import os, signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'tyro': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from quicksurf.app.cli import entry_point\n"
        "entry_point()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, timeout=30, cwd=_root()
    )
    assert (done.returncode, done.stderr) == (130, "quicksurf: interrupted\n")


def test_a_reader_that_leaves_at_once_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = _run("--help", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_unknown_instruction_set_is_said(capture: Path, tmp_path: Path) -> None:
    done = _run("fit", str(capture), "--output", str(tmp_path / "run"), QUICKSURF_ISA="foo")
    assert done.returncode == errors.BackendError.exit_code
    assert done.stderr.startswith(
        "quicksurf: QUICKSURF_ISA: instruction set 'foo' cannot run here: choose one"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the device that is always full is Linux's")
def test_standard_output_on_a_full_disk_is_said() -> None:
    with open("/dev/full", "w") as full:
        done = _run("--help", stdout=full)
    assert done.returncode == errors.OutputError.exit_code
    assert done.stderr == "quicksurf: cannot write to standard output: No space left on device\n"


@pytest.mark.slow
def test_fit_outlives_its_reader_and_ends_with_its_mesh_at_sigterm(capture: Path, tmp_path: Path) -> None:
    preset = str(Path(__file__).with_name("tiny.toml"))
    arguments = ["fit", str(capture), "--output", str(tmp_path / "run"), "--minutes", "1", "--preset", preset]
    code = (  # pycolmap takes SIGTERM over when it is imported; here it is as late as a COLMAP model would have it
        "import sys\n"
        "class Late:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'quicksurf.train.loop': import pycolmap\n"
        "sys.meta_path.insert(0, Late())\n"
        "from quicksurf.app.cli import entry_point\n"
        "entry_point()\n"
    )
    fit = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=_root(),
    )
    assert fit.stdout is not None and fit.stdout.readline()
    fit.stdout.close()
    metrics = tmp_path / "run" / "metrics.jsonl"
    while fit.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= 6):
        time.sleep(0.1)
    fit.send_signal(signal.SIGTERM)
    assert fit.wait(timeout=30) == 0
    assert fit.stderr is not None and fit.stderr.read() == ""
    assert (tmp_path / "run" / "mesh.ply").exists()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["stopped_early"]


@pytest.mark.slow
def test_doctor_finds_this_installation_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "ok      native kernels" in text
    assert "MISSING" not in text


@pytest.mark.slow
def test_the_real_thing_end_to_end(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fit = ["fit", str(capture), "--output", "run", "--minutes", "0.4", "--preset", "draft", "--json"]
    assert main([*fit, "--format", "ply", "obj", "glb", "stl"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["seconds"]["total"] < 1.05 * 24 + 5
    assert summary["faces"] > 100
    assert summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert main(["mesh", "run", "--format", "stl", "--faces", "500", "--output", "small"]) == 0
    assert main(["render", "run", "--frames", "2", "--size", "32"]) == 0
    assert (tmp_path / "run" / "render" / "color.mp4").stat().st_size > 0
    assert main(["eval", "run", "--truth", "run/mesh.ply", "--views", "1"]) == 0
    assert main(["fit", "run"]) == errors.OutputError.exit_code


def _run(
    *arguments: str, stdout: Any = subprocess.PIPE, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "quicksurf", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        cwd=_root(),
        env={**os.environ, **environment},
    )


def _root() -> Path:
    """Where child processes find the package that is tested: a checkout has no kernels beside its sources."""
    return Path(quicksurf.__file__).parents[1]


def _tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
