"""How many points two photos should have in common by their poses, and how many they do: the test of a model.

SIFT finds a point again with a probability f that falls with the angle between the two rays to it. f is learned from
the model itself, over all pairs of its photos. Photo j should then see f(angle) of those points of photo i that lie
before it and inside its frame. Two photos that a model puts side by side and that have no point in common contradict
it, whatever the reprojection error: two similar faces taken for one, a backdrop taken for the object.
"""

from typing import NamedTuple

import numpy as np
import pycolmap
from jaxtyping import Bool, Float, Int

_BIN_DEGREES, _N_BINS = 5.0, 16
_MAX_POINTS, _MAX_PROJECTIONS = (
    400,
    40_000_000,
)  # of a photo that are projected; and in all, into all other photos


class Model(NamedTuple):
    """A model as arrays; photos are numbered as in the graph."""

    photos: Int[np.ndarray, "n"]
    cam_from_world: Float[np.ndarray, "n 3 4"]
    intrinsics: Float[np.ndarray, "n 3"]
    """Focal length and principal point in pixels."""
    sizes: Int[np.ndarray, "n 2"]
    positions: Float[np.ndarray, "p 3"]
    observations: Int[np.ndarray, "m 2"]
    """(point, place in `photos`), one for each pair of them."""
    features: Int[np.ndarray, "m"]
    """Feature of the photo that observes the point."""


def arrays(model: pycolmap.Reconstruction) -> Model:
    """Read a COLMAP model whose image i + 1 is photo i."""
    ids = sorted(model.reg_image_ids())
    place = {image_id: index for index, image_id in enumerate(ids)}
    lenses = [model.camera(model.image(image_id).camera_id) for image_id in ids]
    points = list(model.points3D.values())
    observations = [
        (index, place[element.image_id], element.point2D_idx)
        for index, point in enumerate(points)
        for element in point.track.elements
    ]
    table = np.array(observations, np.int64).reshape(-1, 3)
    return Model(
        np.array(ids) - 1,
        np.stack([model.image(image_id).cam_from_world().matrix() for image_id in ids]),
        np.array(
            [(lens.mean_focal_length(), lens.principal_point_x, lens.principal_point_y) for lens in lenses]
        ),
        np.array([(lens.width, lens.height) for lens in lenses]),
        np.array([point.xyz for point in points]).reshape(-1, 3),
        table[:, :2],
        table[:, 2],
    )


def overlaps(model: Model) -> tuple[Float[np.ndarray, "n n b"], Float[np.ndarray, "n n b"]]:
    """Count the points of photo i that should be seen by photo j, and that are, by the angle between their rays.

    Returns:
        should, do: [i, j, bin of 5 degrees], scaled up where a photo has more points than are projected.
    """
    n_images, n_points = len(model.photos), len(model.positions)
    seen = np.zeros((n_images, n_points), bool)
    seen[model.observations[:, 1], model.observations[:, 0]] = True
    rotations, translations = model.cam_from_world[:, :, :3], model.cam_from_world[:, :, 3]
    centers = -np.einsum("nji,nj->ni", rotations, translations)
    should, do = np.zeros((2, n_images, n_images, _N_BINS), np.float32)
    n_projected = max(20, min(_MAX_POINTS, _MAX_PROJECTIONS // n_images**2))
    generator = np.random.default_rng(0)
    for index in range(n_images):
        mine = np.flatnonzero(seen[index])
        scale = max(1.0, len(mine) / n_projected)
        if scale > 1:
            mine = generator.choice(mine, n_projected, replace=False)
        points = model.positions[mine]
        local = np.einsum("nij,pj->npi", rotations, points) + translations[:, None]
        depth = np.maximum(local[..., 2], 1e-9)
        pixels = (
            model.intrinsics[:, None, :1] * local[..., :2] / depth[..., None] + model.intrinsics[:, None, 1:]
        )
        inside = (local[..., 2] > 1e-9) & (pixels > 0).all(2) & (pixels < model.sizes[:, None]).all(2)
        rays = points - centers[:, None]
        rays /= np.maximum(np.linalg.norm(rays, axis=2, keepdims=True), 1e-12)
        cosines = np.einsum("npi,pi->np", rays, rays[index])
        bins = (np.degrees(np.arccos(np.clip(cosines, -1, 1))) / _BIN_DEGREES).astype(int)
        inside &= bins < _N_BINS
        flat = np.arange(n_images)[:, None] * _N_BINS + np.minimum(bins, _N_BINS - 1)
        for table, marked in ((should, inside), (do, inside & seen[:, mine])):
            counts = np.bincount(flat[marked], minlength=n_images * _N_BINS)
            table[index] = scale * counts.reshape(n_images, _N_BINS)
    return should, do


def expected(
    should: Float[np.ndarray, "n n b"], do: Float[np.ndarray, "n n b"], reference: Bool[np.ndarray, "n n"]
) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "n n"]]:
    """Return the points that each pair of photos is expected to have in common, and those it has.

    Args:
        reference: pairs that f(angle) is learned from.
    """
    pairs = reference & ~np.eye(len(reference), dtype=bool)
    wanted = should @ falling_rate(should[pairs].sum(0), do[pairs].sum(0))
    return (wanted + wanted.T) / 2, (do.sum(2) + do.sum(2).T) / 2


def falling_rate(counted: Float[np.ndarray, "b"], found: Float[np.ndarray, "b"]) -> Float[np.ndarray, "b"]:
    """Return the rate `found / counted` of each bin, fitted such that it falls with the angle.

    Antitonic regression, the least mean from the left of the greatest to the right. The least rate so far would do
    but for bins that hold little: photos at even steps have no points at the smallest angles but those of photos
    that a model wrongly puts at one place, and these would set the rate to 0 at all angles.
    """
    n_counted, n_found = (np.append(0.0, np.cumsum(counts)) for counts in (counted, found))
    means = (n_found[1:] - n_found[:-1, None]) / np.maximum(n_counted[1:] - n_counted[:-1, None], 1.0)
    return np.array([means[: index + 1, index:].max(1).min() for index in range(len(counted))])
