"""What stereo compares: photos as grey pinhole images, which others show the same from aside, and first guesses.

A plane in a photo is w + a i + b j: the inverse of its depth along the optical axis, i, j pixels from a pixel.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, UInt8
from scipy.spatial import Delaunay, KDTree, QhullError

from quicksurf.capture.scene import Scene, SparsePoints
from quicksurf.geometry.cameras import Cameras, distort, resize
from quicksurf.kernels.host import rasterize

# Degrees between rays that fit best: less says little of depth, more makes patches look different.
_ANGLE = 8.0
_NARROWER, _WIDER = 4.0, 16.0  # standard deviations on either side of it
_LEAST_SHARED = 3.0  # points of that angle that two photos share
_AROUND = 0.7, 1.4  # of the inverse depths of a photo's points: as far as planes may lie
_OUTLIERS = 0.01  # of a photo's points


class StereoPhoto(NamedTuple):
    """One photo without its distortion, x_camera = rotation (x_world − center)."""

    grey: UInt8[np.ndarray, "h w"]
    inside: Bool[np.ndarray, "h w"] | None
    """The mask, if there is one."""
    intrinsics: Float64[np.ndarray, "4"]
    rotation: Float64[np.ndarray, "3 3"]
    center: Float64[np.ndarray, "3"]
    pixels: Float64[np.ndarray, "n 2"]
    """Where verified points are seen."""
    inverse_depths: Float64[np.ndarray, "n"]
    """Theirs."""

    def matrix(self) -> Float64[np.ndarray, "3 3"]:
        """Return the pinhole's matrix: camera to homogeneous pixels."""
        fx, fy, cx, cy = self.intrinsics
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])

    def range(self) -> tuple[float, float]:
        """Return inverse depths that planes may have."""
        low, high = np.quantile(self.inverse_depths, [_OUTLIERS, 1 - _OUTLIERS])
        return float(_AROUND[0] * low), float(_AROUND[1] * high)

    def shrunk(self, factor: int) -> "StereoPhoto":
        """Return the same at a smaller size; without its mask."""
        if factor == 1:
            return self
        height, width = (max(1, round(side / factor)) for side in self.grey.shape)
        ratio = np.array([width / self.grey.shape[1], height / self.grey.shape[0]])
        grey = cv2.resize(self.grey, (width, height), interpolation=cv2.INTER_AREA)
        intrinsics = self.intrinsics * np.tile(ratio, 2)
        return self._replace(grey=grey, inside=None, intrinsics=intrinsics, pixels=self.pixels * ratio)


def stereo_photos(scene: Scene, points: SparsePoints, max_pixels: int) -> list[StereoPhoto]:
    """Return all photos of a capture, of at most `max_pixels` each."""
    index, observers = points.observations.unbind(1)
    cameras = scene.cameras.to(torch.float64)
    photos = []
    for view, (image, mask) in enumerate(zip(scene.images, scene.masks, strict=True)):
        height, width = image.shape[:2]
        scale = min(1.0, (max_pixels / (height * width)) ** 0.5)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        camera = resize(cameras.select(torch.tensor([view])), torch.tensor([size]))
        grey = _straight(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), camera)
        inside = None if mask is None else _straight(mask, camera) > 127
        rotation, center = camera.c2w[0, :, :3].numpy().T, camera.c2w[0, :, 3].numpy()
        local = (points.positions[index[observers == view]].double().numpy() - center) @ rotation.T
        local = local[local[:, 2] > 1e-9]
        inverse, intrinsics = 1 / local[:, 2], camera.intrinsics[0].numpy()
        pixels = local[:, :2] * inverse[:, None] * intrinsics[:2] + intrinsics[2:]
        photos.append(StereoPhoto(grey, inside, intrinsics, rotation, center, pixels, inverse))
    return photos


