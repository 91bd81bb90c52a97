"""A textured mesh drawn at the photos' cameras, beside the photos.

    gradients   Σ |∇ render|² / Σ |∇ photo|² of grey values, where the mesh is drawn: below 1 it is blurred
    psnr        of the colours there, dB
    matched     the same after the affine map of colours that brings the render to the photo: exposure does not count

Each pixel is the mean of four samples within it, as a photo's pixel is an area, of a texture that is reduced where its
texels are finer than that.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt8

from detail_bench.surfaces import Photos, Surface
from quicksurf.errors import CaptureError, SurfaceError
from quicksurf.fields.appearance import affine_map, mapped
from quicksurf.geometry.cameras import Cameras, project
from quicksurf.kernels.host import rasterize

_SAMPLES = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))
_RIM = 5  # pixels around one that must show the mesh, a side
_BAND = 1 << 18  # pixels at a time
_LEVELS = 2  # halvings of the texture at most: charts stand four texels apart


class Textured(NamedTuple):
    """A mesh with a texture."""

    vertices: Float64[np.ndarray, "v 3"]
    faces: Int32[np.ndarray, "f 3"]
    uvs: Float32[np.ndarray, "v 2"]
    """u to the right, v downwards."""
    texture: UInt8[np.ndarray, "h w 3"]


class Likeness(NamedTuple):
    """Means over the photos."""

    gradients: float
    psnr: float
    matched: float


def read_textured(path: Path) -> Textured:
    """Read a textured GLB.

    Raises:
        SurfaceError: if it cannot be read, or has no texture.
    """
    try:
        mesh = trimesh.load(path, process=False, force="mesh")
        uvs, image = np.array(mesh.visual.uv, np.float32), mesh.visual.material.baseColorTexture
        texture = np.array(image.convert("RGB"))
    except Exception as error:  # trimesh's readers fail each in its own way
        raise SurfaceError(f"cannot read {path} ({error}): expected a textured GLB") from error
    uvs[:, 1] = 1 - uvs[:, 1]
    return Textured(np.array(mesh.vertices, np.float64), np.int32(mesh.faces), uvs, texture)


def compare_with_photos(mesh: Textured, surface: Surface, photos: Photos, n_photos: int) -> Likeness:
    """Draw the mesh at cameras of `surface`, evenly chosen, and compare.

    Raises:
        CaptureError: if no photo has a camera and shows the mesh.
        ImageError: if a photo is damaged.
    """
    names = [name for name in surface.names if name in photos.files]
    chosen = np.unique(np.linspace(0, len(names) - 1, min(n_photos, len(names))).round().astype(int))
    found = [_compare(mesh, surface, photos, names[index]) for index in chosen]
    figures = np.array([figure for figure in found if figure is not None])
    if not len(figures):
        raise CaptureError("none of the photos shows the textured mesh: check that it is of this capture")
    return Likeness(*figures.mean(0).tolist())


def _compare(mesh: Textured, surface: Surface, photos: Photos, name: str) -> Likeness | None:
    photo = photos.read(name)
    height, width = photo.shape[:2]
    drawn, covered = draw(mesh, surface.camera(name, width, height))
    covered &= photos.mask(name, width, height)
    inside = cv2.erode(covered.astype(np.uint8), np.ones((_RIM, _RIM), np.uint8), borderValue=0) > 0
    if not inside.any():
        return None
    render, truth = (torch.from_numpy(image[inside] / np.float32(255)) for image in (drawn, photo))
    matched = mapped(render, affine_map(render, truth))
    ratio = _energy(drawn, inside) / max(_energy(photo, inside), 1e-9)
    return Likeness(ratio, _psnr(render, truth), _psnr(matched, truth))


def draw(mesh: Textured, camera: Cameras) -> tuple[Float32[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """Return the colours of the mesh, 0 to 255, and the pixels that it covers."""
    width, height = camera.sizes[0].tolist()
    pixels, depths = project(camera, 0, torch.from_numpy(mesh.vertices))
    corners = torch.cat([pixels, depths[:, None]], 1).float().numpy()
    total, covered, texture = np.zeros((height * width, 3), np.float32), np.ones(height * width, bool), None
    for sample in _SAMPLES:
        moved = corners - np.array([*sample, 0], np.float32)
        shown = rasterize(moved, mesh.faces, width, height)[1].ravel()
        covered &= shown >= 0
        at = np.flatnonzero(shown >= 0)
        texture = _reduced(mesh, corners, shown[at]) if texture is None else texture
        for first in range(0, len(at), _BAND):
            part = at[first : first + _BAND]
            uvs = _texture_coordinates(mesh, moved, shown[part], part, width)
            total[part] += _look_up(texture, uvs)
    return (total / len(_SAMPLES)).reshape(height, width, 3), covered.reshape(height, width)


def _texture_coordinates(
    mesh: Textured,
    corners: Float32[np.ndarray, "v 3"],
    faces: Int32[np.ndarray, "p"],
    pixels: Int64[np.ndarray, "p"],
    width: int,
) -> Float64[np.ndarray, "p 2"]:
    """Interpolate with perspective: weights on the screen over depth."""
    triangles = corners[mesh.faces[faces]].astype(np.float64)
    at = np.stack([pixels % width, pixels // width], 1) + 0.5
    a, b, c = (triangles[:, k, :2] - at for k in range(3))
    areas = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], 1) / triangles[:, :, 2]
    weights = areas / areas.sum(1, keepdims=True)
    return np.einsum("pk,pkc->pc", weights, mesh.uvs[mesh.faces[faces]])


def _reduced(
    mesh: Textured, corners: Float32[np.ndarray, "v 3"], shown: Int32[np.ndarray, "p"]
) -> UInt8[np.ndarray, "h w 3"]:
    """The texture at the size at which its texels are as fine as the samples that are drawn, or the next finer."""
    faces = mesh.faces[np.unique(shown)]
    sizes = np.array(mesh.texture.shape[1::-1])
    in_texture, on_screen = (_areas(values[faces]) for values in (mesh.uvs * sizes, corners[:, :2]))
    finer = np.sqrt(in_texture.sum() / max(on_screen.sum() * len(_SAMPLES), 1e-9))
    texture = mesh.texture
    for _ in range(int(np.clip(np.floor(np.log2(max(finer, 1e-9))), 0, _LEVELS))):
        texture = cv2.resize(texture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return texture


def _look_up(
    texture: UInt8[np.ndarray, "h w 3"], uvs: Float64[np.ndarray, "p 2"]
) -> Float32[np.ndarray, "p 3"]:
    border = cv2.BORDER_REPLICATE
    at = (uvs * texture.shape[1::-1] - 0.5).astype(np.float32).reshape(-1, 1, 2)
    parts = [
        cv2.remap(texture, part[..., 0].copy(), part[..., 1].copy(), cv2.INTER_LINEAR, borderMode=border)
        for part in np.array_split(at, len(at) // 32_000 + 1)  # cv2 takes 32,767 rows
    ]
    return np.concatenate(parts).reshape(-1, 3).astype(np.float32)


def _areas(triangles: Float32[np.ndarray, "f 3 2"]) -> Float32[np.ndarray, "f"]:
    return np.abs(_cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])) / 2


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _energy(image: np.ndarray, inside: Bool[np.ndarray, "h w"]) -> float:
    """Sum of squared differences of neighbouring grey values."""
    grey = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2GRAY)
    slopes = np.zeros_like(grey)
    slopes[:-1] += np.diff(grey, axis=0) ** 2
    slopes[:, :-1] += np.diff(grey, axis=1) ** 2
    return float(slopes[inside].sum(dtype=np.float64))


def _psnr(image: torch.Tensor, truth: torch.Tensor) -> float:
    return float(-10 * (image - truth).square().mean().clamp_min(1e-12).log10())
