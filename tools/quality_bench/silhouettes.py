"""Masks as silhouettes: read at sub-pixel precision, and compared with those of a mesh.

A coverage is the fraction of a pixel that the object covers, 0 to 1: the grey of an anti-aliased mask.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64

from quicksurf.capture.load import ReadOptions, read_scene
from quicksurf.capture.masks import find_masks, read_coverage
from quicksurf.errors import CaptureError
from quicksurf.geometry import cameras as lens
from quicksurf.geometry.cameras import Cameras, project
from quicksurf.geometry.region import Roi

_PREVIEW_PIXELS = 20_000  # of each photo: cameras and ROI are wanted, not colours
_TESTS = 1 << 22  # pixels tested at a time: bounds memory at about 300 MB


@dataclass(frozen=True)
class Silhouettes:
    """The masks of a posed capture; coverage i, camera i (of its size) and held_out[i] belong together."""

    cameras: Cameras
    coverages: list[Float32[np.ndarray, "_ _"]]
    held_out: Bool[np.ndarray, "n"]
    roi: Roi


def read_silhouettes(source: Path) -> Silhouettes:
    """Read the masks of a capture with its cameras, split and the ROI that a fit with masks would take.

    Raises:
        CaptureError: if there are no masks.
        QuicksurfError: if the capture cannot be read.
    """
    scene = read_scene(source, ReadOptions(max_pixels=_PREVIEW_PIXELS, say=lambda line: None))
    files, _ = find_masks(source, [source / name for name in scene.names])
    masks = [path for path in files if path is not None]
    if not masks:
        raise CaptureError(f"{source} has no masks: expected a folder masks/ or mask/ in it")
    coverages = [read_coverage(path, False).astype(np.float32) / 255 for path in masks]
    sizes = torch.tensor([[coverage.shape[1], coverage.shape[0]] for coverage in coverages])
    return Silhouettes(lens.resize(scene.cameras, sizes), coverages, scene.held_out, scene.roi)


def held_out_iou(
    vertices: Float[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"], silhouettes: Silhouettes
) -> float:
    """Intersection over union of the mesh's silhouettes and the masks, mean over held-out views; NaN without any."""
    views = np.flatnonzero(silhouettes.held_out).tolist()
    return float(np.mean([_iou(vertices, faces, silhouettes, view) for view in views])) if views else np.nan


def _iou(vertices: np.ndarray, faces: np.ndarray, silhouettes: Silhouettes, view: int) -> float:
    of_mesh = draw(vertices, faces, silhouettes.cameras, view)
    of_mask = silhouettes.coverages[view] >= 0.5
    return float((of_mesh & of_mask).sum() / max((of_mesh | of_mask).sum(), 1))


def draw(
    vertices: Float[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"], cameras: Cameras, view: int
) -> Bool[np.ndarray, "h w"]:
    """Pixels whose centre a triangle covers. Triangles that reach behind the camera are left out."""
    width, height = cameras.sizes[view].tolist()
    pixels, depths = project(cameras.to(torch.float64), view, torch.from_numpy(vertices).double())
    corners = pixels.numpy()[faces][(depths.numpy()[faces] > 0).all(1)] - 0.5  # centres are whole numbers now
    first = np.clip(np.ceil(corners.min(1)), 0, None).astype(np.int64)
    last = np.minimum(np.floor(corners.max(1)), [width - 1, height - 1]).astype(np.int64)
    filled = np.zeros((height, width), bool)
    for triangles, side in _by_size(first, last):
        columns, rows = _covered(corners[triangles], first[triangles], last[triangles], side).T
        filled[rows, columns] = True
    return filled


def _by_size(
    first: Int64[np.ndarray, "n 2"], last: Int64[np.ndarray, "n 2"]
) -> Iterator[tuple[Int64[np.ndarray, "m"], int]]:
    """Triangles whose box of pixels fits a square of `side`, a power of two: each is tested with little waste."""
    spans = last - first + 1
    longest = np.where((spans > 0).all(1), spans.max(1, initial=0), 0)
    side = 1
    while side // 2 < longest.max(initial=0):
        members = np.flatnonzero((longest > side // 2) & (longest <= side))
        size = max(1, _TESTS // side**2)
        yield from ((members[start : start + size], side) for start in range(0, len(members), size))
        side *= 2


def _covered(
    corners: Float[np.ndarray, "n 3 2"],
    first: Int64[np.ndarray, "n 2"],
    last: Int64[np.ndarray, "n 2"],
    side: int,
) -> Int64[np.ndarray, "m 2"]:
    """(column, row) of the covered pixels in each triangle's box: those on one side of all three edges."""
    steps = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
    places = first[:, None] + steps
    edges = np.roll(corners, -1, axis=1) - corners
    turns = []
    for corner in range(3):
        to_place = places - corners[:, None, corner]
        edge = edges[:, None, corner]
        turns.append(edge[..., 0] * to_place[..., 1] - edge[..., 1] * to_place[..., 0])
    one_side = np.logical_and.reduce([turn >= 0 for turn in turns])
    other_side = np.logical_and.reduce([turn <= 0 for turn in turns])
    return places[(one_side | other_side) & (places <= last[:, None]).all(-1)]
