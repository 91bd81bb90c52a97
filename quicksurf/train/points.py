"""What verified points say of the surface: free space before them, the surface at them, solid behind them.

Structure from motion leaves thousands of points that several photos confirm. With x = o + t d on the ray through
observation i of a point at depth T, and l the logit (inside > 0, at least 1/2 of a distance near a surface):

    before   max(0, l(x) + min((T − t) / 2, m))        t in [near, T − τ]
    at       max(0, |l(o + T d)| − p / 2)              p the size of a pixel there
    behind   max(0, δ / 2 − l(o + (T + δ) d))          δ in [τ, τ + r]

A direct pull on the logit reaches places that no sample comes to, so a background cannot take over what is near, and
empty space is known to be empty from the first step (Deng et al. 2022 supervise depths with such points, Fu et al. 2022
distances). Between points the surface is near the triangle of three that a photo sees beside one another (Delaunay),
unless their depths differ: a coarser guide, with τ by the triangle's size; where stereo has found depths of most pixels
(`dense.py`) they take its place. What is below the ground is solid.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from scipy.spatial import Delaunay, QhullError
from torch import Tensor

from quicksurf.capture.scene import SparsePoints
from quicksurf.fields.surface import SurfaceField
from quicksurf.geometry.cameras import Cameras, pixel_rays, project
from quicksurf.geometry.rays import unit_ball_span
from quicksurf.train.ground import Ground

_MARGIN = 0.05  # radii: how far from a surface free space must be told from it
_BEHIND = 0.03  # radii
_LEAST_TOLERANCE = 0.003  # radii
_PIXELS = 3.0  # of tolerance before a point
_NEAR_CAMERA = 0.02  # radii
_LONGEST_EDGE = 0.1  # of a triangle, by the diagonal of the photo
_LONGEST_SIDE = 0.25  # radii
_DEPTH_RATIO = 1.15  # between the corners of a triangle: beyond, an outline may run through it
_TRIANGLE_TOLERANCE = 0.1  # of its longest side
_TRIANGLE_WEIGHT = 0.5  # of a point's
_GROUND_WEIGHT = 0.5
_GROUND_REACH = 0.2  # radii: so far around each of its points the ground goes on
_GROUND_DEPTH = 0.01, 0.06  # radii below the plane that are held solid: pavement is not flat
# Of the way: a second free sample lies there, where free space is least certain to be learned.
_NEAR_THE_END = 0.2


class SeenDepths(NamedTuple):
    """Rays whose depth is known, in the frame of the fit."""

    origins: Float[Tensor, "n 3"]
    directions: Float[Tensor, "n 3"]
    depths: Float[Tensor, "n"]
    tolerances: Float[Tensor, "n"]
    """How far before and behind the surface may be."""
    pixels: Float[Tensor, "n"]
    """Size of a pixel at that depth; infinite where the surface is not at it but near it."""

    def select(self, index: Tensor) -> "SeenDepths":
        """Select the rays at `index`."""
        return SeenDepths(*(part[index] for part in self))


class Triangles(NamedTuple):
    """Three points that a photo observes beside one another, at similar depths."""

    views: Int[Tensor, "t"]
    pixels: Float[Tensor, "t 3 2"]
    inverse_depths: Float[Tensor, "t 3"]
    """Along the axis: linear in pixels on a plane."""
    sides: Float[Tensor, "t"]
    """The longest, in the frame of the fit."""


class PointGuide:
    """The rays of one capture whose depths are known, and the loss on them."""

    def __init__(
        self,
        points: SparsePoints,
        to_roi: Float[Tensor, "n 3"],
        cameras: Cameras,
        views: list[int],
        usable: Bool[Tensor, "m"],
        between: bool = True,
        clear: tuple[Float[Tensor, "k 3"], Float[Tensor, "k 3"]] | None = None,
        ground: Ground | None = None,
        dense: SeenDepths | None = None,
        dense_weight: float = 1.0,
    ) -> None:
        """Prepare the observations of `views`.

        Args:
            to_roi: the points' positions in the frame of the fit.
            cameras: all, in that frame.
            usable: which observations may speak.
            between: use what lies between points, too.
            clear: origins and directions of rays that meet nothing.
            ground: what is below it is solid.
            dense: rays with depths by stereo.
            dense_weight: of each of these, times a point's.
        """
        device = to_roi.device
        observers = points.observations[:, 1].to(device)
        usable = usable.to(device) & torch.isin(observers, torch.tensor(views, device=device))
        index, observers = points.observations[usable.cpu(), 0].to(device), observers[usable]
        self._rays = _observed(to_roi[index], cameras, observers)
        self._ground = None if ground is None else (ground.normal.to(device), ground.points.to(device))
        self._clear = None if clear is None else _endless(*(part.to(device) for part in clear))
        self._cameras = cameras
        self._dense, self._dense_weight = dense, dense_weight
        parts = [_triangles(cameras, view, to_roi[index[observers == view]]) for view in views if between]
        parts = parts or [_triangles(cameras, 0, to_roi[:0])]
        self._triangles = Triangles(*(torch.cat(part).to(device) for part in zip(*parts, strict=True)))
        first, second = (self._triangles.pixels[:, 1:] - self._triangles.pixels[:, :1]).unbind(1)
        areas = (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).abs()
        self._cumulative = areas.double().cumsum(0) / areas.double().sum().clamp_min(1e-9)

    def loss(self, field: SurfaceField, n_rays: int, generator: torch.Generator) -> Float[Tensor, ""]:
        """Return the loss on `n_rays` random observations, and on as many places of triangles."""
        place = {"generator": generator, "device": generator.device}
        loss = field.geometry.network.params.sum() * 0
        if len(self._rays.depths):
            at = torch.randint(len(self._rays.depths), (n_rays,), **place)
            loss = _depth_loss(field, self._rays.select(at), generator)
        if self._dense is not None:
            at = torch.randint(len(self._dense.depths), (n_rays,), **place)
            loss = loss + self._dense_weight * _depth_loss(field, self._dense.select(at), generator)
        if self._clear is not None:
            at = torch.randint(len(self._clear.depths), (n_rays,), **place)
            loss = loss + _depth_loss(field, self._clear.select(at), generator)
        if self._ground is not None:
            loss = loss + _GROUND_WEIGHT * _ground_loss(field, *self._ground, n_rays, generator)
        if len(self._cumulative):
            at = torch.searchsorted(self._cumulative, torch.rand(n_rays, dtype=torch.float64, **place))
            rays = self._between(at.clamp_max(len(self._cumulative) - 1), generator)
            loss = loss + _TRIANGLE_WEIGHT * _depth_loss(field, rays, generator)
        return loss

    def _between(self, at: Int[Tensor, "n"], generator: torch.Generator) -> SeenDepths:
        """Rays through random pixels of triangles, with the depths of their planes."""
        chosen = Triangles(*(part[at] for part in self._triangles))
        across, along = torch.rand(2, len(at), generator=generator, device=generator.device)
        root = across.sqrt()
        weights = torch.stack([1 - root, root * (1 - along), root * along], 1)
        pixels = (weights[..., None] * chosen.pixels).sum(1)
        origins, directions = pixel_rays(self._cameras, chosen.views, pixels)
        cosines = (directions * self._cameras.c2w[chosen.views, :, 2]).sum(1)
        depths = 1 / ((weights * chosen.inverse_depths).sum(1) * cosines)
        tolerances = _TRIANGLE_TOLERANCE * chosen.sides + 3 * _LEAST_TOLERANCE
        return SeenDepths(origins, directions, depths, tolerances, torch.full_like(depths, torch.inf))


def on_object(
    points: SparsePoints, cameras: Cameras, masks: Sequence[UInt8[np.ndarray, "_ _"] | None]
) -> Bool[Tensor, "m"]:
    """Tell which observations may speak: those inside the mask of their photo, if it has one."""
    index, observers = points.observations.unbind(1)
    usable = torch.ones(len(index), dtype=torch.bool)
    for view, mask in enumerate(masks):
        if mask is None:
            continue
        mine = torch.nonzero(observers == view)[:, 0]
        pixels, _ = project(cameras, view, points.positions[index[mine]].to(cameras.c2w))
        columns, rows = pixels.long().unbind(1)
        inside = (pixels >= 0).all(1) & (columns < mask.shape[1]) & (rows < mask.shape[0])
        usable[mine] = inside
        usable[mine[inside]] = torch.from_numpy(mask)[rows[inside], columns[inside]] > 127
    return usable


def _observed(positions: Float[Tensor, "n 3"], cameras: Cameras, views: Int[Tensor, "n"]) -> SeenDepths:
    origins = cameras.c2w[views, :, 3]
    depths = (positions - origins).norm(dim=1)
    pixels = depths / cameras.intrinsics[views, :2].mean(1)
    tolerances = (_PIXELS * pixels).clamp_min(_LEAST_TOLERANCE)
    return SeenDepths(origins, (positions - origins) / depths[:, None], depths, tolerances, pixels)


def _endless(origins: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]) -> SeenDepths:
    """Rays that leave the region without meeting anything."""
    endless = torch.full_like(origins[:, 0], torch.inf)
    return SeenDepths(origins, directions, endless, torch.zeros_like(endless), endless)


def _triangles(cameras: Cameras, view: int, positions: Float[Tensor, "n 3"]) -> Triangles:
    """The triangles of the points that a photo observes, but long ones and those that an outline may run through."""
    pixels, depths = project(cameras, view, positions)
    ahead = depths > 1e-6
    positions, pixels, depths = (part[ahead].cpu() for part in (positions, pixels, depths))
    corners = torch.from_numpy(_delaunay(pixels.double().numpy()))
    sides = [(corners[:, k], corners[:, (k + 1) % 3]) for k in range(3)]
    edges = torch.stack([(pixels[a] - pixels[b]).norm(dim=1) for a, b in sides], 1).amax(1)
    lengths = torch.stack([(positions[a] - positions[b]).norm(dim=1) for a, b in sides], 1).amax(1)
    inverse = 1 / depths[corners]
    close = inverse.amax(1) < _DEPTH_RATIO * inverse.amin(1)
    diagonal = cameras.sizes[view].double().norm().item()
    kept = close & (edges < _LONGEST_EDGE * diagonal) & (lengths < _LONGEST_SIDE)
    views = torch.full((int(kept.sum()),), view)
    return Triangles(views, pixels[corners[kept]], inverse[kept], lengths[kept])


def _delaunay(pixels: np.ndarray) -> np.ndarray:
    """Triangles [t, 3] between pixels; none of too few or of pixels on one line."""
    try:
        return Delaunay(pixels).simplices.astype(np.int64)
    except (QhullError, ValueError):
        return np.zeros((0, 3), np.int64)


def _depth_loss(field: SurfaceField, rays: SeenDepths, generator: torch.Generator) -> Float[Tensor, ""]:
    """The three terms of the module's docstring, each a mean over the rays that have it inside the region."""
    n = len(rays.depths)
    near, far = unit_ball_span(rays.origins, rays.directions)
    near = near + _NEAR_CAMERA
    end = torch.minimum(rays.depths - rays.tolerances, far)
    s = torch.rand(3, n, generator=generator, device=generator.device)
    free = torch.stack([near + s[0] * (end - near), end - _NEAR_THE_END * s[1] ** 2 * (end - near)])
    deeper = rays.tolerances + _BEHIND * s[2]
    within = (rays.depths > near) & (rays.depths + deeper < far)
    ts = torch.stack([*free, *(torch.where(within, t, near) for t in (rays.depths, rays.depths + deeper))])
    points = rays.origins + ts[..., None] * rays.directions
    logits = field.logits(points.reshape(-1, 3)).view(4, n)
    margins = (0.5 * (rays.depths - free)).clamp_max(_MARGIN)
    before = torch.relu(logits[:2] + margins)
    at = torch.relu(logits[2].abs() - 0.5 * rays.pixels)
    behind = torch.relu(0.5 * deeper - logits[3])
    return _mean(before, (end > near).expand(2, n)) + _mean(at + behind, within)


def _ground_loss(
    field: SurfaceField,
    normal: Float[Tensor, "3"],
    points: Float[Tensor, "n 3"],
    n: int,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """The third term of the module's docstring, at random places below the ground."""
    place = {"generator": generator, "device": generator.device}
    at = torch.randint(len(points), (n,), **place)
    aside = _GROUND_REACH * (2 * torch.rand(n, 3, **place) - 1)
    aside = aside - (aside @ normal)[:, None] * normal
    least, most = _GROUND_DEPTH
    depths = least + (most - least) * torch.rand(n, **place)
    below = points[at] + aside - depths[:, None] * normal
    wanted = 0.5 * (depths - 0.5 * least)
    return _mean(torch.relu(wanted - field.logits(below)), below.norm(dim=1) < 1)


def _mean(values: Float[Tensor, "*n"], where: Bool[Tensor, "*n"]) -> Float[Tensor, ""]:
    return (values * where).sum() / where.sum().clamp_min(1)
