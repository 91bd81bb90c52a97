"""What the runs of a comparison show of the ideas behind the methods, a section each.

To add one, write a function that takes the findings and returns a section, or None where the runs do not allow it, and
name it in SECTIONS.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from markupsafe import Markup

from quicksurf.app.compare.measure import Findings, Result
from quicksurf.app.compare.pictures import SIDE, at_size, draw, render_surface
from quicksurf.app.compare.request import NO_MASKS
from quicksurf.app.film import color_image
from quicksurf.app.metrics import psnr
from quicksurf.app.report.charts import Curve, curves, marks
from quicksurf.app.report.pictures import shrink
from quicksurf.capture.masks import over_white
from quicksurf.errors import SurfaceError
from quicksurf.geometry.cameras import Cameras
from quicksurf.geometry.region import roi_rays
from quicksurf.mesh.build import MeshOptions
from quicksurf.methods import load as load_method
from quicksurf.model import TrainedModel

LEVELS = 1.0, 50.0, 500.0  # σ per radius of the region
LEVEL_CELLS = 256  # of the lattice, at most: three meshes
MOMENTS = 0.0, 0.5, 1.0  # of the progress
_N_CURVE = 60


class Picture(NamedTuple):
    """A picture with what stands below it."""

    caption: str
    image: UInt8[np.ndarray, "h w 3"]


@dataclass
class Section:
    """One idea: what stands side by side, and what it shows."""

    name: str
    """Of its picture files: letters and hyphens."""
    title: str
    text: str
    pictures: list[Picture] = field(default_factory=list)
    charts: dict[str, Markup] = field(default_factory=dict)
    """By title."""


def sections(found: Findings) -> list[Section]:
    """Make the sections that the runs allow."""
    return [section for make in SECTIONS if (section := make(found)) is not None]


def density_levels(found: Findings) -> Section | None:
    """Mesh one density at three levels: none of them is the surface."""
    nerf = found.named("nerf")
    if nerf is None or nerf.model is None:
        return None
    pictures = [_photo(found)]
    for level in LEVELS:
        try:
            cells = min(LEVEL_CELLS, nerf.model.config.mesh.resolution)
            mesh, report = nerf.model.mesh(MeshOptions(cells, keep=nerf.model.config.mesh.keep, level=level))
        except SurfaceError as error:
            blank = np.full_like(pictures[0].image, 255)
            pictures.append(Picture(f"level {level:g}: no surface ({error})", blank))
            continue
        scores = found.score(mesh)
        measured = "" if scores is None else f"Chamfer {scores.chamfer:.3f} %, "
        caption = f"level {level:g}: {measured}{len(report.hole_lengths)} holes"
        pictures.append(Picture(caption, draw(mesh, _camera(found, nerf)).clay))
    text = (
        "One NeRF, meshed where its density times the radius of the region is 1, 50 and 500. A low level is a shell "
        "around the object, a high one has holes: no level of a density is the surface. "
        f"(Lattice of {cells} cells.)"
    )
    return Section("density-levels", "Density levels", text, pictures)


def two_renderings(found: Findings) -> Section | None:
    """Render one field of occupancy by both formulas."""
    pictures, texts = [_photo(found)], []
    for name in ("unisurf", "paper"):
        one = found.named(name)
        if one is None or one.model is None or one.cameras is None:
            continue
        camera = at_size(one.cameras.cameras, found.views[0], SIDE)
        photo = _seen(found, one.model, camera.sizes[0].tolist())
        for kind, image in (
            ("volume rendering", one.model.render(camera).color.cpu().numpy()),
            ("surface rendering", render_surface(one.model, camera)),
        ):
            pictures.append(Picture(f"{one.label}: {kind}, {psnr(image, photo):.1f} dB", color_image(image)))
        texts.append(one.label)
    if not texts:
        return None
    text = (
        "The same view of one fitted field, once with all samples of a ray weighted, once with the colour of the one "
        "point where the ray meets the level set. One field serves both formulas; the nearer the two pictures are, the "
        "nearer the level set, which the mesh is, is to what the fit rendered. The figures are PSNR at this size."
    )
    return Section("two-renderings", "Occupancy: volume and surface rendering", text, pictures)


def interval(found: Findings) -> Section | None:
    """Draw the sampling interval over the progress, and the samples along one ray at three moments."""
    lines: dict[str, Curve] = {}
    charts: dict[str, Markup] = {}
    for name in ("unisurf", "paper"):
        one = found.named(name)
        if one is None or one.model is None:
            continue
        method = load_method(one.model.config)
        moments = np.linspace(0, 1, _N_CURVE).tolist()
        lines[one.label] = [(p, method.schedule(p).interval.half_width) for p in moments]
        rows = _samples(found, one)
        if rows:
            title = f"Samples along one ray, {one.label}"
            charts[title] = marks(title, "distance from the camera, in radii of the region", rows)
    if not lines:
        return None
    title = "Interval Δ(p)"
    charts = {title: curves(title, "radii", lines, across="progress"), **charts}
    text = (
        "Volume rendering turns into surface rendering: the interval around the surface in which samples are placed "
        "shrinks with the progress p. Below, where the method places its samples at p = 0, ½ and 1 along the ray "
        "through the middle of the object in the first view, on the field as it is at the end; the bar is the surface."
    )
    return Section("interval", "Interval", text, charts=charts)


def idr_and_masks(found: Findings) -> Section | None:
    """Show surface rendering with and without masks."""
    pair = [found.named("idr"), found.named("idr" + NO_MASKS)]
    failed = next((one for one in found.results if one.name == "idr" + NO_MASKS and one.failure), None)
    with_masks = pair[0] is not None and pair[0].model is not None and pair[0].model.masked
    if not with_masks or (pair[1] is None and failed is None):
        return None
    pictures = [_photo(found)]
    for one in pair:
        if one is not None and one.mesh is not None:
            measured = f", Chamfer {one.figures['chamfer']:.3f} %" if "chamfer" in one.figures else ""
            pictures.append(Picture(one.label + measured, draw(one.mesh, _camera(found, one)).clay))
    ended = "" if failed is None else f" Without masks there is no mesh: {failed.failure}."
    text = (
        "A ray that misses the surface has no colour to learn from: masks tell such rays. Without masks IDR fails as "
        "published, while UNISURF, whose rays see all of the interval, needs none." + ended
    )
    return Section("idr-and-masks", "IDR with and without masks", text, pictures)


SECTIONS: tuple[Callable[[Findings], Section | None], ...] = (
    density_levels,
    two_renderings,
    interval,
    idr_and_masks,
)


def _camera(found: Findings, one: Result) -> Cameras:
    assert one.cameras is not None
    return at_size(one.cameras.cameras, found.views[0], SIDE)


def _photo(found: Findings) -> Picture:
    return Picture("photo", shrink(found.scene.images[found.views[0]], SIDE))


def _seen(found: Findings, model: TrainedModel, size: list[int]) -> np.ndarray:
    """The photo of the first view as the model's rendering is compared with it, at another size."""
    index = found.views[0]
    photo = over_white(found.scene.images[index], found.scene.masks[index] if model.masked else None)
    picture = torch.from_numpy(photo).permute(2, 0, 1)[None]
    shrunk = torch.nn.functional.interpolate(picture, (size[1], size[0]), mode="area")
    return shrunk[0].permute(1, 2, 0).numpy()


