"""The growing mesh: the surface as it stands, coarse and cheap.

Beside the mesh that the user gets (mesh/build.py) it is looked at by few cameras through small frames, no part is
judged by its size, and colours are those seen along the normals.
"""

import numpy as np
import torch
from jaxtyping import Float64, Int64

from quicksurf.geometry.cameras import Cameras, resize
from quicksurf.mesh.build import color_vertices
from quicksurf.mesh.clean import compact, inside_ball
from quicksurf.mesh.extract import extract_surface, vertex_normals
from quicksurf.mesh.types import Mesh
from quicksurf.mesh.visibility import count_views, faces_seen
from quicksurf.model import TrainedModel

N_CAMERAS = (
    12  # half of a mesh's time; they keep 99 % of the faces that 60 large ones do, 24 cost twice as much
)
FRAME = 240  # pixels of the z-buffer's longer side: a triangle of a coarse mesh covers several
ROI_RADIUS = 0.99  # faces on the ball's border were made by the border
RIM_RINGS = 3  # faces around a seen vertex that are kept: few cameras leave gaps


def preview_mesh(reconstruction: TrainedModel, resolution: int) -> Mesh:
    """Return the surface now, at `resolution` cells along the ROI, in the cameras' frame; without faces if there is
    none.
    """
    field, grid = reconstruction.field, reconstruction.renderer.grid
    vertices, faces = extract_surface(field.logits, grid.occupied, grid.aabb, resolution)
    vertices, faces, _ = compact(vertices, faces[inside_ball(vertices, faces, ROI_RADIUS)])
    vertices, faces = _seen(vertices, faces, _small_frames(reconstruction.roi_cameras()))
    normals = vertex_normals(vertices, faces)
    nobody = np.full((len(vertices), 3), -1)  # each vertex is looked at along its normal
    colors = color_vertices(field, vertices, nobody, reconstruction.roi_cameras(), grid.aabb.device)
    return Mesh(vertices, faces, colors, normals).to_world(
        reconstruction.roi.center, reconstruction.roi.radius
    )


def _seen(
    vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"], cameras: Cameras
) -> tuple[Float64[np.ndarray, "w 3"], Int64[np.ndarray, "g 3"]]:
    """Drop what none of the cameras sees: the far side of the table, shells inside the object."""
    if not len(faces):
        return vertices, faces
    views = count_views(vertices, faces, vertex_normals(vertices, faces), cameras)
    vertices, faces, _ = compact(vertices, faces[faces_seen(faces, views.n_views > 0, RIM_RINGS)])
    return vertices, faces


def _small_frames(cameras: Cameras) -> Cameras:
    keep = torch.linspace(0, len(cameras) - 1, min(len(cameras), N_CAMERAS)).round().long()
    cameras = cameras.select(keep)
    ratio = (FRAME / cameras.sizes.max(1, keepdim=True).values.double()).clamp(max=1.0)
    return resize(cameras, (cameras.sizes * ratio).round().clamp_min(1).to(cameras.sizes.dtype))
