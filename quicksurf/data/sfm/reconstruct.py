"""From the view graph to one model: map, judge, join what was split, refine.

A count of placed photos proves nothing. A model is taken as it is only where the photos of its weakly linked groups
share what their poses say they should (`overlap`); else the groups are mapped apart and joined by the similarity that
the photos bear out best, or not at all.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pycolmap
from jaxtyping import Float

from quicksurf.data.sfm import joining, mapping, overlap, refinement
from quicksurf.data.sfm.features import Features
from quicksurf.data.sfm.matching import Matches
from quicksurf.data.sfm.overlap import Model
from quicksurf.data.sfm.view_graph import ViewGraph

_BORNE_OUT = 0.33  # of what groups should share: above it their poses are believed (right ones 0.5 and more, wrong 0.15)
_JOIN_BORNE_OUT = 0.15  # a join needs less, if the next best has clearly less still
_CLEARLY = 1.5
_ENOUGH = 0.95  # of the photos placed: no need to look further
_DOUBTFUL, _MIN_WANTED = 0.2, 200.0  # a photo that shares less of what it should (points in all) is doubted


class Posed(NamedTuple):
    """Poses of some photos, in one frame."""

    poses: dict[int, Float[np.ndarray, "3 4"]]
    """Camera from world, by photo."""
    lenses: dict[int, pycolmap.Camera]


class Result(NamedTuple):
    """What was found, and what speaks against it."""

    model: pycolmap.Reconstruction | None
    findings: dict[str, Any]
    """`groups`: photos of each model that could not be joined; `doubtful`: photos that contradict their place."""


def reconstruct(
    graph: ViewGraph, matches: Mapping[tuple[int, int], Matches], folder: Path, seconds: float, n_threads: int
) -> Result:
    """Place the photos of `graph` in one frame, as many as can be placed right.

    Args:
        matches: all matches of pairs, verified or not: the wrong motion may have been verified.
        folder: for databases.
        seconds: until it must be done.
    """
    deadline = time.monotonic() + seconds

    def left() -> float:
        return deadline - time.monotonic()

    everything = range(len(graph.features))
    models = mapping.map_photos(graph, everything, folder, 0.5 * left(), n_threads)
    n_linked = int((graph.strengths().max(1, initial=0) > 0).sum())
    if not models or models[0].num_reg_images() < _ENOUGH * n_linked:
        held = mapping.map_photos(graph, everything, folder, 0.5 * left(), n_threads, hold_focal=True)
        models = max(models, held, key=lambda found: sum(sorted(m.num_reg_images() ** 2 for m in found)))
    if not models:
        return Result(None, {"groups": [], "doubtful": []})
    parts = [posed(model) for model in models]
    apart = contradicted(graph, models[0])
    if apart:
        mapped = [mapping.map_photos(graph, group, folder, 0.3 * left(), n_threads) for group in apart]
        models = sorted(
            (model for found in mapped for model in found[:1]), key=lambda model: -model.num_reg_images()
        ) + models[1:]
        parts = [posed(model) for model in models]
    joined, rest = join_all([overlap.arrays(model) for model in models], parts, matches)
    full = folder / "full.db"
    graph.write(full)
    model = refinement.triangulate(refinement.build(full, joined.poses, joined.lenses), full, n_threads)
    refinement.refine(model)
    doubtful = contradicting(overlap.arrays(model))
    return Result(model, {"groups": rest, "doubtful": doubtful})


def posed(model: pycolmap.Reconstruction) -> Posed:
    """The poses and lenses of a model's photos."""
    ids = sorted(model.reg_image_ids())
    return Posed(
        {image_id - 1: model.image(image_id).cam_from_world().matrix() for image_id in ids},
        {image_id - 1: model.camera(model.image(image_id).camera_id) for image_id in ids},
    )


def contradicted(graph: ViewGraph, model: pycolmap.Reconstruction) -> list[list[int]]:
    """The weakly linked groups of a model's photos, if its poses say they share what they do not; else none."""
    found = overlap.arrays(model)
    strengths = graph.strengths()[np.ix_(found.photos, found.photos)]
    groups = joining.groups(strengths)
    if len(groups) < 2:
        return []
    labels = np.full(len(found.photos), -1)
    for label, group in enumerate(groups):
        labels[group] = label
    if joining.split(found, labels) >= _BORNE_OUT:
        return []
    return [found.photos[group].tolist() for group in groups]


def join_all(
    models: list[Model], parts: list[Posed], matches: Mapping[tuple[int, int], Matches]
) -> tuple[Posed, list[list[int]]]:
    """Join what can be joined to the first model; also the photos of each that could not."""
    whole, poses, lenses = models[0], dict(parts[0].poses), dict(parts[0].lenses)
    rest: list[list[int]] = []
    for model, part in zip(models[1:], parts[1:], strict=True):
        new = [photo for photo in part.poses if photo not in poses]
        if not new:
            continue
        found = joining.joins(whole, model, matches)
        if not found or found[0].borne_out < _JOIN_BORNE_OUT or (
            len(found) > 1 and found[0].borne_out < _CLEARLY * found[1].borne_out
        ):
            rest.append(new)
            continue
        whole = joining.merge(whole, model, found[0])
        place = {int(photo): index for index, photo in enumerate(whole.photos)}
        poses.update({photo: whole.cam_from_world[place[photo]] for photo in new})
        lenses.update({photo: part.lenses[photo] for photo in new})
    return Posed(poses, lenses), rest


def contradicting(model: Model) -> list[int]:
    """Photos that share with the others hardly anything of what their poses say."""
    should, do = overlap.overlaps(model)
    wanted, found = overlap.expected(should, do, np.ones(should.shape[:2], bool))
    np.fill_diagonal(wanted, 0)
    np.fill_diagonal(found, 0)
    doubted = (wanted.sum(1) > _MIN_WANTED) & (found.sum(1) < _DOUBTFUL * wanted.sum(1))
    return model.photos[doubted].tolist()


def model_arrays(model: pycolmap.Reconstruction, items: Sequence[Features]) -> dict[str, np.ndarray]:
    """The model as `quicksurf.data.sfm.poses` reads it back. Images are numbered by photo."""
    found = overlap.arrays(model)
    ids = (found.photos + 1).tolist()
    lenses = [model.camera(model.image(image_id).camera_id) for image_id in ids]
    colors = np.zeros((len(found.positions), 3), np.uint8)
    for (point, place), feature in zip(found.observations, found.features, strict=True):
        colors[point] = items[found.photos[place]].colors[feature]
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
