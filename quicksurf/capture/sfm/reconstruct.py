"""From the view graph to one model: map, check, split and join, refine.

A count of placed photos proves nothing. A model is accepted only where the photos of its weakly linked groups have the
points in common that their poses imply (`overlap`). Else the groups are mapped apart and joined by the similarity that
the photos support best, or not at all.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pycolmap
from jaxtyping import Float, Int

from quicksurf.capture.sfm import joining, mapping, overlap, resection
from quicksurf.capture.sfm.matching import Features, Matches
from quicksurf.capture.sfm.overlap import Model
from quicksurf.capture.sfm.view_graph import Camera, ViewGraph

# Of the points that groups should have in common: right poses have 0.5 and more, wrong ones 0.15.
_SUPPORTED = 0.33
_JOIN_SUPPORTED = 0.15  # a join needs less, if the next best has clearly less still
_CLEARLY = 1.5
_LOST_FRACTION = 0.35  # of the time, left for the last adjustment when lost photos are tried once more
_ENOUGH = 0.95  # of the photos placed: no need to look further
_RETRY_FRACTION = 0.5  # of the time must be left to map from another initial lens once there is a model
# A photo is doubtful with a smaller fraction of its expected common points, if these are so many.
_DOUBTFUL, _MIN_WANTED = 0.2, 200.0


class Posed(NamedTuple):
    """Poses of some photos, in one frame."""

    poses: dict[int, Float[np.ndarray, "3 4"]]
    """Camera from world, by photo."""
    lenses: dict[int, pycolmap.Camera]


class Result(NamedTuple):
    """A model, and the evidence against it."""

    model: pycolmap.Reconstruction
    findings: dict[str, Any]
    """`groups`: photos of each model that could not be joined; `doubtful`: photos that contradict their place."""


def reconstruct(
    graph: ViewGraph,
    matches: Mapping[tuple[int, int], Matches],
    folder: Path,
    seconds: float,
    n_threads: int,
    say: Callable[[str], None],
) -> Iterator[Result]:
    """Place as many photos of `graph` as possible in one frame.

    Yields models, each better than the one before, so that a caller whose time runs out has the last.

    Args:
        matches: all matches of pairs, verified or not: the wrong motion may have been verified.
        folder: for databases.
        seconds: until it must be done.
        say: takes one line for the user at a time.
    """
    deadline = time.monotonic() + seconds

    def left() -> float:
        return deadline - time.monotonic()

    graph, models = _map(graph, folder, left, n_threads, say)
    if not models:
        return
    apart = contradicted(graph, models[0])
    if not apart:
        yield Result(models[0], _findings([sorted(posed(model).poses) for model in models[1:]], models[0]))
    else:
        sizes = " and ".join(str(len(group)) for group in apart)
        say(f"weakly linked groups of {sizes} photos contradict each other: mapped apart")
        mapped = [mapping.map_photos(graph, group, folder, 0.3 * left(), n_threads) for group in apart]
        models = [model for found in mapped for model in found[:1]] + models[1:]
        models.sort(key=lambda model: -model.num_reg_images())
    joined, rest = join_all([*map(overlap.arrays, models)], [*map(posed, models)], matches, say)
    model = _refined(graph, joined, folder, n_threads)
    yield Result(model, _findings(rest, model))
    lost = set(range(len(graph.features))) - set(joined.poses)
    while lost and left() > _LOST_FRACTION * seconds:
        graph, joined = _with_lost(graph, model, sorted(lost), lambda: left() < _LOST_FRACTION * seconds, say)
        added = lost & set(joined.poses)
        if not added:
            break
        model = _refined(graph, joined, folder, n_threads)
        for photo in added & set(contradicting(overlap.arrays(model))):
            model.deregister_frame(model.image(photo + 1).frame_id)
        yield Result(model, _findings(rest, model))
        lost -= added


def _findings(groups: list[list[int]], model: pycolmap.Reconstruction) -> dict[str, Any]:
    """The evidence against a model: groups of photos that it leaves out, and photos that contradict it."""
    placed = set(posed(model).poses)
    left_out = [[photo for photo in group if photo not in placed] for group in groups]
    return {
        "groups": [group for group in left_out if len(group) >= 3],
        "doubtful": contradicting(overlap.arrays(model)),
    }


def _map(
    graph: ViewGraph, folder: Path, left: Callable[[], float], n_threads: int, say: Callable[[str], None]
) -> tuple[ViewGraph, list[pycolmap.Reconstruction]]:
    """Map all photos from several initial lenses until one places nearly all; return the models of the best.

    The returned graph has the cameras of that start.
    """
    everything = range(len(graph.features))
    n_linked = int((graph.strengths().max(1, initial=0) > 0).sum())
    best: tuple[ViewGraph, list[pycolmap.Reconstruction]] = graph, []
    retry_until = _RETRY_FRACTION * left()
    tried: list[tuple[list[Camera], bool]] = []
    for start, adjust_distortion in _STARTS:
        cameras = start(graph.cameras)
        if (cameras, adjust_distortion) in tried:
            continue
        tried.append((cameras, adjust_distortion))
        begun = replace(graph, cameras=cameras)
        models = mapping.map_photos(begun, everything, folder, 0.5 * left(), n_threads, adjust_distortion)
        if models and (not best[1] or _size(models[0]) > _size(best[1][0])):
            best = begun, models
        n_placed = best[1][0].num_reg_images() if best[1] else 0
        if n_placed >= _ENOUGH * n_linked or (n_placed and left() < retry_until):
            break
        say(f"{n_placed} of {n_linked} photos in one model so far: mapping with other lenses")
    return best


def _guessed(factor: float) -> Callable[[list[Camera]], list[Camera]]:
    """Replace focal lengths that EXIF does not give by `factor` times the longer side."""
    return lambda cameras: [
        camera if camera.has_prior_focal else replace(camera, focal=factor * max(camera.size))
        for camera in cameras
    ]


def _one_of_each_size(cameras: list[Camera]) -> list[Camera]:
    """One lens for all photos of a size, whatever EXIF says: crops keep tags that are no longer true."""
    members: dict[tuple[int, int], list[int]] = {}
    for camera in cameras:
        members.setdefault(camera.size, []).extend(camera.members)
    return [Camera(sorted(photos), size, 1.2 * max(size), False) for size, photos in members.items()]


# Initial lenses, and whether distortion is adjusted from the first photos on.
_STARTS = (list, True), (_one_of_each_size, True), (_guessed(1.2), False), (_guessed(3.0), False)


def _size(model: pycolmap.Reconstruction) -> tuple[int, int]:
    return model.num_reg_images(), model.compute_num_observations()


def _refined(graph: ViewGraph, found: Posed, folder: Path, n_threads: int) -> pycolmap.Reconstruction:
    """The model of these poses with points of all matches, adjusted."""
    database = folder / "full.db"
    graph.write(database)
    model = mapping.triangulate(mapping.build(database, found.poses, found.lenses), database, n_threads)
    mapping.refine(model)
    return model


def _with_lost(
    graph: ViewGraph,
    model: pycolmap.Reconstruction,
    lost: Sequence[int],
    expired: Callable[[], bool],
    say: Callable[[str], None],
) -> tuple[ViewGraph, Posed]:
    """Add the photos that the model's points place; the graph then has their matches."""
    now = posed(model)
    lens_of = {
        member: now.lenses[next(photo for photo in camera.members if photo in now.lenses)]
        for camera in graph.cameras
        if any(photo in now.lenses for photo in camera.members)
        for member in camera.members
    }
    placed = resection.place(graph, overlap.arrays(model), lost, lens_of.get, expired)
    if placed:
        say(f"{len(placed)} more photos placed by the points of all others")
    pairs = dict(graph.pairs)
    for photo, item in placed.items():
        for other, links in item.links.items():
            pair = (min(photo, other), max(photo, other))
            pairs[pair] = _linked(links if other < photo else links[:, ::-1], pairs.get(pair))
    lenses = now.lenses | {photo: lens_of[photo] for photo in placed}
    poses = now.poses | {photo: item.cam_from_world for photo, item in placed.items()}
    return replace(graph, pairs=pairs), Posed(poses, lenses)


