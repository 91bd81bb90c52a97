"""Choose the region of interest and the kind of capture from cameras, masks and sparse points.

The region is a ball, in the frame of the cameras, that holds the object. It comes from, in this order: masks (the ball
around their visual hull), sparse points where the views do not converge (a facade), else the cameras alone. People
point the camera at the object and keep it inside the frame, so the point nearest all optical axes is its middle and the
cone that holds the frame bounds its size. Points may only shrink that ball: smooth parts of an object have none.

The kinds of capture:
around  the photos surround an object: the region of interest is the object, what is behind it is background
facade  they look at one side of something: a house front, a relief, a street
inside  they look outward from within what is to be reconstructed: a courtyard, a room
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage
from torch import Tensor

from quicksurf.capture.scene import Kind, SparsePoints
from quicksurf.errors import RoiError
from quicksurf.geometry.cameras import Cameras, pixel_rays, project
from quicksurf.geometry.region import Roi

_CAMERA_MARGIN = 0.9  # the ball reaches at most this fraction of the way to the nearest camera
# Median distance of the axes from their common point, by that of the cameras: orbits stay below 0.02, facades above
# 0.08 (fox, herzjesu).
_CONVERGENT = 0.06
_LEAST_POINTS = 50
_HELD = 0.98  # of the points lie in the region of a scene: others stray, or lie far behind
_PARALLEL = 0.01  # smallest eigenvalue of mean(I - ddᵀ): axes within 6° of one direction fix no depth
_GRID = 48  # cells across the searched ball: the hull's size is known to 2 % of it
_HULL_IMAGES = 60  # more views than this refine nothing that matters to a ball
_HULL_AGREE = 0.95  # of the masks that see a cell must hold it: one bad mask in twenty is forgiven
_LEAST_RADIUS, _GREATEST_RADIUS = 1e-6, 1e4  # of the cameras' median distance: what float32 can resolve
_HULL_SEEN = 1 / 3  # of the masks must see the cell at all: objects may be cut by the frame
# Of the directions from the common point of the axes to the cameras: facades have 0.80 to 0.94, an object seen from
# above 0.72 at most.
_ONE_SIDED = 0.76
# Degrees of the horizon from which the cameras look: facades have 67 to 102, photos around an object 300 and more.
_ONE_SIDE = 160.0
# Median distance of the axes from their common point, by that of the cameras: a courtyard has 0.11, objects in a room
# whose walls have points 0.07 at most.
_LOOK_ABOUT = 0.09
# Of the points, by observations: the ball that most cameras of an inside capture stand in holds so many.
_SURROUNDING = 0.9


class Gaze(NamedTuple):
    """The point nearest all optical axes, and the size of the frames there."""

    center: Float[Tensor, "3"]
    inscribed: float
    """Radius of the ball that touches the nearer edges of the frame, the median over cameras."""
    framed: float
    """Radius of the ball that reaches the corners of the frame, the median over cameras."""
    nearest: float
    """Distance of the nearest camera."""
    residual: float
    """Median distance of the axes from the centre, relative to the cameras' median distance."""


def automatic_roi(
    cameras: Cameras,
    masks: Sequence[UInt8[np.ndarray, "_ _"] | None],
    points: SparsePoints | None,
    kind: Kind = "around",
) -> Roi:
    """Choose the ball that holds the object, as the module's docstring describes.

    Parallel axes without points put the ball where the frusta begin to overlap by half: a guess that the user may
    override.
    """
    cameras = cameras.to(torch.float64)
    gaze = look(cameras)
    ball = _hull_ball(cameras, masks, gaze)
    if ball is None and points is not None and len(points.positions) >= _LEAST_POINTS:
        if kind != "around":
            x, y, z, radius = scene_ball(points)
            return Roi((x, y, z), radius)
        ball = _point_ball(cameras, points, gaze)
    if ball is None:
        ball = gaze.center, gaze.framed
    center, radius = ball
    nearest = float((cameras.centers() - center).norm(dim=1).min())
    x, y, z = center.tolist()
    return Roi((x, y, z), min(radius, _CAMERA_MARGIN * nearest))


