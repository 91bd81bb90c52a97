"""Dense verified points of a capture: depths of all pixels by patch match, kept where other photos confirm them.

Every photo gets a depth and a normal per pixel, coarse to fine, from how well patches match its partners (stereo.h).
A depth stays if those of other photos lead back to within a pixel and a hundredth of it; what is kept is their mean.
Reflections and places without texture seldom pass. Deterministic for given sizes, for any number of threads.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32

from quicksurf.capture.scene import DensePoints, Scene
from quicksurf.capture.stereo import (
    StereoPhoto,
    choose_partners,
    enlarge,
    first_planes,
    stereo_photos,
    transform,
)
from quicksurf.kernels.host import instruction_set, match_patches, num_threads, verify_depths

_PARTNERS = 5
_BEST = 2  # partners that a hypothesis is judged by: those that see the same, not what hides it
_SIMILARITY = 20.0  # grey levels
_LEAST_CONTRAST = 2.0  # grey levels
_SHRINK = 0.4  # of the steps of the random search, with every sweep
_MOST_COST, _MOST_OTHER_COST = 0.4, 0.8
_AGREEING = 2
_MOST_PIXELS, _MOST_RELATIVE = 1.0, 0.01
_LEAST_COSINE = 0.15
_UNSEEN = 2.0  # the cost of what no photo confirms
# Pixels of a photo: with fewer, windows are as large as what is to be measured.
_PIXELS = 40_000, 400_000
_MOST_IN_ALL = 16_000_000  # pixels of all photos: 256 MB of planes and costs
# Microseconds that a pixel takes on one core, by the vectors of the processor; elsewhere without gather.
_MICROSECONDS = {"v4": 4.0, "vnni": 4.0, "amx": 4.0, "v3": 9.0, "avxvnni": 9.0}
_MICROSECONDS_ELSEWHERE = 40.0
_MOST_OVERRUN = 1.5  # times the seconds, on a busy machine: then no further photo is matched
_STRIDE = 4
_FEWEST_POINTS = 20  # of a photo that is matched: what its depths may be must be known
_MOST_KEPT = 1_500_000  # points: a fit draws no more in 2000 steps; 100 MB


class _Level(NamedTuple):
    factor: int
    n_sweeps: int
    reach: float
    """Of the range of inverse depths, to begin with."""
    tilt: float
    """Of slopes, as tangents."""


_LEVELS = _Level(4, 5, 1.0, 1.0), _Level(2, 3, 0.06, 0.5), _Level(1, 2, 0.02, 0.3)


class _Map(NamedTuple):
    planes: Float32[np.ndarray, "3 h w"]
    costs: Float32[np.ndarray, "h w"]


def find_dense_points(
    scene: Scene, seconds: float, seed: int, say: Callable[[str], None] = lambda text: None
) -> DensePoints | None:
    """Return dense points in about `seconds` of all threads; None where they would not suffice, or nothing is found."""
    points = scene.points
    if points is None or not len(points.observations):
        return None
    n_pixels = min(affordable_pixels(len(scene.images), seconds), _MOST_IN_ALL // len(scene.images))
    if n_pixels < _PIXELS[0]:
        return None
    began = time.monotonic()
    photos = stereo_photos(scene, points, min(n_pixels, _PIXELS[1]))
    partners = choose_partners(photos, points, _PARTNERS)
    maps = [_no_map(photo) for photo in photos]
    for view in _spread(len(photos)):
        if time.monotonic() - began > _MOST_OVERRUN * seconds:
            break
        maps[view] = _depth_map(photos, view, partners[view], seed)
    most = _MOST_KEPT // len(photos)
    parts = [
        _thinned(_verified(photos, maps, view, partners[view]), most, seed + view)
        for view in range(len(photos))
    ]
    dense = DensePoints(*(torch.cat(part) for part in zip(*parts, strict=True)))
    took, n = time.monotonic() - began, sum(photo.grey.size for photo in photos)
    say(
        f"dense points: {len(dense.positions):,} from {len(photos)} photos, {took:.0f} s "
        f"({1e6 * took / n:.1f} µs a pixel of {n // len(photos):,} a photo)"
    )
    return dense if len(dense.positions) else None


def affordable_pixels(n_photos: int, seconds: float) -> int:
    """Return the pixels of a photo that `seconds` suffice for."""
    microseconds = _MICROSECONDS.get(instruction_set(), _MICROSECONDS_ELSEWHERE)
    return int(seconds * num_threads() * 1e6 / (microseconds * max(n_photos, 1)))


def _spread(n_photos: int) -> list[int]:
    """Order photos so that those matched before time runs out are spread over the capture."""
    return [view for first in range(_STRIDE) for view in range(first, n_photos, _STRIDE)]


def _no_map(photo: StereoPhoto) -> _Map:
    unknown = np.full(photo.grey.shape, _UNSEEN, np.float32)
    return _Map(np.zeros((3, *photo.grey.shape), np.float32), unknown)


def _depth_map(photos: Sequence[StereoPhoto], view: int, partners: Sequence[int], seed: int) -> _Map:
    """Planes and costs of one photo, coarse to fine."""
    photo = photos[view]
    if not partners or len(photo.pixels) < _FEWEST_POINTS:
        return _no_map(photo)
    planes, costs = first_planes(photo.shrunk(_LEVELS[0].factor)), np.zeros(0, np.float32)
    for level in _LEVELS:
        own = photo.shrunk(level.factor)
        others = [photos[other].shrunk(level.factor) for other in partners]
        planes, costs = enlarge(planes, *own.grey.shape), np.empty(own.grey.shape, np.float32)
        match_patches(
            own.grey,
            [other.grey for other in others],
            np.stack([transform(own, other) for other in others]),
            planes,
            costs,
            range=photo.range(),
            reach=level.reach,
            tilt=level.tilt,
            shrink=_SHRINK,
            focal=float(own.intrinsics[0]),
            similarity=_SIMILARITY,
            least_contrast=_LEAST_CONTRAST,
            n_best=min(_BEST, len(others)),
            n_sweeps=level.n_sweeps,
            seed=seed + view,
        )
    if photo.inside is not None:
        costs[~photo.inside] = _UNSEEN
    return _Map(planes, costs)


def _verified(
    photos: Sequence[StereoPhoto], maps: Sequence[_Map], view: int, partners: Sequence[int]
) -> DensePoints:
    """The points of one photo that its partners confirm."""
    photo, own = photos[view], maps[view]
    inverse, spreads = (np.zeros(photo.grey.shape, np.float32) for _ in range(2))
    others = [photos[other] for other in partners]
    verify_depths(
        own.planes,
        own.costs,
        [maps[other].planes for other in partners],
        [maps[other].costs for other in partners],
        np.array([transform(photo, other) for other in others], np.float32).reshape(-1, 3, 4),
        np.array([transform(other, photo) for other in others], np.float32).reshape(-1, 3, 4),
        photo.intrinsics.astype(np.float32),
        inverse,
        spreads,
        most_cost=_MOST_COST,
        most_other_cost=_MOST_OTHER_COST,
        most_pixels=_MOST_PIXELS,
        most_relative=_MOST_RELATIVE,
        least_cosine=_LEAST_COSINE,
        n_agreeing=_AGREEING,
    )
    rows, columns = np.nonzero(inverse)
    plane = (np.stack([columns, rows], 1) + 0.5 - photo.intrinsics[2:]) / photo.intrinsics[:2]
    local = np.concatenate([plane, np.ones((len(plane), 1))], 1) / inverse[rows, columns, None]
    lengths = np.linalg.norm(local, axis=1)
    return DensePoints(
        torch.from_numpy(local @ photo.rotation + photo.center),
        torch.full((len(local),), view),
        torch.from_numpy((lengths / photo.intrinsics[:2].mean()).astype(np.float32)),
        torch.from_numpy((lengths * spreads[rows, columns]).astype(np.float32)),
    )


def _thinned(points: DensePoints, most: int, seed: int) -> DensePoints:
    """Return all points, or `most` at random."""
    if len(points.positions) <= most:
        return points
    generator = torch.Generator().manual_seed(seed)
    kept = torch.randperm(len(points.positions), generator=generator)[:most].sort().values
    return DensePoints(*(part[kept] for part in points))
