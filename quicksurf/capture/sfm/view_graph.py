"""Verified pairs of photos, and COLMAP's database of them.

A pair is kept where one two-view geometry explains more of its matches than chance would (`matching`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Bool, Int

from quicksurf.capture.sfm.matching import MAX_ERROR, MIN_INLIERS, Features, Matches, is_significant

_ENOUGH_MATCHES = 150  # of a pair: a photo whose links are weak is placed by all of them
_STILL_FRACTION, _STILL_PHOTOS = (
    0.1,
    4,
)  # of the photos (and at least so many) in which a feature stands still
_STILL_PIXELS = 2.0
_MOVING_FRACTION = 0.5  # of the matches: where most stand still nothing moves against them


@dataclass(frozen=True)
class Camera:
    """Intrinsics of a group of photos."""

    members: list[int]
    size: tuple[int, int]
    focal: float
    """Pixels."""
    has_prior_focal: bool
    """The focal length is from EXIF, not a guess."""


@dataclass(frozen=True)
class ViewGraph:
    """Photos, their cameras, and the pairs of them that overlap."""

    features: Sequence[Features]
    cameras: list[Camera]
    pairs: dict[tuple[int, int], pycolmap.TwoViewGeometry]
    """Verified matches of each pair (i, j), i < j."""

    def strengths(self) -> Int[np.ndarray, "n n"]:
        """Count the verified matches between any two photos (symmetric)."""
        matrix = np.zeros((len(self.features), len(self.features)), np.int64)
        for (first, second), geometry in self.pairs.items():
            matrix[first, second] = matrix[second, first] = len(geometry.inlier_matches)
        return matrix

    def write(self, path: Path, keep: Callable[[int], Bool[np.ndarray, "n"]] | None = None) -> None:
        """Write COLMAP's database of the graph; of each photo's features those that `keep` marks, if given."""
        kept = {} if keep is None else {index: keep(index) for index in range(len(self.features))}
        _write_photos(path, self.features, self.cameras)
        with _opened(path) as database:
            for (first, second), geometry in self.pairs.items():
                if keep is not None:
                    geometry = _thinned(geometry, kept[first], kept[second])
                database.write_two_view_geometry(first + 1, second + 1, geometry)


def verify(
    path: Path,
    features: Sequence[Features],
    cameras: list[Camera],
    matches: Mapping[tuple[int, int], Matches],
    stop_at: Callable[[Callable[[pycolmap.CancellationToken], None]], bool],
) -> tuple[ViewGraph, bool]:
    """Keep the matches of each pair that fit one two-view geometry, where that is no chance.

    Args:
        path: of the database, which is written anew.
        stop_at: runs a call that can be cancelled; returns False if it was.

    Returns:
        the graph, and whether all pairs were verified in time.
    """
    moving = drop_still(features, matches)
    tried = {pair: found for pair, found in moving.items() if len(found) >= MIN_INLIERS}
    _write_photos(path, features, cameras)
    with _opened(path) as database:
        for (first, second), found in tried.items():
            database.write_matches(first + 1, second + 1, found.astype(np.uint32))
    listed = path.with_suffix(".txt")
    listed.write_text("".join(f"{name(first)} {name(second)}\n" for first, second in tried))
    options = pycolmap.TwoViewGeometryOptions()
    # Pairs that do not overlap use up the default 10,000 trials: 1,000 keep 99.8 % of the inliers in a third of the
    # time.
    options.ransac.max_num_trials, options.ransac.min_num_trials = 1000, 30
    options.ransac.confidence = 0.99
    options.ransac.random_seed = 0
    options.ransac.max_error = MAX_ERROR
    complete = not tried or stop_at(
        lambda token: pycolmap.verify_matches(path, listed, options, cancellation_token=token)
    )
    pairs = {}
    with _opened(path) as database:
        for pair_id, geometry in zip(*database.read_two_view_geometries(), strict=True):
            first, second = (index - 1 for index in pycolmap.pair_id_to_image_pair(pair_id))
            n_inliers = len(geometry.inlier_matches)
            if n_inliers >= MIN_INLIERS and is_significant(
                n_inliers, len(tried[first, second]), features[second].size
            ):
                pairs[first, second] = geometry
    return ViewGraph(features, cameras, pairs), complete


def drop_still(
    features: Sequence[Features], matches: Mapping[tuple[int, int], Matches]
) -> dict[tuple[int, int], Matches]:
    """Drop features that stand still in the image while others move: the backdrop behind a turntable, dust, a stamp.

    A camera that moves sees no point at one place in a tenth of its photos.
    """
    still = {pair: _stands_still(features, pair, found) for pair, found in matches.items()}
    n_matches = sum(len(found) for found in matches.values())
    if sum(map(np.sum, still.values())) > (1 - _MOVING_FRACTION) * n_matches:
        return dict(matches)
    counts = [np.zeros(len(item.points), np.int64) for item in features]
    for (first, second), found in matches.items():
        counts[first][found[still[first, second], 0]] += 1
        counts[second][found[still[first, second], 1]] += 1
    least = max(_STILL_PHOTOS, _STILL_FRACTION * len(features))
    fixed = [count >= least for count in counts]
    return {
        (first, second): found[~(fixed[first][found[:, 0]] | fixed[second][found[:, 1]])]
        for (first, second), found in matches.items()
    }


def _stands_still(
    features: Sequence[Features], pair: tuple[int, int], found: Matches
) -> Bool[np.ndarray, "k"]:
    first, second = (features[index] for index in pair)
    if first.size != second.size:
        return np.zeros(len(found), bool)
    return np.abs(first.points[found[:, 0]] - second.points[found[:, 1]]).max(1, initial=0) < _STILL_PIXELS


def name(index: int) -> str:
    """Return the name of photo `index` in COLMAP's files."""
    return f"{index:06d}"


def _write_photos(path: Path, features: Sequence[Features], cameras: Iterable[Camera]) -> None:
    """Write cameras, images and key points; image i + 1 is photo i."""
    path.unlink(missing_ok=True)
    owners = {}
    with _opened(path) as database:
        for camera in cameras:
            lens = pycolmap.Camera.create_from_model_name(0, "SIMPLE_RADIAL", camera.focal, *camera.size)
            lens.has_prior_focal_length = camera.has_prior_focal
            camera_id = database.write_camera(lens)
            rig = pycolmap.Rig()
            rig.add_ref_sensor(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, camera_id))
            owners.update(dict.fromkeys(camera.members, (camera_id, database.write_rig(rig))))
        for index, item in enumerate(features):
            camera_id, rig_id = owners[index]
            image = pycolmap.Image(name=name(index), camera_id=camera_id)
            image.image_id = database.write_image(image)
            frame = pycolmap.Frame()
            frame.rig_id = rig_id
            frame.add_data_id(image.data_id)
            database.write_frame(frame)
            database.write_keypoints(image.image_id, item.points.astype(np.float32))


def _thinned(
    geometry: pycolmap.TwoViewGeometry, first: Bool[np.ndarray, "n"], second: Bool[np.ndarray, "m"]
) -> pycolmap.TwoViewGeometry:
    """The geometry with the matches of kept features, or more of them where they would be few."""
    found = np.asarray(geometry.inlier_matches)
    kept = first[found[:, 0]] & second[found[:, 1]]
    kept[np.flatnonzero(~kept)[: max(0, _ENOUGH_MATCHES - int(kept.sum()))]] = True
    thinned = copy(geometry)
    thinned.inlier_matches = found[kept]
    return thinned


def _opened(path: Path) -> closing[pycolmap.Database]:
    return closing(pycolmap.Database.open(path))
