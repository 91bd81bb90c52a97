"""Collect the contents of the report, part by part, within the time that is left; skipped parts are named.

Photos, mesh and renders each take a second or more on a busy machine. After a fit the report may use only what is left
of its minutes, so the parts come in the order of their value to a photographer who is still beside the object.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Int64, UInt8

from quicksurf.app.export.products import ExportedMesh, photos_of
from quicksurf.app.film import color_image, normal_image
from quicksurf.app.metrics import psnr
from quicksurf.app.report.advice import Coverage, Place, advise, frame_of, measure_coverage, next_places
from quicksurf.app.report.pictures import as_jpeg, data_uri, depth_colors, draw_mesh, reduce_mesh, shrink
from quicksurf.app.report.sphere import HorizonFrame, Sphere
from quicksurf.app.run.folder import Run
from quicksurf.app.run.metrics_log import read_metrics_log
from quicksurf.capture.masks import over_white
from quicksurf.capture.photo_figures import Flags, PhotoFigures, exposures, fitted_stops, flag, measure
from quicksurf.capture.scene import Scene
from quicksurf.geometry.cameras import resize
from quicksurf.mesh.clean import face_areas
from quicksurf.mesh.holes import boundary_loops, is_closed
from quicksurf.mesh.observe import observe
from quicksurf.mesh.photos import Photos
from quicksurf.mesh.types import Faces, Mesh, Vertices
from quicksurf.mesh.visibility import count_views
from quicksurf.model import TrainedModel

N_VIEWS = 3
VIEW_SIDE, POSTER_SIDE = 384, 480  # pixels
VIEW_SECONDS = 2.0  # expected time of one render on two cores
# Processor time for a ball of 80,000 faces: 0.2 s to count holes, 0.1 to reduce, 0.2 to draw it; 23 to 30 ms for each
# photo of 346 to 640 pixels a side that it is compared with.
_SURFACE_SECONDS, _SECONDS_A_FACE, _SECONDS_A_PHOTO = 0.7, 6e-6, 0.03
SHORT = "there was no time left for {}: `quicksurf report RUN` makes the whole page"


class TimeLimit:
    """Time limit of the report; None is no limit."""

    def __init__(self, seconds: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._end = now, None if seconds is None else now() + seconds

    def left(self) -> float:
        """Count the seconds left."""
        return float("inf") if self._end is None else self._end - self._now()


class PhotoQuality(NamedTuple):
    """Figures of the photos measured so far, in the order of the scene."""

    figures: list[PhotoFigures]
    stops: list[float]
    flags: list[Flags]


class Topology(NamedTuple):
    """Figures of a mesh."""

    faces: int
    vertices: int
    components: int
    holes: int
    watertight: bool
    size: tuple[float, float, float]
    """Edges of the axis-aligned box, in the units of the cameras."""
    area: float


class ShownSurface(NamedTuple):
    """The mesh as the page shows it."""

    topology: Topology
    reduced: Mesh
    n_views: Int64[np.ndarray, "v"]
    """How many of the fit's photos support each vertex of the reduced mesh."""
    coverage: Coverage
    places: list[Place]
    advice: list[str]
    poster: str


class ViewRow(NamedTuple):
    """A photo beside what the field shows there."""

    name: str
    note: str
    images: list[tuple[str, str]]
    """Caption and data URI."""


@dataclass
class Findings:
    """Contents of a report."""

    run: Run
    summary: dict[str, Any]
    scene: Scene | None
    names: list[str]
    held_out: list[bool]
    frame: HorizonFrame
    sphere: Sphere
    photos: PhotoQuality | None = None
    surface: ShownSurface | None = None
    views: list[ViewRow] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Parts that are missing, and why."""


def collect(
    run: Run,
    summary: dict[str, Any],
    reconstruction: TrainedModel,
    scene: Scene | None,
    mesh: Mesh | None,
    clock: TimeLimit,
) -> Findings:
    """Collect the contents; `scene` is None if the photos cannot be read, `mesh` if there is none."""
    cameras, names = reconstruction.cameras, short_names(reconstruction.names)
    frame = frame_of(cameras, reconstruction.roi.center)
    sphere = frame.sphere(cameras.centers().double().numpy())
    held_out = [bool(flag) for flag in reconstruction.held_out]
    found = Findings(run, summary, scene, names, held_out, frame, sphere)
    found.metrics = read_metrics_log(run.path)
    if scene is not None:
        found.photos = _photos(scene, reconstruction, clock)
        if len(found.photos.figures) < len(scene.images):
            found.notes.append(SHORT.format("the figures of all photos"))
    if mesh is not None and clock.left() > surface_seconds(len(mesh.faces), len(names)):
        found.surface = _surface(mesh, reconstruction, scene, frame, sphere, names)
    elif mesh is not None:
        found.notes.append(SHORT.format("the mesh"))
    if scene is not None:
        found.views = _views(reconstruction, scene, names, clock)
        if not found.views:
            found.notes.append(SHORT.format("rendered views"))
    return found


def measure_topology(vertices: Vertices, faces: Faces) -> Topology:
    """Measure a mesh with at least one face."""
    used = np.unique(faces)
    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    labels = trimesh.graph.connected_component_labels(edges, len(vertices))
    width, height, depth = np.ptp(vertices[used], axis=0).tolist()
    return Topology(
        faces=len(faces),
        vertices=len(used),
        components=len(np.unique(labels[used])),
        holes=len(boundary_loops(faces)),
        watertight=is_closed(faces),
        size=(width, height, depth),
        area=float(face_areas(vertices, faces).sum()),
    )


def surface_seconds(n_faces: int, n_photos: int) -> float:
    """Estimate the time of the mesh's part of the report on two slow cores."""
    return _SURFACE_SECONDS + _SECONDS_A_FACE * n_faces + _SECONDS_A_PHOTO * n_photos


