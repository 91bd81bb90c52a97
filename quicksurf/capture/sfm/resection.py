"""Place photos that no pair of photos could place, by all photos of the model together.

Each of a lost photo's features is matched with the features that observe points, photo by photo and with a looser
ratio test, and given the point most of them agree on. A pose is kept where so many of these pairs fit it as chance
would not give: of `n` pairs, each lies within `e` pixels of its place with probability p = pi e^2 / A at random, so
that n (n choose k) (k choose 3) p^(k - 3) poses as good are expected among unrelated pairs.
"""

from collections.abc import Callable, Iterable, Sequence
from math import log, pi
from typing import NamedTuple

import numpy as np
import pycolmap
from jaxtyping import Float, Int

from quicksurf.capture.sfm.matching import Features, log_false_alarms
from quicksurf.capture.sfm.overlap import Model
from quicksurf.capture.sfm.view_graph import ViewGraph
from quicksurf.kernels.host import match_descriptors

# Looser than for pairs: a wrong point fits by chance in a hundredth of the image's area.
_RATIO, _MAX_ANGLE = 0.9, 0.8
_MAX_ERROR = 6.0  # pixels
_MIN_INLIERS = 10
_LOG_CHANCE = log(1e-8)


class Placed(NamedTuple):
    """A photo's pose in the frame of the model, and what it rests on."""

    cam_from_world: Float[np.ndarray, "3 4"]
    links: dict[int, Int[np.ndarray, "k 2"]]
    """By photo of the model: pairs (its feature, the placed photo's feature) of one point."""


def place(
    graph: ViewGraph,
    model: Model,
    lost: Iterable[int],
    lens_of: Callable[[int], pycolmap.Camera | None],
    expired: Callable[[], bool],
) -> dict[int, Placed]:
    """Return the poses of those `lost` photos that the model's points place.

    Args:
        lens_of: a photo's lens where another photo of its camera is in the model.
    """
    # Of each photo the features that observe points, and those points.
    observers = {
        int(photo): (model.features[mine], model.observations[mine, 0])
        for place, photo in enumerate(model.photos)
        for mine in (model.observations[:, 1] == place,)
    }
    placed = {}
    for photo in lost:
        lens = lens_of(photo)
        if expired():
            break
        if lens is not None and len(graph.features[photo].points):
            found = _place_one(graph.features, photo, lens, model, observers)
            if found is not None:
                placed[photo] = found
    return placed


def _place_one(
    features: Sequence[Features], photo: int, lens: pycolmap.Camera, model: Model, observers: dict
) -> Placed | None:
    votes = _votes(features, photo, observers)
    if len(votes) < _MIN_INLIERS:
        return None
    pairs, counts = np.unique(votes[:, :2], axis=0, return_counts=True)
    order = np.lexsort((-counts, pairs[:, 0]))
    _, first = np.unique(pairs[order, 0], return_index=True)
    pairs = pairs[order][first]
    item = features[photo]
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error = _MAX_ERROR
    options.ransac.random_seed = 0
    options.ransac.max_num_trials = 20_000
    answer = pycolmap.estimate_and_refine_absolute_pose(
        item.points[pairs[:, 0]], model.positions[pairs[:, 1]], lens, options
    )
    if answer is None or answer["num_inliers"] < _MIN_INLIERS:
        return None
    log_p = log(pi * _MAX_ERROR**2 / (item.size[0] * item.size[1]))
    if log_false_alarms(int(answer["num_inliers"]), len(pairs), 3, log_p) >= _LOG_CHANCE:
        return None
    inliers = {tuple(pair) for pair in pairs[answer["inlier_mask"]].tolist()}
    kept = np.array([(feature, point) in inliers for feature, point in votes[:, :2].tolist()])
    links = {
        int(other): votes[kept & (votes[:, 2] == other)][:, [3, 0]] for other in np.unique(votes[kept, 2])
    }
    return Placed(answer["cam_from_world"].matrix(), links)


def _votes(features: Sequence[Features], photo: int, observers: dict) -> Int[np.ndarray, "v 4"]:
    """(feature, point, photo of the model, feature there) of every match with a feature that observes a point."""
    others = list(observers)
    arrays = [features[photo].descriptors]
    arrays += [np.ascontiguousarray(features[other].descriptors[observers[other][0]]) for other in others]
    pairs = np.stack([np.zeros(len(others)), 1 + np.arange(len(others))], 1).astype(np.int32)
    rows = []
    for other, found in zip(others, match_descriptors(arrays, pairs, _RATIO, _MAX_ANGLE), strict=True):
        mine, points = observers[other]
        theirs = found[:, 1]
        rows.append(np.stack([found[:, 0], points[theirs], np.full(len(found), other), mine[theirs]], 1))
    return np.concatenate(rows).astype(np.int64)