def _straight(image: UInt8[np.ndarray, "_ _"], camera: Cameras) -> UInt8[np.ndarray, "h w"]:
    """What a pinhole with the focal lengths and centre of the lens sees, at the size of the camera."""
    width, height = camera.sizes[0].tolist()
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    if not camera.distortion.any() and not camera.fisheye.any():
        return image
    focal, center = camera.intrinsics[:, :2], camera.intrinsics[:, 2:]
    pixels = torch.cartesian_prod(torch.arange(height) + 0.5, torch.arange(width) + 0.5).flip(1).double()
    ideal = (pixels - center) / focal
    bent = distort(ideal, camera.distortion.expand(len(ideal), -1), camera.fisheye.expand(len(ideal)))
    source = (bent * focal + center - 0.5).float().numpy().reshape(height, width, 2)
    return cv2.remap(image, source, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # pyright: ignore


def choose_partners(photos: Sequence[StereoPhoto], points: SparsePoints, most: int) -> list[list[int]]:
    """Choose for each photo the best `most` others that share points at useful angles and similar sizes."""
    index, observers = points.observations.numpy().T
    positions = points.positions.double().numpy()
    seen = np.zeros((len(photos), len(positions)), bool)
    seen[observers, index] = True
    centers = np.stack([photo.center for photo in photos])
    partners = []
    for view in range(len(photos)):
        rays = positions[seen[view]] - centers[:, None]
        lengths = np.maximum(np.linalg.norm(rays, axis=2), 1e-12)
        cosines = (rays * rays[view]).sum(2) / (lengths * lengths[view])
        off = np.degrees(np.arccos(np.clip(cosines, -1, 1))) - _ANGLE
        worth = np.exp(-0.5 * (off / np.where(off < 0, _NARROWER, _WIDER)) ** 2)
        worth *= np.minimum(lengths / lengths[view], lengths[view] / lengths) ** 2
        shared = (worth * seen[:, seen[view]]).sum(1)
        shared[view] = 0
        best = np.argsort(-shared, kind="stable")[:most]
        partners.append([int(other) for other in best if shared[other] > _LEAST_SHARED])
    return partners


def transform(photo: StereoPhoto, other: StereoPhoto) -> Float32[np.ndarray, "3 4"]:
    """Return [A | b]: a pixel (u, v) at the inverse depth w is seen by `other` at the homogeneous A (u, v, 1) + b w."""
    rotation = other.rotation @ photo.rotation.T
    shift = other.rotation @ (photo.center - other.center)
    linear = other.matrix() @ rotation @ np.linalg.inv(photo.matrix())
    return np.concatenate([linear, (other.matrix() @ shift)[:, None]], 1).astype(np.float32)


def first_planes(photo: StereoPhoto) -> Float32[np.ndarray, "3 h w"]:
    """Return planes through three neighbouring verified points; outside of all triangles the nearest one's depth."""
    height, width = photo.grey.shape
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    at = np.stack([u, v], -1).reshape(-1, 2)
    planes = np.zeros((3, height * width), np.float32)
    planes[0] = photo.inverse_depths[KDTree(photo.pixels).query(at)[1]]
    triangle, coefficients = _triangles(photo.pixels, photo.inverse_depths, height, width)
    chosen = coefficients[triangle[triangle >= 0]]
    planes[:, triangle >= 0] = ((chosen[:, :2] * at[triangle >= 0]).sum(1) + chosen[:, 2], *chosen[:, :2].T)
    return planes.reshape(3, height, width)


def _triangles(
    pixels: Float64[np.ndarray, "n 2"], values: Float64[np.ndarray, "n"], height: int, width: int
) -> tuple[np.ndarray, Float[np.ndarray, "t 3"]]:
    """Which triangle each pixel lies in, −1 for none, and value = c₀ u + c₁ v + c₂ on each.

    The triangles are drawn: scipy's `find_simplex` took 1.4 s a photo, for pixels outside of all triangles.
    """
    try:
        found = Delaunay(pixels)
    except (QhullError, ValueError):  # too few, or on one line
        return np.full(height * width, -1), np.zeros((0, 3))
    corners = np.concatenate([pixels[found.simplices], np.ones((*found.simplices.shape, 1))], -1)
    sound = np.abs(np.linalg.det(corners)) > 1e-6
    coefficients = np.zeros((len(corners), 3))
    coefficients[sound] = np.linalg.solve(corners[sound], values[found.simplices[sound], None])[..., 0]
    flat = np.concatenate([pixels, np.ones((len(pixels), 1))], 1).astype(np.float32)
    triangle = rasterize(flat, found.simplices, width, height)[1].ravel()
    return np.where((triangle >= 0) & sound[triangle], triangle, -1), coefficients


def enlarge(planes: Float32[np.ndarray, "3 h w"], height: int, width: int) -> Float32[np.ndarray, "3 _ _"]:
    """Return the same planes at another size of the photo, each pixel on that of the pixel it lies in."""
    rows = (np.arange(height) + 0.5) * planes.shape[1] / height
    columns = (np.arange(width) + 0.5) * planes.shape[2] / width
    row = rows.astype(int).clip(0, planes.shape[1] - 1)
    column = columns.astype(int).clip(0, planes.shape[2] - 1)
    inverse, across, along = planes[:, row][:, :, column]
    larger = np.empty((3, height, width), np.float32)
    larger[0] = inverse + across * (columns - column - 0.5) + along * (rows - row - 0.5)[:, None]
    larger[1], larger[2] = across * planes.shape[2] / width, along * planes.shape[1] / height
    return larger
