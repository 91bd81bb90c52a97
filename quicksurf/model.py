"""A fitted capture: fields, cameras and everything needed to ask it, mesh it, render it or go on fitting."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quicksurf.capture.scene import Scene
from quicksurf.config import Config
from quicksurf.errors import ConfigError
from quicksurf.fields.appearance import N_CODES, Appearance, Light, with_maps
from quicksurf.fields.background import BackgroundField, Border, SolidBackground
from quicksurf.fields.grid import OccupancyGrid
from quicksurf.fields.surface import SurfaceField
from quicksurf.geometry.cameras import Cameras
from quicksurf.geometry.points import PointsLike, as_points
from quicksurf.geometry.rays import Rays
from quicksurf.geometry.region import Roi, cameras_in_roi, roi_rays
from quicksurf.kernels import Backend
from quicksurf.mesh.build import Mesh, MeshOptions, MeshReport, build_mesh, expected_cost
from quicksurf.mesh.cost import MeshCost
from quicksurf.mesh.refine import SurfacePoints
from quicksurf.mesh.types import LevelSet
from quicksurf.methods import Schedule
from quicksurf.methods import load as load_method
from quicksurf.render.renderer import Renderer, Rendering

_BATCH_RAYS = 1 << 14
# Radii from the region's centre: where photos do not go around an object, its background have parallax, and a
# background that begins at the region would show them.
BACKGROUND_START = {"facade": 3.0, "inside": 3.0}


class View(NamedTuple):
    """One rendered image; depth in the units of the cameras, along the ray, infinite where nothing is."""

    color: Float[Tensor, "h w 3"]
    depth: Float[Tensor, "h w"]
    normal: Float[Tensor, "h w 3"]
    """Unit and outward where the surface is, in the world; 0 elsewhere."""
    opacity: Float[Tensor, "h w"]


@dataclass
class TrainedModel:
    """Fields in the frame where the ROI is the unit ball, cameras in the world."""

    config: Config
    cameras: Cameras
    names: list[str]
    held_out: Bool[np.ndarray, "n"]
    roi: Roi
    masked: bool
    """Fitted with masks: there is nothing behind the object, views are rendered on white."""
    renderer: Renderer
    appearance: Appearance
    seconds_fitted: float = 0.0
    step: int = 0
    psnr_held_out: float | None = None
    progress: float = 0.0
    """Where the schedules stand."""
    optimizer_state: dict[str, Tensor] = field(default_factory=dict)
    cameras_refined: bool = False
    """Whether the cameras are others than the capture's."""
    joined: bool = False
    """Whether the held-out photos have joined the fit, after the last look at them."""
    stereo: SurfacePoints | None = None
    """What stereo has found in the region, in the frame of the fit: the mesh is refined to it."""

    @property
    def used(self) -> Bool[np.ndarray, "n"]:
        """Photos that the field was fitted to."""
        return ~self.held_out | self.joined

    @property
    def backend(self) -> str:
        """Name of the back end it runs on."""
        return self.renderer.backend.name

    @property
    def device(self) -> torch.device:
        """Where the fields are."""
        return self.renderer.backend.device

    @property
    def field(self) -> SurfaceField:
        """The surface."""
        return self.renderer.field

    def to_roi(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Return world points in the frame of the fit, where the ROI is the unit ball."""
        return (
            (points.double() - torch.tensor(self.roi.center, dtype=torch.float64, device=points.device))
            / self.roi.radius
        ).float()

    def roi_cameras(self) -> Cameras:
        """Return the cameras in the frame of the fit, float32."""
        return cameras_in_roi(self.cameras, self.roi)

    @torch.no_grad()
    def occupancy(self, points: PointsLike) -> Tensor | np.ndarray:
        """Return the occupancy in [0, 1] at world points; 0.5 is the surface.

        Args:
            points: [n, 3], of any real type. A tensor gives a float32 tensor [n] where it is, all else an array; NaN
                where a point is none.

        Raises:
            ConfigError: if they are no points.
        """
        given = as_points(points)
        method, schedule = self.renderer.method, self.schedule()
        parts = self.to_roi(given).to(self.device).split(1 << 18)
        values = torch.cat(
            [method.occupancy(self.field.logits(part.nan_to_num()), schedule) for part in parts]
        )
        values = torch.where(torch.isfinite(given).all(-1), values.to(given.device), torch.nan)
        return values if isinstance(points, Tensor) else values.numpy()

    def mesh(self, options: MeshOptions | None = None) -> tuple[Mesh, MeshReport]:
        """Return the surface as the cameras of the fit saw it, in the world; `options` default to MeshOptions().

        Raises:
            SurfaceError: if there is none.
            ConfigError: if an option is out of range.
        """
        options = MeshOptions() if options is None else options
        if not isinstance(options, MeshOptions):
            raise ConfigError(f"options are {type(options).__name__}: MeshOptions are expected")
        options.check()
        if options.keep == "auto" and self.config.train.capture in BACKGROUND_START:
            options = replace(options, keep="scene")
        seen = self.roi_cameras().select(torch.from_numpy(self.used))
        grid = self.renderer.grid
        surface = self.surface(options.level)
        mesh, report = build_mesh(surface, seen, grid.occupied, grid.aabb, options, self.stereo)
        return mesh.to_world(self.roi.center, self.roi.radius), report.to_world(self.roi.radius)

    def surface(self, level: float = 0.0) -> LevelSet:
        """Return the surface at `level`, 0 for the method's own, in the frame of the fit.

        Raises:
            ConfigError: if the method has no other.
        """
        return LevelSet(self.field, self.renderer.method.surface_logit(level))

    def mesh_cost(self) -> MeshCost:
        """Tell what `mesh` will take of the surface as it is now."""
        seen = self.cameras.select(torch.from_numpy(~self.held_out))
        grid = self.renderer.grid
        surface = self.surface(self.config.mesh.level)
        return expected_cost(surface, seen, grid.occupied, grid.aabb, self.stereo is not None)

    def advance(self, progress: float) -> None:
        """Take up the state of the schedules at `progress`."""
        self.progress = progress
        self.field.geometry.activate_levels(progress, self.config.train.first_levels)

    def schedule(self) -> Schedule:
        """Return the method's schedule at the state of the fit."""
        return self.renderer.method.schedule(self.progress)

    @torch.no_grad()
    def render(self, cameras: Cameras, index: int = 0, light: Light | None = None) -> View:
        """Render one camera, given in the world; its size decides the image's.

        Args:
            light: of a photo, or between those of two; None is their mean.

        Raises:
            ConfigError: if there is no camera of that index.
        """
        if type(index) is not int or not 0 <= index < len(cameras):
            raise ConfigError(f"index is {index!r}: 0 to {len(cameras) - 1} is expected, one for each camera")
        width, height = cameras.sizes[index].tolist()
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        pixels = torch.stack([columns, rows], -1).reshape(-1, 2) + 0.5
        camera = cameras_in_roi(cameras.select(torch.tensor([index])), self.roi).on(self.device)
        chunks = pixels.to(self.device).split(_BATCH_RAYS)
        parts = [self._render_pixels(camera, chunk, light) for chunk in chunks]
        color, depth, normal, opacity = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
        return View(
            color.view(height, width, 3),
            depth.view(height, width),
            normal.view(height, width, 3),
            opacity.view(height, width),
        )

    def _render_pixels(
        self, camera: Cameras, pixels: Float[Tensor, "n 2"], light: Light | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rays = roi_rays(camera, torch.zeros(len(pixels), dtype=torch.long, device=pixels.device), pixels)
        codes = None if light is None or light.code is None else light.code.expand(len(pixels), -1)
        rendering = self.render_rays(rays, codes)
        hits = rendering.surface.hits
        index = torch.nonzero(hits)[:, 0]
        normal = torch.zeros_like(rays.origins)
        normal[index] = self.field.normals(rays.at(index, rendering.surface.ts[index]))
        depth = torch.where(hits, rendering.surface.ts * self.roi.radius, torch.inf)
        colors = rendering.colors if light is None else self._in_light(rendering, light)
        return colors.clamp(0, 1), depth, normal, rendering.opacities

    def _in_light(self, rendering: Rendering, light: Light) -> Float[Tensor, "n 3"]:
        """Map the colours as a photo does; the white behind a masked object is of no photo."""
        colors = with_maps(rendering.colors, light.map[None])
        if not self.masked:
            return colors
        white = torch.ones_like(colors)
        return colors + (1 - rendering.opacities)[:, None] * (white - with_maps(white, light.map[None]))

    def render_rays(self, rays: Rays, codes: Float[Tensor, "n c"] | None = None) -> Rendering:
        """Render rays of the fit's frame without noise; masked captures on white, without codes in the mean light."""
        behind = torch.ones_like(rays.origins) if self.masked else None
        return self.renderer.render(rays, self.schedule(), behind=behind, codes=codes)

    def with_renderer_of(self, other: "TrainedModel") -> "TrainedModel":
        """Return this geometry with the colour head of another fit; features and background stay this one's.

        Raises:
            ConfigError: if that head takes other inputs than this geometry has.
        """
        own, theirs = self.field.color.network.layout, other.field.color.network.layout
        if own != theirs:
            raise ConfigError(
                f"the colour networks differ: {own.n_input} inputs, {own.width} wide, and {theirs.n_input} inputs, "
                f"{theirs.width} wide; fit both runs with one preset and one --appearance"
            )
        field = SurfaceField.of(self.field.geometry, other.field)
        return replace(self, renderer=replace(self.renderer, field=field))

    def modules(self) -> torch.nn.ModuleDict:
        """Return all that has parameters, by name."""
        return torch.nn.ModuleDict(
            {
                "geometry": self.field.geometry,
                "color": self.field.color,
                "background": self.renderer.background,
                "appearance": self.appearance,
            }
        )


def new_model(scene: Scene, config: Config, backend: Backend, border: Border, masked: bool) -> TrainedModel:
    """Make a model of a capture with fresh fields; `border` as for `build_renderer`."""
    renderer = build_renderer(config, backend, border)
    has_codes = config.train.appearance == "code"
    appearance = Appearance(torch.from_numpy(scene.held_out), has_codes=has_codes).to(backend.device)
    of_capture = scene.cameras, scene.names, scene.held_out, scene.roi
    return TrainedModel(config, *of_capture, masked, renderer, appearance)


def build_renderer(config: Config, backend: Backend, border: Border) -> Renderer:
    """Make a renderer with fresh fields.

    Args:
        border: a solid one is the background itself, another one is the colour that the background field begins with.
    """
    seed, n_codes = config.train.seed, N_CODES if config.train.appearance == "code" else 0
    grid = OccupancyGrid(config.render.grid_resolution, config.render.grid_threshold, backend.device)
    color, start = border.color.to(backend.device), BACKGROUND_START.get(config.train.capture, 1.0)
    background = (
        SolidBackground(color) if border.solid else BackgroundField(backend, color, seed + 2, start, n_codes)
    )
    method = load_method(config)
    field = SurfaceField(
        config.model,
        backend,
        seed,
        reads_normals=method.reads_normals,
        inputs=config.renderer.inputs,
        n_codes=n_codes,
    )
    return Renderer(backend, method, field, grid, background, config.render.n_background_samples)
