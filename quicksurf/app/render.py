"""`quicksurf render`: a run seen from an orbit, on a flight past its photos, or from the cameras of photos or a file.

An orbit, a flight or a cameras.json becomes films (MP4 each of colour, depth and normals, a GIF of colour) and their
frames; the photos' cameras become stills named as the photos.
"""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch

from quicksurf.app.film import (
    Film,
    color_image,
    depth_image,
    film,
    normal_image,
    write_depth_exr,
    write_depth_png,
    write_gif,
    write_png,
)
from quicksurf.app.run.files import refuse_links, sweep
from quicksurf.app.run.folder import open_run
from quicksurf.capture.transforms import read_cameras
from quicksurf.errors import ConfigError, OutputError
from quicksurf.fields.appearance import Light
from quicksurf.files import write_json
from quicksurf.geometry.cameras import Cameras, resize
from quicksurf.geometry.paths import flight, orbit
from quicksurf.model import TrainedModel, View

MAX_FRAMES = 10_000
MIN_SIZE, MAX_SIZE = 2, 8192  # pixels: a film halves its colour planes


class RenderRequest(NamedTuple):
    """What to render and where to put it."""

    path: str
    """`orbit`, `flight`, `input` or the path of a cameras.json."""
    n_frames: int
    """Of an orbit or a flight."""
    size: int
    """Longest side in pixels."""
    frames_per_second: int
    output: Path | None
    light_of: tuple[str, ...] = ()
    """Names of photos: one, or two to blend between; none is the mean of all."""
    renderer: Path | None = None
    """Run whose colour network draws."""


class _Path(NamedTuple):
    """Cameras with the names of their images; a film is made of a moving camera, not of unrelated photos."""

    cameras: Cameras
    names: list[str]
    moving: bool


def render_run(folder: Path, request: RenderRequest, device: str) -> Iterator[Path]:
    """Render a run; yield each file once it is complete.

    Raises:
        OutputError: if `folder` is not a run.
        ConfigError: if the path, the size or the number of frames cannot be used.
        CaptureError: if the cameras.json is broken.
    """
    _check(request)
    run = open_run(folder)
    reconstruction = run.model(device)
    path = _camera_path(reconstruction, request)
    lights = _lights(reconstruction, request.light_of, len(path.names))
    if request.renderer is not None:
        reconstruction = reconstruction.with_renderer_of(open_run(request.renderer).model(device))
    output = request.output or run.path / "render"
    if request.output is None:
        refuse_links(run.path)
        sweep(output)
    unit = _depth_unit(reconstruction, path.cameras)
    write_json(output / "views.json", {"depth_unit": unit, "names": path.names})
    with ExitStack() as reels:
        films = {}
        if path.moving:
            for kind in ("color", "depth", "normal"):
                films[kind] = reels.enter_context(film(output / f"{kind}.mp4", request.frames_per_second))
        for index, name in enumerate(path.names):
            rendering = reconstruction.render(path.cameras, index, lights[index])
            yield from _write_view(rendering, output, name, unit, films)
    yield from (output / f"{kind}.mp4" for kind in films)
    if path.moving:
        stills = [output / "color" / f"{name}.png" for name in path.names]
        write_gif(output / "color.gif", stills, request.frames_per_second)
        yield output / "color.gif"


def _check(request: RenderRequest) -> None:
    for name, value, least, most in (
        ("--frames", request.n_frames, 1, MAX_FRAMES),
        ("--size", request.size, MIN_SIZE, MAX_SIZE),
        ("--rate", request.frames_per_second, 1, 1000),
    ):
        if not least <= value <= most:
            raise ConfigError(f"{name} is {value}: choose {least} to {most}")
    if request.renderer is not None and request.light_of:
        raise ConfigError(
            "--light-of and --renderer exclude each other: a code is of one run's colour network"
        )
    if request.path not in ("orbit", "flight", "input") and not Path(request.path).is_file():
        raise ConfigError(f"--path {request.path} is no file: choose orbit, flight, input or a cameras.json")


def _lights(model: TrainedModel, names: tuple[str, ...], n_frames: int) -> Sequence[Light | None]:
    """Light of each frame: of one photo, or from one photo's to another's; None is the mean."""
    if not names:
        return [None] * n_frames
    ends = [_light_of(model, name) for name in names]
    return [ends[0].towards(ends[-1], index / max(n_frames - 1, 1)) for index in range(n_frames)]


