"""One command from end to end: read → (poses) → fit → mesh → files → summary, against the clock.

The order is chosen so that a stop at any moment costs little: the run folder is claimed first, cameras are written as
soon as they are known, the field is saved about once a minute and before the mesh is begun, and the mesh is always
made of the best field there is.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from quicksurf import kernels
from quicksurf.app.budget import WRITE_SECONDS, Budget, StopRequest, mesh_evaluations
from quicksurf.app.export.products import TEXTURED_FACES, ExportedMesh
from quicksurf.app.export.surface import CONFIDENCE, TEXTURED, check_surface, drop_older, mesh_options
from quicksurf.app.export.texture_cost import affordable_texture
from quicksurf.app.listener import Harmless, Listener
from quicksurf.app.progress import Several, Silent, Stream, Warnings, reporting
from quicksurf.app.report.page import NAME, write_report
from quicksurf.app.requests import (
    FitRequest,
    as_fitted,
    budget_of,
    claim,
    mask_use,
    resolve_config,
    with_kind,
)
from quicksurf.app.run.folder import Run
from quicksurf.app.run.resources import peak_memory_mb, stage_seconds
from quicksurf.app.run.resume import keep_masks, keep_points, read_capture
from quicksurf.app.run.space import check_space
from quicksurf.capture.dense_points import find_dense_points
from quicksurf.capture.load import ReadOptions
from quicksurf.capture.scene import Scene
from quicksurf.capture.transforms import write_cameras
from quicksurf.config import Config, to_toml
from quicksurf.errors import ImageError, OutputError, QuicksurfError, SurfaceError
from quicksurf.files import write_text
from quicksurf.kernels import Backend
from quicksurf.mesh.build import MeshReport
from quicksurf.mesh.export import check_formats, write_mesh
from quicksurf.mesh.points import distances_to_points
from quicksurf.mesh.precision import offset_of
from quicksurf.mesh.texture.files import write_textured
from quicksurf.mesh.types import Mesh
from quicksurf.methods import load as load_method
from quicksurf.model import BACKGROUND_START, TrainedModel
from quicksurf.train.hits import Hits
from quicksurf.train.loop import FitStatus, fit_scene

REPORT_MARGIN, REPORT_MIN = 1.0, 2.0  # seconds kept back, and needed for the figures of photos and coverage
_KINDS = {
    "around": "photos around an object (--capture around)",
    "facade": "photos of one side of something (--capture facade)",
    "inside": "photos from inside what they show (--capture inside)",
}
MASKS_FRACTION = 0.2  # of what is left when the photos are read: making masks may take no more
DENSE_FRACTION = 0.12  # of what is left: stereo may take no more
WARM_UP = 0.05  # progress before which the measured speed is that of cold caches and half the levels

Fit = Callable[..., TrainedModel]


class FitResult(NamedTuple):
    """What a fit leaves in memory; the same is in the run folder."""

    run: Run
    reconstruction: TrainedModel
    summary: dict[str, Any]
    report: Path | None
    """The page of the run, if there was time for it."""

    @property
    def problems(self) -> list[str]:
        """What speaks against the poses and the surface."""
        return [*self.summary["poses"]["problems"], *self.summary["points"]["problems"]]


@dataclass
class _Session:
    """One command at work on one run."""

    request: FitRequest
    run: Run
    resumed: TrainedModel | None
    """What the run's checkpoint holds, to go on with."""
    config: Config
    backend: Backend
    budget: Budget
    reporter: Silent
    listener: Listener
    stop: StopRequest
    warnings: Warnings
    last: FitStatus | None = None
    hits: Hits | None = None
    """Whether rays meet anything, once the region is known."""
    unsaved: OutputError | None = None
    """Why the newest checkpoint could not be written, if it could not."""
    surface_measured: bool = False
    """Whether the surface itself has told how long its mesh will take."""
    left_out: list[str] = field(default_factory=list)
    """What there was no time for."""

    def warn(self, text: str) -> None:
        """Tell the user now and in summary.json."""
        self.warnings.add(text)

    def leave_out(self, text: str) -> None:
        """Tell the user what there is no time for."""
        self.left_out.append(text)
        self.warn(text)

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
    listener: Listener | None = None,
    fit: Fit = fit_scene,
) -> FitResult:
    """Do what `request` asks; return within its minutes.

    Args:
        started: moment of time.monotonic that the minutes count from; now if None.
        stop: consulted during the fit; once set, the mesh is made of what there is.
        quiet: print nothing.
        stream: where progress goes; standard output if None.
        listener: sees the fit and may steer it.
        fit: the training loop.

    Raises:
        QuicksurfError: for every input that cannot be used; what the run folder held before is still there.
    """
    started = time.monotonic() if started is None else started
    stop, warnings = stop or StopRequest(), Warnings()
    listener = Harmless(listener or Listener(), warnings.add)
    stop.listen_again()  # the imports are done
    check_formats(request.formats)
    run = claim(request)
    with run.locked():
        try:
            if run.failed and not request.resume:
                run.begin_anew()
            budget = budget_of(request, run, started)
            backend = kernels.load(request.device)
            resumed = run.load_checkpoint(backend) if run.checkpoint_folder() is not None else None
            config = resolve_config(request, run, resumed, budget.seconds, backend)
            request.extras.check(watertight=config.mesh.watertight)
            check_space(run, config)
            listener.begin(budget, stop)
            with reporting(run.source.name, budget, quiet=quiet, stream=stream) as terminal:
                reporter = warnings.reporter = Several(terminal, listener)
                reporter.note(f"{backend.name}: {backend.reason}")
                reporter.note(f"model: {config.model.describe()}")
                if config.train.method != Config().train.method:
                    reporter.note(f"method: {config.train.method}")
                if listener.greeting is not None:
                    reporter.note(listener.greeting)
                session = _Session(
                    request, run, resumed, config, backend, budget, reporter, listener, stop, warnings
                )
                return _work(session, fit)
        except (QuicksurfError, KeyboardInterrupt):
            run.discard_if_unused()
            raise


