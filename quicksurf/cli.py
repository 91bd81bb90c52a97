"""The command line: parse, call, print. No maths, and no import of torch until a command needs it.

Exit codes: 0 done · 1 a bug (its traceback is saved to a file) · 2 usage · 130 left by Ctrl-C · the others are those
of quicksurf.errors, one per kind of bad input.
"""

import io
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from quicksurf.budget import StopRequest, process_start, signals_noted
from quicksurf.errors import QuicksurfError

DESCRIPTION = "A folder of photos to a surface mesh in minutes."
INTERRUPTED = 130
DEBUG = "QUICKSURF_DEBUG"

MeshFormat = Literal["ply", "obj", "glb", "stl"]
BackendName = Literal["auto", "cpu", "torch"]
Flag = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]


def _option(metavar: str, default: str) -> Any:
    """How an option with a default that is found out later shows in the help."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=default)


@dataclass(frozen=True)
class Fit:
    """Fit a surface to photos and write its mesh."""

    source: tyro.conf.Positional[Path]
    """Folder of photos, video, transforms.json, COLMAP model, IDR/DTU folder; or a run, to go on with it."""
    minutes: Annotated[float | None, _option("M", "(default: 10)")] = None
    """Wall-clock for everything, from reading to the last file. On a finished run: minutes to add."""
    output: Annotated[Path | None, _option("RUN", "(default: runs/NAME-TIME)")] = None
    """Run folder."""
    resume: Flag = False
    """Go on with a run that was cut short."""
    roi: Annotated[str | None, _option("cx,cy,cz,r", "(default: found from the capture)")] = None
    """Ball to reconstruct, in the cameras' frame."""
    masks: Flag = True
    """Do not use the masks that the capture has."""
    format: tuple[MeshFormat, ...] = ("ply",)
    """Mesh files to write."""
    resolution: Annotated[int | None, _option("N", "(default: the preset's)")] = None
    """Grid cells along the ROI's diameter when the mesh is extracted."""
    faces: Annotated[int | None, _option("N", "(default: all)")] = None
    """Simplify the mesh to at most this many faces."""
    preset: Annotated[str | None, _option("NAME", "(default: none)")] = None
    """Name of a preset (draft, fine), or a TOML file with settings that differ from the defaults."""
    device: Literal["auto", "cpu"] = "auto"
    """Where to compute."""
    backend: BackendName = "auto"
    """How to compute: native kernels (cpu) or their slow specification (torch)."""
    seed: Annotated[int | None, _option("N", "(default: 0)")] = None
    """Seed of everything random."""
    quiet: Flag = False
    """Print errors only."""
    json: Flag = False
    """Print summary.json on standard output at the end; progress goes to standard error."""


@dataclass(frozen=True)
class Mesh:
    """Extract the mesh of a finished run again."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    format: tuple[MeshFormat, ...] = ("ply",)
    """Mesh files to write."""
    resolution: Annotated[int | None, _option("N", "(default: the run's)")] = None
    """Grid cells along the ROI's diameter."""
    faces: Annotated[int | None, _option("N", "(default: the run's)")] = None
    """Simplify the mesh to at most this many faces; 0 keeps all."""
    output: Annotated[Path | None, _option("FOLDER", "(default: the run's)")] = None
    """Folder for the files."""
    backend: BackendName = "auto"
    """How to compute."""


