"""Images and the mesh as the report embeds them: JPEG as data URI, depth as colors, the mesh drawn or packed.

Format of the packed mesh for viewer.js, little endian, base64:
    bytes    uint32 vertices v, uint32 faces f · v × (uint16 x, y, z, 0) · v × (int8 nx, ny, nz, 0) ·
             v × (uint8 r, g, b, views) · f × 3 uint16
    frame    x right, y up, z towards the first camera; the mesh's box is centered at 0 and its farthest vertex has
             distance 1: position = (value / 65535) · 2 − 1
"""

import base64
import io

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from scipy.spatial import KDTree

from quicksurf.app.film import SEEN
from quicksurf.app.report.sphere import HorizonFrame
from quicksurf.geometry.cameras import Cameras, project
from quicksurf.geometry.paths import close_up
from quicksurf.kernels.host import rasterize
from quicksurf.mesh.clean import decimate
from quicksurf.mesh.extract import vertex_normals
from quicksurf.mesh.types import Mesh

MAX_FACES = 30_000  # about 15,000 vertices of 16 bytes and as many faces of 6: 420 kB, 560 as base64
MAX_VERTICES = 65_535  # indices fit WebGL 1 without an extension
_QUALITY = 78
# viridis at 0, ¼, ½, ¾, 1: even in lightness, so that it also reads in grey
_RAMP = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], np.float64)
_PAPER = 245  # grey of the background


def shrink(image: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "v u 3"]:
    """Shrink the image to at most `side` pixels on its longer side."""
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.BOX)
    return np.asarray(picture)


def as_jpeg(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Encode as JPEG without metadata."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()


def data_uri(jpeg: bytes) -> str:
    """Encode as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def depth_colors(
    depth: Float[np.ndarray, "h w"], opacity: Float[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Color depths over the range of this image: near is yellow, far is violet, unseen is light grey."""
    seen = (opacity > SEEN) & np.isfinite(depth)
    image = np.full((*depth.shape, 3), _PAPER, np.uint8)
    if seen.any():
        near, far = np.percentile(depth[seen], [1, 99])
        image[seen] = ramp(1 - (depth[seen] - near) / max(far - near, 1e-12))
    return image


def ramp(values: Float[np.ndarray, "n"]) -> UInt8[np.ndarray, "n 3"]:
    """Map values in [0, 1] to colors."""
    at = np.clip(values, 0, 1) * (len(_RAMP) - 1)
    channels = [np.interp(at, np.arange(len(_RAMP)), channel) for channel in _RAMP.T]
    return np.stack(channels, -1).round().astype(np.uint8)


def draw_mesh(mesh: Mesh, cameras: Cameras, side: int) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the colored mesh from the first photo's side; faces turned away from the camera are darker."""
    camera = close_up(cameras, mesh.vertices, 1, (side, side))
    pixels, depths = project(camera, 0, torch.from_numpy(mesh.vertices))
    projected = np.ascontiguousarray(torch.cat([pixels, depths[:, None]], 1).float().numpy())
    _, indices = rasterize(projected, mesh.faces, side, side)
    hit = indices >= 0
    corners = mesh.faces[indices[hit]]
    sight = camera.centers()[0].double().numpy() - mesh.vertices[corners].mean(1)
    normals = mesh.normals[corners].mean(1)
    cosines = np.abs((normals * sight).sum(1)) / np.maximum(np.linalg.norm(sight, axis=1), 1e-30)
    shaded = mesh.colors[corners].mean(1) * (0.55 + 0.45 * np.clip(cosines, 0, 1))[:, None]
    image = np.full((side, side, 3), _PAPER, np.uint8)
    image[hit] = shaded.round().astype(np.uint8)
    return image


def reduce_mesh(mesh: Mesh) -> Mesh:
    """Reduce to MAX_FACES faces and MAX_VERTICES vertices; each vertex keeps the color of the nearest old one."""
    vertices, faces = decimate(mesh.vertices, mesh.faces, MAX_FACES)
    while len(vertices) > MAX_VERTICES:  # unconnected triangles, which decimation cannot merge
        used, renumbered = np.unique(faces[: len(faces) // 2], return_inverse=True)
        vertices, faces = vertices[used], renumbered.reshape(-1, 3)
    nearest = KDTree(mesh.vertices).query(vertices)[1]
    return Mesh(vertices, faces, mesh.colors[nearest], vertex_normals(vertices, faces))


def pack_mesh(mesh: Mesh, n_views: Int64[np.ndarray, "v"], frame: HorizonFrame) -> str:
    """Pack the mesh in the format above."""
    axes = np.stack([np.cross(frame.up, frame.ahead), frame.up, frame.ahead])
    local = mesh.vertices @ axes.T
    local -= (local.min(0) + local.max(0)) / 2
    reach = max(float(np.linalg.norm(local, axis=1).max()), 1e-30)
    positions = np.zeros((len(local), 4), "<u2")
    positions[:, :3] = np.rint((local / reach + 1) / 2 * 65535)
    normals = np.zeros((len(local), 4), np.int8)
    normals[:, :3] = np.rint(mesh.normals @ axes.T * 127)
    colors = np.column_stack([mesh.colors, np.clip(n_views, 0, 255)]).astype(np.uint8)
    head = np.array([len(local), len(mesh.faces)], "<u4")
    parts = (head, positions, normals, colors, mesh.faces.astype("<u2"))
    return base64.b64encode(b"".join(part.tobytes() for part in parts)).decode()
