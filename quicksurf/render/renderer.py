"""Colours of rays: march, search, sample, shade, composite, and what lies outside the region of interest.

    C = Σ_i w_i c_i + (1 − Σ_i w_i) B

with w_i the surface's weights and B the surroundings behind the region. Nothing is modelled between a camera and the
region: a field there explains each photo by a veil of its own before the lens (fox: −1.8 dB on held-out views).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from quicksurf.backends import Backend
from quicksurf.backends.late import LateValue
from quicksurf.model.background import BackgroundField
from quicksurf.model.field import SurfaceField
from quicksurf.rays import Interval, Rays, Samples, Surface
from quicksurf.render import unisurf
from quicksurf.render.grid import OccupancyGrid

_VISIBLE_WEIGHT = 1e-4  # samples below are not shaded: together they are under half a grey level
_VISIBLE_BACKGROUND = 2e-3  # rays with less clear view get no background samples


class RenderSettings(NamedTuple):
    """What the schedules decide about one step."""

    interval: Interval
    sharpness: float
    march_step: float
    opacity: str
    n_background: int
    noise: float = 0.0
    """Standard deviation of the noise on query points of the surface."""
    background_noise: float = 0.0
    """And of the background, in contracted space."""


class Rendering(NamedTuple):
    """What rays see."""

    colors: Float[Tensor, "n 3"]
    opacities: Float[Tensor, "n"]
    """Of the surface alone."""
    surface: Surface
    n_samples: int
    n_evaluations: int
    """Evaluations of the geometry, search included."""
    probed: Float[Tensor, "p"]
    """Logits at the points that were asked for besides."""


Probe = Callable[[Rays, Surface], Float[Tensor, "p 3"]]
"""Points whose logits are wanted besides the samples', given where rays meet the surface."""


@dataclass(frozen=True)
class Renderer:
    """The parts that colours are made of."""

    backend: Backend
    field: SurfaceField
    grid: OccupancyGrid
    background: BackgroundField | Float[Tensor, "3"]
    """A field, or the one colour around the object."""

    def render(
        self,
        rays: Rays,
        settings: RenderSettings,
        generator: torch.Generator | None = None,
        behind: Float[Tensor, "n 3"] | None = None,
        probe: Probe | None = None,
        clear: LateValue | None = None,
    ) -> Rendering:
        """Render rays; jittered with a generator (training), in the middle of the strata without.

        Args:
            behind: colours behind the surface that replace the background (masked captures).
            probe: evaluated together with the samples, because each evaluation of the geometry that is differentiated
                costs a gradient of all its tables.
            clear: what is remembered from step to step of the share of rays that see the background; without it that
                is read from the device, which waits.
        """
        surface, samples = unisurf.sample(
            self.backend,
            self.field.surface,
            self.grid,
            rays,
            settings.march_step,
            settings.interval,
            generator,
        )
        extra = rays.origins[:0] if probe is None else probe(rays, surface)
        points = rays.at(samples.ray_indices, samples.ts)
        if settings.noise > 0 and generator is not None:
            noise = torch.randn(points.shape, generator=generator, device=points.device)
            points = points + settings.noise * noise
        all_logits, features = self.field.query(torch.cat([points, extra]))
        logits, probed = all_logits.split([len(points), len(extra)])
        colors, opacities = self._composite(rays, samples, points, logits, features, settings)
        if behind is None:
            behind = self._behind(rays, opacities.detach(), settings, generator, clear)
        colors = colors + (1 - opacities)[:, None] * behind
        n_evaluations = len(all_logits) + surface.n_evaluations
        return Rendering(colors, opacities, surface, len(points), n_evaluations, probed)

    def _composite(
        self,
        rays: Rays,
        samples: Samples,
        points: Float[Tensor, "m 3"],
        logits: Float[Tensor, "m"],
        features: Float[Tensor, "_ k"],
        settings: RenderSettings,
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n"]]:
        """Colour and opacity of the surface along each ray; only visible samples are shaded.

        Args:
            features: of the samples first; what follows is not looked at.
        """
        accumulate = self.backend.rays.accumulate_along_rays
        weights, opacities = self.backend.unisurf.render_weight_from_logits(
            logits, samples.thicknesses, samples.packed_info, settings.sharpness, settings.opacity
        )
        visible = weights.detach() > _VISIBLE_WEIGHT
        index, packed = self.backend.rows.packed_where(visible, samples.packed_info)
        features, seen = features[: len(points)], samples.ray_indices
        if index is not None:
            features = features.T.index_select(1, index).T
            points, weights, seen = (x.index_select(0, index) for x in (points, weights, seen))
        shades = self.field.colors_of(points, features, rays.directions.index_select(0, seen))
        return accumulate(weights, shades, packed), opacities

    def _behind(
        self,
        rays: Rays,
        opacities: Float[Tensor, "n"],
        settings: RenderSettings,
        generator: torch.Generator | None,
        clear: LateValue | None,
    ) -> Float[Tensor, "n 3"]:
        """Colours behind the region; black where the surface hides them."""
        if isinstance(self.background, Tensor):
            return self.background.expand(len(rays.near), 3)
        index = self.backend.rows.all_below(opacities, 1 - _VISIBLE_BACKGROUND, clear)
        shape = len(index), settings.n_background
        jitter, noise = torch.full(shape, 0.5, device=index.device), None
        if generator is not None:
            jitter = torch.rand(shape, generator=generator, device=index.device)
        if settings.background_noise > 0 and generator is not None:
            noise = torch.randn((*shape, 3), generator=generator, device=index.device)
            noise = settings.background_noise * noise
        colors = self.background.render(Rays(*(part[index] for part in rays)), jitter, noise)
        return torch.zeros_like(rays.origins).index_put((index,), colors)
