"""The mesh for the page's viewer: reduced, quantised and packed, a few hundred kB as base64.

    bytes    uint32 vertices v, uint32 faces f · v × (uint16 x, y, z, 0) · v × (int8 nx, ny, nz, 0) ·
             v × (uint8 r, g, b, views) · f × 3 uint16, little endian
    frame    x right, y up, z towards somebody at the first photo; the middle of the mesh's box is 0, and its farthest
             vertex is at 1, however it is turned: position = (value / 65535) · 2 − 1

At most 65,535 vertices, so that the indices fit WebGL 1 without an extension.
"""

import base64

import numpy as np
from jaxtyping import Float64, Int64
from scipy.spatial import KDTree

from quicksurf.app.report.sphere import Frame
from quicksurf.mesh.clean import decimate
from quicksurf.mesh.extract import vertex_normals
from quicksurf.mesh.types import Mesh

MAX_FACES = 30_000  # about 15,000 vertices of 16 bytes and as many faces of 6: 420 kB, 560 as base64
MAX_VERTICES = 65_535


def reduce(mesh: Mesh) -> Mesh:
    """Return at most MAX_FACES faces and MAX_VERTICES vertices, coloured as the nearest vertices were."""
    vertices, faces = decimate(mesh.vertices, mesh.faces, MAX_FACES)
    while len(vertices) > MAX_VERTICES:  # single triangles that hang together nowhere
        vertices, faces = _first_faces(vertices, faces, len(faces) // 2)
    nearest = KDTree(mesh.vertices).query(vertices)[1]
    return Mesh(vertices, faces, mesh.colors[nearest], vertex_normals(vertices, faces))


def pack(mesh: Mesh, n_views: Int64[np.ndarray, "v"], frame: Frame) -> str:
    """Return the bytes above as base64."""
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


def _first_faces(
    vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"], count: int
) -> tuple[Float64[np.ndarray, "w 3"], Int64[np.ndarray, "g 3"]]:
    used, renumbered = np.unique(faces[:count], return_inverse=True)
    return vertices[used], renumbered.reshape(-1, 3)
