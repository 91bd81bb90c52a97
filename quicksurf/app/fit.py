"""One command from end to end: read → (poses) → fit → mesh → files → summary, against the clock.

The order is chosen so that a stop at any moment costs little: the run folder is claimed first, cameras are written as
soon as they are known, the field is saved about once a minute and before the mesh is begun, and the mesh is always
made of the best field there is.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from quicksurf import kernels
from quicksurf.app.budget import WRITE_SECONDS, Budget, StopRequest, mesh_evaluations
from quicksurf.app.export.products import ExportedMesh
from quicksurf.app.export.rule import WithinBudget
from quicksurf.app.export.surface import drop_older, export_mesh
from quicksurf.app.listener import Harmless, Listener
from quicksurf.app.progress import Several, Silent, Stream, Warnings, reporting
from quicksurf.app.report.page import NAME, write_report
from quicksurf.app.requests import FitRequest, as_fitted, budget_of, claim, mask_use, resolve_config
from quicksurf.app.run.checkpoint import check_space
from quicksurf.app.run.folder import Run
from quicksurf.app.run.metrics_log import append_metrics
from quicksurf.app.summary import FitResult, of_capture, of_model, stage_seconds
from quicksurf.capture.dense_points import find_dense_points
from quicksurf.capture.load import ReadOptions
from quicksurf.capture.scene import Scene
from quicksurf.capture.transforms import write_cameras
from quicksurf.config import Config, to_toml
from quicksurf.errors import ConfigError, OutputError, QuicksurfError, SurfaceError
from quicksurf.files import write_text
from quicksurf.kernels import Backend
from quicksurf.mesh.points import distances_to_points
from quicksurf.mesh.precision import offset_of
from quicksurf.methods import load as load_method
from quicksurf.model import BACKGROUND_START, TrainedModel
from quicksurf.train.guide import points_suffice
from quicksurf.train.hits import Hits
from quicksurf.train.loop import fit_scene
from quicksurf.train.points import on_object
from quicksurf.train.status import FitStatus

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
    hits: Hits | None = None
    """Whether rays meet anything, once the region is known."""
    unsaved: OutputError | None = None
    """Why the newest checkpoint could not be written, if it could not."""
    surface_measured: bool = False
    """Whether the surface itself has told how long its mesh will take."""


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
        stream: where progress goes; standard output if None.
        listener: sees the fit and may steer it.

    Raises:
        QuicksurfError: for every input that cannot be used; what the run folder held before is still there.
    """
    started = time.monotonic() if started is None else started
    stop, warnings = stop or StopRequest(), Warnings()
    listener = Harmless(listener or Listener(), warnings.add)
    stop.listen_again()  # the imports are done
    request.mesh.check()
    if request.mesh.moves:
        raise ConfigError("a fit's mesh stays in the cameras' frame: scale or turn it with quicksurf mesh")
    run = claim(request)
    with run.locked():
        try:
            if run.failed and not request.resume:
                run.begin_anew()
            budget = budget_of(request, run, started)
            backend = kernels.load(request.device)
            resumed = run.model(backend) if run.checkpoint_folder() is not None else None
            config = resolve_config(request, run, resumed, budget.seconds, backend)
            check_space(run.path, config)
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


def _work(session: _Session, fit: Fit) -> FitResult:
    run, budget = session.run, session.budget
    scene = _read(session)
    budget.keep_back(session.request.mesh.extra_seconds(len(scene.images)))
    began = budget.elapsed()
    model = _fit(session, scene, fit)
    fitted = budget.elapsed()
    session.reporter.stage("mesh")
    rule = WithinBudget(budget, run, session.warnings)
    try:
        made, files = export_mesh(model, scene, session.config.mesh, session.request.mesh, run.path, rule)
    except SurfaceError as error:
        run.update(failed=str(error))
        raise
    drop_older(run.path, files)
    summary = {
        **of_capture(scene, run.record),
        **of_model(model, run.record),
        "capture": session.config.train.capture,
        "method": session.config.train.method,
        "appearance": session.config.train.appearance,
        "minutes": budget.seconds / 60,
        "seconds_held": round(budget.seconds_held, 3),
        "stopped_early": session.stop(),
        "files": [path.name for path in files],
        **_summarize_mesh(session, made, scene),
        "warnings": session.warnings.texts,
        "left_out": session.warnings.left_out,
    }
    summary["seconds"] = stage_seconds(scene.report.seconds_poses, began, fitted, budget.elapsed())
    page_seconds = _report_seconds(session)
    run.finish(summary)
    session.listener.meshed(made.mesh, files)
    unsaved = rule.given_up or session.unsaved
    if unsaved is not None:
        older = run.checkpoint_folder() is not None
        raise OutputError(
            f"the mesh is written, but the field is not: {unsaved}; the run "
            + ("can go on from its last checkpoint" if older else "cannot go on from here")
        )
    page = None if page_seconds is None else _report(session, made, summary, page_seconds)
    return FitResult(run, model, summary, page)


def _summarize_mesh(session: _Session, made: ExportedMesh, scene: Scene) -> dict[str, Any]:
    """Figures of the mesh and of its distance to the object's verified points; a problem where most lie beside it."""
    vertices, of_object, points = made.mesh.vertices, scene.points, None
    if of_object is not None:
        usable = on_object(of_object, scene.cameras, scene.masks)
        of_object = of_object._replace(observations=of_object.observations[usable])
    found = distances_to_points(vertices, of_object, scene.roi)
    if found is not None:
        problem = found.problem() if session.config.train.capture in BACKGROUND_START else None
        points = {**found._asdict(), "problems": [] if problem is None else [problem]}
        if problem is not None:
            session.warnings.add(problem)
    return {
        "faces": len(made.mesh.faces),
        "vertices": len(vertices),
        "mesh": asdict(made.report),
        "surface": made.report.describe(),
        "offset": offset_of(vertices).tolist(),
        "points": points or {"points": 0, "median_percent": None, "far": None, "problems": []},
    }