@torch.no_grad()
def _samples(found: Findings, one: Result) -> dict[str, tuple[list[float], list[float]]]:
    """By moment, the samples' places along one ray and that of the surface; nothing where the ray meets none."""
    assert one.model is not None
    model = one.model
    method, renderer = model.renderer.method, model.renderer
    cameras = model.roi_cameras().on(model.device)
    view = torch.tensor([found.views[0]], device=model.device)
    pixel = _middle(found, one)
    rows = {}
    for moment in MOMENTS:
        rays = roi_rays(cameras, view, pixel.to(model.device))
        samples, surface = method.sample(
            renderer.backend, model.field.geometry, renderer.grid, rays, method.schedule(moment), None
        )
        if not bool(surface.hits[0]):
            return {}
        rows[f"p = {moment:g}"] = samples.ts.tolist(), surface.ts[:1].tolist()
    return rows


def _middle(found: Findings, one: Result) -> torch.Tensor:
    """The pixel of the first view that is nearest to the middle of what it shows of the mesh."""
    assert one.cameras is not None and one.mesh is not None
    camera = one.cameras.cameras.select(torch.tensor([found.views[0]]))
    rows, columns = np.nonzero(draw(one.mesh, camera).covered)
    if not len(rows):
        return camera.sizes / 2.0
    places = np.stack([columns, rows], 1) + 0.5
    nearest = ((places - places.mean(0)) ** 2).sum(1).argmin()
    return torch.from_numpy(places[nearest : nearest + 1]).float()
