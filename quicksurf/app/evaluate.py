"""`quicksurf eval` and `quicksurf demo`: how far a mesh is from the truth, how well held-out photos are predicted.

The protocol is printed with the figures, since a Chamfer distance means nothing without it.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from quicksurf.app.budget import Budget, StopRequest
from quicksurf.app.demo import write_demo_capture
from quicksurf.app.export.surface import mesh_of
from quicksurf.app.fit import run_fit
from quicksurf.app.metrics import (
    N_SAMPLES,
    CloudSurface,
    MeshSurface,
    ObjectRegion,
    SurfaceScores,
    compare_surfaces,
    psnr,
    ssim,
)
from quicksurf.app.requests import FitRequest
from quicksurf.app.run.folder import Run, default_output, open_run
from quicksurf.capture.masks import over_white
from quicksurf.capture.scene import Scene
from quicksurf.errors import ConfigError, OutputError, SurfaceError
from quicksurf.geometry.region import Roi
from quicksurf.mesh.export import read_mesh, read_points
from quicksurf.model import TrainedModel

MAX_REACH = 1e6  # of both surfaces by the size of either: within it squares of distances have digits left
DEMO_SAMPLES = 50_000  # the Chamfer distance is then known to 0.5 % of itself, in a quarter of the time
Counts = Callable[[Float[np.ndarray, "n 3"]], Bool[np.ndarray, "n"]]


def evaluate(target: Path, truth: Path | None, roi: Roi | None, n_views: int, device: str) -> Iterator[str]:
    """Measure a run or a mesh; yield the lines of the report.

    Args:
        target: run folder or mesh file.
        truth: true surface in the same frame, a mesh or a cloud; None measures views alone.
        roi: ball outside which nothing counts.
        n_views: held-out views of a run to compare, spread evenly.

    Raises:
        OutputError: if the run is damaged or has no mesh.
        SurfaceError: if a surface cannot be read, or nothing of it counts.
        ConfigError: if there is nothing to measure, or a negative number of views.
    """
    if n_views < 0:
        raise ConfigError(f"--views is {n_views}: give 0 or more")
    run = open_run(target) if target.is_dir() else None
    if truth is None and run is None:
        raise ConfigError(f"{target} is a mesh: give its true surface with --truth")
    if truth is not None:
        path = target if run is None else mesh_of(run)
        counts = None if roi is None else _in_ball(roi)
        yield from report_surface(
            path, score(path, truth, counts), "" if roi is None else f", inside the ball {roi.describe()}"
        )
    if run is not None and n_views > 0:
        yield from _report_views(run, n_views, device)


def run_demo(
    output: Path | None, minutes: float, device: str, stop: StopRequest, *, quiet: bool
) -> Iterator[str]:
    """Make the demo capture, fit it, compare it with the truth; yield the lines of the report.

    Raises:
        BudgetError: if the minutes cannot be used.
        OutputError: if the folder holds something, or the disk is full.
    """
    Budget(60 * minutes)  # refused now rather than after the scene is rendered
    folder = output or default_output("demo")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"--output {folder} is not empty: choose another folder")
    began = time.monotonic()
    yield f"rendering the demo scene into {folder / 'capture'}"
    write_demo_capture(folder / "capture")
    yield f"rendered in {time.monotonic() - began:.0f} s; fitting it for {minutes:g} minutes"
    request = FitRequest(folder / "capture", minutes, folder / "run", device=device)
    result = run_fit(request, stop=stop, quiet=quiet)
    yield from result.describe()
    path = mesh_of(result.run)
    region = _demo_region(folder / "capture" / "demo_truth.json")
    scores = score(path, folder / "capture" / "truth.ply", region.contains, DEMO_SAMPLES)
    yield from report_surface(path, scores, ", the object above its table alone")


def score(mesh: Path, truth: Path, counts: Counts | None, n_samples: int = N_SAMPLES) -> SurfaceScores:
    """Compute the distances between two surfaces on disk; only points for which `counts` holds enter.

    Raises:
        SurfaceError: if one cannot be read, or nothing of it counts.
    """
    predicted = read_mesh(mesh)
    try:
        surface, true = MeshSurface(predicted.vertices, predicted.faces), read_truth(truth)
        _check_frames(surface, true)
        return compare_surfaces(surface, true, counts, n_samples=n_samples)
    except ValueError as error:
        raise SurfaceError(f"{mesh} cannot be compared with {truth}: {error}") from error


def _check_frames(predicted: MeshSurface, truth: MeshSurface | CloudSurface) -> None:
    """Refuse surfaces that are points beside each other: all distances are equal then, and a search has no end.

    Raises:
        ValueError: saying how far they are apart.
    """
    clouds = [
        surface.triangles.reshape(-1, 3) if isinstance(surface, MeshSurface) else surface.points
        for surface in (predicted, truth)
    ]
    if not all(map(len, clouds)):
        return
    corners = np.concatenate([(cloud.min(0), cloud.max(0)) for cloud in clouds])
    reach = float(np.linalg.norm(np.ptp(corners, axis=0)))
    for name, surface in (("the mesh", predicted), ("the truth", truth)):
        if surface.diagonal() == 0 or reach > MAX_REACH * surface.diagonal():
            raise ValueError(
                f"{name} is {surface.diagonal():.3g} wide, and both together {reach:.3g}: are they in one frame?"
            )


def read_truth(path: Path) -> MeshSurface | CloudSurface:
    """Read a true surface: triangles if the file has any, its points otherwise.

    Raises:
        SurfaceError: if the file is neither.
    """
    points, faces = read_points(path)
    return MeshSurface(points, faces) if len(faces) else CloudSurface(points)


def report_surface(mesh: Path, scores: SurfaceScores, scope: str) -> list[str]:
    """Format the scores with the protocol they were found by."""
    s = scores
    return [
        f"surface: {mesh} against the truth, {s.n_predicted:,} and {s.n_truth:,} points uniform in area{scope}",
        f"  distances to the nearest triangle or point, in % of the truth's box diagonal ({s.diagonal:.6g})",
        f"  Chamfer {s.chamfer:.3f} %   (the mean of the next two)",
        f"  accuracy {s.accuracy:.3f} %, median {s.accuracy_median:.3f} %   (mesh to truth)",
        f"  completeness {s.completeness:.3f} %, median {s.completeness_median:.3f} %   (truth to mesh)",
        f"  F-score {s.fscore_half:.3f} at 0.5 %, {s.fscore_one:.3f} at 1 %",
        f"  normals: consistency {s.normal_consistency:.3f}, {100 * s.normals_outward:.1f} % to the same side",
    ]


def _report_views(run: Run, n_views: int, device: str) -> Iterator[str]:
    reconstruction = run.model(device)
    scene = run.scene(reconstruction)
    if reconstruction.joined or not reconstruction.held_out.any():
        joined = "the held-out photos joined the fit" if reconstruction.joined else "no photo was held out"
        yield f"views: none, {joined}; fit with --hold-out keep to compare views that the fit never saw"
        return
    held_out = np.flatnonzero(reconstruction.held_out)
    chosen = held_out[np.linspace(0, len(held_out) - 1, min(n_views, len(held_out))).round().astype(int)]
    on_white = ", masked photos on white" if reconstruction.masked else ""
    yield f"views: {len(chosen)} of {len(held_out)} held-out photos at the size of the fit{on_white}; SSIM of Wang 2004"
    pairs = []
    for index in chosen.tolist():
        pairs.append(compare_view(reconstruction, scene, index))
        yield f"  {scene.names[index]}: PSNR {pairs[-1][0]:.2f} dB, SSIM {pairs[-1][1]:.4f}"
    mean = np.mean(pairs, 0)
    yield f"  mean: PSNR {mean[0]:.2f} dB, SSIM {mean[1]:.4f}"


def compare_view(reconstruction: TrainedModel, scene: Scene, index: int) -> tuple[float, float]:
    """Compute PSNR in dB and SSIM of one view, rendered at the size of its photo."""
    photo = over_white(scene.images[index], scene.masks[index] if reconstruction.masked else None)
    rendered = reconstruction.render(reconstruction.cameras, index).color.cpu().double().numpy()
    try:
        return psnr(rendered, photo), ssim(rendered, photo)
    except ValueError as error:
        raise ConfigError(f"{scene.names[index]} cannot be compared: {error}; give --views 0") from error


def _in_ball(roi: Roi) -> Counts:
    return lambda points: np.linalg.norm(points - np.array(roi.center), axis=1) <= roi.radius


def _demo_region(path: Path) -> ObjectRegion:
    known = json.loads(path.read_text())
    return ObjectRegion(
        tuple(known["center"]), known["radius"], tuple(known["up"]), known["table_z"], known["bbox_diagonal"]
    )
