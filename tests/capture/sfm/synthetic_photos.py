"""Photos of random points without pixels: the features, matches, graphs and models that they would give.

Points lie on a unit ball about the origin and are seen by photos that look at their outside, within 60 degrees.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pycolmap
from jaxtyping import Float, Int
from synthetic_capture import look_at

from quicksurf.capture.sfm.matching import Features, Matches, root_sift
from quicksurf.capture.sfm.overlap import Model
from quicksurf.capture.sfm.view_graph import Camera, ViewGraph

WIDTH, HEIGHT = SIZE = 1600, 1067
FOCAL = 1.2 * WIDTH
MIDDLE = FOCAL, WIDTH / 2, HEIGHT / 2
_SEEN = np.cos(np.radians(60))  # between a point's normal and the ray: SIFT finds hardly more


class Photos(NamedTuple):
    """What photos of points give; feature k of photo i is of point `ids[i][k]`."""

    points: Float[np.ndarray, "p 3"]
    poses: Float[np.ndarray, "n 3 4"]
    """Camera from world."""
    features: list[Features]
    ids: list[Int[np.ndarray, "k"]]
    lens: tuple[float, float, float]


def ball(n_points: int, seed: int = 0) -> Float[np.ndarray, "p 3"]:
    """Sample points on the unit ball; each is its normal, too."""
    points = np.random.default_rng(seed).standard_normal((n_points, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def ring(
    n_photos: int, distance: float = 4.0, height: float = 1.5, degrees: float = 360.0
) -> Float[np.ndarray, "n 3 4"]:
    """Place poses (camera from world) around the origin, evenly over `degrees`."""
    angles = np.radians(degrees) * np.arange(n_photos) / n_photos
    eyes = np.stack([np.cos(angles), np.sin(angles), np.full(n_photos, height)], 1)
    eyes *= distance / np.linalg.norm(eyes, axis=1, keepdims=True)
    return np.stack([inverse(look_at(eye, np.zeros(3), np.array([0.0, 0.0, 1.0]))) for eye in eyes])


def inverse(pose: Float[np.ndarray, "3 4"]) -> Float[np.ndarray, "3 4"]:
    """Invert camera from world to world from camera, or back."""
    rotation = pose[:, :3].T
    return np.concatenate([rotation, -rotation @ pose[:, 3:]], 1)


def random_descriptors(n: int, generator: np.random.Generator) -> Float[np.ndarray, "n 128"]:
    """Sample histograms as sparse as SIFT's, before its square root."""
    return generator.gamma(0.3, size=(n, 128)) + 1e-6


def photograph(
    points: Float[np.ndarray, "p 3"],
    normals: Float[np.ndarray, "p 3"],
    poses: Float[np.ndarray, "n 3 4"],
    lens: tuple[float, float, float] = MIDDLE,
    noise: float = 0.5,
    seed: int = 0,
) -> Photos:
    """Take photos of `points`; a normal of zeros is of a point that is seen from everywhere.

    Args:
        lens: focal length and principal point in pixels.
        noise: standard deviation of each coordinate of a feature, in pixels.
    """
    generator = np.random.default_rng(seed)
    descriptors = random_descriptors(len(points), generator)
    features, ids = [], []
    for pose in poses:
        local = points @ pose[:, :3].T + pose[:, 3]
        pixels = lens[0] * local[:, :2] / local[:, 2:] + lens[1:]
        rays = inverse(pose)[:, 3] - points
        facing = (rays * normals).sum(1) / np.linalg.norm(rays, axis=1) > _SEEN
        inside = (local[:, 2] > 0) & (pixels > 1).all(1) & (pixels < np.array(SIZE) - 1).all(1)
        seen = np.flatnonzero(inside & (facing | ~normals.any(1)))
        blurred = descriptors[seen] * generator.uniform(0.3, 1.7, (len(seen), 128))
        features.append(
            as_features(pixels[seen] + noise * generator.standard_normal((len(seen), 2)), root_sift(blurred))
        )
        ids.append(seen)
    return Photos(points, poses, features, ids, lens)


def as_features(
    points: Float[np.ndarray, "n 2"], descriptors: np.ndarray | None = None, size: tuple[int, int] = SIZE
) -> Features:
    """Make features at `points`, of falling scale; colour k is (k mod 256, 7, 9)."""
    n = len(points)
    colors = np.stack([np.arange(n) % 256, np.full(n, 7), np.full(n, 9)], 1).astype(np.uint8)
    if descriptors is None:
        descriptors = np.zeros((n, 128), np.uint8)
    return Features(np.asarray(points, float), np.linspace(20.0, 2.0, n), descriptors, colors, size)


def true_matches(photos: Photos) -> dict[tuple[int, int], Matches]:
    """Match the features of one point in each pair of photos."""
    found = {}
    for i, j in combinations(range(len(photos.ids)), 2):
        _, first, second = np.intersect1d(photos.ids[i], photos.ids[j], return_indices=True)
        found[i, j] = np.stack([first, second], 1).astype(np.int32)
    return found


def graph_of(
    photos: Photos, matches: Mapping[tuple[int, int], Matches] | None = None, focal: float = FOCAL
) -> ViewGraph:
    """Build the graph of verified pairs of photos by one camera; those of 15 matches and more are kept."""
    pairs = true_matches(photos) if matches is None else matches
    verified = {pair: two_view(found) for pair, found in pairs.items() if len(found) >= 15}
    return ViewGraph(
        photos.features, [Camera(list(range(len(photos.features))), SIZE, focal, False)], verified
    )


def two_view(matches: Matches) -> pycolmap.TwoViewGeometry:
    """Make a verified pair of these matches."""
    geometry = pycolmap.TwoViewGeometry()
    geometry.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED
    geometry.inlier_matches = matches.astype(np.uint32)
    return geometry


def model_of(photos: Photos, chosen: Sequence[int] | None = None, noise: float = 0.0) -> Model:
    """Build the true model of `chosen` photos, of points that two of them see; noise as part of the ball's radius."""
    chosen = list(range(len(photos.poses)) if chosen is None else chosen)
    counts = np.bincount(np.concatenate([photos.ids[i] for i in chosen]), minlength=len(photos.points))
    kept = np.flatnonzero(counts >= 2)
    place = np.full(len(photos.points), -1)
    place[kept] = np.arange(len(kept))
    rows = [
        (place[point], index, feature)
        for index, photo in enumerate(chosen)
        for feature, point in enumerate(photos.ids[photo])
        if place[point] >= 0
    ]
    table = np.array(rows, np.int64).reshape(-1, 3)
    positions = photos.points[kept]
    return Model(
        np.array(chosen),
        photos.poses[chosen],
        np.tile(np.array(photos.lens), (len(chosen), 1)),
        np.tile(np.array(SIZE), (len(chosen), 1)),
        positions + noise * np.random.default_rng(1).standard_normal(positions.shape),
        table[:, :2],
        table[:, 2],
    )


def simple_radial(lens: tuple[float, float, float]) -> pycolmap.Camera:
    """Make such a lens as COLMAP's, without distortion."""
    camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_RADIAL", lens[0], *SIZE)
    camera.params = [*lens, 0.0]
    return camera


def degrees_between(first: Float[np.ndarray, "3 3"], second: Float[np.ndarray, "3 3"]) -> float:
    """Measure the angle of the rotation from one to the other."""
    return float(np.degrees(np.arccos(np.clip((np.trace(first.T @ second) - 1) / 2, -1, 1))))
