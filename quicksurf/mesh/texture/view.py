"""A photo with the mesh drawn into it: the colours of the texels that it shows.

Only pixels count that show the surface: nothing in front of it within a pixel, nothing else beside it (a rim mixes
with what is behind), inside the mask.
"""

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from scipy.ndimage import maximum_filter, minimum_filter

from quicksurf.geometry.cameras import project
from quicksurf.kernels.host import rasterize
from quicksurf.mesh.photos import Photo
from quicksurf.mesh.texture.atlas import Texels
from quicksurf.mesh.types import Mesh

_ROWS = 1 << 14  # cv2.remap takes 32,767 at a time
_FOOTPRINTS = 3.0  # pixels that depths may differ within one surface, seen frontally


class View:
    """One photo with the mesh drawn into it."""

    def __init__(self, mesh: Mesh, photo: Photo) -> None:
        self._mesh, self._photo = mesh, photo
        self._vertices, self._normals = mesh.vertices.astype(np.float32), mesh.normals.astype(np.float32)
        width, height = photo.camera.sizes[0].tolist()
        pixels, depths = project(photo.camera, 0, torch.from_numpy(self._vertices))
        corners = torch.cat([pixels, depths[:, None]], 1).numpy()
        depth, _ = rasterize(corners, mesh.faces, width, height)
        self._nearest, self._farthest = minimum_filter(depth, 3), maximum_filter(depth, 3)
        mask = photo.mask
        self._mask = None if mask is None else minimum_filter(mask, 3)

    def look_up(self, texels: Texels) -> tuple[Float32[np.ndarray, "s 3"], Bool[np.ndarray, "t"]]:
        """Return the colours in [0, 1], exposure undone, of the texels that the photo shows, and which these are."""
        points = texels.interpolate(self._vertices, self._mesh.faces)
        normals = texels.interpolate(self._normals, self._mesh.faces)
        pixels, depths = (
            values.numpy() for values in project(self._photo.camera, 0, torch.from_numpy(points))
        )
        width, height = self._photo.camera.sizes[0].tolist()
        valid = (depths > 0) & (pixels >= 0).all(1) & (pixels[:, 0] < width) & (pixels[:, 1] < height)
        columns, rows = np.where(valid[:, None], pixels, 0).astype(np.int64).T
        slack = self._slack(points, normals, depths)
        valid &= depths <= self._nearest[rows, columns] + slack
        valid &= self._farthest[rows, columns] <= depths + slack
        if self._mask is not None:
            valid &= self._mask[rows, columns]
        return self._colors(pixels[valid]), valid

    def _colors(self, pixels: Float32[np.ndarray, "s 2"]) -> Float32[np.ndarray, "s 3"]:
        """The scene's colours between pixels, cubic: linear ones lose detail; the border is continued outward."""
        at = (pixels - np.float32(0.5)).reshape(-1, 1, 2).astype(np.float32)
        parts = [at[first : first + _ROWS] for first in range(0, len(at), _ROWS)]
        found = [self._remap(part) for part in parts]
        colors = np.concatenate([np.zeros((0, 1, 3), np.uint8), *found]).reshape(-1, 3)
        return self._photo.undo_exposure(colors / np.float32(255))

    def _remap(self, at: Float32[np.ndarray, "s 1 2"]) -> UInt8[np.ndarray, "s 1 3"]:
        colors, x, y = self._photo.colors, at[..., 0].copy(), at[..., 1].copy()
        return cv2.remap(colors, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)

    def _slack(
        self,
        points: Float32[np.ndarray, "t 3"],
        normals: Float32[np.ndarray, "t 3"],
        depths: Float32[np.ndarray, "t"],
    ) -> Float32[np.ndarray, "t"]:
        """How far depths of one surface differ from pixel to pixel: _FOOTPRINTS · z / f · (1 + tan θ)."""
        camera = self._photo.camera
        to_camera = camera.c2w[0, :, 3].numpy() - points
        cosines = (normals * to_camera).sum(1) / np.maximum(np.linalg.norm(to_camera, axis=1), 1e-12)
        cosines = np.clip(cosines / np.maximum(np.linalg.norm(normals, axis=1), 1e-12), 0.1, 1)
        footprints = depths / float(camera.intrinsics[0, :2].min())
        return _FOOTPRINTS * footprints * (1 + np.sqrt(1 - cosines**2) / cosines)