def describe(result: FitResult) -> list[str]:
    """Tell what came out, for a person."""
    summary = result.summary
    seconds = summary["seconds"]
    held_out = summary["psnr_held_out"]
    parts = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items() if name != "total")
    return [
        *(f"{result.run.path / name}" for name in summary["files"]),
        *([] if result.report is None else [str(result.report)]),
        f"{summary['faces']:,} faces; {summary['registered']} of {summary['photos']} photos used; "
        + ("no held-out views" if held_out is None else f"{held_out:.2f} dB on held-out views")
        + (", which then joined the fit" if summary["held_out"]["joined"] else ""),
        summary["surface"],
        *_points_line(summary["points"]),
        f"{seconds['total']:.1f} s ({parts}), {summary['peak_memory_mb']:.0f} MB, {summary['backend']}",
        *(f"doubtful: {problem}" for problem in result.problems),
    ]


def _points_line(points: dict[str, Any]) -> list[str]:
    if points["median_percent"] is None:
        return []
    return [
        f"{points['points']:,} points that the photos confirm lie {points['median_percent']:.2f} % of the region's "
        f"radius from the mesh (median); {points['far']:.0%} lie farther than 2 %"
    ]


def _work(session: _Session, fit: Fit) -> FitResult:
    scene = _read(session)
    session.budget.keep_back(session.request.extras.seconds(len(scene.images)))
    began = session.budget.elapsed()
    reconstruction = _fit(session, scene, fit)
    fitted = session.budget.elapsed()
    try:
        mesh, report, files = _mesh(session, reconstruction, scene)
    except SurfaceError as error:
        session.run.update(failed=str(error))
        raise
    summary = _summary(session, scene, reconstruction)
    summary.update(faces=len(mesh.faces), vertices=len(mesh.vertices), files=[path.name for path in files])
    summary.update(mesh=asdict(report), surface=report.describe(), offset=offset_of(mesh.vertices).tolist())
    summary["points"] = _points(session, scene, mesh)
    summary["seconds"] = stage_seconds(scene.report.seconds_poses, began, fitted, session.budget.elapsed())
    page_seconds = _report_seconds(session)
    session.run.finish(summary)
    session.listener.meshed(mesh, files)
    if session.unsaved is not None:
        older = session.run.checkpoint_folder() is not None
        raise OutputError(
            f"the mesh is written, but the field is not: {session.unsaved}; the run "
            + ("can go on from its last checkpoint" if older else "cannot go on from here")
        )
    page = None
    if page_seconds is not None:
        page = _report(session, scene, reconstruction, mesh, summary, page_seconds)
    return FitResult(session.run, reconstruction, summary, page)


