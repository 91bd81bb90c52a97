"""The texture of a mesh, baked from the photos it was made of.

A texel on face (a, b, c) with barycentric weights β gives photo i the weight

    w_i = Σ_k β_k w_{i,k}    and    colour = s Σ_i v_i (c_i + Σ_k β_k o_{i,k}) / Σ_i v_i + (1 − s) field

with weights w and offsets o of the corners (quicksurf.mesh.texture.views), v_i = w_i^p, s = min(1, 2 Σ_i w_i), and
c_i the colours of the photos that show the texel (quicksurf.mesh.texture.view). The power p leaves the best photo where
it is much better, because a mean of photos that do not fit to the pixel is blurred; the offsets bring each photo to the
mean of all in what is broad, so that no seam is left (as Lempitsky and Ivanov 2007, Seamless mosaicing of image-based
texture maps). What too few photos show is the colour field's, seen along the normal.

A photo is read at full size, or at the size at which its pixels are no finer than texels: finer ones would alias.
Texels are done in bands of rows, photos one at a time: memory does not grow with their number.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from scipy.ndimage import distance_transform_edt

from quicksurf.errors import ConfigError
from quicksurf.geometry.cameras import project
from quicksurf.mesh.clean import face_areas
from quicksurf.mesh.photos import Photos
from quicksurf.mesh.texture.atlas import MAX_SIZE, MIN_SIZE, Texels, find_texels, unwrap
from quicksurf.mesh.texture.view import View
from quicksurf.mesh.texture.views import Views, choose_views
from quicksurf.mesh.types import Mesh

_BATCH = 1 << 18  # texels at a time: bounds what a photo's projection takes to 30 MB
_MAX_PIXELS = 1 << 25  # of a photo: 100 MB of pixels and 270 MB of z-buffers
_OVERSAMPLE = 1.5  # pixels a texel along a line, at most: bilinear lookups lose a little sharpness
_CHOICE = 3  # the power of weights: 8 has 5 % more of the photos' gradients and 0.1 dB less
TEXELS_A_PIXEL = 1.0  # along a line
LARGEST_CHOSEN = 4096  # texels a side: what phones show
_BAND = 1 << 24  # texels of the texture at a time: what is known of them takes 0.6 GB
_PACKED = 0.6  # of the texture that charts cover, as a rule
_SIZE_STEP = 64

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
        raise ConfigError(f"--texture-size is {size}: choose {MIN_SIZE} to {MAX_SIZE}, or leave it out")


def bake(mesh: Mesh, photos: Photos, field_colors: FieldColors, size: int | None = None) -> TexturedMesh:
    """Unwrap `mesh` and colour a texture of size × size texels; mesh and cameras are in the fit's frame.

    Args:
        mesh: the surface, simplified to what `unwrap` can take.
        photos: those it was fitted to.
        field_colors: the fitted colour at points of the surface.
        size: texels a side; None: as many as the photos resolve, at most LARGEST_CHOSEN.

    Raises:
        ConfigError: as `check_texture_size`.
        ImageError: if a photo's file is gone or damaged.
    """
    views = choose_views(mesh, photos)
    size = resolved_size(mesh, views) if size is None else size
    check_texture_size(size)
    atlas = unwrap(mesh.vertices, mesh.faces, size, views.widths)
    texture, used = np.zeros((size * size, 3), np.uint8), np.zeros(size * size, bool)
    n_covered, n_rows = 0, max(1, _BAND // size)
    for top in range(0, size, n_rows):
        texels = find_texels(atlas, size, slice(top, top + n_rows))
        colors, fraction = _from_photos(mesh, photos, views, texels)
        _fill_from_field(colors, fraction, mesh, texels, field_colors)
        texture[texels.cells], used[texels.cells] = np.rint(255 * colors.clip(0, 1)).astype(np.uint8), True
        n_covered += int((fraction > 0.5).sum())
    texture = fill_gaps(texture.reshape(size, size, 3), used.reshape(size, size))
    vertices, normals = mesh.vertices[atlas.origins], mesh.normals[atlas.origins]
    return TexturedMesh(
        vertices, atlas.faces, normals, atlas.uvs, texture, n_covered / max(int(used.sum()), 1)
    )


def resolved_size(mesh: Mesh, views: Views) -> int:
    """Compute the texels a side at which texels are as fine as the pixels of the photos that show them best."""
    widths = views.widths[mesh.faces].mean(1) / TEXELS_A_PIXEL
    n_texels = float((face_areas(mesh.vertices, mesh.faces) / widths**2).sum())
    side = math.ceil(math.sqrt(n_texels / _PACKED) / _SIZE_STEP) * _SIZE_STEP
    return min(max(side, MIN_SIZE), LARGEST_CHOSEN)


def _fill_from_field(
    colors: Float32[np.ndarray, "t 3"],
    fraction: Float32[np.ndarray, "t"],
    mesh: Mesh,
    texels: Texels,
    field_colors: FieldColors,
) -> None:
    """Mix the field's colours into `colors` where photos have less than the whole."""
    unseen = np.flatnonzero(fraction < 1)
    for first in range(0, len(unseen), _BATCH):
        index = unseen[first : first + _BATCH]
        points = texels.select(index).interpolate(mesh.vertices.astype(np.float32), mesh.faces)
        part = fraction[index, None]
        colors[index] = part * colors[index] + (1 - part) * field_colors(points.astype(np.float64)) / 255


