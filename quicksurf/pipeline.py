"""One command from end to end: read → (poses) → fit → mesh → files → summary, against the clock.

The order is chosen so that a stop at any moment costs little: the run folder is claimed first, cameras are written as
soon as they are known, the field is saved about once a minute and before the mesh is begun, and the mesh is always
made of the best field there is.
"""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from quicksurf.backends import Backend
from quicksurf.budget import Budget, StopRequest, mesh_evaluations
from quicksurf.config import Config, load_config, to_toml
from quicksurf.data.load import ReadOptions
from quicksurf.data.scene import Roi, Scene
from quicksurf.errors import ConfigError, OutputError, QuicksurfError, RoiError
from quicksurf.fitting import FitStatus, fit_scene
from quicksurf.hardware import load_backend
from quicksurf.io import write_text
from quicksurf.mesh.export import write_mesh
from quicksurf.mesh.types import Mesh
from quicksurf.reconstruction import Reconstruction
from quicksurf.resume import keep_points, read_capture
from quicksurf.runs import Claim, Run, claim_run, default_output, is_run, open_run
from quicksurf.status import Silent, Stream, reporting
from quicksurf.surfaces import check_formats, check_surface, mesh_options, with_mesh

DEFAULT_MINUTES = 10.0
WARM_UP = 0.05  # progress before which the measured speed is that of cold caches and half the levels

Fit = Callable[..., Reconstruction]


@dataclass(frozen=True)
class FitRequest:
    """What `quicksurf fit` and `quicksurf.fit` are asked for."""

    source: Path
    minutes: float | None = None
    output: Path | None = None
    resume: bool = False
    roi: Roi | None = None
    masks: bool = True
    formats: tuple[str, ...] = ("ply",)
    resolution: int | None = None
    faces: int | None = None
    preset: str | None = None
    backend: str = "auto"
    seed: int | None = None


class FitResult(NamedTuple):
    """What a fit leaves in memory; the same is in the run folder."""

    run: Run
    reconstruction: Reconstruction
    summary: dict[str, Any]


@dataclass
class _Session:
    """One command at work on one run."""

    request: FitRequest
    run: Run
    resumed: Reconstruction | None
    """What the run's checkpoint holds, to go on with."""
    config: Config
    backend: Backend
    budget: Budget
    reporter: Silent
    stop: StopRequest
    last: FitStatus | None = None
    unsaved: OutputError | None = None
    """Why the newest checkpoint could not be written, if it could not."""
    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        """Tell the user now and in summary.json."""
        self.warnings.append(text)
        self.reporter.warn(text)

    def evaluations_per_second(self) -> float:
        """Measured speed of the field in training: a lower bound of its speed while the mesh is made."""
        return 0.0 if self.last is None else self.last.rays_per_second * self.last.evaluations_per_ray


def run_fit(
    request: FitRequest,
    *,
    started: float | None = None,
    stop: StopRequest | None = None,
    quiet: bool = True,
    stream: Stream | None = None,
    fit: Fit = fit_scene,
) -> FitResult:
    """Do what `request` asks; return within its minutes.

    Args:
        started: moment of time.monotonic that the minutes count from; now if None.
        stop: consulted during the fit; once set, the mesh is made of what there is.
        quiet: print nothing.
        stream: where progress goes; standard output if None.
        fit: the training loop.

    Raises:
        QuicksurfError: for every input that cannot be used; what the run folder held before is still there.
    """
    started = time.monotonic() if started is None else started
    stop = stop or StopRequest()
    stop.listen_again()  # the imports are done
    check_formats(request.formats)
    run = _claim(request)
    with run.locked():
        try:
            budget = _budget(request, run, started)
            backend = load_backend(request.backend)
            resumed = run.load_checkpoint(backend) if run.checkpoint_folder() is not None else None
            config = _resolve_config(request, run, resumed)
            with reporting(run.source.name, budget, quiet=quiet, stream=stream) as reporter:
                session = _Session(request, run, resumed, config, backend, budget, reporter, stop)
                return _work(session, fit)
        except (QuicksurfError, KeyboardInterrupt):
            run.discard_if_unused()
            raise


def parse_roi(text: str) -> Roi:
    """`cx,cy,cz,r` as a ball.

    Raises:
        RoiError: if it is not four finite numbers with a positive radius.
    """
    try:
        x, y, z, radius = (float(part) for part in text.split(","))
    except ValueError as error:
        raise RoiError(
            f"--roi {text!r} is not cx,cy,cz,r: give four numbers in the cameras' frame"
        ) from error
    return as_roi((x, y, z, radius))


