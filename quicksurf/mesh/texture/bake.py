"""The texture of a mesh, baked from the photos it was made of.

A texel on face (a, b, c) with barycentric weights β takes photo i's colour c_i at its own projection with the weight

    w_i = Σ_k β_k w_{i,k}    and    colour = s · Σ_i w_i c_i / Σ_i w_i + (1 − s) · field,    s = min(1, 2 Σ_i w_i)

where w_{i,k} are the corners' (quicksurf.mesh.observe), which change continuously over the surface, and only
photos count that see the texel: nothing in front of it within a pixel, nothing else beside it (a rim mixes
with what is behind), inside the mask. Exposure is undone before mixing. What too few photos show is the
colour field's, seen along the normal.

A photo is read at the size at which its pixels are no finer than texels: finer ones would only alias.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from scipy.ndimage import distance_transform_edt, maximum_filter, minimum_filter

from quicksurf.errors import ConfigError
from quicksurf.geometry.cameras import project
from quicksurf.kernels.host import rasterize
from quicksurf.mesh.clean import face_areas
from quicksurf.mesh.observe import Observations, observe
from quicksurf.mesh.photos import Photo, Photos
from quicksurf.mesh.texture.atlas import MAX_SIZE, MIN_SIZE, Texels, find_texels, unwrap
from quicksurf.mesh.types import Mesh

_BATCH = 1 << 18  # texels at a time: bounds what a photo's projection takes to 30 MB
_MAX_PIXELS = 1 << 25  # of a photo: 100 MB of pixels and 270 MB of z-buffers
_OVERSAMPLE = 1.5  # pixels a texel along a line, at most: bilinear lookups lose a little sharpness
_FOOTPRINTS = 3.0  # pixels that depths may differ within one surface, seen frontally

FieldColors = Callable[[Float64[np.ndarray, "n 3"]], UInt8[np.ndarray, "n 3"]]


class TexturedMesh(NamedTuple):
    """A mesh with a texture; vertices on the atlas's cuts stand there once for each side."""

    vertices: Float64[np.ndarray, "v 3"]
    faces: Int64[np.ndarray, "f 3"]
    normals: Float64[np.ndarray, "v 3"]
    uvs: Float32[np.ndarray, "v 2"]
    """u to the right, v downwards, as in quicksurf.mesh.texture.atlas."""
    texture: UInt8[np.ndarray, "s s 3"]
    """sRGB, as the photos."""
    photo_fraction: float
    """Fraction of the texels that photos colour."""


def check_texture_size(size: int) -> None:
    """Refuse sizes that cannot be baked.

    Raises:
        ConfigError: unless `size` is MIN_SIZE to MAX_SIZE.
    """
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ConfigError(f"--texture-size is {size}: choose {MIN_SIZE} to {MAX_SIZE}, 2048 is usual")


def bake(mesh: Mesh, photos: Photos, field_colors: FieldColors, size: int) -> TexturedMesh:
    """Unwrap `mesh` and colour a texture of size × size texels; mesh and cameras are in the fit's frame.

    Args:
        mesh: the surface, simplified to what `unwrap` can take.
        photos: those it was fitted to.
        field_colors: the fitted colour at points of the surface.
        size: texels a side.

    Raises:
        ConfigError: as `check_texture_size`.
        ImageError: if a photo's file is gone or damaged.
    """
    check_texture_size(size)
    observations = observe(mesh, photos)
    atlas = unwrap(mesh.vertices, mesh.faces, size)
    texels = find_texels(atlas, size)
    colors, fraction = _from_photos(mesh, photos, observations, texels, size)
    unseen = np.flatnonzero(fraction < 1)
    for first in range(0, len(unseen), _BATCH):
        index = unseen[first : first + _BATCH]
        points = texels.select(index).interpolate(mesh.vertices.astype(np.float32), mesh.faces)
        part = fraction[index, None]
        colors[index] = part * colors[index] + (1 - part) * field_colors(points.astype(np.float64)) / 255
    texture = fill_gaps(np.rint(255 * colors.clip(0, 1)).astype(np.uint8), texels.cells, size)
    vertices, normals = mesh.vertices[atlas.origins], mesh.normals[atlas.origins]
    covered = float((fraction > 0.5).mean()) if len(fraction) else 0.0
    return TexturedMesh(vertices, atlas.faces, normals, atlas.uvs, texture, covered)