def shown(name: str) -> str:
    """Make a file name fit for a page: at most 80 characters, none of them control or direction marks."""
    plain = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
    return plain if len(plain) <= 80 else f"{plain[:40]}…{plain[-36:]}"


def short_names(names: Sequence[str]) -> list[str]:
    """Shorten the photos' names for a page, without a folder common to all."""
    folders = {name.rpartition("/")[0] for name in names}
    return [shown(name.rpartition("/")[2] if len(folders) == 1 else name) for name in names]


def _photos(scene: Scene, reconstruction: TrainedModel, clock: TimeLimit) -> PhotoQuality:
    figures = []
    for image in scene.images:
        if clock.left() <= 0:
            break
        figures.append(measure(image))
    maps = reconstruction.appearance.from_identity().detach().cpu().double().numpy()
    stops = fitted_stops(maps)
    stops = exposures(figures, [float(value) for value in stops[: len(figures)]])
    return PhotoQuality(figures, stops, flag(figures, stops))


def _surface(
    mesh: Mesh,
    reconstruction: TrainedModel,
    scene: Scene | None,
    frame: HorizonFrame,
    sphere: Sphere,
    names: Sequence[str],
) -> ShownSurface:
    cameras, roi = reconstruction.cameras, reconstruction.roi
    reduced = reduce_mesh(mesh)
    n_views = _supporting_photos(reduced, reconstruction, scene)
    coverage = measure_coverage(reduced.vertices, reduced.faces, n_views, frame.center, roi.radius)
    places, left = next_places(coverage, cameras, frame)
    return ShownSurface(
        measure_topology(mesh.vertices, mesh.faces),
        reduced,
        n_views,
        coverage,
        places,
        advise(places, left, frame, sphere, names),
        data_uri(as_jpeg(draw_mesh(reduced, cameras, POSTER_SIDE))),
    )


def _supporting_photos(
    mesh: Mesh, reconstruction: TrainedModel, scene: Scene | None
) -> Int64[np.ndarray, "v"]:
    """Number of photos that support each vertex: those that see it, fewer where they are oblique or disagree.

    Two photos at 60° give one unit of evidence (quicksurf.mesh.confidence). Without the photos' pixels, all cameras
    that see the vertex count.
    """
    if scene is None:
        seen_by = reconstruction.cameras.select(torch.from_numpy(reconstruction.used))
        return count_views(mesh.vertices, mesh.faces, mesh.normals, seen_by).n_views
    observed = observe(ExportedMesh(reconstruction, scene, mesh).local(), _in_memory(reconstruction, scene))
    return np.minimum(observed.n_views, np.floor(2 * observed.evidence).astype(np.int64))


def _in_memory(reconstruction: TrainedModel, scene: Scene) -> Photos:
    """The photos at the size kept by the fit: reading them again in full takes seconds."""
    photos, used = photos_of(reconstruction, scene), np.flatnonzero(reconstruction.used)

    def read(
        index: int, max_pixels: int
    ) -> tuple[UInt8[np.ndarray, "_ _ 3"], Bool[np.ndarray, "_ _"] | None]:
        return photos.read(index, min(max_pixels, scene.images[used[index]].size // 3))

    return replace(photos, read=read)


def _views(
    reconstruction: TrainedModel, scene: Scene, names: Sequence[str], clock: TimeLimit
) -> list[ViewRow]:
    """Render up to N_VIEWS held-out photos (others if there are none) while the time allows one more."""
    candidates = np.flatnonzero(reconstruction.held_out)
    candidates = candidates if len(candidates) else np.arange(len(scene.images))
    count = min(N_VIEWS, len(candidates))
    chosen = candidates[np.linspace(0, len(candidates) - 1, count).round().astype(int)]
    rows: list[ViewRow] = []
    longest = VIEW_SECONDS
    for index in chosen:
        began = time.monotonic()
        if clock.left() <= longest:
            break
        rows.append(_view(reconstruction, scene, int(index), names[int(index)]))
        longest = time.monotonic() - began
    return rows


def _view(reconstruction: TrainedModel, scene: Scene, index: int, name: str) -> ViewRow:
    """Compare like `quicksurf eval`: by the cameras of the fit, before white where it had masks."""
    mask = scene.masks[index] if reconstruction.masked else None
    photo = shrink(color_image(over_white(scene.images[index], mask)), VIEW_SIDE)
    camera = reconstruction.cameras.select(torch.tensor([index]))
    view = reconstruction.render(resize(camera, torch.tensor([[photo.shape[1], photo.shape[0]]])))
    color, depth, normal, opacity = (tensor.detach().cpu().numpy() for tensor in view)
    held = "used in the fit: no photo was kept from it"
    if reconstruction.held_out[index]:
        held = "kept from the fit" + (" until its last stretch" if reconstruction.joined else "")
    note = f"{held}; {psnr(color, photo / 255):.1f} dB at {photo.shape[1]} x {photo.shape[0]}"
    pictures = {
        "photo": photo,
        "render": color_image(color),
        "depth, near is yellow": depth_colors(depth, opacity),
        "normals": normal_image(normal, opacity),
    }
    return ViewRow(name, note, [(label, data_uri(as_jpeg(image))) for label, image in pictures.items()])
