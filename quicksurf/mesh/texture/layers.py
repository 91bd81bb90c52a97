"""A photo in two layers, with the mesh drawn into it: what is broad, which is mixed, and the detail, which is not.

The broad layer is the mean of the photo's surface around each pixel; the detail is what the photo differs by. Only
pixels count that show the surface: nothing in front of it within a pixel, nothing else beside it (a rim mixes with
what is behind), inside the mask.
"""

from typing import NamedTuple

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
_REDUCTION = 4  # of the broad layer, along a line
_SPREAD = 2.0  # pixels of the reduced layer: the standard deviation of its mean


class Colors(NamedTuple):
    """Of texels that a photo shows, exposure undone."""

    broad: Float32[np.ndarray, "s 3"]
    detail: Float32[np.ndarray, "s 3"]
    valid: Bool[np.ndarray, "t"]
    """Which of all texels these are."""


class Layers:
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
        surface = (
            np.isfinite(self._farthest) if self._mask is None else np.isfinite(self._farthest) & self._mask
        )
        self._broad = _broad(photo.colors, surface)

    def look_up(self, texels: Texels) -> Colors:
        """Return the colours of the texels that the photo shows."""
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
        return Colors(*self._colors(pixels[valid]), valid)

    def _colors(
        self, pixels: Float32[np.ndarray, "s 2"]
    ) -> tuple[Float32[np.ndarray, "s 3"], Float32[np.ndarray, "s 3"]]:
        """The scene's colours of both layers, in [0, 1]."""
        matrix, offset = self._photo.exposure[:, :3], self._photo.exposure[:, 3]
        undo = np.linalg.inv(matrix).T / 255
        broad = _sample(self._broad, pixels / _REDUCTION, cv2.INTER_LINEAR)
        detail = _sample(self._photo.colors, pixels, cv2.INTER_CUBIC) - broad
        return (broad - 255 * offset) @ undo, detail @ undo

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


def _broad(
    colors: UInt8[np.ndarray, "h w 3"], surface: Bool[np.ndarray, "h w"]
) -> Float32[np.ndarray, "i j 3"]:
    """Mean colours of the surface around each pixel, at a reduced size."""
    height, width = surface.shape
    size = -(-width // _REDUCTION), -(-height // _REDUCTION)
    padded = size[0] * _REDUCTION - width, size[1] * _REDUCTION - height

    def mean(image: np.ndarray) -> np.ndarray:
        whole = cv2.copyMakeBorder(image, 0, padded[1], 0, padded[0], cv2.BORDER_REPLICATE)
        small = cv2.resize(whole, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        return cv2.GaussianBlur(small, (0, 0), _SPREAD)

    weight = mean(np.where(surface, np.uint8(255), np.uint8(0)))
    total = mean(np.where(surface[..., None], colors, np.uint8(0)))
    return total / np.maximum(weight / 255, 1e-3)[..., None]


def _sample(image: np.ndarray, pixels: Float32[np.ndarray, "s 2"], how: int) -> Float32[np.ndarray, "s 3"]:
    """Values at pixels (centres at +0.5); the border is continued outward."""
    at = (pixels - np.float32(0.5)).reshape(-1, 1, 2).astype(np.float32)
    parts = [at[first : first + _ROWS] for first in range(0, len(at), _ROWS)]
    found = [cv2.remap(image, part, None, how, borderMode=cv2.BORDER_REPLICATE) for part in parts]
    return np.concatenate([np.zeros((0, 1, 3), image.dtype), *found]).reshape(-1, 3).astype(np.float32)
