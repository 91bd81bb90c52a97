"""The command line: parse, call, print. No maths, and no import of torch until a command needs it.

Exit codes: 0 done · 1 a bug (its traceback is saved to a file) · 2 usage · 130 left by Ctrl-C · the others are those
of quicksurf.errors, one per kind of bad input.
"""

import io
import json
import os
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quicksurf.app.budget import StopRequest, process_start, signals_noted
from quicksurf.app.console import INTERRUPTED, describe_crash, say
from quicksurf.app.plain import MAX_LINE, plain
from quicksurf.errors import DOUBTFUL, ImageError, OutputError, QuicksurfError

if TYPE_CHECKING:
    from quicksurf.app.commands import (
        Batch,
        Command,
        Compare,
        Demo,
        Eval,
        Fit,
        Masks,
        Mesh,
        Render,
        Report,
        View,
    )
    from quicksurf.app.export.request import MeshRequest
    from quicksurf.app.listener import Listener

USAGE = 2


def entry_point() -> None:
    """Run the `quicksurf` executable."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show must not end a run
            stream.reconfigure(errors="backslashreplace")
    sys.exit(main(sys.argv[1:], started=process_start()))


def main(arguments: Sequence[str], *, started: float | None = None) -> int:
    """Run one command; return its exit code.

    Args:
        arguments: the command line without the program's name.
        started: moment of time.monotonic that `--minutes` count from; the call's if None.
    """
    started = time.monotonic() if started is None else started
    command = None
    try:
        with signals_noted(StopRequest()) as stop:
            command = _parse(arguments)
            return command if isinstance(command, int) else _dispatch(command, started, stop)
    except QuicksurfError as error:
        return _fail(arguments, str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail(arguments, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        _let_go_of_output()  # the reader has left
        return 0
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:  # the machine's fault, or the name's
            said = f"cannot use {error.filename}: {error.strerror}; choose another path"
            return _fail(arguments, said, OutputError.exit_code)
        return _fail(arguments, describe_crash(error, command), 1)


def _fail(arguments: Sequence[str], message: str, code: int) -> int:
    """Say what went wrong, with `--json` on standard output as well, for programs that read it."""
    if "--json" in arguments:
        with suppress(QuicksurfError, BrokenPipeError):
            _print_lines([json.dumps({"error": plain(message), "code": code})])
    return say(message, code)


def _parse(arguments: Sequence[str]) -> "Command | int":
    """The command, or the exit code if there is none to run: after help, or a usage error."""
    from quicksurf.app.commands import UsageError, parse  # a quarter of a second, in which Ctrl-C may fall

    with _printing():
        try:
            return parse(arguments)
        except UsageError as error:
            return _fail(arguments, str(error), USAGE)
        except SystemExit as leaving:
            return leaving.code if isinstance(leaving.code, int) else USAGE if leaving.code else 0


def _dispatch(command: "Command", started: float, stop: StopRequest) -> int:
    from quicksurf.app.commands import Batch, Compare, Demo, Eval, Fit, Masks, Mesh, Render, Report, View

    _look_for_input(command)
    if isinstance(command, Fit):
        return _fit(command, started, stop)
    if isinstance(command, Mesh):
        return _mesh(command)
    if isinstance(command, Render):
        return _render(command)
    if isinstance(command, Report):
        return _report(command)
    if isinstance(command, Eval):
        return _eval(command)
    if isinstance(command, Batch):
        return _batch(command, stop)
    if isinstance(command, Compare):
        return _compare(command, stop)
    if isinstance(command, Masks):
        return _masks(command)
    if isinstance(command, View):
        return _view(command, stop)
    if isinstance(command, Demo):
        return _demo(command, stop)
    return _doctor()


def _look_for_input(command: "Command") -> None:
    """Say at once that the input is not there: what reads it takes seconds to import.

    Raises:
        ImageError: if a capture is absent.
        OutputError: if a run is, or its path cannot be one.
    """
    source, run = getattr(command, "source", None), getattr(command, "run", None)
    if source is not None and not os.path.exists(source):
        raise ImageError(
            f"{source}: no such file or folder; give a folder of photos, a video or a camera file"
        )
    if run is not None and not os.path.exists(run):
        raise OutputError(
            f"{run} is not a run folder (no such folder): give a folder that `quicksurf fit` has made"
        )


def _fit(command: "Fit", started: float, stop: StopRequest) -> int:
    from quicksurf.app.fit import run_fit
    from quicksurf.app.requests import FitRequest, parse_roi

    request = FitRequest(
        source=command.source,
        minutes=command.minutes,
        output=command.output,
        resume=command.resume,
        roi=parse_roi(command.roi) if command.roi is not None else None,
        capture=command.capture,
        masks=command.masks,
        mesh=_mesh_request(command),
        preset=command.preset,
        device=command.device,
        seed=command.seed,
        method=command.method,
        appearance=command.appearance,
        hold_out=command.hold_out,
    )
    with _watching(command) as listener:
        result = run_fit(
            request,
            started=started,
            stop=stop,
            quiet=command.quiet,
            stream=sys.stderr if command.json else sys.stdout,
            listener=listener,
        )
    if command.json:
        _print_lines([json.dumps(result.summary)])
    elif not command.quiet:
        shown_again = [] if listener is None else [f"quicksurf view {result.run.path} shows it again"]
        _print_lines([*result.describe(), *shown_again])
    return DOUBTFUL if result.problems else 0


@contextmanager
def _watching(command: "Fit") -> "Iterator[Listener | None]":
    """The page that `--view` asks for, if it does."""
    if not command.view and command.view_at is None:
        yield None
        return
    from quicksurf.app.live.server import Address, parse_address
    from quicksurf.app.live.session import live_view

    with live_view(Address() if command.view_at is None else parse_address(command.view_at)) as listener:
        if command.quiet:  # a page that nobody can find is no use
            print(listener.greeting, file=sys.stderr, flush=True)
        yield listener


def _mesh_request(command: "Fit | Mesh") -> "MeshRequest":
    from quicksurf.app.export.request import MeshRequest

    return MeshRequest(
        command.format,
        command.resolution,
        command.faces,
        command.keep,
        command.watertight or None,
        command.texture,
        command.texture_size,
        command.confidence,
        command.trim,
    )


def _mesh(command: "Mesh") -> int:
    from quicksurf.app.export.surface import run_mesh

    request = replace(
        _mesh_request(command), scale_from=command.scale_from, up=command.up, level=command.level
    )
    files, report = run_mesh(command.run, request, command.output, command.device)
    _print_lines([*map(str, files), f"{report.faces:,} faces; {report.describe()}"])
    return 0


def _render(command: "Render") -> int:
    from quicksurf.app import render as views

    look = command.light_of or (), command.renderer
    camera = command.path, command.frames, command.size, command.rate
    request = views.RenderRequest(*camera, command.output, *look)
    _print_lines(str(path) for path in views.render_run(command.run, request, command.device))
    return 0


def _report(command: "Report") -> int:
    from quicksurf.app.report.page import report_run

    _print_lines([str(report_run(command.run, command.device))])
    return 0


def _eval(command: "Eval") -> int:
    from quicksurf.app import evaluate as evaluation
    from quicksurf.app.requests import parse_roi

    roi = parse_roi(command.roi) if command.roi is not None else None
    _print_lines(evaluation.evaluate(command.target, command.truth, roi, command.views, command.device))
    return 0


def _batch(command: "Batch", stop: StopRequest) -> int:
    from quicksurf.app.batch.run import BatchRequest, run_batch

    settings = [] if command.masks is None else ["--masks", command.masks]
    if command.preset is not None:  # a file by its full path: the fit may run elsewhere, in another folder
        preset = Path(command.preset)
        settings += ["--preset", str(preset.resolve()) if preset.is_file() else command.preset]
    request = BatchRequest(
        command.captures,
        command.minutes,
        command.output,
        command.jobs,
        command.ray,
        command.device,
        options=("--format", *command.format),
        settings=tuple(settings),
    )
    stop.worthwhile = True
    return _print_outcomes(run_batch(request, stop, lambda text: say(f"warning: {text}", 0)), stop)


def _print_outcomes(outcomes: Generator[Any, None, None], stop: StopRequest) -> int:
    """Print outcomes as they come; return the code of the first that failed, 130 after a stop."""
    codes = []
    with closing(outcomes):
        for outcome in outcomes:
            _print_lines([outcome.describe()])
            codes += [outcome.exit_code] if outcome.state == "failed" else []
    return INTERRUPTED if stop() else next(iter(codes), 0)


def _compare(command: "Compare", stop: StopRequest) -> int:
    from quicksurf.app.compare.run import CompareRequest, run_compare

    request = CompareRequest(**vars(command))
    stop.worthwhile = True
    return _print_outcomes(run_compare(request, stop, lambda text: _print_lines([text])), stop)


def _masks(command: "Masks") -> int:
    from quicksurf.app.masks import make_mask_files
    from quicksurf.app.requests import parse_roi

    roi = parse_roi(command.roi) if command.roi is not None else None
    _print_lines(make_mask_files(command.source, command.output, roi, lambda line: _print_lines([line])))
    return 0


def _view(command: "View", stop: StopRequest) -> int:
    from quicksurf.app.live.replay import view_run
    from quicksurf.app.live.server import Address, parse_address

    address = Address() if command.view_at is None else parse_address(command.view_at)
    stop.listen_again()  # the imports are done
    stop.worthwhile = True
    view_run(command.run, address, stop, lambda text: _print_lines([text]), command.device)
    return 0


def _demo(command: "Demo", stop: StopRequest) -> int:
    from quicksurf.app import evaluate as evaluation

    options = command.output, command.minutes, command.device, stop
    _print_lines(evaluation.run_demo(*options, quiet=command.quiet))
    return 0


def _doctor() -> int:
    from quicksurf.app import doctor

    findings = doctor.examine()
    _print_lines([doctor.report(doctor.machine(), findings)])
    return 0 if all(finding.works or not finding.required for finding in findings) else 1


def _print_lines(lines: Iterable[str]) -> None:
    """Print each line as soon as it is there: some take a while."""
    for text in lines:
        for line in text.split("\n"):
            with _printing():
                print(plain(line, len(line) + MAX_LINE))


@contextmanager
def _printing() -> Iterator[None]:
    """Have written at the end of the block what it prints.

    Raises:
        BrokenPipeError: if the reader has left.
        OutputError: if the disk is full.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _let_go_of_output()
        raise OutputError(f"cannot write to standard output: {error.strerror or error}") from error


def _let_go_of_output() -> None:
    """Send what is still buffered nowhere: Python flushes once more at exit, and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
