"""Images as they stand in the page: small JPEG as data URI, depth as colours, a mesh drawn by the z-buffer."""

import base64
import io

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from PIL import Image

from quicksurf.app.film import SEEN
from quicksurf.geometry.cameras import Cameras, project
from quicksurf.geometry.paths import close_up
from quicksurf.kernels.host import rasterize
from quicksurf.mesh.types import Mesh

_QUALITY = 78
# viridis at 0, ¼, ½, ¾, 1: even in lightness, so that it also reads in grey
_RAMP = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], np.float64)
_PAPER = 245  # grey of what lies beside the mesh


def shrink(image: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "v u 3"]:
    """Return the image with a longest side of at most `side` pixels."""
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.BOX)
    return np.asarray(picture)


def as_jpeg(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Return JPEG without metadata."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()


def data_uri(jpeg: bytes) -> str:
    """Encode for an <img> of a page that may not ask the network for anything."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def depth_colors(
    depth: Float[np.ndarray, "h w"], opacity: Float[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Colour depths: near is yellow, far is violet, over the range of this image; nothing is light grey."""
    seen = (opacity > SEEN) & np.isfinite(depth)
    image = np.full((*depth.shape, 3), _PAPER, np.uint8)
    if seen.any():
        near, far = np.percentile(depth[seen], [1, 99])
        image[seen] = ramp(1 - (depth[seen] - near) / max(far - near, 1e-12))
    return image


def ramp(values: Float[np.ndarray, "n"]) -> UInt8[np.ndarray, "n 3"]:
    """Return the colours of values in [0, 1]."""
    at = np.clip(values, 0, 1) * (len(_RAMP) - 1)
    return (
        np.stack([np.interp(at, np.arange(len(_RAMP)), _RAMP[:, k]) for k in range(3)], -1)
        .round()
        .astype(np.uint8)
    )


def draw_mesh(mesh: Mesh, cameras: Cameras, side: int) -> UInt8[np.ndarray, "h w 3"]:
    """Return the mesh in its colours from where the first photo was taken, a little shaded, on light grey."""
    camera = close_up(cameras, mesh.vertices, 1, (side, side))
    pixels, depths = project(camera, 0, torch.from_numpy(mesh.vertices))
    projected = np.ascontiguousarray(torch.cat([pixels, depths[:, None]], 1).float().numpy())
    _, indices = rasterize(projected, mesh.faces, side, side)
    image = np.full((side, side, 3), _PAPER, np.uint8)
    hit = indices >= 0
    image[hit] = _shaded(mesh, camera.centers()[0].double().numpy(), mesh.faces[indices[hit]])
    return image


def _shaded(mesh: Mesh, eye: Float64[np.ndarray, "3"], corners: np.ndarray) -> UInt8[np.ndarray, "n 3"]:
    """Vertex colours of triangles, darker where they turn away from the eye."""
    sight = eye - mesh.vertices[corners].mean(1)
    normals = mesh.normals[corners].mean(1)
    cosines = np.abs((normals * sight).sum(1)) / np.maximum(np.linalg.norm(sight, axis=1), 1e-30)
    shaded = mesh.colors[corners].mean(1) * (0.55 + 0.45 * np.clip(cosines, 0, 1))[:, None]
    return shaded.round().astype(np.uint8)
