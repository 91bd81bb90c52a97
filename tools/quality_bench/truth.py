"""A capture's true surface, and a mesh scored against it.

Beside a capture lie gt_mesh.ply, the true surface; gt_points.npz, points on it that cameras see, with normals; and
roi.json, the object's ball, diagonal and up, and the height of the table that it stands on, if any.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from quicksurf.app.evaluate import read_truth
from quicksurf.app.metrics import (
    CloudSurface,
    MeshSurface,
    ObjectRegion,
    SurfaceSamples,
    SurfaceScores,
    compare_surfaces,
)
from quicksurf.errors import CaptureError, SurfaceError

_NEAR = 1.3  # radii from the ball's centre: what lies further off is nearest to nothing that counts


class Truth(NamedTuple):
    """What a mesh is compared with."""

    surface: MeshSurface | CloudSurface
    seen: SurfaceSamples
    region: ObjectRegion | None
    """Where things count, for an object on a table; None: everywhere."""


def load_truth(folder: Path) -> Truth:
    """Read the truth of the capture in `folder`.

    Raises:
        CaptureError: if a file is missing or lacks an entry.
        SurfaceError: if the true mesh cannot be read.
    """
    try:
        with np.load(folder / "gt_points.npz", allow_pickle=False) as points:
            seen = SurfaceSamples(points["points"].astype(np.float64), points["normals"].astype(np.float64))
        known = json.loads((folder / "roi.json").read_text(encoding="utf-8"))
        region = None if known["table_z"] is None else _region(known)
    except (OSError, ValueError, KeyError) as error:
        raise CaptureError(
            f"{folder} has no usable truth ({error}): expected gt_mesh.ply, gt_points.npz and roi.json"
        ) from error
    return Truth(read_truth(folder / "gt_mesh.ply"), seen, region)


def score(
    vertices: Float[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"], truth: Truth
) -> dict[str, float]:
    """The figures of the table: `quicksurf eval`'s, with the true points limited to those that cameras see.

    Raises:
        SurfaceError: if nothing of the mesh counts.
    """
    counts = None
    if truth.region is not None:
        faces = faces[_near(vertices[faces], truth.region)]
        counts = truth.region.contains
    try:
        scores = compare_surfaces(MeshSurface(vertices, faces), truth.surface, counts, truth.seen)
    except ValueError as error:
        raise SurfaceError(f"the mesh cannot be compared with the truth: {error}") from error
    return _figures(scores)


def _figures(scores: SurfaceScores) -> dict[str, float]:
    return {
        "chamfer": scores.chamfer,
        "accuracy": scores.accuracy,
        "completeness": scores.completeness,
        "fscore": scores.fscore_half,
        "normals": scores.normal_consistency,
    }


def _region(known: dict) -> ObjectRegion:
    center, up = tuple(known["center"]), tuple(known["up"])
    return ObjectRegion(center, known["radius"], up, known["table_z"], known["bbox_diagonal"])


def _near(triangles: Float[np.ndarray, "f 3 3"], region: ObjectRegion) -> np.ndarray:
    """Triangles that reach into the enlarged ball, judged by a ball around each: samples are not spent on a room."""
    middles = triangles.mean(1)
    reach = np.linalg.norm(triangles - middles[:, None], axis=2).max(1)
    return np.linalg.norm(middles - np.asarray(region.center), axis=1) - reach <= _NEAR * region.radius