def _from_photos(
    mesh: Mesh, photos: Photos, observations: Observations, texels: Texels, size: int
) -> tuple[Float32[np.ndarray, "t 3"], Float32[np.ndarray, "t"]]:
    """Mean colours of the photos in [0, 1], and the fraction that they have in the texel."""
    total, weight = np.zeros((len(texels.cells), 3), np.float32), np.zeros(len(texels.cells), np.float32)
    texel_width = math.sqrt(face_areas(mesh.vertices, mesh.faces).sum() / max(len(texels.cells), 1))
    starts = np.searchsorted(texels.faces, np.arange(len(mesh.faces) + 1))
    for index in range(len(photos)):
        chosen = observations.best == index
        vertex_weights = np.where(chosen, observations.weights, 0).sum(1, dtype=np.float32)
        shown = np.flatnonzero((vertex_weights[mesh.faces] > 0).any(1))
        if not len(shown):
            continue
        photo = photos.open(index, _useful_pixels(photos, index, mesh, vertex_weights, texel_width))
        view = _View(mesh, photo)
        for part in _batches(starts, shown):
            batch = texels.select(part)
            fraction = batch.interpolate(vertex_weights[:, None], mesh.faces)[:, 0]
            colors, valid = view.look_up(batch)
            part, fraction = part[valid], fraction[valid]
            total[part] += fraction[:, None] * colors
            weight[part] += fraction
    return total / np.maximum(weight, 1e-12)[:, None], np.minimum(1, 2 * weight)


def _batches(
    starts: Int64[np.ndarray, "_"], faces: Int64[np.ndarray, "s"]
) -> Iterator[Int64[np.ndarray, "_"]]:
    """Indices of the texels of `faces`, about _BATCH at a time."""
    counts = starts[faces + 1] - starts[faces]
    groups = np.cumsum(counts) // _BATCH
    for group in np.split(np.arange(len(faces)), np.flatnonzero(np.diff(groups)) + 1):
        n = counts[group]
        offsets = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        yield np.repeat(starts[faces[group]], n) + offsets


def _useful_pixels(
    photos: Photos,
    index: int,
    mesh: Mesh,
    vertex_weights: Float32[np.ndarray, "v"],
    texel_width: float,
) -> int:
    """Pixels of photo `index` at which one is 1 / _OVERSAMPLE texels wide where the photo is used."""
    camera = photos.cameras.select(slice(index, index + 1))
    points = torch.from_numpy(mesh.vertices[vertex_weights > 0]).float()
    depth = float(project(camera, 0, points)[1].median())
    footprint = depth / float(camera.intrinsics[0, :2].mean())
    ratio = _OVERSAMPLE * footprint / texel_width
    return int(min(_MAX_PIXELS, max(64.0, ratio**2 * float(camera.sizes[0].prod()))))


class _View:
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
        """Colours of the texels that the photo shows, and which these are."""
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
        return self._photo.scene_colors(pixels[valid]), valid

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


def fill_gaps(
    colors: UInt8[np.ndarray, "t 3"], cells: Int64[np.ndarray, "t"], size: int
) -> UInt8[np.ndarray, "s s 3"]:
    """Return the texture with the texels beside the charts coloured as their nearest: filters and mip-maps reach
    over.
    """
    texture, empty = np.zeros((size * size, 3), np.uint8), np.ones(size * size, bool)
    texture[cells], empty[cells] = colors, False
    if not len(cells):
        return texture.reshape(size, size, 3)
    empty = empty.reshape(size, size)
    rows, columns = np.asarray(distance_transform_edt(empty, return_distances=False, return_indices=True))
    return texture.reshape(size, size, 3)[rows, columns]
