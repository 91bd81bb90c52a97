"""A trained model on the disk: written, and checked before anything is made of it, since it may be anybody's.

Sizes are compared with the configuration's before memory is taken for it; poses, lenses and numbers are those of real
cameras, or the whole is refused.
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from quicksurf.app.run.record import FARTHEST, read_roi
from quicksurf.config import Config, from_settings
from quicksurf.errors import BackendError, OutputError
from quicksurf.fields.appearance import Appearance
from quicksurf.fields.background import Border
from quicksurf.fields.surface import geometry_encoding
from quicksurf.files import write_atomic, write_json
from quicksurf.geometry.cameras import N_DISTORTION, Cameras
from quicksurf.kernels import Backend
from quicksurf.kernels.layout import encoding_layout
from quicksurf.mesh.refine import SurfacePoints
from quicksurf.model import TrainedModel, build_renderer
from quicksurf.untrusted import is_inner_path, is_number, read_json

STATE, META = "state.safetensors", "state.json"
_FORMAT = 2  # 1, of quicksurf 0.1: geometry and colour head were one field
_MAX_META_BYTES = 1 << 26
_MAX_SIDE = 1 << 17  # pixels of a photo
_MAX_FOCAL = 1e12
_RIGID = 1e-2  # largest entry of RᵀR − I: float32 poses of a refined run are within 1e-5
_MAX_VIEWS, _MAX_POINTS = 1_000_000, 10_000_000
MESH_BYTES = 8_000_000  # 150,000 faces, a summary and a report without its pictures
_COPIES = 5  # of the parameters, in single precision: themselves and four moments of Adam


def check_space(folder: Path, config: Config) -> None:
    """Refuse to begin where checkpoint and mesh do not fit: a full disk at the end costs the field, or all.

    Raises:
        OutputError: saying how much is there and how much is needed.
    """
    tables = encoding_layout(6, geometry_encoding(config.model)).n_params
    needed = MESH_BYTES + 4 * _COPIES * tables + 5 * config.render.grid_resolution**3
    try:
        free = shutil.disk_usage(folder).free
    except OSError:  # a file system that does not say
        return
    if free < needed:
        raise OutputError(
            f"disk full: {free / 1e6:.0f} MB are free at {folder}, checkpoint and mesh take about "
            f"{needed / 1e6:.0f} MB; free some space or choose another --output"
        )


def save_checkpoint(model: TrainedModel, folder: Path) -> None:
    """Write `model` into `folder`: one safetensors file, then the JSON that describes it."""
    tensors = {f"model.{name}": value for name, value in model.modules().state_dict().items()}
    grid = model.renderer.grid.estimator
    tensors |= {"grid.occs": grid.occs, "grid.binaries": grid.binaries}
    tensors |= {f"optimizer.{name}": value for name, value in model.optimizer_state.items()}
    tensors |= {f"cameras.{name}": value for name, value in vars(model.cameras).items()}
    if model.stereo is not None:
        tensors |= {f"stereo.{name}": torch.from_numpy(part) for name, part in model.stereo._asdict().items()}
    blob = safetensors.torch.save({name: value.cpu().contiguous() for name, value in tensors.items()})
    write_atomic(folder / STATE, lambda file: file.write(blob))
    write_json(
        folder / META,
        {
            "format": _FORMAT,
            "config": asdict(model.config),
            "names": model.names,
            "held_out": model.held_out.tolist(),
            "roi": [*model.roi.center, model.roi.radius],
            "masked": model.masked,
            "seconds_fitted": model.seconds_fitted,
            "step": model.step,
            "progress": model.progress,
            "psnr_held_out": model.psnr_held_out,
            "cameras_refined": model.cameras_refined,
            "joined": model.joined,
        },
    )


def load_checkpoint(folder: Path, backend: Backend) -> TrainedModel:
    """Read a checkpoint.

    Raises:
        OutputError: if it is missing, damaged or of another version.
    """
    try:
        return _restore(folder, backend)
    except BackendError:
        raise
    except Exception as error:  # it may be anybody's, and damaged in any way
        raise OutputError(
            f"the checkpoint in {folder} cannot be read ({type(error).__name__}: {str(error)[:200]}): "
            "it is damaged or of another version; fit again into a new --output"
        ) from error


def _restore(folder: Path, backend: Backend) -> TrainedModel:
    meta = read_json(folder / META, _MAX_META_BYTES)
    if not isinstance(meta, dict) or not isinstance(meta.get("config"), dict):
        raise ValueError(f"{META} holds no object with a config")
    if meta.get("format", 1) != _FORMAT:
        raise ValueError(
            f"it has format {meta.get('format', 1)!r}, expected {_FORMAT}: format 1 is of quicksurf 0.1"
        )
    names, held_out, joined = _names(meta["names"]), meta["held_out"], bool(meta.get("joined", False))
    _demand(isinstance(held_out, list) and all(type(mark) is bool for mark in held_out), "held_out", held_out)
    _demand(not all(held_out), "held_out", "every photo")
    tensors = safetensors.torch.load_file(folder / STATE)
    cameras = _cameras(tensors)
    if not len(cameras) == len(names) == len(held_out):
        raise ValueError(f"{len(cameras)} cameras, {len(names)} names, {len(held_out)} held-out marks")
    config = from_settings(meta["config"])
    _check_sizes(config, tensors)
    solid = tensors.get("model.background.color")
    border = Border(torch.zeros(3), False) if solid is None else Border(solid.reshape(3).float(), True)
    model = TrainedModel(
        config,
        cameras,
        names,
        np.array(held_out),
        read_roi(meta["roi"]),
        masked=bool(meta["masked"]),
        renderer=build_renderer(config, backend, border),
        appearance=Appearance(torch.tensor(held_out), joined, config.train.appearance == "code").to(
            backend.device
        ),
        seconds_fitted=_in_range(meta, "seconds_fitted", 0, 1e9),
        step=int(_in_range(meta, "step", 0, 1e12)),
        psnr_held_out=None if meta["psnr_held_out"] is None else _in_range(meta, "psnr_held_out", -1e3, 1e3),
        progress=_in_range(meta, "progress", 0, 1),
        optimizer_state=_part(tensors, "optimizer."),
        cameras_refined=bool(meta.get("cameras_refined", False)),
        joined=joined,
        stereo=_stereo(_part(tensors, "stereo.")),
    )
    model.advance(model.progress)
    model.modules().load_state_dict(_part(tensors, "model."))
    estimator = model.renderer.grid.estimator
    estimator.get_buffer("occs").copy_(tensors["grid.occs"])
    estimator.get_buffer("binaries").copy_(tensors["grid.binaries"])
    _check_finite({**model.modules().state_dict(), "grid": tensors["grid.occs"]})
    return model


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def _stereo(tensors: Mapping[str, Tensor]) -> SurfacePoints | None:
    if not tensors:
        return None
    positions, pixels = tensors["positions"], tensors["pixels"]
    sound = positions.dtype == pixels.dtype == torch.float32 and positions.shape == (len(pixels), 3)
    _demand(sound and pixels.ndim == 1 and len(pixels) <= _MAX_POINTS, "a point of stereo", positions.shape)
    _check_finite(tensors)
    _demand(bool((pixels > 0).all()), "the size of a pixel", pixels.min())
    return SurfacePoints(positions.numpy(), pixels.numpy())


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Refuse NaN and infinity in what a field is made of."""
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} holds NaN or infinity")


