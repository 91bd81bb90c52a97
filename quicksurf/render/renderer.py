"""Colours of rays: march, search, sample, shade, composite, and what lies outside the region of interest.

    C = Σ_i w_i c_i + (1 − Σ_i w_i) B

with w_i the surface's weights and B the surroundings behind the region. Nothing is modelled between a camera and the
region: a field there explains each photo by a veil of its own before the lens (fox: −1.8 dB on held-out views).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quicksurf.backends import Backend
from quicksurf.model.background import BackgroundField
from quicksurf.model.field import SurfaceField
from quicksurf.rays import Rays, Samples, Surface
from quicksurf.render.grid import OccupancyGrid
from quicksurf.render.unisurf import Interval, alphas_from_logits, place_samples

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
    """Standard deviation of the noise on query points."""


class Rendering(NamedTuple):
    """What rays see."""

    colors: Float[Tensor, "n 3"]
    opacities: Float[Tensor, "n"]
    """Of the surface alone."""
    surface: Surface
    n_samples: int
    n_evaluations: int
    """Evaluations of the geometry, search included."""


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
    ) -> Rendering:
        """Render rays; jittered with a generator (training), in the middle of the strata without.

        Args:
            behind: colours behind the surface that replace the background (masked captures).
        """
        surface = self.grid.find_surface(self.backend, self.field.surface, rays, settings.march_step)
        # Behind the interval nothing is sampled: the march may end there, one step later because steps are kept whole.
        behind_interval = surface.ts + settings.interval.half_width + settings.march_step
        far = torch.where(surface.hits, behind_interval, rays.far)
        seen = rays._replace(far=torch.minimum(far, rays.far))
        steps = self.grid.march(self.backend, seen, settings.march_step)
        samples = place_samples(self.backend, rays, steps, surface, settings.interval, generator)
        colors, opacities = self._composite(rays, samples, settings, generator)
        if behind is None:
            behind = self._behind(rays, opacities.detach(), settings, generator)
        colors = colors + (1 - opacities)[:, None] * behind
        n_samples = len(samples.ts)
        return Rendering(colors, opacities, surface, n_samples, n_samples + surface.n_evaluations)

    def _composite(
        self, rays: Rays, samples: Samples, settings: RenderSettings, generator: torch.Generator | None
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n"]]:
        """Colour and opacity of the surface along each ray; only visible samples are shaded."""
        accumulate = self.backend.rays.accumulate_along_rays
        points = rays.at(samples.ray_indices, samples.ts)
        if settings.noise > 0 and generator is not None:
            points = points + settings.noise * torch.randn(points.shape, generator=generator).to(points)
        logits, features = self.field.query(points)
        alphas = alphas_from_logits(logits, samples, settings.sharpness, settings.opacity)
        weights, _ = self.backend.rays.render_weight_from_alpha(alphas, samples.packed_info)
        opacities = accumulate(weights, None, samples.packed_info)[:, 0]
        visible = weights.detach() > _VISIBLE_WEIGHT
        index = torch.nonzero(visible)[:, 0]
        seen = samples.ray_indices[index]
        shades = self.field.colors_of(points[index], features.T[:, index].T, rays.directions[seen])
        packed = _packed_where(visible, samples)
        return accumulate(weights[index], shades, packed), opacities

    def _behind(
        self,
        rays: Rays,
        opacities: Float[Tensor, "n"],
        settings: RenderSettings,
        generator: torch.Generator | None,
    ) -> Float[Tensor, "n 3"]:
        """Colours behind the region; black where the surface hides them."""
        if isinstance(self.background, Tensor):
            return self.background.expand(len(rays.near), 3)
        index = torch.nonzero(opacities < 1 - _VISIBLE_BACKGROUND)[:, 0]
        shape = len(index), settings.n_background
        jitter = torch.full(shape, 0.5) if generator is None else torch.rand(shape, generator=generator)
        colors = self.background.render(Rays(*(part[index] for part in rays)), jitter.to(rays.near.device))
        return torch.zeros_like(rays.origins).index_put((index,), colors)


def _packed_where(kept: Bool[Tensor, "m"], samples: Samples) -> Tensor:
    """`packed_info` of the samples that are kept."""
    begins, counts = samples.packed_info.unbind(1)
    before = torch.nn.functional.pad(kept.long().cumsum(0), (1, 0))
    firsts = before[begins]
    return torch.stack([firsts, before[begins + counts] - firsts], -1)
