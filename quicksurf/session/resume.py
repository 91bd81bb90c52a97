"""The capture of a run that goes on: read as before, but with the poses that were found the first time.

Poses are not found twice: it takes minutes, and structure from motion would choose another frame, in which the field
that is to go on does not live. Captures that state their cameras are simply read again.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from quicksurf.data.assemble import ReadOptions, Views, assemble
from quicksurf.data.load import read_scene
from quicksurf.data.scene import ReadReport, Scene, SparsePoints
from quicksurf.data.transforms import read_cameras
from quicksurf.errors import CaptureError, OutputError
from quicksurf.io import write_atomic
from quicksurf.session.runs import Run

POINTS = "points.safetensors"


def read_capture(run: Run, options: ReadOptions) -> Scene:
    """The scene of a run, new or old.

    Raises:
        CaptureError: if the images are no longer those that the run was fitted to.
        QuicksurfError: as `read_scene`.
    """
    posed = run.record.get("posed_images")
    scene = read_scene(run.source, options) if posed is None else _read_posed(run, run.path / posed, options)
    known = run.record.get("names")
    if run.checkpoint_folder() is not None and scene.names != known:
        raise CaptureError(
            f"{run.source} has changed since {run.path} was fitted to it ({len(known or [])} images then, "
            f"{len(scene.names)} now): bring the images back, or fit anew with another --output"
        )
    return scene


def keep_points(run: Run, points: SparsePoints | None) -> None:
    """Write the points that structure from motion gave: the region of interest is found from them again.

    Raises:
        OutputError: if the disk is full.
    """
    if points is not None:
        blob = save({name: tensor.contiguous() for name, tensor in points._asdict().items()})
        write_atomic(run.path / POINTS, lambda file: file.write(blob))


def _read_posed(run: Run, root: Path, options: ReadOptions) -> Scene:
    """Images in `root` with the cameras, the split and the points that the run has kept."""
    known = read_cameras(run.path / "cameras.json")
    views = Views(
        root=root,
        paths=[root / name for name in known.names],
        cameras=known.cameras,
        held_out=known.held_out,
        points=load_points(run),
        upright=True,
    )
    options.say(f"{len(known.names)} camera poses taken from {run.path / 'cameras.json'}")
    return assemble(views, root, options, ReadReport(photos=run.record.get("photos", len(known.names))))


def load_points(run: Run) -> SparsePoints | None:
    """The points that `keep_points` wrote, if there were any.

    Raises:
        OutputError: if they are damaged.
    """
    path = run.path / POINTS
    if not path.exists():
        return None
    try:
        tensors = load_file(path)
        points = SparsePoints(**tensors)
    except (SafetensorError, OSError, TypeError) as error:
        raise OutputError(
            f"{path} is damaged ({error}): delete it, the fit goes on without points"
        ) from error
    valid = (
        points.positions.ndim == 2
        and points.positions.shape[1] == 3
        and points.observations.shape[1:] == (2,)
    )
    if not valid or (
        len(points.observations) and int(points.observations[:, 0].max()) >= len(points.positions)
    ):
        raise OutputError(f"{path} is damaged: its tensors do not fit together; delete it")
    return points._replace(observations=points.observations.to(torch.int64))