def _light_of(model: TrainedModel, name: str) -> Light:
    if model.config.train.appearance == "none":
        raise ConfigError(
            "--light-of: the run was fitted with --appearance none, its photos have no light of their own; fit anew "
            "with --appearance code or affine"
        )
    found = [i for i, full in enumerate(model.names) if name in (full, PurePosixPath(full).name)]
    if not found:
        known = [PurePosixPath(full).name for full in model.names]
        near = difflib.get_close_matches(PurePosixPath(name).name, known, n=3, cutoff=0.0)
        raise ConfigError(
            f"--light-of {name}: no photo of the run has this name; nearest are {', '.join(near)}"
        )
    if len(found) > 1:
        several = ", ".join(model.names[i] for i in found[:3])
        raise ConfigError(f"--light-of {name} may be any of {several}: give one of these")
    if not model.appearance.has_light(found[0]):
        raise ConfigError(
            f"--light-of {name}: the photo was held out, the fit does not know its light; choose another, or fit with "
            "--hold-out join"
        )
    return model.appearance.light(found[0])


def _camera_path(reconstruction: TrainedModel, request: RenderRequest) -> _Path:
    if request.path in ("orbit", "flight"):
        ratio = reconstruction.cameras.sizes.double().mean(0)
        width, height = (ratio / ratio.max() * request.size).round().clamp_min(MIN_SIZE).int().tolist()
        path = orbit if request.path == "orbit" else flight
        cameras = path(reconstruction.cameras, *reconstruction.roi, request.n_frames, (width, height))
        return _Path(cameras, [f"{index:04d}" for index in range(request.n_frames)], True)
    if request.path == "input":
        names = [str(PurePosixPath(name).with_suffix("")) for name in reconstruction.names]
        return _Path(_shrunk(reconstruction.cameras, request.size), names, False)
    cameras = read_cameras(Path(request.path)).cameras
    if len(cameras) > MAX_FRAMES:
        raise ConfigError(f"{request.path} holds {len(cameras)} cameras: at most {MAX_FRAMES} are rendered")
    return _Path(_shrunk(cameras, request.size), [f"{index:04d}" for index in range(len(cameras))], True)


def _shrunk(cameras: Cameras, size: int) -> Cameras:
    """The cameras with a longest side of at most `size` pixels."""
    ratio = (size / cameras.sizes.double().amax(-1, keepdim=True)).clamp_max(1)
    return resize(cameras, (cameras.sizes * ratio).round().clamp_min(MIN_SIZE).to(cameras.sizes.dtype))


def _depth_unit(reconstruction: TrainedModel, cameras: Cameras) -> float:
    """Depth of one step of a 16-bit PNG: the far side of the ROI from the farthest camera is the last step."""
    center = torch.tensor(reconstruction.roi.center, dtype=torch.float64)
    farthest = (cameras.centers().double() - center).norm(dim=-1).max() + reconstruction.roi.radius
    return float(farthest) / np.iinfo(np.uint16).max


def _write_view(
    rendering: View, output: Path, name: str, unit: float, films: dict[str, Film]
) -> Iterator[Path]:
    color, depth, normal, opacity = (tensor.detach().cpu().numpy() for tensor in rendering)
    images = {
        "color": color_image(color),
        "depth": depth_image(depth, opacity, unit),
        "normal": normal_image(normal, opacity),
    }
    for kind, image in images.items():
        path = _inside(output, output / kind / f"{name}.png")
        if kind == "depth":
            write_depth_exr(path.with_suffix(".exr"), depth, opacity)
            yield path.with_suffix(".exr")
            write_depth_png(path, image, unit)
        else:
            write_png(path, image)
        yield path
        if kind in films:
            frame = image if image.ndim == 3 else np.repeat((image >> 8).astype(np.uint8)[..., None], 3, -1)
            films[kind].add(frame)


def _inside(output: Path, path: Path) -> Path:
    """`path`, if no link on the way leads out of `output`: names and folders may be anybody's.

    Raises:
        OutputError: if one does.
    """
    if not path.parent.resolve().is_relative_to(output.resolve()):
        raise OutputError(f"{path.parent} leads out of {output}: remove the link, or choose another --output")
    return path