def scene_ball(points: SparsePoints) -> tuple[float, float, float, float]:
    """Compute centre and radius of the ball that holds all points but the farthest fiftieth."""
    positions = points.positions.to(torch.float64)
    distances = (positions - positions.median(0).values).norm(dim=1)
    center, radius = enclosing_ball(positions[distances.argsort()[: math.ceil(_HELD * len(distances))]])
    x, y, z = center.tolist()
    return x, y, z, 1.05 * radius


def check_roi(roi: Roi, cameras: Cameras, kind: Kind = "around") -> list[str]:
    """Check a region of interest: warn if it holds cameras, around an object, or if few of them see it.

    Raises:
        RoiError: if it is not a ball, beyond all proportion to the cameras, or seen by none of them.
    """
    if not all(map(math.isfinite, (*roi.center, roi.radius))) or roi.radius <= 0:
        raise RoiError(
            f"region of interest {roi.describe()}: four finite numbers with a radius > 0 are expected"
        )
    cameras = cameras.to(torch.float64)
    center = torch.tensor(roi.center, dtype=torch.float64)
    distances = (cameras.centers() - center).norm(dim=1)
    distance = float(distances.median())
    if not _LEAST_RADIUS * distance <= roi.radius <= _GREATEST_RADIUS * distance:
        raise RoiError(
            f"region of interest {roi.describe()}: its radius is out of proportion, the cameras are "
            f"{distance:.4g} from its centre; they look at {automatic_roi(cameras, [], None).describe()}"
        )
    inside = distances < roi.radius
    seeing = int((_sees(cameras, center, roi.radius) | inside).sum())
    if seeing == 0:
        suggested = automatic_roi(cameras, [], None)
        if not (_sees(cameras, torch.tensor(suggested.center, dtype=torch.float64), suggested.radius)).any():
            raise RoiError(
                f"all cameras look away from the place that they stand around, {suggested.describe()}: check the axes "
                "of the camera file (of transforms.json: x right, y up, z backwards)"
            )
        raise RoiError(
            f"no camera sees the region of interest {roi.describe()}: they look at {suggested.describe()}; "
            "leave --roi out or use that"
        )
    warnings = []
    if inside.any() and kind == "around":
        warnings.append(
            f"the region of interest {roi.describe()} holds {int(inside.sum())} of {len(cameras)} cameras: "
            "their rays start inside it; a smaller radius gives more detail if the object allows it"
        )
    if seeing < min(3, len(cameras)):
        warnings.append(
            f"only {seeing} of {len(cameras)} cameras see the region of interest {roi.describe()}"
        )
    return warnings


def look(cameras: Cameras) -> Gaze:
    """Find the point nearest all optical axes and the size of the frames there.

    Minimises Σ w_i |(I − d_i d_iᵀ)(x − o_i)|² by iteratively reweighted least squares with w = 1/distance,
    which is the sum of distances: a few cameras that look elsewhere do not move it. Axes pass through the
    middle of the image, not the principal point: crops move the latter.
    """
    origins, directions = pixel_rays(cameras, torch.arange(len(cameras)), cameras.sizes / 2.0)
    across = torch.eye(3, dtype=origins.dtype) - directions[:, :, None] * directions[:, None, :]
    center = _overlap_point(cameras, origins, directions)
    if float(torch.linalg.eigvalsh(across.mean(0))[0]) > _PARALLEL:
        center = _nearest_to_axes(origins, across)
    distances = (center - origins).norm(dim=1)
    residuals = (across @ (center - origins)[:, :, None]).norm(dim=1)[:, 0]
    spans = cameras.sizes / cameras.intrinsics[:, :2] / 2
    inscribed = distances * torch.sin(torch.atan(spans.amin(1)))
    framed = distances * torch.sin(torch.atan(spans.norm(dim=1)))
    return Gaze(
        center=center,
        inscribed=float(inscribed.median()),
        framed=float(framed.median()),
        nearest=float(distances.min()),
        residual=float(residuals.median() / distances.median().clamp_min(1e-12)),
    )


def looks_inward(cameras: Cameras) -> bool:
    """Test whether the cameras look at one place, as around an object."""
    return look(cameras.to(torch.float64)).residual <= _CONVERGENT


