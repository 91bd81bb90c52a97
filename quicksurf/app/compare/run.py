"""`quicksurf compare`: find the poses once, run the methods one after another, write the page.

Each method is the public `quicksurf fit` in a process of its own, run, resumed and reported by the machinery of
batches; the classical baseline is `compare/classical.py` likewise. Nothing else runs meanwhile: all is measured and
drawn when the last fit has ended.
"""

import os
import shutil
from collections.abc import Callable, Generator
from contextlib import closing
from datetime import datetime
from pathlib import Path

from quicksurf.app.batch.run import run_tasks
from quicksurf.app.batch.task import Outcome, Task
from quicksurf.app.budget import POSES_FRACTION
from quicksurf.app.compare.page import write_pages
from quicksurf.app.compare.request import (
    LOGS,
    POSES,
    CompareRequest,
    Comparison,
    is_classical,
    open_comparison,
)
from quicksurf.app.run.files import remove
from quicksurf.app.run.folder import Run, claim_run, is_run, open_run
from quicksurf.app.run.resume import POINTS
from quicksurf.capture.load import ReadOptions
from quicksurf.config import TrainConfig
from quicksurf.errors import ConfigError

KEPT = ("format", "version", "source", "photos", "poses")  # of the record of a run with poses


def run_compare(
    request: CompareRequest, should_stop: Callable[[], bool], say: Callable[[str], None]
) -> Generator[Outcome, None, None]:
    """Run every method that is not done; yield the outcomes as they come, and write the page at the end.

    Args:
        request: the capture, the methods, and how to fit them.
        should_stop: polled a few times a second; fits then stop, and no page is written.
        say: receives lines about what is done beside the fits.

    Raises:
        ConfigError: if an option cannot be used.
        OutputError: if the output folder holds something else or is in use.
        QuicksurfError: if poses have to be found and are not.
    """
    request.check()
    comparison = open_comparison(request)
    with Run(comparison.folder, {}).locked():
        comparison.save()
        _pose(request, comparison, say)
        tasks = [_task(request, comparison, method) for method in dict.fromkeys(request.methods)]
        with closing(run_tasks(tasks, 1, request.ray, request.device, should_stop)) as outcomes:
            for outcome in outcomes:
                load = round(os.getloadavg()[0], 1) if request.ray is None else None
                comparison.note(outcome, datetime.now().astimezone().isoformat(timespec="minutes"), load)
                yield outcome
        if not should_stop():
            for path in write_pages(comparison, request.truth, request.views, request.device):
                say(str(path))


def _task(request: CompareRequest, comparison: Comparison, method: str) -> Task:
    classical = is_classical(method)
    return Task(
        method,
        request.source.absolute(),
        run=comparison.folder / method,
        log=comparison.folder / LOGS / f"{method}.log",
        minutes=request.minutes,
        options=() if classical else (f"--device={request.device}",),
        settings=request.options(method),
        program=("quicksurf.app.compare.classical",) if classical else ("quicksurf", "fit"),
    )


def _pose(request: CompareRequest, comparison: Comparison, say: Callable[[str], None]) -> None:
    """Find the poses that the capture lacks, once, and give them to every run that is not begun.

    Raises:
        ConfigError: if there is a truth: it is in another frame than poses that are found.
        QuicksurfError: if they are not found.
    """
    seconds = comparison.record.get("poses_seconds")
    if seconds is None:
        seconds = comparison.record["poses_seconds"] = _found(request, comparison.folder / POSES, say)
        comparison.save()
    if not seconds:
        return
    if request.truth is not None:
        raise ConfigError(
            "--truth is in the frame of given cameras, and this capture has none: its poses are found, in a frame of "
            "their own; leave out --truth"
        )
    posed = open_run(comparison.folder / POSES)
    for method in request.methods:
        if not is_run(comparison.folder / method):
            _give_poses(posed, comparison.folder / method)


def _found(request: CompareRequest, folder: Path, say: Callable[[str], None]) -> float:
    """Read the capture; return the seconds that its poses took, 0 where it has cameras and nothing is kept."""
    remove(folder)
    run = claim_run(folder, request.source, False, False)
    masks = request.masking(60 * request.minutes)
    try:
        with run.locked():
            options = ReadOptions(
                TrainConfig.max_pixels,
                masks.use_given,
                masks.folder,
                pose_seconds=POSES_FRACTION * 60 * request.minutes,
                say=say,
            )
            scene = run.scene(None, options)
            if scene.report.seconds_poses > 0:
                run.keep_scene(scene, masks.use_given, request.minutes)
    finally:
        run.discard_if_unused()
    return round(scene.report.seconds_poses, 1)


def _give_poses(posed: Run, folder: Path) -> None:
    """Begin a run that takes its poses, the points and the photos' place from another."""
    run = Run(folder, {name: posed.record[name] for name in KEPT})
    run.update(posed_images=str((posed.path / posed.record["posed_images"]).resolve()))
    for name in ("cameras.json", POINTS):
        if (posed.path / name).is_file():
            shutil.copyfile(posed.path / name, folder / name)