def as_roi(values: Sequence[float]) -> Roi:
    """(cx, cy, cz, r) as a ball.

    Raises:
        RoiError: if it is not four finite numbers with a positive radius.
    """
    try:
        x, y, z, radius = (float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise RoiError(f"the ROI {values!r} is not (cx, cy, cz, r): give four numbers") from error
    if not all(abs(value) < float("inf") for value in (x, y, z, radius)) or radius <= 0:
        raise RoiError(
            f"the ROI {x:g},{y:g},{z:g},{radius:g}: the centre must be finite and the radius above 0"
        )
    return Roi((x, y, z), radius)


def describe(result: FitResult) -> list[str]:
    """What came out, for a person."""
    summary = result.summary
    seconds = summary["seconds"]
    held_out = summary["psnr_held_out"]
    parts = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items() if name != "total")
    return [
        *(f"{result.run.path / name}" for name in summary["files"]),
        f"{summary['faces']:,} faces; {summary['registered']} of {summary['photos']} photos used; "
        + ("no held-out views" if held_out is None else f"{held_out:.2f} dB on held-out views"),
        f"{seconds['total']:.1f} s ({parts}), {summary['peak_memory_mb']:.0f} MB, {summary['backend']}",
    ]


def _claim(request: FitRequest) -> Run:
    """Take the run folder; a run given as the source stands for its own capture and folder."""
    source, output = request.source, request.output
    if is_run(source):
        if output is not None and output.resolve() != source.resolve():
            raise OutputError(f"{source} is a run: it goes on in its own folder, leave out --output")
        source, output = open_run(source).source, source
    output = output or default_output(source.stem)
    return claim_run(output, Claim(source, request.resume, request.minutes is not None))


def _minutes(request: FitRequest, run: Run) -> float:
    """What was asked for; else what an unfinished run has left of its plan; else the default."""
    if request.minutes is not None:
        return request.minutes
    planned, spent = (run.record.get(name) for name in ("minutes", "minutes_spent"))
    if run.state == "unfinished" and isinstance(planned, float) and isinstance(spent, float):
        return max(1.0, planned - spent)
    return DEFAULT_MINUTES


def _budget(request: FitRequest, run: Run, started: float) -> Budget:
    """The clock of this command; a mesh that was made before tells how long the next one takes."""
    budget = Budget(60 * _minutes(request, run), started=started)
    if run.state == "finished":
        seconds = run.read_summary().get("seconds")
        if not isinstance(seconds, dict) or not isinstance(seconds.get("mesh"), (int, float)):
            raise OutputError(
                f"{run.path / 'summary.json'} is damaged: it lacks seconds.mesh; delete it and --resume"
            )
        budget.expect_mesh_seconds(seconds["mesh"])
    return budget


def _resolve_config(request: FitRequest, run: Run, resumed: Reconstruction | None) -> Config:
    """The preset and options of a new run; the checkpoint's settings for one that goes on, but for the mesh's.

    Raises:
        ConfigError: if options or an edited config.toml ask for others than the field was fitted with.
    """
    if resumed is None:
        seed = {} if request.seed is None else {"train.seed": request.seed}
        config = load_config(request.preset, seed)
        return with_mesh(config, request.resolution, request.faces)
    _refuse_changes(request, run)
    kept = run.path / "config.toml"
    config = load_config(kept, {}) if kept.exists() else resumed.config
    if replace(config, mesh=resumed.config.mesh) != resumed.config:
        raise ConfigError(
            f"{kept} is not what the run was fitted with: delete it to go on with the settings of the checkpoint, or "
            f"fit anew with --preset {kept} and another --output"
        )
    resumed.config = with_mesh(config, request.resolution, request.faces)
    return resumed.config


def _refuse_changes(request: FitRequest, run: Run) -> None:
    """Refuse options that the field of the run was not fitted with.

    Raises:
        ConfigError: naming them.
    """
    asked = {
        "--preset": request.preset is not None,
        "--seed": request.seed is not None,
        "--roi": request.roi is not None,
        "--no-masks": not request.masks and run.record.get("masks") is True,
    }
    changes = [option for option, given in asked.items() if given]
    if changes:
        raise ConfigError(f"{run.path} goes on as it began: leave out {' and '.join(changes)}")


def _work(session: _Session, fit: Fit) -> FitResult:
    scene = _read(session)
    began = session.budget.elapsed()
    reconstruction = _fit(session, scene, fit)
    fitted = session.budget.elapsed()
    mesh, files = _mesh(session, reconstruction)
    summary = _summary(session, scene, reconstruction)
    summary.update(faces=len(mesh.faces), vertices=len(mesh.vertices), files=[path.name for path in files])
    summary["seconds"] = _stages(scene.report.seconds_poses, began, fitted, session.budget.elapsed())
    session.run.finish(summary)
    if session.unsaved is not None:
        raise OutputError(
            f"the mesh is written, but the field is not: {session.unsaved}; the run cannot go on from here"
        )
    return FitResult(session.run, reconstruction, summary)