def _linked(
    links: Int[np.ndarray, "k 2"], known: pycolmap.TwoViewGeometry | None
) -> pycolmap.TwoViewGeometry:
    geometry = pycolmap.TwoViewGeometry() if known is None else copy(known)
    if known is None:
        geometry.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED
    else:
        links = np.concatenate([np.asarray(known.inlier_matches, np.int64), links])
    _, first = np.unique(links[:, 0], return_index=True)
    geometry.inlier_matches = links[first].astype(np.uint32)
    return geometry


def posed(model: pycolmap.Reconstruction) -> Posed:
    """Read the poses and lenses of a model's photos."""
    ids = sorted(model.reg_image_ids())
    return Posed(
        {image_id - 1: model.image(image_id).cam_from_world().matrix() for image_id in ids},
        {image_id - 1: model.camera(model.image(image_id).camera_id) for image_id in ids},
    )


def contradicted(graph: ViewGraph, model: pycolmap.Reconstruction) -> list[list[int]]:
    """Return the weakly linked groups of a model's photos if these lack the common points that its poses imply."""
    found = overlap.arrays(model)
    strengths = graph.strengths()[np.ix_(found.photos, found.photos)]
    groups = joining.groups(strengths)
    if len(groups) < 2:
        return []
    labels = np.full(len(found.photos), -1)
    for label, group in enumerate(groups):
        labels[group] = label
    support, _ = joining.least_overlap(found, labels)
    return [] if support >= _SUPPORTED else [found.photos[group].tolist() for group in groups]


