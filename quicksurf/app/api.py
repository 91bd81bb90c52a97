"""The Python side of the same commands: `quicksurf.fit`, `quicksurf.load`, `quicksurf.set_num_threads`."""

from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path

import torch

from quicksurf import kernels
from quicksurf.app.argument_types import checks_arguments
from quicksurf.app.export.request import MeshRequest, ScaleFrom
from quicksurf.app.export.surface import run_mesh
from quicksurf.app.fit import run_fit
from quicksurf.app.requests import FitRequest, as_roi
from quicksurf.app.run.folder import open_run
from quicksurf.errors import ConfigError
from quicksurf.model import TrainedModel


@checks_arguments
def fit(
    source: str | PathLike[str],
    *,
    minutes: float | None = None,
    output: str | PathLike[str] | None = None,
    resume: bool = False,
    roi: Sequence[float] | None = None,
    capture: str | None = None,
    masks: str | PathLike[str] | None = None,
    formats: str | Sequence[str] = ("ply",),
    resolution: int | None = None,
    faces: int | None = None,
    keep: str | None = None,
    watertight: bool | None = None,
    texture: bool = False,
    texture_size: int | None = None,
    confidence: bool = False,
    trim: float | None = None,
    preset: str | None = None,
    device: str | torch.device = "auto",
    seed: int | None = None,
    method: str | None = None,
    appearance: str | None = None,
    hold_out: str | None = None,
    quiet: bool = True,
) -> TrainedModel:
    """Fit a surface to a capture, as `quicksurf fit` does, run folder and mesh files included.

    The arguments are the command's options. `minutes` counts from this call and defaults to 10. `roi` is
    (cx, cy, cz, r) in the frame of the capture's cameras. `formats` are mesh files to write, one or more of ply, obj,
    glb, stl. `masks` is auto, make, none, or a folder.

    Raises:
        QuicksurfError: for every input that cannot be used, with a message that says what to do.
    """
    request = FitRequest(
        source=Path(source),
        minutes=minutes,
        output=None if output is None else Path(output),
        resume=resume,
        roi=None if roi is None else as_roi(roi),
        capture=capture,
        masks=None if masks is None else fspath(masks),
        mesh=MeshRequest(
            _as_tuple(formats), resolution, faces, keep, watertight, texture, texture_size, confidence, trim
        ),
        preset=preset,
        device=str(device),
        seed=seed,
        method=method,
        appearance=appearance,
        hold_out=hold_out,
    )
    return run_fit(request, quiet=quiet).reconstruction


@checks_arguments
def load(run: str | PathLike[str], *, device: str | torch.device = "auto") -> TrainedModel:
    """Load the reconstruction of a run folder.

    Raises:
        OutputError: if the folder is not a run, or has no usable checkpoint.
    """
    return open_run(Path(run)).model(str(device))


@checks_arguments
def export(
    run: str | PathLike[str],
    *,
    formats: str | Sequence[str] = ("ply",),
    resolution: int | None = None,
    faces: int | None = None,
    keep: str | None = None,
    watertight: bool | None = None,
    level: float | None = None,
    output: str | PathLike[str] | None = None,
    texture: bool = False,
    texture_size: int | None = None,
    confidence: bool = False,
    trim: float | None = None,
    scale_from: ScaleFrom | None = None,
    up: str | None = None,
    device: str | torch.device = "auto",
) -> list[Path]:
    """Extract the mesh of a run again, as `quicksurf mesh` does, with that command's options; return the files.

    Raises:
        QuicksurfError: for every option that cannot be used, with a message that says what to do.
    """
    extras = texture, texture_size, confidence, trim
    request = MeshRequest(
        _as_tuple(formats),
        resolution,
        faces,
        keep,
        watertight,
        *extras,
        scale_from=scale_from,
        up=up,
        level=level,
    )
    return run_mesh(Path(run), request, None if output is None else Path(output), str(device))[0]


def _as_tuple(formats: str | Sequence[str]) -> tuple[str, ...]:
    return (formats,) if isinstance(formats, str) else tuple(formats)


@checks_arguments
def set_num_threads(count: int) -> None:
    """Let the native kernels use `count` threads; without a call they use every CPU that the process may run on.

    Torch stays at one thread beside them: see `quicksurf.kernels`.

    Raises:
        ConfigError: unless `count` is 1 to 1024.
    """
    try:
        kernels.set_num_threads(count)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"set_num_threads({count!r}): give 1 to 1024") from error
