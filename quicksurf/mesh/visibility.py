"""Which cameras see which vertices: the mesh itself is drawn into a z-buffer of every camera.

What no camera saw is invention: shells inside the object, a blob under the table, the back of a wall. A
vertex counts as seen by a camera when it is in the frame, faces the camera, and is no deeper than the
z-buffer at its pixel plus the depth that the surface can gain within one pixel: footprint · (1 + tan θ), with
footprint = z / f the pixel's width there and θ the angle between normal and line of sight.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from quicksurf.geometry.cameras import Cameras, fit_within, project, undistort
from quicksurf.kernels.host import rasterize
from quicksurf.mesh.types import Faces, Vertices

MAX_SIDE = 640  # pixels of the z-buffer's longer side: a few pixels a triangle at the usual mesh resolutions
N_BEST = 3
_MIN_COSINE = 0.1  # more oblique views (beyond 84°) neither place a surface nor colour it
# Times the frame's own half-diagonal; beyond, a lens polynomial may fold back into the frame.
_FRAME_MARGIN = 1.5


class Views(NamedTuple):
    """What the cameras saw of a mesh."""

    n_views: Int64[np.ndarray, "v"]
    """How many cameras see each vertex."""
    best_cameras: Int64[np.ndarray, "v 3"]
    """The cameras that see a vertex most frontally, in no order; -1 where fewer than three do."""


class Seen(NamedTuple):
    """The vertices that one camera sees."""

    indices: Int64[Tensor, "s"]
    cosines: Float[Tensor, "s"]
    """Between their normals and the line of sight."""
    pixels: Float[Tensor, "s 2"]
    footprints: Float[Tensor, "s"]
    """Width of a pixel there, facing the camera."""


def count_views(vertices: Vertices, faces: Faces, normals: Vertices, cameras: Cameras) -> Views:
    """See the module's text. Lens distortion moves vertices; the edges between them are taken as straight."""
    cameras = reduced(cameras)
    points, directions = torch.from_numpy(vertices).float(), torch.from_numpy(normals).float()
    triangles = np.ascontiguousarray(faces, np.int32)
    n_views = torch.zeros(len(points), dtype=torch.int64)
    best_cameras = torch.full((len(points), N_BEST), -1)
    best_cosines = torch.zeros(len(points), N_BEST)
    for camera in range(len(cameras)):
        seen, cosines, _, _ = seen_by(cameras, camera, points, triangles, directions)
        n_views[seen] += 1
        worst, slot = best_cosines[seen].min(1)
        better = cosines > worst
        best_cosines[seen[better], slot[better]] = cosines[better]
        best_cameras[seen[better], slot[better]] = camera
    return Views(n_views.numpy(), best_cameras.numpy())


def reduced(cameras: Cameras) -> Cameras:
    """Return the cameras at the size of their z-buffers, float32."""
    return fit_within(cameras, MAX_SIDE).to(torch.float32)


def seen_by(
    cameras: Cameras,
    camera: int,
    points: Float[Tensor, "v 3"],
    faces: np.ndarray,
    normals: Float[Tensor, "v 3"],
) -> Seen:
    """Return the vertices that one camera sees; the z-buffer has the camera's own size."""
    pixels, depths = project(cameras, camera, points)
    depths = torch.where(_near_frame(cameras, camera, points), depths, torch.zeros_like(depths))
    width, height = cameras.sizes[camera].tolist()
    projected = torch.cat([pixels, depths[:, None]], 1).numpy()
    buffer, _ = rasterize(projected, faces, width, height)
    size = torch.tensor([width, height])
    inside = torch.nonzero((depths > 0) & (pixels >= 0).all(1) & (pixels < size).all(1))[:, 0]
    to_camera = cameras.c2w[camera, :, 3] - points[inside]
    cosines = (normals[inside] * to_camera).sum(1) / to_camera.norm(dim=1).clamp_min(1e-12)
    facing = cosines > _MIN_COSINE
    inside, cosines = inside[facing], cosines[facing]
    columns, rows = pixels[inside].long().unbind(1)
    footprints = depths[inside] / cameras.intrinsics[camera, :2].min()
    tolerance = footprints * (1 + (1 - cosines**2).clamp_min(0).sqrt() / cosines)
    visible = depths[inside] <= torch.from_numpy(buffer)[rows, columns] + tolerance
    inside, cosines, footprints = inside[visible], cosines[visible], footprints[visible]
    return Seen(inside, cosines, pixels[inside], footprints)


def _near_frame(cameras: Cameras, camera: int, points: Float[Tensor, "v 3"]) -> Bool[Tensor, "v"]:
    """Points in front of the camera and not so far off its axis that the lens model stops making sense."""
    width, height = cameras.sizes[camera].tolist()
    corners = torch.tensor([[0.0, 0.0], [width, 0.0], [0.0, height], [width, height]])
    intrinsics = cameras.intrinsics[camera]
    plane = undistort(
        (corners - intrinsics[2:]) / intrinsics[:2],
        cameras.distortion[camera].expand(4, -1),
        cameras.fisheye[camera].expand(4),
    )
    local = (points - cameras.c2w[camera, :, 3]) @ cameras.c2w[camera, :, :3]
    return local[:, :2].norm(dim=1) < _FRAME_MARGIN * plane.norm(dim=1).max() * local[:, 2]


def faces_seen(faces: Faces, seen: Bool[np.ndarray, "v"], n_rings: int) -> Bool[np.ndarray, "f"]:
    """Return faces with a seen vertex, and those of gaps between them up to twice `n_rings` rings wide.

    Creases that every view grazes are such gaps: what is reached from seen vertices within `n_rings` rings, and does
    not lie as near to what is not (a closing). A rim towards what nobody saw is not grown.
    """
    gap = ~_grown(faces, ~_grown(faces, seen, n_rings), n_rings)
    return np.any((seen | gap)[faces], axis=1)


def _grown(faces: Faces, marked: Bool[np.ndarray, "v"], n_rings: int) -> Bool[np.ndarray, "v"]:
    """Mark the vertices within `n_rings` rings of marked ones, too."""
    grown = marked.copy()
    for _ in range(n_rings):
        grown[faces[grown[faces].any(1)]] = True
    return grown