def join_all(
    models: list[Model],
    parts: list[Posed],
    matches: Mapping[tuple[int, int], Matches],
    say: Callable[[str], None],
) -> tuple[Posed, list[list[int]]]:
    """Join what can be joined to the first model; return it, and the photos of each model that could not be."""
    whole, poses, lenses = models[0], dict(parts[0].poses), dict(parts[0].lenses)
    rest: list[list[int]] = []
    for model, part in zip(models[1:], parts[1:], strict=True):
        new = [photo for photo in part.poses if photo not in poses]
        if not new:
            continue
        found = joining.joins(whole, model, matches)
        if found:
            listed = ", ".join(f"{100 * join.support:.0f} % of {len(join.shared)}" for join in found)
            say(f"joining {len(new)} photos to {len(poses)}: points supported by the photos {listed}")
        clear = len(found) == 1 or (found and found[0].support >= _CLEARLY * found[1].support)
        if not clear or found[0].support < _JOIN_SUPPORTED:
            rest.append(new)
            continue
        whole = joining.merge(whole, model, found[0])
        place = {int(photo): index for index, photo in enumerate(whole.photos)}
        poses.update({photo: whole.cam_from_world[place[photo]] for photo in new})
        lenses.update({photo: part.lenses[photo] for photo in new})
    return Posed(poses, lenses), rest


def contradicting(model: Model) -> list[int]:
    """Return the photos that have with the others hardly any of the points in common that their poses imply."""
    should, do = overlap.overlaps(model)
    wanted, found = overlap.expected(should, do, np.ones(should.shape[:2], bool))
    np.fill_diagonal(wanted, 0)
    np.fill_diagonal(found, 0)
    doubtful = (wanted.sum(1) > _MIN_WANTED) & (found.sum(1) < _DOUBTFUL * wanted.sum(1))
    return model.photos[doubtful].tolist()


def model_arrays(model: pycolmap.Reconstruction, items: Sequence[Features]) -> dict[str, np.ndarray]:
    """Return the model as arrays for `quicksurf.capture.sfm.poses`; images are numbered by photo."""
    found = overlap.arrays(model)
    ids = (found.photos + 1).tolist()
    lenses = [model.camera(model.image(image_id).camera_id) for image_id in ids]
    colors = np.zeros((len(found.positions), 3), np.uint8)
    for place, photo in enumerate(found.photos.tolist()):
        mine = found.observations[:, 1] == place
        colors[found.observations[mine, 0]] = items[photo].colors[found.features[mine]]
    return {
        "images": found.photos.astype(np.int64),
        "c2w": np.stack([model.image(image_id).cam_from_world().inverse().matrix() for image_id in ids]),
        "lenses": np.stack([lens.params for lens in lenses]),  # f, cx, cy, k
        "sizes": np.array([(lens.width, lens.height) for lens in lenses], np.int64),
        "positions": found.positions,
        "colors": colors,
        "observations": np.unique(found.observations, axis=0),
        "error": np.array(model.compute_mean_reprojection_error()),
    }
