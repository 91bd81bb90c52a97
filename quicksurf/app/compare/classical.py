"""The classical baseline of a comparison: dense points of COLMAP's kind, meshed by Poisson's equation.

COLMAP's own PatchMatch needs CUDA, so depths are those of `capture/dense_points.py`, which verifies them as COLMAP's
fusion does: two other photos agree. Points within the region are merged to one for each cell of a pixel's size, take
their normal from their neighbours, and are meshed by pycolmap (Kazhdan and Hoppe 2013). Where stereo finds too little,
the sparse points are meshed. The mesh is trimmed and cut off its table like that of every other method; held-out
photos are not used.

    python -m quicksurf.app.compare.classical SOURCE --output RUN --minutes M [--masks ...] [--keep ...] ...
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pycolmap
import torch
from jaxtyping import Float32, Float64, Int64, UInt8
from scipy.spatial import KDTree

from quicksurf.app.budget import Budget
from quicksurf.app.requests import FitRequest, mask_use, parse_roi
from quicksurf.app.run.folder import Run, claim_run
from quicksurf.app.summary import of_capture, peak_memory_mb, stage_seconds
from quicksurf.capture.assemble import select_observers
from quicksurf.capture.dense_points import find_dense_points
from quicksurf.capture.load import ReadOptions
from quicksurf.capture.scene import Scene, SparsePoints
from quicksurf.capture.sfm.given_cameras import find_points
from quicksurf.config import TrainConfig
from quicksurf.errors import QuicksurfError, SurfaceError
from quicksurf.geometry.cameras import project
from quicksurf.geometry.region import cameras_in_roi
from quicksurf.kernels.host import num_threads
from quicksurf.mesh.build import MeshReport, cut_support, trim_surface
from quicksurf.mesh.export import read_points, write_mesh
from quicksurf.mesh.extract import vertex_normals
from quicksurf.mesh.types import Mesh
from quicksurf.model import BACKGROUND_START

NEIGHBORS = 12  # that a normal is of
TRIM = 2  # levels of Poisson's octree: where points are four times as far apart as elsewhere, the mesh is cut off
_DEPTHS = 5, 11  # of that octree
_BOX = 1.1  # of Poisson's box to that of the points
_FEWEST_POINTS = 100
# Of the seconds left, for points with given cameras, and then for stereo, which may overrun; the mesh has the rest.
_POINTS, _STEREO = 0.25, 0.4
_CELL = 1.5  # pixels, within which points are merged, at least
# Merged points that a second is left for: one core meshes 16,000, cleaning included, and may be shared.
_MERGED_A_SECOND, _FEWEST_MERGED = 10_000, 50_000
_DENSE, _SPARSE = "PatchMatch stereo", "sparse points"


class Cloud(NamedTuple):
    """Points with normals, in the frame where the region is the unit ball."""

    points: Float64[np.ndarray, "n 3"]
    normals: Float64[np.ndarray, "n 3"]
    colors: UInt8[np.ndarray, "n 3"]


def main(arguments: Sequence[str]) -> int:
    """Run the baseline; return its exit code."""
    started = time.monotonic()
    request = _request(arguments)
    try:
        assert request.output is not None and request.minutes is not None
        run = claim_run(request.output, request.source, False, False)
        with run.locked():
            reconstruct(request, run, Budget(60 * request.minutes, started=started))
    except QuicksurfError as error:
        print(f"quicksurf: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _request(arguments: Sequence[str]) -> FitRequest:
    parser = argparse.ArgumentParser(prog="quicksurf.app.compare.classical")
    parser.add_argument("source", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    for name in ("masks", "roi", "capture", "keep"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    request = FitRequest(given.source, given.minutes, given.output, capture=given.capture, masks=given.masks)
    return replace(
        request,
        roi=None if given.roi is None else parse_roi(given.roi),
        mesh=replace(request.mesh, keep=given.keep),
        seed=given.seed,
    )


def reconstruct(request: FitRequest, run: Run, budget: Budget) -> None:
    """Read the capture of a run, make its mesh and its summary.

    Raises:
        QuicksurfError: if the capture cannot be read or shows too few points.
    """
    scene = _read(request, run, budget)
    began = budget.elapsed()
    what, cloud = points_of(scene, budget, request.seed or 0)
    found = budget.elapsed()
    keep = request.mesh.keep or ("scene" if scene.kind in BACKGROUND_START else "object")
    mesh, report, depth = mesh_of_cloud(cloud, scene, keep)
    files = write_mesh(mesh.to_world(*scene.roi), run.path, "mesh", ("ply",))
    summary: dict[str, Any] = {
        **of_capture(scene, run.record),
        "method": "colmap",
        "capture": scene.kind,
        "minutes": request.minutes,
        "classical": {
            "what": f"{what}, merged and meshed by pycolmap's Poisson",
            "points": len(cloud.points),
            "depth": depth,
            "trim": depth - TRIM,
        },
        "files": [path.name for path in files],
        "faces": len(mesh.faces),
        "surface": report.describe(),
        "peak_memory_mb": round(peak_memory_mb(), 1),
    }
    summary["seconds"] = stage_seconds(scene.report.seconds_poses, began, found, budget.elapsed())
    run.finish(summary)


def _read(request: FitRequest, run: Run, budget: Budget) -> Scene:
    masks = mask_use(request, budget.seconds)
    options = ReadOptions(
        TrainConfig.max_pixels,
        masks.use_given,
        masks.folder,
        kind=None if request.capture in (None, "auto") else request.capture,  # type: ignore[arg-type]
        whole_scene=request.mesh.keep == "scene",
        roi=request.roi,
        pose_seconds=budget.poses_seconds(),
    )
    scene = run.scene(None, options)
    run.keep_scene(scene, masks.use_given, budget.seconds / 60)
    return scene


def points_of(scene: Scene, budget: Budget, seed: int) -> tuple[str, Cloud]:
    """Find the dense points of the photos that are not held out, or the sparse ones where stereo finds too few.

    Returns:
        What they are, and the points.

    Raises:
        SurfaceError: if there are too few of either.
    """
    training = _training(scene)
    if training.points is None:
        given = training.files, training.masks, training.cameras
        found = find_points(*given, _POINTS * budget.left(), print)
        training = replace(training, points=None if found is None else found.points)
    dense = find_dense_points(training, _STEREO * budget.left(), seed, print)
    if dense is not None:
        points = dense.positions.double().numpy(), dense.views.numpy(), dense.pixels.numpy()
        cloud = _cloud(training, *points, max(_FEWEST_MERGED, int(_MERGED_A_SECOND * budget.left())))
        if len(cloud.points) >= _FEWEST_POINTS:
            return _DENSE, cloud
    sparse = training.points
    if sparse is not None and len(sparse.positions):
        cloud = _cloud(training, *_observed(sparse), np.zeros(len(sparse.positions)), len(sparse.positions))
        if len(cloud.points) >= _FEWEST_POINTS:
            return _SPARSE, cloud
    raise SurfaceError(
        f"the photos show fewer than {_FEWEST_POINTS} points in the region that others confirm: a classical mesh needs "
        "texture; give more --minutes, or photos that overlap more"
    )


def _training(scene: Scene) -> Scene:
    """The scene without its held-out photos."""
    kept = np.flatnonzero(~scene.held_out).tolist()
    return replace(
        scene,
        cameras=scene.cameras.select(torch.tensor(kept)),
        images=[scene.images[k] for k in kept],
        masks=[scene.masks[k] for k in kept],
        names=[scene.names[k] for k in kept],
        files=[scene.files[k] for k in kept],
        held_out=np.zeros(len(kept), bool),
        points=select_observers(scene.points, kept, len(scene.images)),
    )


def _observed(points: SparsePoints) -> tuple[Float64[np.ndarray, "n 3"], Int64[np.ndarray, "n"]]:
    """Positions, and of each point one photo that shows it; 0 where none does."""
    views = np.zeros(len(points.positions), np.int64)
    index, observers = points.observations.numpy().T
    views[index] = observers
    return points.positions.double().numpy(), views


def _cloud(
    scene: Scene,
    positions: Float64[np.ndarray, "n 3"],
    views: Int64[np.ndarray, "n"],
    pixels: Float32[np.ndarray, "n"] | Float64[np.ndarray, "n"],
    most: int,
) -> Cloud:
    """The points in the region, merged to about `most` within cells of a pixel's size or more, with normals and
    colours.
    """
    center, radius = np.array(scene.roi.center), scene.roi.radius
    inside = np.linalg.norm(positions - center, axis=1) < radius
    positions, views, pixels = positions[inside], views[inside], pixels[inside]
    if not len(positions):
        return Cloud(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3), np.uint8))
    colors = _colors(scene, positions, views)
    points = (positions - center) / radius
    cell = _CELL * float(np.median(pixels)) / radius
    owner = _cells(points, cell)
    if owner.max() >= most:  # a surface has a quarter of the cells where they are twice as large
        owner = _cells(points, cell * float(np.sqrt((owner.max() + 1) / most)))
    counts = np.bincount(owner)[:, None]
    merged, shades = (
        np.stack([np.bincount(owner, values[:, k]) for k in range(3)], 1) / counts
        for values in (points, colors)
    )
    seer = np.zeros(len(counts), np.int64)
    seer[owner] = views  # any of them
    eyes = (scene.cameras.centers().double().numpy()[seer] - center) / radius
    return Cloud(merged, _normals(merged, eyes), np.rint(shades).astype(np.uint8))


def _cells(points: Float64[np.ndarray, "n 3"], cell: float) -> Int64[np.ndarray, "n"]:
    """The number of the occupied cell that each point lies in; each point its own where cells have no size."""
    if cell <= 0:
        return np.arange(len(points))
    return np.unique(np.floor(points / cell).astype(np.int64), axis=0, return_inverse=True)[1].ravel()


def _colors(
    scene: Scene, positions: Float64[np.ndarray, "n 3"], views: Int64[np.ndarray, "n"]
) -> Float64[np.ndarray, "n 3"]:
    """What the photo of each point shows there."""
    colors = np.zeros((len(positions), 3))
    for view in np.unique(views).tolist():
        index, image = np.flatnonzero(views == view), scene.images[view]
        seen = project(scene.cameras.to(torch.float64), view, torch.from_numpy(positions[index]))[0].numpy()
        column, row = (seen[:, k].astype(int).clip(0, image.shape[1 - k] - 1) for k in (0, 1))
        colors[index] = image[row, column]
    return colors


def _normals(
    points: Float64[np.ndarray, "n 3"], eyes: Float64[np.ndarray, "n 3"]
) -> Float64[np.ndarray, "n 3"]:
    """The direction in which the nearest points spread least, towards the camera that saw the point."""
    nearest = KDTree(points).query(points, k=min(NEIGHBORS, len(points)), workers=num_threads())[1]
    around = points[nearest.reshape(len(points), -1)]
    offsets = around - around.mean(1, keepdims=True)
    normals = np.linalg.eigh(np.einsum("nki,nkj->nij", offsets, offsets))[1][:, :, 0]
    return normals * np.where(((eyes - points) * normals).sum(1) < 0, -1.0, 1.0)[:, None]


def mesh_of_cloud(cloud: Cloud, scene: Scene, keep: str) -> tuple[Mesh, MeshReport, int]:
    """Mesh the points in their frame; return the mesh, what was done to it, and the depth of Poisson's octree.

    Raises:
        SurfaceError: if nothing is left that the photos see.
    """
    spacing = float(np.median(KDTree(cloud.points).query(cloud.points, k=2, workers=num_threads())[0][:, 1]))
    extent = _BOX * float(np.ptp(cloud.points, axis=0).max())
    depth = int(np.clip(np.floor(np.log2(extent / max(spacing, 1e-9))), *_DEPTHS))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "points.ply"
        _write_cloud(path, cloud)
        options = pycolmap.PoissonMeshingOptions()
        options.depth, options.trim, options.num_threads = depth, float(depth - TRIM), num_threads()
        options.color = False
        pycolmap.poisson_meshing(path, path.with_name("mesh.ply"), options)
        vertices, faces = read_points(path.with_name("mesh.ply"))
    cameras = cameras_in_roi(scene.cameras, scene.roi).select(torch.from_numpy(~scene.held_out))
    report = MeshReport()
    vertices, faces, views = trim_surface(vertices, faces, cameras, report)
    if keep != "scene":
        vertices, faces = cut_support(vertices, faces, views, cameras, report)
    report.faces, report.vertices = len(faces), len(vertices)
    colors = cloud.colors[KDTree(cloud.points).query(vertices, workers=num_threads())[1]]
    return Mesh(vertices, faces, colors, vertex_normals(vertices, faces)), report, depth


def _write_cloud(path: Path, cloud: Cloud) -> None:
    names = ("x", "y", "z", "nx", "ny", "nz")
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(cloud.points)}"]
    header += [f"property float {name}" for name in names] + ["end_header", ""]
    rows = np.concatenate([cloud.points, cloud.normals], 1).astype("<f4")
    path.write_bytes("\n".join(header).encode() + rows.tobytes())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
