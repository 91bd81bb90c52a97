"""Points for given cameras: match photos whose cameras are known, and triangulate what agrees with them.

A capture with cameras and without points gets those that structure from motion would have found: pairs by camera
positions and viewing directions, matches within `MAX_ERROR` of their epipolar planes, tracks, points. This runs in this
process and without COLMAP: it supports every lens model, and only the features take time.

The photos also test their cameras. A pair contradicts them where another two-view geometry explains its matches and
theirs does not.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from quicksurf.capture.scene import PhotoFile, SparsePoints
from quicksurf.capture.sfm import matching
from quicksurf.capture.sfm.matching import MAX_ERROR, MIN_INLIERS, Features, Matches
from quicksurf.capture.sfm.plan import plan_points
from quicksurf.capture.sfm.tracks import Triangulated, join_matches, rays_of, triangulate
from quicksurf.errors import ImageError
from quicksurf.geometry import cameras as lens
from quicksurf.geometry.cameras import Cameras, pixel_rays
from quicksurf.kernels.host import instruction_set, usable_cpus

# Ranks of the likeliest partners that a photo is matched with: of frames of a video the nearest alone have no parallax.
_RANKS = 0, 1, 2, 3, 4, 5, 7, 9, 12, 16
_TURN, _WIDEST = 15.0, 60.0  # degrees between optical axes that count like one step aside, and the most
_FEATURES_END, _MATCHES_END = 0.7, 0.9  # of the seconds, when these stages end
_CLEARLY = 2.0  # times the matches that fit the cameras: a geometry that explains so many contradicts them
_LINKED = 0.5  # of the matches of a pair fit, where its cameras are certainly right
_ENOUGH = 1000  # points of three photos and more: those of two are right to 2 % of the object in 95 of 100 cases (99.6)
_MOST = 0.05  # of the photos may be contradicted without a warning


class Points(NamedTuple):
    """Triangulated points, and the evidence against the cameras."""

    points: SparsePoints
    line: str
    """For the user."""
    warnings: list[str]


class View(NamedTuple):
    """Features of a photo with the rays through them."""

    pixels: Float[np.ndarray, "n 2"]
    directions: Float[np.ndarray, "n 3"]
    center: Float[np.ndarray, "3"]
    focal: float
    """Pixels."""
    size: tuple[int, int]

    @classmethod
    def of(cls, cameras: Cameras, index: int, item: Features) -> "View":
        """Attach the rays of a camera to the features of photo `index`."""
        _, directions = rays_of(cameras, np.full(len(item.points), index), item.points)
        center, focal = cameras.c2w[index, :, 3].numpy(), float(cameras.intrinsics[index, 0])
        return cls(item.points, directions, center, focal, item.size)


class Pair(NamedTuple):
    """A matched pair under the given cameras."""

    fitting: Matches
    n_matches: int
    contradicts: bool

    @property
    def links(self) -> bool:
        """Whether the cameras certainly agree."""
        return len(self.fitting) >= max(MIN_INLIERS, _LINKED * self.n_matches)


def find_points(
    files: Sequence[PhotoFile],
    masks: Sequence[UInt8[np.ndarray, "_ _"] | None],
    cameras: Cameras,
    seconds: float,
    say: Callable[[str], None],
) -> Points | None:
    """Triangulate points in at most about `seconds`; None where they would not suffice.

    Args:
        masks: features beside the object are left out, where there are any.
        cameras: of the photos, of any size with their aspect.
    """
    started = time.monotonic()
    megapixels = float(cameras.sizes.double().prod(1).median()) / 1e6
    plan = plan_points(len(files), megapixels, seconds, usable_cpus(), instruction_set())
    if plan is None:
        return None
    say(f"matching {len(files)} photos for points, about {plan.seconds:.0f} s")

    def left(end: float) -> float:
        return started + end * seconds - time.monotonic()

    items = _features(files, masks, plan.max_pixels, plan.n_features, lambda: left(_FEATURES_END) < 0)
    searched = np.array([item.size != (0, 0) for item in items])
    sizes = torch.where(
        torch.from_numpy(searched)[:, None], torch.tensor([item.size for item in items]), cameras.sizes
    )
    cameras = lens.resize(cameras.to(torch.float64), sizes)
    pairs = [pair for pair in choose_pairs(cameras) if all(len(items[index].points) for index in pair)]
    matches = matching.match_pairs(items, pairs, lambda: left(_MATCHES_END) < 0)
    views = [View.of(cameras, index, item) for index, item in enumerate(items)]
    judged = {}
    for pair, found in matches.items():
        if left(1.0) < 0:
            break
        judged[pair] = judge(views[pair[0]], views[pair[1]], found)
    wrong = contradicted(judged, len(files))
    sound = {pair: item for pair, item in judged.items() if not set(pair) & set(wrong)}
    points = _points(items, sound, cameras)
    warnings = contradictions(wrong, judged, [file.path.name for file in files])
    line = f"{len(points.positions):,} points triangulated with the given cameras in {time.monotonic() - started:.1f} s"
    return Points(points, line, warnings)


def choose_pairs(cameras: Cameras) -> list[tuple[int, int]]:
    """Return pairs of cameras that are near each other and look the same way, the likeliest first.

    Of few photos all such pairs, of more some partners of each (`_RANKS`).
    """
    n_images = len(cameras)
    _, axes = pixel_rays(cameras, torch.arange(n_images), cameras.sizes / 2.0)
    turns = torch.rad2deg(torch.arccos((axes @ axes.T).clamp(-1, 1)))
    steps = torch.cdist(cameras.centers(), cameras.centers())
    usual = steps.sort(1).values[:, : len(_RANKS) // 2].amax(1).median().clamp_min(1e-12)
    costs = (turns / _TURN) ** 2 + (steps / usual) ** 2
    costs[(turns > _WIDEST) | torch.eye(n_images, dtype=torch.bool)] = torch.inf
    order = costs.argsort(stable=True, dim=1)
    if n_images > 2 * len(_RANKS):
        order = order[:, [rank for rank in _RANKS if rank < n_images]]
    rows = torch.arange(n_images)[:, None].expand_as(order)
    table = torch.stack([rows, order], -1).reshape(-1, 2)
    table = table[torch.isfinite(costs[table[:, 0], table[:, 1]])].sort(1).values.unique(dim=0)
    likeliest = costs[table[:, 0], table[:, 1]].argsort(stable=True)
    return [(first, second) for first, second in table[likeliest].tolist()]


def judge(first: View, second: View, found: Matches) -> Pair:
    """Keep the matches of a pair that fit its cameras, and decide whether the pair contradicts these."""
    fits = epipolar_errors(first, second, found) <= MAX_ERROR
    n_fitting, n_matches, size = int(fits.sum()), len(found), second.size
    agrees = matching.agrees(n_fitting, n_matches, size)
    n_other = 0
    if n_matches >= max(MIN_INLIERS, _CLEARLY * n_fitting):
        points = first.pixels[found[:, 0]], second.pixels[found[:, 1]]
        _, inside = cv2.findFundamentalMat(*points, cv2.USAC_DEFAULT, MAX_ERROR, 0.99, 1000)
        n_other = 0 if inside is None else int(inside.sum())
    contradicts = n_other >= max(MIN_INLIERS, _CLEARLY * n_fitting) and matching.is_significant(
        n_other, n_matches, size
    )
    return Pair(found[fits] if agrees and not contradicts else found[:0], n_matches, contradicts)


def epipolar_errors(first: View, second: View, found: Matches) -> Float[np.ndarray, "k"]:
    """Measure pixels between features and the epipolar planes of their partners, the larger of both."""
    baseline = second.center - first.center
    to_first, to_second = first.directions[found[:, 0]], second.directions[found[:, 1]]
    errors = []
    for own, other, focal in ((to_first, to_second, first.focal), (to_second, to_first, second.focal)):
        normals = np.cross(baseline, other)
        lengths = np.maximum(np.linalg.norm(normals, axis=1), 1e-12)
        errors.append(focal * np.abs((own * normals).sum(1)) / lengths)
    return np.maximum(*errors)


def contradicted(judged: Mapping[tuple[int, int], Pair], n_images: int) -> list[int]:
    """Return the photos whose cameras contradict those of the others.

    Cameras that are wrong together may agree with each other: those turned by 180 degrees around one object do. So
    photos are grouped by pairs that agree, and a group is wrong if two pairs say so against larger ones that are right.
    """
    linked = [pair for pair, item in judged.items() if item.links]
    rows, columns = np.array(linked, np.int64).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(rows), bool), (rows, columns)), shape=(n_images, n_images))
    _, labels = connected_components(graph, directed=False)
    between = np.zeros((n_images, n_images), int)
    for first, second in (pair for pair, item in judged.items() if item.contradicts):
        between[labels[first], labels[second]] += 1
    between += between.T
    right: list[int] = []
    for label in np.argsort(-np.bincount(labels, minlength=n_images), kind="stable"):
        if between[label, right].sum() < 2:
            right.append(int(label))
    return np.flatnonzero(~np.isin(labels, right)).tolist()


def contradictions(
    wrong: Sequence[int], judged: Mapping[tuple[int, int], Pair], names: Sequence[str]
) -> list[str]:
    """Warn of photos that contradict their given cameras, if they are more than a few."""
    if len(wrong) <= _MOST * len(names):
        return []
    between = [item for pair, item in judged.items() if (pair[0] in wrong) != (pair[1] in wrong)]
    among = [item for pair, item in judged.items() if pair[0] not in wrong and pair[1] not in wrong]
    percent, usual = (
        100 * sum(len(item.fitting) for item in items) / max(sum(item.n_matches for item in items), 1)
        for items in (between, among)
    )
    named = ", ".join(names[index] for index in wrong[:5]) + (", …" if len(wrong) > 5 else "")
    return [
        f"{len(wrong)} of {len(names)} given cameras contradict the photos ({named}): {percent:.0f} % of their matches "
        f"with the other photos fit the cameras, of those among the others {usual:.0f} %; they may be turned, mirrored "
        "or of other photos: check the camera file, leave these photos out, or fit the folder of photos alone"
    ]


def _features(
    files: Sequence[PhotoFile],
    masks: Sequence[UInt8[np.ndarray, "_ _"] | None],
    max_pixels: int,
    n_features: int,
    expired: Callable[[], bool],
) -> list[Features]:
    """Extract the features of each photo on its object; none where time ran out or it cannot be read."""
    found = [matching.no_features() for _ in files]
    order = matching.interleave(len(files))
    paths, turned = [files[index].path for index in order], [files[index].upright for index in order]
    extracted = matching.extract(paths, max_pixels, n_features, usable_cpus(), turned)
    for index, item in zip(order, extracted, strict=True):
        if not isinstance(item, ImageError):
            found[index] = _on_object(item, masks[index])
        if expired():
            break
    return found


def _on_object(item: Features, mask: UInt8[np.ndarray, "h w"] | None) -> Features:
    if mask is None or not len(item.points):
        return item
    scale = np.array(mask.shape[::-1]) / item.size
    columns, rows = (item.points * scale).astype(int).clip(0, np.array(mask.shape[::-1]) - 1).T
    keep = mask[rows, columns] > 0
    kept = {key: getattr(item, key)[keep] for key in ("points", "scales", "descriptors", "colors")}
    return item._replace(**kept)


def _points(
    items: Sequence[Features], judged: Mapping[tuple[int, int], Pair], cameras: Cameras
) -> SparsePoints:
    fitting = {pair: item.fitting for pair, item in judged.items()}
    tracks = join_matches(fitting, [len(item.points) for item in items])
    found = triangulate(tracks, [item.points for item in items], cameras)
    confirmed = np.bincount(found.tracks.points, minlength=len(found.positions)) >= 3
    if confirmed.sum() >= _ENOUGH:  # leave out the points that only two photos observe
        kept = found.tracks.select(confirmed[found.tracks.points])
        kept = kept._replace(points=(np.cumsum(confirmed) - 1)[kept.points])
        found = Triangulated(found.positions[confirmed], kept)
    colors = np.zeros((len(found.positions), 3), np.uint8)
    for index in np.unique(found.tracks.images):
        mine = found.tracks.images == index
        colors[found.tracks.points[mine]] = items[index].colors[found.tracks.features[mine]]
    observations = np.unique(np.stack([found.tracks.points, found.tracks.images], 1), axis=0)
    return SparsePoints(
        *(torch.from_numpy(part) for part in (found.positions, colors, observations.astype(np.int64)))
    )
