"""The Python side of the same commands: `quicksurf.fit`, `quicksurf.load`, `quicksurf.set_num_threads`."""

from collections.abc import Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path

import torch

from quicksurf import backends, pipeline
from quicksurf.data.scene import Roi
from quicksurf.errors import ConfigError
from quicksurf.reconstruction import Reconstruction
from quicksurf.runs import open_run


def fit(
    source: str | PathLike[str],
    *,
    minutes: float | None = None,
    output: str | PathLike[str] | None = None,
    resume: bool = False,
    roi: tuple[float, float, float, float] | None = None,
    masks: bool = True,
    formats: Sequence[str] = ("ply",),
    resolution: int | None = None,
    faces: int | None = None,
    preset: str | None = None,
    backend: str = "auto",
    seed: int | None = None,
    quiet: bool = True,
) -> Reconstruction:
    """Fit a surface to a capture, as `quicksurf fit` does, run folder and mesh files included.

    The arguments are the command's options. `minutes` counts from this call and defaults to 10. `roi` is
    (cx, cy, cz, r) in the frame of the capture's cameras.

    Raises:
        QuicksurfError: for every input that cannot be used, with a message that says what to do.
    """
    request = pipeline.FitRequest(
        source=Path(source),
        minutes=minutes,
        output=None if output is None else Path(output),
        resume=resume,
        roi=None if roi is None else Roi(roi[:3], roi[3]),
        masks=masks,
        formats=tuple(formats),
        resolution=resolution,
        faces=faces,
        preset=preset,
        backend=backend,
        seed=seed,
    )
    return pipeline.run_fit(request, quiet=quiet).reconstruction


def load(run: str | PathLike[str], *, backend: str = "auto") -> Reconstruction:
    """The reconstruction of a run folder.

    Raises:
        OutputError: if the folder is not a run, or has no usable checkpoint.
    """
    return open_run(Path(run)).load_checkpoint(backends.load(backend))


def set_num_threads(count: int) -> None:
    """Let torch and the native kernels use `count` threads each; they do not compute at the same time.

    Raises:
        ConfigError: unless `count` is at least 1.
    """
    if count < 1:
        raise ConfigError(f"set_num_threads({count}): give 1 or more")
    torch.set_num_threads(count)
    with suppress(ImportError):  # without the native kernels only torch computes
        from quicksurf import _native

        _native.set_num_threads(count)
