"""The capture of a run that goes on: read as before, but with the poses that were found the first time.

Poses are not found twice: it takes minutes, and structure from motion would choose another frame, in which the field
that is to go on does not live. Captures that state their cameras are simply read again.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from quicksurf.capture.assemble import ReadOptions, Views, assemble
from quicksurf.capture.automatic_masks.folder import kept_file
from quicksurf.capture.load import read_scene
from quicksurf.capture.scene import ReadReport, Scene, SparsePoints
from quicksurf.capture.transforms import read_cameras
from quicksurf.errors import CaptureError, OutputError
from quicksurf.files import write_atomic
from quicksurf.model import TrainedModel

if TYPE_CHECKING:
    from quicksurf.app.run.folder import Run

POINTS, MASKS = "points.safetensors", "masks"


def read_capture(run: "Run", options: ReadOptions, model: TrainedModel | None) -> Scene:
    """Read the scene of a run, new or old; the errors are those of `Run.scene`."""
    posed = run.record.get("posed_images")
    kept = None if posed is not None or run.roi is None else load_points(run)
    if run.roi is not None:  # an earlier command has looked for points of the given cameras
        options = replace(options, points_seconds=lambda n_photos: 0.0)
    if options.use_masks:
        options = _with_masks_of(run, options)
    scene = read_scene(run.source, options) if posed is None else _read_posed(run, run.path / posed, options)
    known = run.record.get("names")
    if run.checkpoint_folder() is not None and scene.names != known:
        raise CaptureError(
            f"{run.source} has changed since {run.path} was fitted to it ({len(known or [])} images then, "
            f"{len(scene.names)} now): bring the images back, or fit anew with another --output"
        )
    if (
        model is not None
        and options.max_pixels == model.config.train.max_pixels
        and not torch.equal(model.cameras.sizes, scene.cameras.sizes)
    ):
        raise CaptureError(
            f"the photos of {run.source} have other sizes than {run.path} was fitted to: bring the photos back, or fit "
            "anew with another --output"
        )
    if kept is not None and scene.points is None and scene.names == known:
        scene = replace(scene, points=kept)
    return scene


def _with_masks_of(run: "Run", options: ReadOptions) -> ReadOptions:
    """The masks that the run was fitted with: those it has kept, or the folder it was given."""
    if (run.path / MASKS).is_dir():
        return replace(options, kept_masks=run.path / MASKS)
    folder = options.mask_folder or run.record.get("mask_folder")
    return options if folder is None else replace(options, mask_folder=Path(folder))


def keep_masks(run: "Run", scene: Scene) -> None:
    """Write the masks of a scene of which some were made, so that later commands use the same.

    Raises:
        OutputError: if the disk is full.
    """
    if not scene.report.made_masks.photos:
        return
    (run.path / MASKS).mkdir(exist_ok=True)
    for index, mask in enumerate(scene.masks):
        if mask is not None:
            write_atomic(
                kept_file(run.path / MASKS, index),
                lambda file, mask=mask: Image.fromarray(mask).save(file, "PNG"),
            )


def keep_points(run: "Run", points: SparsePoints | None) -> None:
    """Write the points that were found for these photos: the region of interest is found from them again.

    Raises:
        OutputError: if the disk is full.
    """
    if points is not None:
        blob = save({name: tensor.contiguous() for name, tensor in points._asdict().items()})
        write_atomic(run.path / POINTS, lambda file: file.write(blob))


def _read_posed(run: "Run", root: Path, options: ReadOptions) -> Scene:
    """Images in `root` with the cameras, the split and the points that the run has kept."""
    known = read_cameras(run.path / "cameras.json")
    points = load_points(run)
    if points is not None and len(points.observations):
        first, last = points.observations[:, 1].min(), points.observations[:, 1].max()
        if first < 0 or last >= len(known.names):
            raise OutputError(f"{run.path / POINTS} is damaged: its points are seen in no image; delete it")
    views = Views(
        root=root,
        paths=[root / name for name in known.names],
        cameras=known.cameras,
        held_out=known.held_out,
        points=points,
        upright=True,
    )
    options.say(f"{len(known.names)} camera poses taken from {run.path / 'cameras.json'}")
    report = ReadReport(photos=run.record.get("photos", len(known.names)), problems=_problems(run))
    return assemble(views, root, options, report)


def _problems(run: "Run") -> list[str]:
    """What spoke against the poses when they were found."""
    stated = run.record.get("poses")
    found = stated.get("problems") if isinstance(stated, dict) else None
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def load_points(run: "Run") -> SparsePoints | None:
    """Load the points that `keep_points` wrote, if there were any.

    Raises:
        OutputError: if they are damaged.
    """
    path = run.path / POINTS
    if not path.exists():
        return None
    try:
        points = SparsePoints(**load_file(path))
        _check_points(points)
    except (SafetensorError, OSError, TypeError, ValueError, RuntimeError) as error:
        raise OutputError(
            f"{path} is damaged ({str(error)[:200]}): delete it, the fit goes on without points"
        ) from error
    return points._replace(observations=points.observations.to(torch.int64))


def _check_points(points: SparsePoints) -> None:
    """Refuse tensors that do not fit together: what is read may be anybody's.

    Raises:
        ValueError: saying so.
    """
    positions, observations = points.positions, points.observations
    if positions.ndim != 2 or positions.shape[1] != 3 or not positions.is_floating_point():
        raise ValueError(f"positions are {positions.dtype} {tuple(positions.shape)}")
    if observations.shape[1:] != (2,) or observations.is_floating_point() or observations.ndim != 2:
        raise ValueError(f"observations are {observations.dtype} {tuple(observations.shape)}")
    if not bool(torch.isfinite(positions).all()):
        raise ValueError("a position holds NaN or infinity")
    seen = observations[:, 0]
    if len(seen) and not 0 <= int(seen.min()) <= int(seen.max()) < len(positions):
        raise ValueError("an observation is of no point")
    if points.colors.shape != positions.shape or points.colors.dtype != torch.uint8:
        raise ValueError(f"colors are {points.colors.dtype} {tuple(points.colors.shape)}")
