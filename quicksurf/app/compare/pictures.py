"""Pictures of a comparison: a mesh in clay or in its colours from a photo's camera, a field by surface rendering."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, UInt8

from quicksurf.geometry.cameras import Cameras, project, resize
from quicksurf.geometry.rays import Rays
from quicksurf.geometry.region import cameras_in_roi, roi_rays
from quicksurf.kernels.host import rasterize
from quicksurf.mesh.types import Mesh
from quicksurf.model import TrainedModel

SIDE = 300  # pixels
_FINER = 2  # meshes are drawn so many times larger and averaged down
_CLAY = np.array([0.93, 0.91, 0.88])
_AMBIENT = 0.12
_LIGHTS = (
    (0.75, (-0.5, -0.7, -0.5)),
    (0.25, (0.8, 0.1, -0.6)),
)  # strength, direction towards it in camera axes
_BATCH_RAYS = 1 << 14


class Drawing(NamedTuple):
    """A mesh as one camera sees it, before white."""

    clay: UInt8[np.ndarray, "h w 3"]
    colors: UInt8[np.ndarray, "h w 3"]
    covered: Bool[np.ndarray, "h w"]


def at_size(cameras: Cameras, index: int, side: int) -> Cameras:
    """Return one camera at a longest side of at most `side` pixels."""
    camera = cameras.select(torch.tensor([index]))
    ratio = min(1.0, side / int(camera.sizes.max()))
    return resize(camera, (camera.sizes * ratio).round().clamp_min(1).to(camera.sizes.dtype))


def draw(mesh: Mesh, camera: Cameras) -> Drawing:
    """Draw the mesh as the one camera sees it."""
    fine = resize(camera, camera.sizes * _FINER)
    width, height = fine.sizes[0].tolist()
    pixels, depths = project(fine, 0, torch.from_numpy(mesh.vertices).to(fine.c2w.dtype))
    corners = np.ascontiguousarray(torch.cat([pixels, depths[:, None]], 1).float().numpy())
    shown = rasterize(corners, mesh.faces, width, height)[1]
    normals = mesh.normals @ fine.c2w[0, :, :3].double().numpy()
    lit = np.full(len(normals), _AMBIENT)
    for strength, towards in _LIGHTS:
        lit += strength * np.clip(normals @ (np.array(towards) / np.linalg.norm(towards)), 0, None)
    clay = _CLAY * lit.clip(0, 1)[:, None] ** 0.7
    return Drawing(
        _paint(clay, mesh.faces, shown),
        _paint(mesh.colors / 255.0, mesh.faces, shown),
        _mean(shown >= 0) >= 0.5,
    )


def _paint(
    colors: Float64[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], shown: Int[np.ndarray, "i j"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Mean vertex colours of the faces shown, averaged down."""
    image = np.ones((*shown.shape, 3))
    hit = shown >= 0
    image[hit] = colors[faces[shown[hit]]].mean(1)
    return np.rint(255 * _mean(image)).astype(np.uint8)


def _mean(fine: Bool[np.ndarray, "i j *c"] | Float64[np.ndarray, "i j *c"]) -> Float64[np.ndarray, "h w *c"]:
    """The mean over the fine pixels of each pixel."""
    height, width = fine.shape[0] // _FINER, fine.shape[1] // _FINER
    return fine.reshape(height, _FINER, width, _FINER, *fine.shape[2:]).mean((1, 3))


@torch.no_grad()
def render_surface(model: TrainedModel, camera: Cameras) -> Float[np.ndarray, "h w 3"]:
    """Render by surface rendering: a ray has the colour of the point where it meets the surface (UNISURF, eq. 8).

    Rays that miss it have the background's, white in masked captures.
    """
    width, height = camera.sizes[0].tolist()
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = (torch.stack([columns, rows], -1).reshape(-1, 2) + 0.5).to(model.device)
    moved = cameras_in_roi(camera, model.roi).on(model.device)
    parts = []
    for chunk in pixels.split(_BATCH_RAYS):
        rays = roi_rays(moved, torch.zeros(len(chunk), dtype=torch.long, device=chunk.device), chunk)
        parts.append(_surface_colors(model, rays))
    return torch.cat(parts).clamp(0, 1).view(height, width, 3).cpu().numpy()


def _surface_colors(model: TrainedModel, rays: Rays) -> Float[torch.Tensor, "n 3"]:
    rendering = model.render_rays(rays)
    hits = rendering.surface.hits
    index = torch.nonzero(hits)[:, 0]
    points, directions = rays.at(index, rendering.surface.ts[index]), rays.directions[index]
    colors = model.field.colors(points, model.field.shading_normals(points), directions)
    missed = torch.ones_like(rays.origins) if model.masked else rendering.colors
    return missed.index_copy(0, index, colors)
