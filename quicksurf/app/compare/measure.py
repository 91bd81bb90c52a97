"""Figures of each method of a comparison, from the run that it left."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quicksurf.app.compare.pictures import draw
from quicksurf.app.compare.request import CLASSICAL, LABELS, MASKING, NO_MASKS, Comparison
from quicksurf.app.evaluate import compare_view, read_truth
from quicksurf.app.export.surface import mesh_of
from quicksurf.app.metrics import CloudSurface, MeshSurface, SurfaceScores, compare_surfaces
from quicksurf.app.run.folder import Run, is_run, open_run
from quicksurf.app.run.metrics_log import read_metrics_log
from quicksurf.capture.load import ReadOptions
from quicksurf.capture.scene import Scene
from quicksurf.capture.transforms import CameraFile, read_cameras
from quicksurf.config import TrainConfig
from quicksurf.errors import CaptureError, OutputError, QuicksurfError, SurfaceError
from quicksurf.mesh.export import read_mesh
from quicksurf.mesh.types import Mesh
from quicksurf.model import TrainedModel

N_SAMPLES = 50_000  # of each surface: the Chamfer distance is then known to 0.5 % of itself


@dataclass
class Result:
    """What came of one method."""

    name: str
    outcome: dict[str, Any]
    """How its last attempt ended: state, message, seconds, date, load."""
    run: Run | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    cameras: CameraFile | None = None
    model: TrainedModel | None = None
    """None for the classical baseline, which is a mesh alone."""
    mesh: Mesh | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    failure: str = ""
    """Why there is no mesh."""

    @property
    def label(self) -> str:
        """Name the method for a reader; the sparse points are called what they are."""
        plain = self.name.removesuffix(NO_MASKS)
        text = LABELS.get(plain, plain)
        if plain == CLASSICAL and self.summary.get("classical", {}).get("what", "").startswith("sparse"):
            text = "sparse points, meshed"
        return text + (", no masks" if self.name.endswith(NO_MASKS) else "")


@dataclass
class Findings:
    """A comparison as its page shows it."""

    comparison: Comparison
    results: list[Result]
    scene: Scene
    """The photos, with the masks that are given."""
    views: list[int]
    """Held-out photos that are rendered and compared; any where none is held out."""
    held_out: bool
    truth: MeshSurface | CloudSurface | None

    def named(self, name: str) -> Result | None:
        """Find the result of a method that has a mesh."""
        return next((one for one in self.results if one.name == name and one.mesh is not None), None)

    def score(self, mesh: Mesh) -> SurfaceScores | None:
        """Measure a mesh against the truth; None without one, or where nothing can be measured."""
        if self.truth is None:
            return None
        with suppress(ValueError):
            return compare_surfaces(MeshSurface(mesh.vertices, mesh.faces), self.truth, n_samples=N_SAMPLES)
        return None


def measure(comparison: Comparison, truth: Path | None, n_views: int, device: str) -> Findings:
    """Measure all methods of a comparison.

    Raises:
        SurfaceError: if the truth cannot be read, or no method has a run.
    """
    results = [_open(comparison, name, device) for name in comparison.methods]
    known = next((one.run for one in results if one.run is not None and one.mesh is not None), None)
    if known is None:
        reasons = "; ".join(f"{one.name}: {one.failure}" for one in results)
        raise SurfaceError(f"no method has a mesh, there is nothing to compare ({reasons})")
    scene = _photos(comparison, known)
    held_out = np.flatnonzero(scene.held_out)
    chosen = held_out if len(held_out) else np.arange(len(scene.images))
    views = chosen[np.linspace(0, len(chosen) - 1, min(n_views, len(chosen))).round().astype(int)]
    surface = None if truth is None else read_truth(truth)
    found = Findings(comparison, results, scene, views.tolist(), bool(len(held_out)), surface)
    for one in results:
        if one.mesh is not None:
            one.figures = {**_of_run(one), **_of_surface(found, one.mesh), **_of_views(found, one)}
    return found


def _photos(comparison: Comparison, run: Run) -> Scene:
    """The photos of a run with the masks that are given, whether they were used or not; none if they are broken."""
    options = comparison.record["options"]
    masks = next((text.partition("=")[2] for text in options if text.startswith("--masks=")), "auto")
    folder = None if masks in MASKING else Path(masks)
    read = ReadOptions(TrainConfig.max_pixels, mask_folder=folder, say=lambda line: None)
    try:
        return run.scene(None, read)
    except CaptureError:
        return run.scene(None, replace(read, use_masks=False))


def _open(comparison: Comparison, name: str, device: str) -> Result:
    result = Result(name, comparison.methods[name])
    path = comparison.folder / name
    result.failure = str(result.outcome.get("message") or result.outcome.get("state") or "it has not run")
    if not is_run(path):
        return result
    try:
        run = result.run = open_run(path)
        if run.state != "finished":
            return result
        result.summary, result.cameras = run.read_summary(), read_cameras(path / "cameras.json")
        result.metrics = read_metrics_log(path)
        if run.checkpoint_folder() is not None:
            result.model = run.model(device)
        result.mesh, result.failure = read_mesh(mesh_of(run)), ""
    except QuicksurfError as error:
        result.failure = str(error)
    return result


def _of_run(result: Result) -> dict[str, float]:
    summary, figures = result.summary, {}
    with suppress(KeyError, TypeError, ValueError):
        figures = {"seconds": float(summary["seconds"]["total"]), "memory": float(summary["peak_memory_mb"])}
    steady = [line["evaluations_per_ray"] for line in result.metrics if line.get("evaluations_per_ray")]
    if steady:
        figures["evaluations"] = float(np.median(steady))
    if result.metrics and result.metrics[-1].get("step"):
        figures["steps"] = float(result.metrics[-1]["step"])
    return figures


def _of_surface(found: Findings, mesh: Mesh) -> dict[str, float]:
    scores = found.score(mesh)
    if scores is None:
        return {}
    figures = {"chamfer": scores.chamfer, "fscore": scores.fscore_half}
    if np.isfinite(scores.normal_consistency):
        figures["normals"] = scores.normal_consistency
    return figures


def _of_views(found: Findings, result: Result) -> dict[str, float]:
    figures = {}
    overlap = _silhouettes(found, result)
    if overlap:
        figures["silhouettes"] = float(np.mean(overlap))
    if result.model is None or result.run is None or not found.held_out:
        return figures
    with suppress(QuicksurfError):
        scene = result.run.scene(result.model)
        pairs = [compare_view(result.model, scene, index) for index in found.views]
        figures["psnr"], figures["ssim"] = (float(value) for value in np.mean(pairs, 0))
    return figures


def _silhouettes(found: Findings, result: Result) -> Sequence[float]:
    """Intersection over union of the mesh's outline and the photo's mask, for the views that have one."""
    overlap = []
    if result.mesh is None or result.cameras is None:
        raise OutputError(f"{result.name} has no mesh")
    for index in found.views:
        mask = found.scene.masks[index]
        if mask is not None:
            camera = result.cameras.cameras.select(torch.tensor([index]))
            covered, inside = draw(result.mesh, camera).covered, mask > 127
            if covered.shape == inside.shape:
                overlap.append(float((covered & inside).sum() / max((covered | inside).sum(), 1)))
    return overlap