def _from_photos(
    mesh: Mesh, photos: Photos, views: Views, texels: Texels
) -> tuple[Float32[np.ndarray, "t 3"], Float32[np.ndarray, "t"]]:
    """Colours of the photos in [0, 1], and the fraction that they have in the texel."""
    colors = np.zeros((len(texels.cells), 3), np.float32)
    weight, total = np.zeros((2, len(texels.cells)), np.float32)
    starts = np.searchsorted(texels.faces, np.arange(len(mesh.faces) + 1))
    scale = _texel_scale(mesh, views, texels)
    for index, vertex_weights in enumerate(views.weights):
        shown = (vertex_weights[mesh.faces] > 0).any(1) & (np.diff(starts) > 0)
        if not shown.any():
            continue
        photo = photos.open(index, _useful_pixels(photos, index, mesh, vertex_weights, scale * views.widths))
        view, offsets = View(mesh, photo), views.offsets[index].astype(np.float32)
        for part in _batches(starts, np.flatnonzero(shown)):
            batch = texels.select(part)
            share = batch.interpolate(vertex_weights[:, None], mesh.faces)[:, 0]
            found, valid = view.look_up(batch)
            level = batch.interpolate(offsets, mesh.faces)[valid]
            part, share = part[valid], share[valid]
            best = share**_CHOICE
            colors[part] += best[:, None] * (found + level)
            weight[part] += share
            total[part] += best
    return colors / np.maximum(total, 1e-30)[:, None], np.minimum(1, 2 * weight)


def _texel_scale(mesh: Mesh, views: Views, texels: Texels) -> float:
    """Width of a texel in units of the finest detail there."""
    corners = mesh.faces[np.unique(texels.faces)]
    areas = face_areas(mesh.vertices, corners) / views.widths[corners].mean(1) ** 2
    return math.sqrt(float(areas.sum()) / max(len(texels.cells), 1))


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
    texel_widths: Float64[np.ndarray, "v"],
) -> int:
    """Pixels of photo `index` at which one is 1 / _OVERSAMPLE texels wide where the photo is used."""
    camera = photos.cameras.select(slice(index, index + 1))
    used = vertex_weights > 0
    depths = project(camera, 0, torch.from_numpy(mesh.vertices[used]).float())[1].numpy()
    footprints = depths / float(camera.intrinsics[0, :2].mean())
    ratio = _OVERSAMPLE * float(np.median(footprints / texel_widths[used]))
    return int(min(_MAX_PIXELS, max(64.0, ratio**2 * float(camera.sizes[0].prod()))))


def fill_gaps(
    texture: UInt8[np.ndarray, "s s 3"], used: Bool[np.ndarray, "s s"]
) -> UInt8[np.ndarray, "s s 3"]:
    """Return the texture with the texels beside the charts coloured as their nearest: filters and mip-maps reach
    over.
    """
    if not used.any():
        return texture
    rows, columns = np.asarray(distance_transform_edt(~used, return_distances=False, return_indices=True))
    return texture[rows, columns]