def _stages(poses: float, began: float, fitted: float, total: float) -> dict[str, float]:
    """Seconds of each stage, which add up to the whole: `read` holds start-up and imports, `mesh` the files.

    Args:
        poses: seconds that structure from motion took, between the start and `began`.
        began: when the fit began.
        fitted: when it ended and the mesh was begun.
        total: when everything was done.
    """
    seconds = {
        "read": began - poses,
        "poses": poses,
        "fit": fitted - began,
        "mesh": total - fitted,
        "total": total,
    }
    return {name: round(value, 3) for name, value in seconds.items()}


def _read(session: _Session) -> Scene:
    """The capture, with the poses that an earlier command of this run found, if any; kept before the fit begins."""
    session.reporter.stage("read")
    request, run = session.request, session.run
    masks = request.masks if session.resumed is None else run.record.get("masks") is True
    options = ReadOptions(
        max_pixels=session.config.train.max_pixels,
        use_masks=masks,
        roi=request.roi or run.roi,
        work_folder=run.path / "poses",
        pose_seconds=session.budget.poses_seconds(),
        say=session.reporter.note,
    )
    scene = read_capture(run, options)
    for warning in scene.report.warnings:
        session.warn(warning)
    write_text(run.path / "config.toml", to_toml(session.config))
    keep_points(run, scene.points)
    run.keep_scene(scene, masks, session.budget.seconds / 60)
    return scene


def _fit(session: _Session, scene: Scene, fit: Fit) -> Reconstruction:
    """Fit until the clock or the user says stop, and save the field."""
    run, budget = session.run, session.budget
    session.reporter.stage("fit")
    session.stop.listen_again()  # reading may have imported more
    session.stop.worthwhile = True
    run.begin_fit()
    reconstruction = fit(
        scene,
        session.config,
        session.backend,
        seconds=budget.fit_seconds(),
        resume=session.resumed,
        on_status=lambda status: _note_status(session, status),
        should_stop=lambda: session.stop() or budget.fit_is_over(),
        on_checkpoint=lambda newest: _save(session, newest),
    )
    _save(session, reconstruction)
    return reconstruction


def _note_status(session: _Session, status: FitStatus) -> None:
    session.last = status
    if status.progress > WARM_UP:
        evaluations = mesh_evaluations(session.config.mesh.resolution)
        session.budget.expect_mesh(evaluations, session.evaluations_per_second())
    session.reporter.fit(status)
    with suppress(OSError):  # a full disk is met, and said, when the field is saved
        session.run.append_metrics(status._asdict())


def _save(session: _Session, reconstruction: Reconstruction) -> None:
    """Save the field; a disk that is full now may have room later or for the smaller mesh, so the work goes on."""
    try:
        session.run.save_checkpoint(reconstruction)
        session.run.update(minutes_spent=session.budget.elapsed() / 60)
        session.unsaved = None
    except OutputError as error:
        session.unsaved = error
        session.warn(f"checkpoint not saved: {error}")


def _mesh(session: _Session, reconstruction: Reconstruction) -> tuple[Mesh, list[Path]]:
    """Make and write the mesh, coarser than configured, or asked for, if the time left demands it."""
    session.reporter.stage("mesh")
    config = session.config.mesh
    mesh, report = reconstruction.mesh(mesh_options(config, session.budget.mesh_seconds()))
    if report.resolution < config.resolution:
        session.warn(
            f"mesh at resolution {report.resolution}, not {config.resolution}: no time for more; "
            f"quicksurf mesh {session.run.path} makes the finer one"
        )
    check_surface(mesh, reconstruction.roi, reconstruction.psnr_held_out)
    return mesh, write_mesh(mesh, session.run.path, "mesh", session.request.formats)


def _summary(session: _Session, scene: Scene, reconstruction: Reconstruction) -> dict[str, Any]:
    return {
        "photos": scene.report.photos,
        "registered": len(scene.images),
        "lost": scene.report.lost,
        "seconds_fitted": reconstruction.seconds_fitted,
        "minutes": session.budget.seconds / 60,
        "stopped_early": session.stop(),
        "psnr_held_out": reconstruction.psnr_held_out,
        "device": str(session.backend.device),
        "backend": session.backend.name,
        "peak_memory_mb": round(_peak_memory_mb(), 1),
        "roi": [*reconstruction.roi.center, reconstruction.roi.radius],
        "warnings": session.warnings,
    }


def _peak_memory_mb() -> float:
    """Largest resident memory of this process or of one that it started (structure from motion) so far.

    They are not added up: this process waits, small, while the other works. Linux counts kilobytes, macOS bytes
    (getrusage(2)).
    """
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
