"""Do photos agree over a mesh? Their correlation after one is warped into the other over the surface.

The pixels of a photo are laid on the mesh, seen from the camera of a second photo, and its colours there are looked
up. NCC compares grey values in windows of 11 × 11 pixels of the first photo. A window counts where all of its pixels
meet the mesh, lie in the second photo, and are hidden by nothing in front (the mesh's own z-buffers, within _SLACK of
the depth), and where the first photo has contrast: NCC of noise tells nothing. Figures of several surfaces are of the
windows that count for all of them, in the same pairs of photos, each surface with its own cameras. Windows lie in
tiles drawn at random, so that photos of any size take the same time.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, UInt8

from detail_bench.surfaces import Photos, Surface, shared_names
from quicksurf.errors import SurfaceError
from quicksurf.geometry.cameras import Cameras, pixel_rays, project

WINDOW = 11
_SLACK = 0.005  # of the depth, that something may lie in front
_CONTRAST = 3.0  # grey levels of 255: the standard deviation in a window that is more than noise
_ANGLES = (5.0, 40.0)  # degrees between lines of sight: less tells no depth, more looks different
_TILE = 128  # pixels a side
_N_TILES = 12  # of a photo: 200,000 pixels
_N_PROBES = 400  # points that say what two photos have in common
_INSIDE = (slice(WINDOW // 2, -(WINDOW // 2)),) * 2  # centres of the windows that fit into a tile


class Correlation(NamedTuple):
    """Of one surface."""

    median: float
    tenth: float
    """Tenth percentile."""
    covered: float
    """Windows that count for this surface, as a fraction of those that have contrast and are in the mask."""


class _Other(NamedTuple):
    """The second photo as one surface's camera sees it."""

    grey: Float32[np.ndarray, "h w"]
    camera: Cameras
    depths: Float32[np.ndarray, "h w"]


def correlate(
    surfaces: Sequence[Surface], photos: Photos, n_photos: int, n_partners: int
) -> tuple[list[Correlation], int]:
    """Return the figures of each surface, and the windows that they are of.

    Args:
        n_photos: first photos of pairs, at most, evenly chosen.
        n_partners: second photos of each.

    Raises:
        CaptureError: if the surfaces have too few photos in common.
        SurfaceError: if nothing can be compared.
        ImageError: if a photo is damaged.
    """
    names = shared_names(surfaces, photos)
    chosen = np.unique(np.linspace(0, len(names) - 1, min(n_photos, len(names))).round().astype(int))
    found, n_own, n_all = [], np.zeros(len(surfaces)), 0
    for name in (names[index] for index in chosen):
        for scores, contrast in _of_photo(surfaces, photos, name, names, n_partners):
            valid = ~np.isnan(scores)
            n_own += valid[:, contrast].sum(1)
            n_all += int(contrast.sum())
            found.append(scores[:, valid.all(0) & contrast])
    together = np.concatenate([np.zeros((len(surfaces), 0)), *found], 1)
    if not together.shape[1]:
        raise SurfaceError(
            "no two photos can be compared over the surfaces: check that they are of this capture"
        )
    low, middle = np.quantile(together, [0.1, 0.5], axis=1)
    figures = zip(middle.tolist(), low.tolist(), (n_own / n_all).tolist(), strict=True)
    return [Correlation(*each) for each in figures], together.shape[1]


def _of_photo(
    surfaces: Sequence[Surface], photos: Photos, name: str, names: Sequence[str], n_partners: int
) -> Iterator[tuple[Float32[np.ndarray, "s n"], Bool[np.ndarray, "n"]]]:
    """Scores of the windows of a photo beside each partner, NaN where they do not count, and which have contrast."""
    first = _grey(photos.read(name))
    tiles = _tiles(*first.shape)
    contrast = (_deviation(first) > _CONTRAST) & photos.mask(name, *first.shape[::-1])
    contrast = np.stack([contrast[tile][_INSIDE] for tile in tiles]).ravel()
    lifted = [_lift_tiles(surface, name, first.shape, tiles) for surface in surfaces]
    for partner in _partners(surfaces[0], lifted[0], name, names)[:n_partners]:
        second, scores = _grey(photos.read(partner)), []
        for surface, points in zip(surfaces, lifted, strict=True):
            camera = surface.camera(partner, *second.shape[::-1])
            other = _Other(second, camera, surface.draw(camera)[0])
            scores.append(
                [score_windows(first[tile], at, other) for tile, at in zip(tiles, points, strict=True)]
            )
        yield np.array(scores).reshape(len(surfaces), -1), contrast