def _report_seconds(session: _Session) -> float | None:
    """What the report may take; None, and an older page removed, where there is no time for one."""
    seconds = session.budget.left() - REPORT_MARGIN
    if seconds >= REPORT_MIN:
        return seconds
    (session.run.path / NAME).unlink(missing_ok=True)  # it shows an older field
    session.leave_out(f"no time for {NAME}: quicksurf report {session.run.path} makes it")
    return None


def _report(
    session: _Session,
    scene: Scene,
    reconstruction: TrainedModel,
    mesh: Mesh,
    summary: dict[str, Any],
    seconds: float,
) -> Path | None:
    """The page of the run, of what `seconds` allow."""
    try:
        return write_report(session.run, summary, reconstruction, scene, mesh, seconds=seconds)
    except Exception as error:  # the mesh and its summary are there: whatever it is costs the page alone
        session.leave_out(f"no {NAME}: {error}; quicksurf report {session.run.path} makes it")
        with suppress(OutputError):
            session.run.finish(summary)
        return None


def _read(session: _Session) -> Scene:
    """The capture, with the poses that an earlier command of this run found, if any; kept before the fit begins."""
    session.reporter.stage("read")
    request, run = session.request, session.run
    capture = session.config.train.capture
    masks = mask_use(request, session.budget.seconds) if session.resumed is None else None
    options = ReadOptions(
        kind=None if capture == "auto" else capture,
        max_pixels=session.config.train.max_pixels,
        use_masks=run.record.get("masks") is True if masks is None else masks.use_given,
        mask_folder=None if masks is None else masks.folder,
        saliency=None if masks is None else masks.saliency,
        mask_seconds=MASKS_FRACTION * session.budget.left(),
        roi=request.roi or run.roi,
        work_folder=run.path / "poses",
        pose_seconds=session.budget.poses_seconds(),
        points_seconds=session.budget.points_seconds,
        say=session.reporter.note,
    )
    scene = read_capture(run, options)
    expected = load_method(session.config).without_masks
    unmasked = [expected] if expected is not None and all(mask is None for mask in scene.masks) else []
    for warning in [*scene.report.warnings, *unmasked]:
        session.warn(warning)
    if session.resumed is not None:
        scene = as_fitted(scene, session.resumed, run)
    else:
        session.config = with_kind(session.config, scene.kind)
        session.reporter.note(f"capture: {_KINDS[scene.kind]}")
        if session.config.train.hold_out == "none":
            scene = replace(scene, held_out=np.zeros_like(scene.held_out))
        if request.roi is None:
            scene = replace(scene, roi=session.listener.choose_roi(scene))
    session.hits = Hits(scene.roi)
    session.listener.captured(scene)
    write_text(run.path / "config.toml", to_toml(session.config))
    keep_points(run, scene.points)
    keep_masks(run, scene)
    used = options.use_masks or bool(scene.report.made_masks.photos)
    run.keep_scene(scene, used, session.budget.seconds / 60)
    if masks is not None:
        run.update(**masks.record, made_masks=scene.report.made_masks.record())
    return _with_dense_points(session, scene)


def _with_dense_points(session: _Session, scene: Scene) -> Scene:
    """The capture with what stereo finds in its fraction of the time."""
    train = session.config.train
    if not train.dense_weight or not train.points_weight:
        return scene
    seconds = DENSE_FRACTION * session.budget.left()
    return replace(scene, dense=find_dense_points(scene, seconds, train.seed, session.reporter.note))