def kind_of(cameras: Cameras, points: SparsePoints | None) -> Kind:
    """Choose the kind of a capture from its cameras and points alone."""
    gaze = look(cameras.to(torch.float64))
    sight = torch.nn.functional.normalize(cameras.centers().double() - gaze.center, dim=1)
    outward = (sight * cameras.c2w[:, :, 2].double()).sum(1).median() > 0
    if (outward or gaze.residual > _LOOK_ABOUT) and points is not None and _stand_among(cameras, points):
        return "inside"
    one_sided = float(sight.mean(0).norm()) > _ONE_SIDED
    return "facade" if one_sided and _horizon(cameras, sight) < _ONE_SIDE else "around"


def _nearest_to_axes(origins: Float[Tensor, "n 3"], across: Float[Tensor, "n 3 3"]) -> Float[Tensor, "3"]:
    weights = torch.ones(len(origins), dtype=origins.dtype)
    center = origins.mean(0)
    for _ in range(30):
        weighted = weights[:, None, None] * across
        center = torch.linalg.solve(weighted.sum(0), (weighted @ origins[:, :, None]).sum(0))[:, 0]
        residuals = (across @ (center - origins)[:, :, None]).norm(dim=1)[:, 0]
        floor = 1e-3 * float((center - origins).norm(dim=1).mean()) + 1e-12  # keeps a perfect axis finite
        weights = 1 / residuals.clamp_min(floor)
    return center


def _overlap_point(
    cameras: Cameras, origins: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]
) -> Float[Tensor, "3"]:
    """For parallel views: straight ahead of the middle, where the frame is twice as wide as the path."""
    forward = torch.nn.functional.normalize(directions.mean(0), dim=0)
    middle = origins.median(0).values
    extent = float((origins - middle).norm(dim=1).max())
    half_width = float((cameras.sizes / cameras.intrinsics[:, :2] / 2).amin(1).median())
    return middle + forward * max(2 * extent / half_width, 1e-6)


def _hull_ball(
    cameras: Cameras, masks: Sequence[UInt8[np.ndarray, "_ _"] | None], gaze: Gaze
) -> tuple[Float[Tensor, "3"], float] | None:
    """The ball around what nearly all masks hold, or None without masks or with contradictory ones."""
    masked = [index for index, mask in enumerate(masks) if mask is not None and mask.any()]
    if len(masked) < 3:
        return None
    masked = masked[:: math.ceil(len(masked) / _HULL_IMAGES)]
    reach = 1.3 * gaze.framed
    axis = torch.linspace(-reach, reach, _GRID, dtype=torch.float64)
    cells = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    seen, held = torch.zeros(len(cells)), torch.zeros(len(cells))
    alive = torch.nonzero(cells.norm(dim=1) <= reach)[:, 0]
    for index in masked:
        mask = masks[index]
        assert mask is not None
        in_frame, on_object = _look_up(cameras, index, cells[alive] + gaze.center, mask)
        seen[alive] += in_frame
        held[alive] += on_object
        # The others cannot agree any more.
        alive = alive[(seen - held)[alive] <= (1 - _HULL_AGREE) * len(masked)]
    hull = (seen >= _HULL_SEEN * len(masked)) & (held >= _HULL_AGREE * seen)
    hull = torch.from_numpy(_without_crumbs(hull.reshape(_GRID, _GRID, _GRID).numpy())).reshape(-1)
    if not hull.any():
        return None
    center, radius = enclosing_ball(cells[hull])
    return center + gaze.center, 1.1 * (radius + float(axis[1] - axis[0]))


def _look_up(
    cameras: Cameras, index: int, positions: Float[Tensor, "n 3"], mask: UInt8[np.ndarray, "h w"]
) -> tuple[Bool[Tensor, "n"], Bool[Tensor, "n"]]:
    """Which positions fall into an image's frame, and which of these onto its mask."""
    pixels, depths = project(cameras, index, positions)
    in_frame = (depths > 0) & (pixels >= 0).all(1) & (pixels < cameras.sizes[index]).all(1)
    on_object = torch.zeros_like(in_frame)
    columns, rows = pixels[in_frame].long().unbind(1)
    on_object[in_frame] = torch.from_numpy(mask)[rows, columns] > 127
    return in_frame, on_object