@dataclass(frozen=True)
class Render:
    """Render a run along a camera path: PNG and MP4 of colour, depth and normals."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    path: str = "orbit"
    """orbit, input (the photos' cameras) or a cameras.json."""
    frames: int = 60
    """Number of frames of an orbit."""
    size: int = 480
    """Longest side in pixels."""
    rate: int = 30
    """Frames per second of the MP4."""
    output: Annotated[Path | None, _option("FOLDER", "(default: RUN/render)")] = None
    """Folder for the images."""
    backend: BackendName = "auto"
    """How to compute."""


@dataclass(frozen=True)
class Eval:
    """Measure a run or a mesh: distances to a true surface, PSNR and SSIM on held-out views."""

    target: tyro.conf.Positional[Path]
    """Run folder or mesh file."""
    truth: Annotated[Path | None, _option("FILE", "(default: views alone)")] = None
    """True surface: a mesh or a point cloud in the same frame."""
    roi: Annotated[str | None, _option("cx,cy,cz,r", "(default: everything counts)")] = None
    """Ball outside which nothing of either surface counts."""
    views: int = 8
    """Held-out views of a run to render and compare; 0 for none."""
    backend: BackendName = "auto"
    """How to compute."""


@dataclass(frozen=True)
class Demo:
    """Make a scene with a known surface, fit it, and print how far off the mesh is."""

    minutes: float = 2.0
    """Wall-clock for the fit and its mesh."""
    output: Annotated[Path | None, _option("FOLDER", "(default: runs/demo-TIME)")] = None
    """Folder for the capture and the run."""
    backend: BackendName = "auto"
    """How to compute."""
    quiet: Flag = False
    """Print the result only."""


@dataclass(frozen=True)
class Doctor:
    """Look at the machine and the installation; say what is missing and the line that mends it."""


Command = (
    Annotated[Fit, tyro.conf.subcommand("fit")]
    | Annotated[Mesh, tyro.conf.subcommand("mesh")]
    | Annotated[Render, tyro.conf.subcommand("render")]
    | Annotated[Eval, tyro.conf.subcommand("eval")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)


def entry_point() -> None:
    """The `quicksurf` executable."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # a file name that the terminal cannot show must not end a run
            stream.reconfigure(errors="backslashreplace")
    sys.exit(main(sys.argv[1:], started=process_start()))


def main(arguments: Sequence[str], *, started: float | None = None) -> int:
    """Run one command; return its exit code.

    Args:
        arguments: the command line without the program's name.
        started: moment of time.monotonic that `--minutes` count from; the call's if None.
    """
    started = time.monotonic() if started is None else started
    try:
        command = tyro.cli(
            Command,
            args=list(arguments),
            prog="quicksurf",
            description=DESCRIPTION,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 2
    try:
        with signals_noted(StopRequest()) as stop:
            return _dispatch(command, started, stop)
    except QuicksurfError as error:
        return _say(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left: say no more at exit
        return 0
    except Exception as error:
        return _say(_describe_crash(error, command), 1)


def _dispatch(
    command: "Fit | Mesh | Render | Eval | Demo | Doctor", started: float, stop: StopRequest
) -> int:
    if isinstance(command, Fit):
        return _fit(command, started, stop)
    if isinstance(command, Mesh):
        return _mesh(command)
    if isinstance(command, Render):
        return _render(command)
    if isinstance(command, Eval):
        return _eval(command)
    if isinstance(command, Demo):
        return _demo(command, stop)
    return _doctor()


def _fit(command: Fit, started: float, stop: StopRequest) -> int:
    from quicksurf import pipeline

    request = pipeline.FitRequest(
        source=command.source,
        minutes=command.minutes,
        output=command.output,
        resume=command.resume,
        roi=pipeline.parse_roi(command.roi) if command.roi is not None else None,
        masks=command.masks,
        formats=command.format,
        resolution=command.resolution,
        faces=command.faces,
        preset=command.preset,
        backend=_backend_name(command.device, command.backend),
        seed=command.seed,
    )
    result = pipeline.run_fit(
        request,
        started=started,
        stop=stop,
        quiet=command.quiet,
        stream=sys.stderr if command.json else sys.stdout,
    )
    if command.json:
        print(json.dumps(result.summary))
    elif not command.quiet:
        _print_lines(pipeline.describe(result))
    return 0


def _mesh(command: Mesh) -> int:
    from quicksurf import surfaces

    files = surfaces.run_mesh(
        command.run,
        formats=command.format,
        resolution=command.resolution,
        faces=command.faces,
        output=command.output,
        backend=command.backend,
    )
    _print_lines(str(path) for path in files)
    return 0


def _render(command: Render) -> int:
    from quicksurf import views

    request = views.RenderRequest(command.path, command.frames, command.size, command.rate, command.output)
    _print_lines(str(path) for path in views.render_run(command.run, request, command.backend))
    return 0


def _eval(command: Eval) -> int:
    from quicksurf import evaluation, pipeline

    roi = pipeline.parse_roi(command.roi) if command.roi is not None else None
    _print_lines(evaluation.evaluate(command.target, command.truth, roi, command.views, command.backend))
    return 0


def _demo(command: Demo, stop: StopRequest) -> int:
    from quicksurf import evaluation

    _print_lines(
        evaluation.run_demo(command.output, command.minutes, command.backend, stop, quiet=command.quiet)
    )
    return 0


def _doctor() -> int:
    from quicksurf import doctor

    findings = doctor.examine()
    print(doctor.report(doctor.machine(), findings))
    return 0 if all(finding.works or not finding.required for finding in findings) else 1


def _backend_name(device: str, backend: str) -> str:
    """`--device cpu` rules out a GPU: of the back ends that "auto" may choose, cpu is the one without."""
    return "cpu" if backend == "auto" and device == "cpu" else backend


def _print_lines(lines: Iterable[str]) -> None:
    """Print each line as soon as it is there: some take a while."""
    for line in lines:
        print(line, flush=True)


def _say(message: str, code: int) -> int:
    """One line on standard error; newlines inside a library's message are folded."""
    if os.environ.get(DEBUG) == "1" and code != INTERRUPTED:
        traceback.print_exc()
    print(f"quicksurf: {' '.join(message.split())}", file=sys.stderr)
    return code


def _describe_crash(error: Exception, command: object) -> str:
    """Save the traceback beside the run if there is one, else in the temporary folder; say where."""
    folder = getattr(command, "output", None) or getattr(command, "run", None)
    if folder is None or not Path(folder).is_dir():
        folder = tempfile.gettempdir()
    path = Path(folder) / "traceback.txt"
    try:
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError:
        return f"a bug: {type(error).__name__}: {error} (set {DEBUG}=1 for the traceback)"
    return f"a bug: {type(error).__name__}: {error} (traceback in {path})"