def _fit(session: _Session, scene: Scene, fit: Fit) -> TrainedModel:
    """Fit until the clock or the user says stop, and save the field."""
    run, budget = session.run, session.budget
    session.reporter.stage("fit")
    session.stop.listen_again()  # reading may have imported more
    session.stop.worthwhile = True
    budget.begin_fit()
    run.begin_fit()
    reconstruction = fit(
        scene,
        session.config,
        session.backend,
        seconds_left=budget.fit_seconds_left,
        now=budget.now,
        resume=session.resumed,
        on_step=session.listener.step,
        on_status=lambda status: _note_status(session, status),
        should_stop=session.stop,
        on_checkpoint=lambda newest: _checkpoint(session, newest),
    )
    _save(session, reconstruction)
    return reconstruction


def _note_status(session: _Session, status: FitStatus) -> None:
    session.last = status
    if session.hits is not None and session.hits.none_left(status):
        if session.resumed is None:
            session.run.begin_anew()
        raise session.hits.error()
    if session.hits is not None and session.hits.nearly_none(status):
        session.warn(session.hits.warning())
    if status.progress > WARM_UP and not session.surface_measured:
        evaluations = mesh_evaluations(session.config.mesh.resolution)
        session.budget.expect_mesh(evaluations, session.evaluations_per_second())
    session.reporter.fit(status)
    with suppress(OSError):  # a full disk is met, and said, when the field is saved
        session.run.append_metrics(status._asdict())


def _checkpoint(session: _Session, newest: TrainedModel) -> None:
    """Save the field, and keep back what its surface will take to be made a mesh."""
    _save(session, newest)
    seconds = newest.mesh_cost().seconds(session.config.mesh.resolution)
    session.budget.expect_mesh_seconds(seconds + WRITE_SECONDS)
    session.surface_measured = True


def _save(session: _Session, reconstruction: TrainedModel) -> None:
    """Save the field; a disk that is full now may have room later or for the smaller mesh, so the work goes on."""
    try:
        session.run.save_checkpoint(reconstruction)
        cameras = reconstruction.cameras, reconstruction.names, reconstruction.held_out
        write_cameras(session.run.path / "cameras.json", *cameras)  # they may have been refined
        budget = session.budget
        session.run.update(minutes=budget.seconds / 60, minutes_spent=budget.elapsed() / 60)
        session.unsaved = None
    except OutputError as error:
        session.unsaved = error
        session.warn(f"checkpoint not saved: {error}")


def _mesh(
    session: _Session, reconstruction: TrainedModel, scene: Scene
) -> tuple[Mesh, MeshReport, list[Path]]:
    """Make and write the mesh, coarser than configured, or asked for, if the time left demands it."""
    session.reporter.stage("mesh")
    config = session.config.mesh
    mesh, report = reconstruction.mesh(mesh_options(config, session.budget.mesh_seconds()))
    if report.resolution < config.resolution:
        session.leave_out(
            f"mesh at resolution {report.resolution}, not {config.resolution}: the time budget allows no more; "
            f"quicksurf mesh {session.run.path} makes the finer one"
        )
    check_surface(mesh, reconstruction.roi, reconstruction.psnr_held_out)
    taken = _trimmed(session, ExportedMesh(reconstruction, scene, mesh, report))
    files = _write_mesh(session, taken.mesh)
    if taken.mesh.confidence is not None:
        files.append(taken.write_confidence_picture(session.run.path / CONFIDENCE))
    if session.request.extras.texture:
        files += _texture(session, taken)
    drop_older(session.run.path, files)
    return taken.mesh, taken.report, files


def _write_mesh(session: _Session, mesh: Mesh) -> list[Path]:
    """Write the mesh; on a full disk the field gives way to what the user waits for."""
    place = mesh, session.run.path, "mesh", session.request.formats
    try:
        return write_mesh(*place)
    except OutputError as error:
        session.unsaved = error
        session.warn(f"{error}; the checkpoint gives way to the mesh")
        session.run.drop_checkpoint()
        return write_mesh(*place)