def _without_crumbs(hull: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """Drop pieces under a twentieth of the largest: coincidences of silhouettes far from the object."""
    labels: np.ndarray = np.zeros(hull.shape, np.int32)
    ndimage.label(hull, np.ones((3, 3, 3)), output=labels)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (sizes >= max(1, sizes.max() / 20))[labels]


def enclosing_ball(positions: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "3"], float]:
    """Find the smallest ball around `positions`, to about 1 %.

    Bădoiu and Clarkson (2003): step i goes towards the farthest position by 1/(i + 1) of the way.
    """
    center = (positions.amin(0) + positions.amax(0)) / 2
    for step in range(1, 100):
        farthest = positions[(positions - center).norm(dim=1).argmax()]
        center = center + (farthest - center) / (step + 1)
    return center, float((positions - center).norm(dim=1).max())


def _point_ball(
    cameras: Cameras, points: SparsePoints, gaze: Gaze
) -> tuple[Float[Tensor, "3"], float] | None:
    """The ball that points suggest: their extent for a facade; for an orbit they only shrink the frame's."""
    positions = points.positions.to(torch.float64)
    weights = torch.bincount(points.observations[:, 0], minlength=len(positions)).to(torch.float64)
    if gaze.residual > _CONVERGENT:
        center = torch.stack([_quantile(column, weights, 0.5) for column in positions.unbind(1)])
        extent = float(_quantile((positions - center).norm(dim=1), weights, 0.95))
        return (center, 1.1 * extent) if extent > 0 else None
    distances = (positions - gaze.center).norm(dim=1)
    inside = distances < gaze.framed
    if int(inside.sum()) < 50:
        return None
    extent = 1.15 * float(_quantile(distances[inside], weights[inside], 0.97))
    return gaze.center, min(max(extent, gaze.inscribed), gaze.framed)


def _quantile(values: Float[Tensor, "n"], weights: Float[Tensor, "n"], level: float) -> Float[Tensor, ""]:
    order = values.argsort()
    cumulative = weights[order].cumsum(0)
    index = int(torch.searchsorted(cumulative, level * float(cumulative[-1])))
    return values[order][min(index, len(values) - 1)]


def _sees(cameras: Cameras, center: Float[Tensor, "3"], radius: float) -> Bool[Tensor, "n"]:
    """Which cameras have any of the ball in frame: probes in it, and where their axes pass its centre."""
    generator = torch.Generator().manual_seed(0)
    probes = torch.randn(500, 3, generator=generator, dtype=torch.float64)
    radii = torch.rand(500, 1, generator=generator, dtype=torch.float64) ** (1 / 3)
    probes = center + radius * radii * torch.nn.functional.normalize(probes, dim=1)
    origins, directions = pixel_rays(cameras, torch.arange(len(cameras)), cameras.sizes / 2.0)
    along = ((center - origins) * directions).sum(1, keepdim=True).clamp_min(0)
    on_axis = (origins + along * directions - center).norm(dim=1) < radius
    in_frame = []
    for index in range(len(cameras)):
        pixels, depths = project(cameras, index, torch.cat([probes, center[None]]))
        visible = (depths > 0) & (pixels >= 0).all(1) & (pixels < cameras.sizes[index]).all(1)
        in_frame.append(bool(visible.any()))
    return torch.tensor(in_frame) | on_axis


def _stand_among(cameras: Cameras, points: SparsePoints) -> bool:
    """Whether most cameras stand inside the ball that holds nine tenths of what they observe."""
    positions = points.positions.double()
    seen = positions[points.observations[:, 0]]
    if not len(seen):
        return False
    middle = seen.median(0).values
    radius = (seen - middle).norm(dim=1).quantile(_SURROUNDING) if len(seen) < 1 << 24 else 0.0
    return bool(((cameras.centers().double() - middle).norm(dim=1) < radius).double().mean() > 0.5)


def _horizon(cameras: Cameras, sight: Float[Tensor, "n 3"]) -> float:
    """Degrees of the horizon that the cameras stand on: 360 less the largest gap; most photos are held upright."""
    up = torch.nn.functional.normalize(-cameras.c2w[:, :, 1].double().mean(0), dim=0)
    first, second = torch.linalg.svd(up[None])[2][1:]
    angles = torch.atan2(sight @ second, sight @ first).sort().values
    gaps = torch.cat([angles[1:] - angles[:-1], angles[:1] + 2 * torch.pi - angles[-1:]])
    return 360.0 - float(torch.rad2deg(gaps.max()))