def _report_seconds(session: _Session) -> float | None:
    """What the report may take; None, and an older page removed, where there is no time for one."""
    seconds = session.budget.left() - REPORT_MARGIN
    if seconds >= REPORT_MIN:
        return seconds
    (session.run.path / NAME).unlink(missing_ok=True)  # it shows an older field
    session.warnings.leave_out(f"no time for {NAME}: quicksurf report {session.run.path} makes it")
    return None


def _report(session: _Session, made: ExportedMesh, summary: dict[str, Any], seconds: float) -> Path | None:
    """The page of the run, of what `seconds` allow."""
    try:
        return write_report(session.run, summary, made.reconstruction, made.scene, made.mesh, seconds=seconds)
    except Exception as error:  # the mesh and its summary are there: whatever it is costs the page alone
        session.warnings.leave_out(f"no {NAME}: {error}; quicksurf report {session.run.path} makes it")
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
        whole_scene=request.mesh.keep == "scene",
        max_pixels=session.config.train.max_pixels,
        use_masks=run.record.get("masks") is True if masks is None else masks.use_given,
        mask_folder=None if masks is None else masks.folder,
        saliency=None if masks is None else masks.saliency,
        mask_seconds=MASKS_FRACTION * session.budget.left(),
        roi=request.roi,
        pose_seconds=session.budget.poses_seconds(),
        points_seconds=session.budget.points_seconds,
        say=session.reporter.note,
    )
    scene = run.scene(session.resumed, options)
    expected = load_method(session.config).without_masks
    unmasked = [expected] if expected is not None and all(mask is None for mask in scene.masks) else []
    for warning in [*scene.report.warnings, *unmasked]:
        session.warnings.add(warning)
    if session.resumed is not None:
        scene = as_fitted(scene, session.resumed, run)
    else:
        session.config = replace(session.config, train=replace(session.config.train, capture=scene.kind))
        session.reporter.note(f"capture: {_KINDS[scene.kind]}")
        if session.config.train.hold_out == "none":
            scene = replace(scene, held_out=np.zeros_like(scene.held_out))
        if request.roi is None:
            scene = replace(scene, roi=session.listener.choose_roi(scene))
    session.hits = Hits(scene.roi)
    session.listener.captured(scene)
    write_text(run.path / "config.toml", to_toml(session.config))
    used = options.use_masks or bool(scene.report.made_masks.photos)
    run.keep_scene(scene, used, session.budget.seconds / 60)
    if masks is not None:
        run.update(**masks.record, made_masks=scene.report.made_masks.record())
    train = session.config.train
    if not train.dense_weight or not train.points_weight:
        return scene
    if scene.points is not None and not points_suffice(scene):
        session.reporter.note(
            "the object shows hardly any point that photos confirm: it is fitted to its masks and colours alone"
        )
        return scene
    seconds = DENSE_FRACTION * session.budget.left()
    return replace(scene, dense=find_dense_points(scene, seconds, train.seed, session.reporter.note))


def _fit(session: _Session, scene: Scene, fit: Fit) -> TrainedModel:
    """Fit until the clock or the user says stop, and save the field."""
    budget = session.budget
    session.reporter.stage("fit")
    session.stop.listen_again()  # reading may have imported more
    session.stop.worthwhile = True
    budget.begin_fit()
    session.run.begin_fit()
    model = fit(
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
    _save(session, model)
    return model


def _note_status(session: _Session, status: FitStatus) -> None:
    if session.hits is not None and session.hits.none_left(status):
        if session.resumed is None:
            session.run.begin_anew()
        raise session.hits.error()
    if session.hits is not None and session.hits.nearly_none(status):
        session.warnings.add(session.hits.warning())
    if status.progress > WARM_UP and not session.surface_measured:
        # the speed in training is a lower bound of that while the mesh is made
        rate = status.rays_per_second * status.evaluations_per_ray
        session.budget.expect_mesh(mesh_evaluations(session.config.mesh.resolution), rate)
    session.reporter.fit(status)
    with suppress(OSError):  # a full disk is met, and said, when the field is saved
        append_metrics(session.run.path, status._asdict())


def _checkpoint(session: _Session, newest: TrainedModel) -> None:
    """Save the field, and keep back what its surface will take to be made a mesh."""
    _save(session, newest)
    seconds = newest.mesh_cost().seconds(session.config.mesh.resolution)
    session.budget.expect_mesh_seconds(seconds + WRITE_SECONDS)
    session.surface_measured = True


def _save(session: _Session, model: TrainedModel) -> None:
    """Save the field; a disk that is full now may have room later or for the smaller mesh, so the work goes on."""
    try:
        session.run.save_checkpoint(model)
        # they may have been refined
        write_cameras(session.run.path / "cameras.json", model.cameras, model.names, model.held_out)
        budget = session.budget
        session.run.update(minutes=budget.seconds / 60, minutes_spent=budget.elapsed() / 60)
        session.unsaved = None
    except OutputError as error:
        session.unsaved = error
        session.warnings.add(f"checkpoint not saved: {error}")