def _tiles(height: int, width: int) -> list[tuple[slice, slice]]:
    """Tiles of a photo, drawn without replacement from a lattice that fills it."""
    side = min(_TILE, height, width)
    corners = [(y, x) for y in range(0, height - side + 1, side) for x in range(0, width - side + 1, side)]
    chosen = np.random.default_rng(0).permutation(len(corners))[:_N_TILES]
    return [tuple(slice(start, start + side) for start in corners[index]) for index in chosen]


def _lift_tiles(
    surface: Surface, name: str, shape: tuple[int, ...], tiles: Sequence[tuple[slice, slice]]
) -> Float64[np.ndarray, "n t t 3"]:
    """Points of the surface at the pixels of tiles; NaN where it is not."""
    camera = surface.camera(name, shape[1], shape[0])
    depths = surface.draw(camera)[0]
    rows, columns = np.indices(shape)
    pixels = np.stack([np.stack([columns[tile], rows[tile]], -1) for tile in tiles]) + 0.5
    reached = np.stack([depths[tile] for tile in tiles])
    index = torch.zeros(reached.size, dtype=torch.int64)
    origins, directions = pixel_rays(camera, index, torch.from_numpy(pixels.reshape(-1, 2)))
    along = directions @ camera.c2w[0, :, 2]
    points = origins + (torch.from_numpy(reached.ravel()) / along)[:, None] * directions
    return np.where(np.isfinite(reached)[..., None], points.numpy().reshape(*reached.shape, 3), np.nan)


def _partners(
    surface: Surface, lifted: Float64[np.ndarray, "n t t 3"], name: str, names: Sequence[str]
) -> list[str]:
    """The photos that see most of what a photo sees from another side, the best first."""
    points = lifted[np.isfinite(lifted).all(-1)]
    points = torch.from_numpy(points[:: max(1, len(points) // _N_PROBES)])
    fractions = {}
    to_first = points - surface.cameras.centers()[surface.names.index(name)]
    for other in names:
        camera = surface.cameras.select(torch.tensor([surface.names.index(other)]))
        pixels, depths = project(camera, 0, points)
        angles = (
            torch.cosine_similarity(points - camera.centers(), to_first, dim=1).clamp(-1, 1).acos().rad2deg()
        )
        inside = (depths > 0) & (pixels >= 0).all(1) & (pixels < camera.sizes[0]).all(1)
        fractions[other] = float((inside & (angles > _ANGLES[0]) & (angles < _ANGLES[1])).sum())
    return sorted((other for other in names if fractions[other]), key=lambda other: -fractions[other])


def score_windows(
    first: Float32[np.ndarray, "t t"], points: Float64[np.ndarray, "t t 3"], other: _Other
) -> Float32[np.ndarray, "w w"]:
    """Compute NCC of the windows that fit into a tile of the first photo; NaN where they do not count."""
    seen, farther = project(other.camera, 0, torch.from_numpy(points.reshape(-1, 3)))
    x, y = (seen.numpy().T - 0.5).reshape(2, *first.shape).astype(np.float32)
    depths = farther.numpy().reshape(first.shape)
    x, y = (np.where(np.isfinite(depths) & (depths > 0), values, -1) for values in (x, y))
    nearest = cv2.remap(other.depths, x, y, cv2.INTER_NEAREST, borderValue=-1.0)
    warped = cv2.remap(other.grey, x, y, cv2.INTER_CUBIC)
    valid = np.isfinite(depths) & (depths > 0) & (depths <= (1 + _SLACK) * nearest)
    whole = cv2.erode(valid.astype(np.uint8), np.ones((WINDOW, WINDOW), np.uint8))
    mean_a, mean_b = _mean(first), _mean(warped)
    covariance = _mean(first * warped) - mean_a * mean_b
    variances = (_mean(first * first) - mean_a**2) * (_mean(warped * warped) - mean_b**2)
    scores = covariance / np.sqrt(variances.clip(min=1e-3))
    return np.where(whole > 0, scores, np.nan)[_INSIDE].astype(np.float32)


def _grey(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)


def _mean(image: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    return cv2.boxFilter(image, -1, (WINDOW, WINDOW))


def _deviation(image: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    return np.sqrt((_mean(image * image) - _mean(image) ** 2).clip(min=0))
