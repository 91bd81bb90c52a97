"""Merge models of weakly linked groups of photos by the similarity that the photos support best.

Between two positions of an object on a turntable, the scale bar beside it or the table below it may match better than
the object does, and one two-view geometry of a pair is then the wrong one. Within a group object and background agree,
so that each group's model is right by itself. Matches between points of two models may support several similarities:
one for each thing that moved as a whole. The right one is that under which photos have the points in common that they
should (`overlap`).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import connected_components

from quicksurf.capture.sfm import overlap
from quicksurf.capture.sfm.matching import Matches
from quicksurf.capture.sfm.overlap import Model

_WEAK = 0.4  # of the weaker one's strongest link: weaker links join no groups
_MIN_GROUP = 3
_TRIALS, _MAX_TESTED = 4000, 2000  # similarities tried, and pairs of points that score them: 200 MB
_TOLERANCE = 0.02  # of the median distance between cameras and points
_MAX_SCALE = 20.0  # between two models
_MIN_SUPPORT, _MANY = 12, 50  # pairs of points
_MAX_HYPOTHESES = 4
_MIN_WANTED = 300  # points that two groups should have in common before their absence is evidence


class Join(NamedTuple):
    """A similarity that takes model B into the frame of model A: x -> scale R x + t."""

    scale: float
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]
    shared: Int[np.ndarray, "k 4"]
    """Points it brings together: (point of A, point of B, photo of A, photo of B)."""
    support: float
    """Points that photos of one model have in common with those of the other, as a fraction of what they should."""


def groups(strengths: Int[np.ndarray, "n n"]) -> list[list[int]]:
    """Split photos where links are weak: sets connected by links of 0.4 of the weaker photo's strongest.

    Sets too small to be mapped go to the one they match best. Photos without a link are left out.
    """
    best = strengths.max(1, initial=0)
    linked = (strengths > 0) & (strengths >= _WEAK * np.minimum(best[:, None], best[None]))
    _, labels = connected_components(linked, directed=False)
    labels[best == 0] = -1
    while True:
        sizes = np.bincount(labels[labels >= 0], minlength=len(labels))
        small = [label for label in np.flatnonzero(sizes) if sizes[label] < _MIN_GROUP]
        if not small or np.count_nonzero(sizes) == 1:
            break
        members = labels == small[0]
        outside = np.where(members | (labels < 0), 0, strengths[members].sum(0))
        labels[members] = labels[outside.argmax()] if outside.max() > 0 else -1
    found = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels[labels >= 0])]
    return sorted(found, key=len, reverse=True)


def joins(first: Model, second: Model, matches: Mapping[tuple[int, int], Matches]) -> list[Join]:
    """Return the similarities that matches between two models suggest, the one that photos support best first.

    Args:
        matches: unverified matches of pairs of photos; those between the models are used.
    """
    table = _shared_points(first, second, matches)
    found = []
    while len(table) >= _MIN_SUPPORT and len(found) < _MAX_HYPOTHESES:
        join, inliers = _similarity(first, second, table)
        if join is None or len(join.shared) < _MIN_SUPPORT:
            break
        merged = merge(first, second, join)
        support, wanted = least_overlap(merged, np.isin(merged.photos, first.photos).astype(int))
        if (
            wanted or len(join.shared) >= _MANY
        ):  # photos of other sides overlap little: then the number of points decides
            found.append(join._replace(support=support))
        table = table[~inliers]
    return sorted(found, key=lambda join: -join.support)


def merge(first: Model, second: Model, join: Join) -> Model:
    """Bring `second` into the frame of `first`, shared points as one; a photo of both keeps its place in `first`."""
    kept = np.flatnonzero(~np.isin(second.photos, first.photos))
    place = np.full(len(second.photos), -1)
    place[kept] = len(first.photos) + np.arange(len(kept))
    places = place[second.observations[:, 1]]
    new = places >= 0
    positions = join.scale * second.positions @ join.rotation.T + join.translation
    rotations = second.cam_from_world[kept, :, :3] @ join.rotation.T
    translations = join.scale * second.cam_from_world[kept, :, 3] - rotations @ join.translation
    poses = np.concatenate([rotations, translations[:, :, None]], 2)
    index = len(first.positions) + np.arange(len(second.positions))
    index[join.shared[:, 1]] = join.shared[:, 0]
    observations = np.stack([index[second.observations[:, 0]], places], 1)[new]
    return Model(
        np.concatenate([first.photos, second.photos[kept]]),
        np.concatenate([first.cam_from_world, poses]),
        np.concatenate([first.intrinsics, second.intrinsics[kept]]),
        np.concatenate([first.sizes, second.sizes[kept]]),
        np.concatenate([first.positions, positions]),
        np.concatenate([first.observations, observations]),
        np.concatenate([first.features, second.features[new]]),
    )


def least_overlap(model: Model, labels: Int[np.ndarray, "n"]) -> tuple[float, float]:
    """Return the least fraction, over pairs of groups, of the points that photos of both should have in common and do.

    Args:
        labels: the group of each of the model's photos.

    Returns:
        that fraction, 1 where no two groups should overlap, and the points that those two should have in common.
    """
    should, do = overlap.overlaps(model)
    wanted, found = overlap.expected(should, do, labels[:, None] == labels[None])
    least = 1.0, 0.0
    for one in np.unique(labels):
        for other in np.unique(labels[labels > one]):
            across = np.ix_(labels == one, labels == other)
            n_wanted = float(wanted[across].sum())
            if n_wanted >= _MIN_WANTED:
                least = min(least, (float(found[across].sum()) / n_wanted, n_wanted))
    return least


def _shared_points(
    first: Model, second: Model, matches: Mapping[tuple[int, int], Matches]
) -> Int[np.ndarray, "k 4"]:
    """Pairs of points that matches identify: (point, point, photo, photo), each pair of points once."""

    def point_of_feature(model: Model) -> dict[int, dict[int, int]]:
        table: dict[int, dict[int, int]] = {int(photo): {} for photo in model.photos}
        for (point, place), feature in zip(model.observations.tolist(), model.features.tolist(), strict=True):
            table[int(model.photos[place])][feature] = point
        return table

    mine, theirs = point_of_feature(first), point_of_feature(second)
    rows = [
        (point, theirs[photo][feature], photo, photo)
        for photo in mine.keys() & theirs.keys()
        for feature, point in mine[photo].items()
        if feature in theirs[photo]
    ]
    for (one, other), found in matches.items():
        for photo, partner, columns in ((one, other, found), (other, one, found[:, ::-1])):
            if photo in mine and partner in theirs:
                points = [(mine[photo].get(i, -1), theirs[partner].get(j, -1)) for i, j in columns.tolist()]
                rows += [(p, q, photo, partner) for p, q in points if p >= 0 and q >= 0]
    table = np.array(rows, np.int64).reshape(-1, 4)
    _, unique = np.unique(table[:, :2], axis=0, return_index=True)
    return table[unique]


def _similarity(
    first: Model, second: Model, table: Int[np.ndarray, "k 4"]
) -> tuple[Join | None, Bool[np.ndarray, "k"]]:
    """The similarity with most inliers (RANSAC on three pairs of points of one pair of photos), and these."""
    target, source = first.positions[table[:, 0]], second.positions[table[:, 1]]
    tolerance = _TOLERANCE * _median_depth(first)
    nothing = np.zeros(len(table), bool)
    picks = _samples(table)
    if not len(picks):
        return None, nothing
    scales, rotations, translations = umeyama(source[picks], target[picks])
    tested = np.random.default_rng(1).permutation(len(table))[:_MAX_TESTED]
    moved = np.einsum("tij,pj->tpi", scales[:, None, None] * rotations, source[tested])
    near = np.linalg.norm(moved + translations[:, None] - target[tested], axis=2) < tolerance
    near[(scales < 1 / _MAX_SCALE) | (scales > _MAX_SCALE)] = False
    best = near.sum(1).argmax()
    moved = scales[best] * source @ rotations[best].T + translations[best]
    inliers = np.linalg.norm(moved - target, axis=1) < tolerance
    for _ in range(5):
        if inliers.sum() < 3:
            return None, nothing
        scale, rotation, translation = (
            item[0] for item in umeyama(source[None, inliers], target[None, inliers])
        )
        inliers = np.linalg.norm(scale * source @ rotation.T + translation - target, axis=1) < tolerance
    if not 1 / _MAX_SCALE <= scale <= _MAX_SCALE:  # a model shrunk to a point lies near everything
        return None, nothing
    return Join(float(scale), rotation, translation, table[inliers], 0.0), inliers


def _samples(table: Int[np.ndarray, "k 4"]) -> Int[np.ndarray, "t 3"]:
    """Triples of rows, each of one pair of photos: rows of one pair agree more often than rows at random."""
    generator = np.random.default_rng(0)
    _, view_pair, counts = np.unique(table[:, 2:], axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(view_pair.ravel(), kind="stable")
    begins = np.r_[0, np.cumsum(counts)]
    usable = np.flatnonzero(counts >= 3)
    if not len(usable):
        return np.zeros((0, 3), np.int64)
    chosen = generator.choice(usable, _TRIALS)
    within = (generator.random((_TRIALS, 3)) * counts[chosen][:, None]).astype(int)
    return order[begins[chosen][:, None] + within]


def umeyama(
    source: Float[np.ndarray, "t k 3"], target: Float[np.ndarray, "t k 3"]
) -> tuple[Float[np.ndarray, "t"], Float[np.ndarray, "t 3 3"], Float[np.ndarray, "t 3"]]:
    """Return the similarities of least squares from `source` to `target` (Umeyama 1991, eq. 40 to 43)."""
    from_mean, to_mean = source.mean(1), target.mean(1)
    centred, aim = source - from_mean[:, None], target - to_mean[:, None]
    u, singular, vt = np.linalg.svd(np.einsum("tki,tkj->tij", aim, centred))
    signs = np.ones((len(source), 3))
    signs[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    rotations = np.einsum("tij,tj,tjk->tik", u, signs, vt)
    scales = (singular * signs).sum(1) / np.maximum((centred**2).sum((1, 2)), 1e-300)
    translations = to_mean - scales[:, None] * np.einsum("tij,tj->ti", rotations, from_mean)
    return scales, rotations, translations


def _median_depth(model: Model) -> float:
    points, places = model.observations.T
    rotations, translations = model.cam_from_world[:, :, :3], model.cam_from_world[:, :, 3]
    local = np.einsum("mij,mj->mi", rotations[places], model.positions[points]) + translations[places]
    return float(np.median(np.linalg.norm(local, axis=1)))
