"""Camera paths for `quicksurf render`: around the object, or on a flight past the photos' places.

Up is the photographers' (`mean_up`); azimuth is counted about it. This module makes
poses; it reads no files and renders nothing.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from scipy.interpolate import CubicSpline
from torch import Tensor

from quicksurf.errors import ConfigError
from quicksurf.geometry.cameras import Cameras, pinholes

FULL_TURN_GAP = math.radians(100)
"""A capture whose widest gap in azimuth is below this was taken all around, and the orbit closes; otherwise the path
swings within what was photographed: behind it there is nothing true to show."""
MAX_KEYS = 16  # places of a flight: more make it restless
MIN_KEY_STEP = 0.15  # chord of 9 degrees: places closer than that add nothing
LEVEL = 0.02  # weight of the mean up: decides where the right axes do not, leans by a degree where they do
MIN_MEAN_UP = 0.1  # of unit vectors: what is left below that is chance, not a common up


def orbit(
    cameras: Cameras, center: tuple[float, float, float], radius: float, n_frames: int, size: tuple[int, int]
) -> Cameras:
    """Place `n_frames` cameras around `center` at the photographers' median distance and height, looking at it.

    The field of view is the median of the photos', or wider where the ball would not fit into it.

    Args:
        cameras: the capture's cameras, at least one.
        center: middle of the ball to look at, in the cameras' frame.
        radius: its radius.
        n_frames: number of views, at least 1.
        size: width and height in pixels.

    Raises:
        ConfigError: if there is nothing to show.
    """
    _check(cameras, n_frames, size)
    target = torch.tensor(center, dtype=torch.float64)
    up = mean_up(cameras)
    offsets = cameras.centers().double() - target
    heights = offsets @ up
    basis = horizontal_basis(up, offsets)
    flat = offsets @ basis.T
    azimuths = _azimuths(torch.atan2(flat[:, 1], flat[:, 0]), n_frames)
    around = torch.stack([azimuths.cos(), azimuths.sin()], -1) @ basis
    centers = target + flat.norm(dim=-1).median() * around + heights.median() * up
    focal = _focal(cameras, float((centers[0] - target).norm()), radius, size)
    return pinholes(look_at(centers, target, up), focal, size)


def close_up(
    cameras: Cameras, points: Float64[np.ndarray, "p 3"], n_frames: int, size: tuple[int, int]
) -> Cameras:
    """Return `orbit` around the middle of `points`, at least one, with a focal length at which they fill the pictures.

    Raises:
        ConfigError: if there is nothing to show.
    """
    _check(cameras, n_frames, size)
    x, y, z = ((points.min(0) + points.max(0)) / 2).tolist()
    radius = max(float(np.linalg.norm(points - (x, y, z), axis=1).max()), 1e-12)
    views = orbit(cameras, (x, y, z), radius, n_frames, size)
    distance = float((views.centers()[0] - torch.tensor([x, y, z], dtype=torch.float64)).norm())
    if distance <= radius:
        return views
    return pinholes(views.c2w, _filling(distance, radius, size), size)


def flight(
    cameras: Cameras, center: tuple[float, float, float], radius: float, n_frames: int, size: tuple[int, int]
) -> Cameras:
    """Place cameras as `orbit`, but on a smooth closed tour past at most MAX_KEYS of the photos' places.

    The places are chosen far from each other and walked from one to the nearest that is left; between them the path is
    a periodic cubic spline in direction and distance, so that it goes around the object and not through it.

    Raises:
        ConfigError: if there is nothing to show.
    """
    _check(cameras, n_frames, size)
    target = torch.tensor(center, dtype=torch.float64)
    offsets = cameras.centers().double() - target
    keys = offsets[_tour(torch.nn.functional.normalize(offsets, dim=-1))]
    keys = torch.cat([keys, keys[:1]])
    distances = keys.norm(dim=-1, keepdim=True).clamp_min(1e-9 * radius)
    steps = (keys[1:] / distances[1:] - keys[:-1] / distances[:-1]).norm(dim=-1).clamp_min(1e-3)
    knots = torch.cat([torch.zeros(1, dtype=torch.float64), steps.cumsum(0)])
    spline = CubicSpline(knots, torch.cat([keys / distances, distances.log()], -1), bc_type="periodic")
    times = torch.arange(n_frames, dtype=torch.float64) * (knots[-1] / n_frames)
    path = torch.from_numpy(spline(times.numpy()))
    directions = torch.nn.functional.normalize(path[:, :3], dim=-1)
    centers = target + path[:, 3:].exp() * directions
    focal = _focal(cameras, float(distances.min()), radius, size)
    return pinholes(look_at(centers, target, mean_up(cameras)), focal, size)


def _check(cameras: Cameras, n_frames: int, size: tuple[int, int]) -> None:
    if not len(cameras):
        raise ConfigError("there are no cameras: a path needs one at least")
    if n_frames < 1 or min(size) < 1:
        raise ConfigError(f"n_frames is {n_frames} and size {size}: 1 or more are expected")


def _tour(directions: Float[Tensor, "n 3"]) -> Int[Tensor, "k"]:
    """At most MAX_KEYS indices, far from each other, in an order that walks to the nearest of what is left."""
    chosen = [0]
    distances = (directions - directions[0]).norm(dim=-1)
    while len(chosen) < MAX_KEYS and float(distances.max()) > MIN_KEY_STEP:
        chosen.append(int(distances.argmax()))
        distances = torch.minimum(distances, (directions - directions[chosen[-1]]).norm(dim=-1))
    tour, left = chosen[:1], chosen[1:]
    while left:
        tour.append(min(left, key=lambda index: float((directions[index] - directions[tour[-1]]).norm())))
        left.remove(tour[-1])
    return torch.tensor(tour)


def look_at(
    centers: Float[Tensor, "n 3"], target: Float[Tensor, "*n 3"], up: Float[Tensor, "3"]
) -> Float[Tensor, "n 3 4"]:
    """Build poses c2w at `centers` that face `target`, one or one each, y down; `up` must not be parallel."""
    forward = torch.nn.functional.normalize(target - centers, dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up.expand_as(forward)), dim=-1)
    down = torch.linalg.cross(forward, right)
    return torch.stack([right, down, forward, centers], -1)


def mean_up(cameras: Cameras) -> Float[Tensor, "3"]:
    """Return the photographers' up, unit length: the u that minimises mean (r · u)² − LEVEL (ū · u)².

    r are the cameras' right axes, which a photographer holds level, and ū their mean up. ū alone leans to the far side
    where only one side was photographed from above; the right axes alone say nothing where all are alike. Where the ups
    cancel (all look down, turned), ū is the direction away from what they see.
    """
    mean = -cameras.c2w[:, :, 1].double().mean(0)
    if mean.norm() < MIN_MEAN_UP:
        mean = -cameras.c2w[:, :, 2].double().mean(0)
    if mean.norm() < MIN_MEAN_UP:
        mean = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    mean = torch.nn.functional.normalize(mean, dim=0)
    right = cameras.c2w[:, :, 0].double()
    spread = right.T @ right / len(right) - LEVEL * torch.outer(mean, mean)
    up = torch.linalg.eigh(spread).eigenvectors[:, 0]
    return torch.where(up @ mean < 0, -up, up)


def horizontal_basis(up: Float[Tensor, "3"], offsets: Float[Tensor, "n 3"]) -> Float[Tensor, "2 3"]:
    """Return two unit vectors across `up`, the first towards the first camera (the orbit starts there), the second at
    its
    right as somebody there sees it who faces the middle."""
    first = offsets[0] - (offsets[0] @ up) * up
    if first.norm() < 1e-6 * offsets[0].norm():  # straight above: any direction will do
        first = torch.linalg.cross(up, torch.eye(3, dtype=up.dtype)[up.abs().argmin()])
    first = torch.nn.functional.normalize(first, dim=0)
    return torch.stack([first, torch.linalg.cross(up, first)])


def _azimuths(photographed: Float[Tensor, "n"], n_frames: int) -> Float[Tensor, "f"]:
    """A closed turn, or a swing to and fro over the arc that is left by the widest gap."""
    phase = torch.arange(n_frames, dtype=torch.float64) * (2 * math.pi / n_frames)
    ordered = photographed.sort().values
    gaps = torch.cat([ordered[1:], ordered[:1] + 2 * math.pi]) - ordered
    widest = int(gaps.argmax())
    if float(gaps[widest]) < FULL_TURN_GAP:
        return phase
    arc = 2 * math.pi - gaps[widest]
    middle = ordered[(widest + 1) % len(ordered)] + arc / 2
    return middle + arc / 2 * phase.sin()


def _focal(cameras: Cameras, distance: float, radius: float, size: tuple[int, int]) -> float:
    """Focal length in pixels: the photos' (relative to the longer side), at most what shows the whole ball.

    A ball is seen under the half angle asin(radius / distance); from within it there is nothing to fit.
    """
    spans = cameras.intrinsics[:, :2].double().mean(-1) / cameras.sizes.double().amax(-1)
    focal = max(size) * float(spans.median())
    if distance <= radius:
        return focal
    return min(focal, _filling(distance, radius, size))


def _filling(distance: float, radius: float, size: tuple[int, int]) -> float:
    """Focal length in pixels at which a ball touches the nearer edges of the picture."""
    return min(size) / 2 / math.tan(math.asin(radius / distance))
