"""What a capture's verified points, its stereo and its sky tell a fit before its first step."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from quicksurf.capture.scene import DensePoints, Scene, SparsePoints
from quicksurf.geometry.cameras import project
from quicksurf.mesh.refine import SurfacePoints
from quicksurf.model import TrainedModel
from quicksurf.train.free_space import room_before_points
from quicksurf.train.ground import find_ground
from quicksurf.train.points import PointGuide, SeenDepths, on_object
from quicksurf.train.sky import find_sky, room_below_sky, sky_rays

# Observations of verified points on the object, a photo. Objects with texture have 290 to 2250; a glossy one has 5, of
# reflections: with them its fit in made masks ends at 0.42 % (Chamfer), without at 0.20 %.
_FEWEST_ON_OBJECT = 50
_TOLERANCE = 0.5  # pixels of disparity, of depths by stereo
_LEAST_TOLERANCE = 0.001  # radii


def points_suffice(scene: Scene) -> bool:
    """Tell whether points may guide the fit: anything but a masked object that shows next to none, and false ones."""
    if scene.points is None or not len(scene.points.observations):
        return False
    if all(mask is None for mask in scene.masks):
        return True
    seen = scene.points.observations[on_object(scene.points, scene.cameras, scene.masks), 0]
    offsets = scene.points.positions[seen].double() - torch.tensor(scene.roi.center, dtype=torch.float64)
    return int((offsets.norm(dim=1) < scene.roi.radius).sum()) >= _FEWEST_ON_OBJECT * len(scene.images)


def guide_of(scene: Scene, result: TrainedModel, views: Sequence[int]) -> PointGuide | None:
    """Prepare the loss on verified points; in facades and inside captures empty cells of the grid, too.

    Args:
        views: the photos of the fit.

    Returns:
        None where points do not suffice, or have no weight.
    """
    points = scene.points
    if points is None or not points_suffice(scene) or not result.config.train.points_weight:
        return None
    positions, cameras = result.to_roi(points.positions), result.roi_cameras()
    sky = ground = None
    if scene.kind != "around" and not result.masked:
        _clear_before(points, positions, result)
        sky = _clear_sky(scene, points, positions, result)
        # photos are held upright on average
        up = torch.nn.functional.normalize(-cameras.c2w[:, :, 1].mean(0), dim=0)
        ground = find_ground(positions, cameras.centers(), up)
    usable = on_object(points, scene.cameras, scene.masks)
    positions, cameras = positions.to(result.device), cameras.on(result.device)
    dense = None if scene.dense is None else _dense_rays(scene.dense, result, views)
    between, weight = not result.masked and dense is None, result.config.train.dense_weight
    return PointGuide(points, positions, cameras, list(views), usable, between, sky, ground, dense, weight)


def _clear_before(points: SparsePoints, positions: Float[Tensor, "n 3"], result: TrainedModel) -> None:
    """Leave empty what rays to verified points cross."""
    index, observers = points.observations.unbind(1)
    origins, grid = result.roi_cameras().centers()[observers], result.renderer.grid
    grid.restrict(room_before_points(origins, positions[index], len(grid.occupied)))


def _clear_sky(
    scene: Scene, points: SparsePoints, positions: Float[Tensor, "n 3"], result: TrainedModel
) -> tuple[Tensor, Tensor] | None:
    """Leave empty what several photos see sky through; the rays through the sky, if there is any."""
    index, observers = points.observations.unbind(1)
    skies = []
    for view, image in enumerate(scene.images):
        seen = points.positions[index[observers == view]].to(scene.cameras.c2w)
        skies.append(find_sky(image, project(scene.cameras, view, seen)[0].numpy()))
    if all(sky is None for sky in skies):
        return None
    grid, cameras = result.renderer.grid, result.roi_cameras()
    room = room_below_sky(cameras, skies, positions, len(grid.occupied))
    grid.restrict(room)
    rays = sky_rays(cameras, skies, room)
    return rays if len(rays[0]) else None


def _dense_rays(dense: DensePoints, result: TrainedModel, views: Sequence[int]) -> SeenDepths | None:
    """Return the rays of `views` to dense points in the region, in the frame of the fit; None without any."""
    positions, radius = result.to_roi(dense.positions), result.roi.radius
    known = torch.isin(dense.views, torch.tensor(views)) & (positions.norm(dim=1) < 1)
    if not known.any():
        return None
    positions, observers, pixels, spreads = (part[known] for part in (positions, *dense[1:]))
    origins = result.roi_cameras().centers()[observers]
    depths = (positions - origins).norm(dim=1)
    tolerances = (_TOLERANCE / radius * spreads).clamp_min(_LEAST_TOLERANCE)
    rays = SeenDepths(origins, (positions - origins) / depths[:, None], depths, tolerances, pixels / radius)
    return SeenDepths(*(part.float().to(result.device) for part in rays))


def surface_points(dense: DensePoints, result: TrainedModel) -> SurfacePoints:
    """Return the dense points in the region of interest, of all photos, in the frame of the fit."""
    positions = result.to_roi(dense.positions)
    known = positions.norm(dim=1) < 1
    return SurfacePoints(positions[known].numpy(), (dense.pixels[known] / result.roi.radius).float().numpy())