def _trimmed(session: _Session, taken: ExportedMesh) -> ExportedMesh:
    """With confidence and trimmed, as asked and as far as that can be done: the minutes are spent."""
    try:
        return taken.trimmed(session.request.extras)
    except SurfaceError as error:  # nothing would be left
        session.warn(f"the mesh is not trimmed: {error}")
        return taken.trimmed(replace(session.request.extras, confidence=True, trim=None))
    except ImageError as error:  # a photo that was there when the fit began
        session.warn(f"confidence is not measured: {error}")
        return taken


def _texture(session: _Session, taken: ExportedMesh) -> list[Path]:
    """The textured mesh, with fewer faces and texels if the time left demands it, or none."""
    wanted = session.config.mesh.faces or TEXTURED_FACES, session.request.extras.texture_size
    seconds, most = session.budget.extras_seconds(), session.budget.last_seconds()
    affordable = affordable_texture(seconds, most, *wanted, len(taken.scene.images))
    later = f"quicksurf mesh {session.run.path} --texture makes"
    if affordable is None:
        session.leave_out(f"no time for a texture: {later} it")
        return []
    if affordable != wanted:
        n_faces, size = affordable
        session.leave_out(
            f"texture of {size} texels a side on {n_faces:,} faces, the time budget allows no more: "
            f"{later} the finer one"
        )
    try:
        return write_textured(taken.textured(*affordable), session.run.path, TEXTURED)
    except ImageError as error:  # a photo that was there when the fit began
        session.warn(f"no texture: {error}")
        return []


def _summary(session: _Session, scene: Scene, reconstruction: TrainedModel) -> dict[str, Any]:
    return {
        "photos": scene.report.photos,
        "registered": len(scene.images),
        "lost": scene.report.lost,
        "input": {"found": scene.report.found, "used": scene.report.used, "notes": scene.report.notes},
        "seconds_fitted": reconstruction.seconds_fitted,
        "minutes": session.budget.seconds / 60,
        "seconds_held": round(session.budget.seconds_held, 3),
        "stopped_early": session.stop(),
        "psnr_held_out": reconstruction.psnr_held_out,
        "held_out": {"photos": int(reconstruction.held_out.sum()), "joined": reconstruction.joined},
        "cameras": _whence(session, reconstruction),
        "capture": session.config.train.capture,
        "method": session.config.train.method,
        "poses": scene.report.poses(),
        "masks": _masks(session, scene),
        "device": str(session.backend.device),
        "backend": session.backend.name,
        "peak_memory_mb": round(peak_memory_mb(), 1),
        "roi": [*reconstruction.roi.center, reconstruction.roi.radius],
        "warnings": session.warnings.texts,
        "left_out": session.left_out,
    }


def _masks(session: _Session, scene: Scene) -> dict[str, Any]:
    """How many photos were fitted with masks, and what became of making some."""
    record = session.run.record
    return {
        "option": record.get("mask_option", "auto"),
        "used": sum(mask is not None for mask in scene.masks),
        **(record.get("made_masks") or {"made": 0, "verdict": "", "agreement": 0.0, "angle": 0.0}),
    }


def _points(session: _Session, scene: Scene, mesh: Mesh) -> dict[str, Any]:
    """How far verified points lie from the mesh; a problem where nothing was cut off and most lie beside it."""
    found = distances_to_points(mesh.vertices, scene.points, scene.roi)
    if found is None:
        return {"points": 0, "median_percent": None, "far": None, "problems": []}
    problem = found.problem() if session.config.train.capture in BACKGROUND_START else None
    if problem is not None:
        session.warn(problem)
    return {**found._asdict(), "problems": [] if problem is None else [problem]}


def _whence(session: _Session, reconstruction: TrainedModel) -> str:
    """Where the cameras come from."""
    if reconstruction.cameras_refined:
        return "refined"
    return "as given" if session.run.record.get("posed_images") is None else "found from the photos"