def _names(names: Any) -> list[str]:
    """Names of photos: files are written under them, so that none may lead out of the folder they go to."""
    _demand(isinstance(names, list) and 0 < len(names) <= _MAX_VIEWS, "names", names)
    for name in names:
        _demand(is_inner_path(name), "a photo's name", name)
    return names


def _cameras(tensors: Mapping[str, Tensor]) -> Cameras:
    """The cameras, in the shapes and ranges of such as take photos."""
    c2w = tensors["cameras.c2w"]
    count = len(c2w) if c2w.ndim else 0
    shapes = {
        "c2w": (count, 3, 4),
        "intrinsics": (count, 4),
        "distortion": (count, N_DISTORTION),
        "fisheye": (count,),
        "sizes": (count, 2),
    }
    values = {name: tensors[f"cameras.{name}"] for name in shapes}
    for name, shape in shapes.items():
        found, floats = values[name], name in ("c2w", "intrinsics", "distortion")
        kind = found.is_floating_point() == floats and (found.dtype == torch.bool) == (name == "fisheye")
        if tuple(found.shape) != shape or not kind or not 0 < count <= _MAX_VIEWS:
            raise ValueError(f"cameras.{name} is {found.dtype} {tuple(found.shape)}, expected {shape}")
    cameras = Cameras(**values)
    _check_finite(values)
    rotations = cameras.c2w[:, :, :3].double()
    off = (rotations.transpose(1, 2) @ rotations - torch.eye(3, dtype=torch.float64)).abs().max()
    _demand(float(off) < _RIGID and bool((torch.linalg.det(rotations) > 0).all()), "a camera's pose", "bent")
    _demand(float(cameras.centers().abs().max()) <= FARTHEST, "a camera's place", "out of this world")
    focal, sizes = cameras.intrinsics[:, :2], cameras.sizes
    _demand(float(focal.min()) > 0 and float(focal.max()) <= _MAX_FOCAL, "a focal length", focal.tolist())
    _demand(int(sizes.min()) >= 1 and int(sizes.max()) <= _MAX_SIDE, "a photo's size", sizes.tolist())
    return cameras


def _check_sizes(config: Config, tensors: Mapping[str, Tensor]) -> None:
    """Refuse settings that would take more memory than what was saved fills."""
    tables = encoding_layout(6, geometry_encoding(config.model)).n_params
    cells = config.render.grid_resolution**3
    for name, least in (
        ("model.geometry.network.params", tables),
        ("grid.occs", cells),
        ("grid.binaries", cells),
    ):
        if tensors[name].numel() < least:
            raise ValueError(f"{name} holds {tensors[name].numel()} values, its settings need {least}")


def _in_range(meta: Mapping[str, Any], name: str, low: float, high: float) -> float:
    value = meta[name]
    _demand(is_number(value) and low <= value <= high, name, value)
    return float(value)


def _demand(condition: bool, what: str, found: object) -> None:
    if not condition:
        raise ValueError(f"{what} is {str(found)[:80]!r}")
