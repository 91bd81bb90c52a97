"""The run folder: everything a fit leaves behind, and all that is needed to resume, re-mesh and understand it.

    RUN/run.json       what the folder is: source, options, ROI, views, chain of transforms; written first
    RUN/cameras.json   cameras used, nerfstudio's form, frame of the mesh      RUN/points.safetensors   SfM points
    RUN/masks/         the masks of the fit, where some were made
    RUN/config.toml    every setting          RUN/metrics.jsonl   a line per report of the fit
    RUN/checkpoint/    the field              RUN/mesh.*          the surface
    RUN/summary.json   what came out; written last, so that its presence says that the run is finished. While minutes
                       are added, and if that is interrupted, the last one is summary.previous.json

Files are replaced whole (quicksurf.files); the checkpoint, a folder, is written beside the old one and the two change
names, so that a kill at any moment leaves one of them. metrics.jsonl grows by whole lines; a torn last line, all a
kill can leave, is dropped when the file is opened again. A folder without run.json is never written to.
"""

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import quicksurf.app.run.checkpoint as checkpoints
from quicksurf import kernels
from quicksurf.app.run.files import (
    holds_more,
    is_litter,
    own_file,
    refuse_links,
    refuse_strange_files,
    remove,
    sweep_run,
)
from quicksurf.app.run.metrics_log import repair_metrics_log
from quicksurf.app.run.record import check_record, read_object, read_roi
from quicksurf.app.run.resume import keep_masks, keep_points, read_capture
from quicksurf.capture.load import ReadOptions
from quicksurf.capture.scene import Scene
from quicksurf.capture.transforms import write_cameras
from quicksurf.errors import OutputError
from quicksurf.files import write_json
from quicksurf.geometry.region import Roi
from quicksurf.model import TrainedModel
from quicksurf.untrusted import is_path

MARKER = "run.json"
FORMAT = "quicksurf run"
VERSION = 1


class Run:
    """One run folder. Build it with `claim_run` (to fit) or `open_run` (to read)."""

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path = path
        self.record = record
        """Contents of run.json."""
        self._summary, self._previous_summary = path / "summary.json", path / "summary.previous.json"

    @property
    def source(self) -> Path:
        """The capture this run was made from."""
        return Path(self.record["source"])

    @property
    def state(self) -> str:
        """`new` (nothing fitted), `unfinished` (a checkpoint, no summary) or `finished`."""
        if self._summary.exists():
            return "finished"
        return "unfinished" if self.checkpoint_folder() is not None else "new"

    @property
    def failed(self) -> bool:
        """Whether its last fit found no surface: the run may go on, and may as well be begun anew."""
        return self.state == "unfinished" and self.record.get("failed") is not None

    @property
    def roi(self) -> Roi | None:
        """The region of interest that the run was fitted in; None before its capture was read."""
        stated = self.record.get("roi")
        try:
            return None if stated is None else read_roi(stated)
        except ValueError as error:
            raise OutputError(f"{self.path / MARKER} is damaged: {error}, expected four numbers") from error

    def keep_scene(self, scene: Scene, masks: bool, minutes: float) -> None:
        """Keep what the fit is about to start from: cameras, ROI, split, transforms, and the plan.

        The mesh and cameras.json are in the frame of the input cameras; the field lives in the ROI's unit ball,
        x_fit = (x_world - center) / radius, which is written as a matrix so that nobody has to guess.
        """
        keep_points(self, scene.points)
        keep_masks(self, scene)
        write_cameras(self.path / "cameras.json", scene.cameras, scene.names, scene.held_out)
        center, radius = scene.roi
        scale = 1 / radius
        rows = [[*(scale * (i == j) for j in range(3)), -scale * center[i]] for i in range(3)]
        posed = self.record.get("posed_images")
        if scene.report.seconds_poses > 0:  # found here; the path is relative where it is inside (a video)
            folder, home = scene.source.resolve(), self.path.resolve()
            posed = str(folder.relative_to(home) if folder.is_relative_to(home) else folder)
        self.update(
            name=scene.name,
            roi=[*center, radius],
            photos=scene.report.photos,
            posed_images=posed,
            poses=scene.report.poses(),
            masks=masks,
            minutes=minutes,
            minutes_spent=0.0,
            names=scene.names,
            held_out=[bool(flag) for flag in scene.held_out],
            frames={"mesh": "input cameras", "world_to_fit": [*rows, [0, 0, 0, 1]]},
        )

    def update(self, **entries: Any) -> None:
        """Add entries to run.json."""
        self.record = {**self.record, **entries}
        write_json(self.path / MARKER, self.record)

    def begin_fit(self) -> None:
        """Mark the run as unfinished from now on: the summary of an earlier fit steps aside.

        Raises:
            OutputError: if the folder cannot be written.
        """
        try:
            if self._summary.exists():
                os.replace(self._summary, self._previous_summary)
        except OSError as error:
            raise OutputError(f"cannot rename {self._summary}: {error.strerror or error}") from error

    def begin_anew(self) -> None:
        """Forget the field of a fit that found no surface, and its region; poses and settings stay to be used."""
        self.drop_checkpoint()
        for name in ("metrics.jsonl", "config.toml", "masks"):
            remove(self.path / name)
        self.update(roi=None, failed=None)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, which marks the run as finished.

        Raises:
            OutputError: if the disk is full.
        """
        write_json(self._summary, summary)
        remove(self._previous_summary)

    def discard_if_unused(self) -> None:
        """Remove the folder if nothing was kept in it but logs of a search for poses: a bad input leaves no litter."""
        with suppress(OSError):
            if all(self._is_litter(path) for path in self.path.rglob("*")):
                shutil.rmtree(self.path)

    def _is_litter(self, path: Path) -> bool:
        name = path.relative_to(self.path)
        if name.parts[0] == "poses":
            return path.is_dir() or path.suffix == ".log"
        return str(name) in (MARKER, ".lock") or is_litter(name.name)

    def checkpoint_folder(self) -> Path | None:
        """Find the newest complete checkpoint: `checkpoint`, or `checkpoint.old` after a kill between two renames."""
        for folder in (self.path / "checkpoint", self.path / "checkpoint.old"):
            if folder.is_dir() and any(folder.iterdir()):
                return folder
        return None

    def save_checkpoint(self, reconstruction: TrainedModel) -> None:
        """Replace the checkpoint.

        Raises:
            OutputError: if the disk is full; the old checkpoint stays.
        """
        new, current, old = (self.path / name for name in ("checkpoint.new", "checkpoint", "checkpoint.old"))
        try:
            remove(new)
            checkpoints.save_checkpoint(reconstruction, new)
            if current.exists():
                remove(old)
                os.replace(current, old)
            os.replace(new, current)
            remove(old)
        except OSError as error:
            raise OutputError(
                f"cannot write {current}: {error.strerror or error}; the last checkpoint is kept"
            ) from error
        finally:
            remove(new)

    def drop_checkpoint(self) -> None:
        """Make room: the field is lost. It loses its name first, so that a kill leaves no half of it."""
        new, current, old = (self.path / name for name in ("checkpoint.new", "checkpoint", "checkpoint.old"))
        remove(new)
        remove(old)
        with suppress(OSError):
            os.replace(current, new)
        remove(new)
        remove(current)

    def model(self, device: str | kernels.Backend = "auto") -> TrainedModel:
        """Load the newest checkpoint onto a back end, given or by its name.

        Raises:
            OutputError: if there is no checkpoint, or it is damaged or of another version.
            BackendError: if this machine has no such back end.
        """
        folder = self.checkpoint_folder()
        if folder is None:
            raise OutputError(
                f"{self.path} has no checkpoint: the run was stopped before its first; fit it again"
            )
        backend = kernels.load(device) if isinstance(device, str) else device
        model = checkpoints.load_checkpoint(folder, backend)
        if self.record.get("names") not in (None, model.names):
            raise OutputError(
                f"{folder} is of other photos than {self.path / MARKER} names: one of the two is damaged"
            )
        return model

    def scene(self, model: TrainedModel | None, options: ReadOptions | None = None) -> Scene:
        """Read the capture; by default as `model` was fitted to it, without a word.

        Args:
            model: the run's checkpoint, if it has one: the photos must still be those that it was fitted to.
            options: what else to read; the region of interest and the poses' folder are the run's unless they are set.

        Raises:
            CaptureError: if the photos are no longer those of the fit.
            QuicksurfError: as `read_scene`.
        """
        if options is None:
            assert model is not None, "without a model the options say what to read"
            options = ReadOptions(model.config.train.max_pixels, model.masked, say=lambda line: None)
        folder = options.work_folder or self.path / "poses"
        return read_capture(self, replace(options, roi=options.roi or self.roi, work_folder=folder), model)

    def read_summary(self) -> dict[str, Any]:
        """Read summary.json of a finished run.

        Raises:
            OutputError: if it is damaged or absent.
        """
        return read_object(self._summary)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against a second process; the system lets go of it even when this one is killed.

        What killed commands left half-written is removed.

        Raises:
            OutputError: if another process holds it, or the folder cannot be written or has links in it.
        """
        lock = self.path / ".lock"
        with ExitStack() as held:
            try:
                fcntl.flock(held.enter_context(own_file(lock)), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputError(
                    f"{self.path} is in use by another quicksurf process: wait for it to end"
                ) from error
            except OSError as error:
                raise OutputError(
                    f"cannot write {lock}: {error.strerror or error}; make the folder writable"
                ) from error
            refuse_links(self.path)
            sweep_run(self.path)
            yield


def default_output(name: str) -> Path:
    """Name `runs/NAME-TIME`, with everything a file system may dislike taken out of the name."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "capture"
    return Path("runs") / f"{plain}-{time.strftime('%Y%m%d-%H%M%S')}"


def is_run(path: Path) -> bool:
    """Tell whether `path` is a run folder."""
    return (path / MARKER).is_file()


def open_run(path: Path) -> Run:
    """Open a run folder that exists.

    Raises:
        OutputError: if it is not one, or run.json is damaged.
    """
    if not is_run(path):
        what = "no such folder" if not path.exists() else f"it has no {MARKER}"
        raise OutputError(f"{path} is not a run folder ({what}): give a folder that `quicksurf fit` has made")
    record = read_object(path / MARKER)
    if record.get("format") != FORMAT or not is_path(record.get("source")):
        raise OutputError(f"{path / MARKER} is damaged: expected format {FORMAT!r} and the source's path")
    if record.get("version") != VERSION:
        raise OutputError(
            f"{path} was made by another version (format {str(record.get('version'))[:40]!r}, expected '{VERSION}')"
        )
    check_record(path / MARKER, record)
    refuse_strange_files(path)
    return Run(path, record)


def claim_run(path: Path, source: Path, resume: bool, adds_minutes: bool) -> Run:
    """Make the folder of a new run, or take up an old run of `source`.

    `resume` lets an interrupted run be taken up; `adds_minutes` says that a finished one gets more.

    Raises:
        OutputError: if the folder holds something else or a run that may not be taken up, or none is there to resume.
    """
    if path.exists() and not path.is_dir():
        raise OutputError(f"--output {path} is a file: choose another name")
    if path.is_dir() and holds_more(path, MARKER):
        return _take_up(path, source, resume, adds_minutes)
    if resume:
        raise OutputError(
            f"there is no run to resume in {path}: leave out --resume, or give the run with --output"
        )
    run = Run(path, {"format": FORMAT, "version": VERSION, "source": str(source.resolve())})
    try:
        run.update()
    except OutputError:
        run.discard_if_unused()
        raise
    return run


def _take_up(path: Path, source: Path, resume: bool, adds_minutes: bool) -> Run:
    if not is_run(path):
        raise OutputError(
            f"--output {path} holds files that are not a run's: choose another folder, or empty it"
        )
    run = open_run(path)
    if run.source != source.resolve():
        raise OutputError(f"{path} holds a run of {run.source}, not of {source}: choose another --output")
    if run.state == "unfinished" and not (resume or run.failed):
        raise OutputError(
            f"{path} holds an interrupted run: resume it with --resume, or choose another --output"
        )
    if run.state == "finished" and not (resume or adds_minutes):
        raise OutputError(
            f"{path} holds a finished run: add to it with --minutes N, or choose another --output"
        )
    repair_metrics_log(run.path)
    return run
