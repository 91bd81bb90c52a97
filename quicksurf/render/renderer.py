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

from quicksurf.fields.background import BackgroundField
from quicksurf.fields.grid import OccupancyGrid
from quicksurf.fields.surface import N_TAPS, SurfaceField
from quicksurf.geometry.rays import Interval, Rays, Samples, Surface
from quicksurf.kernels import Backend
from quicksurf.kernels.async_scalar import LateValue
from quicksurf.methods import unisurf

_VISIBLE_WEIGHT = 1e-4  # samples below are not shaded: together they are under half a grey level
_VISIBLE_BACKGROUND = 2e-3  # rays with less clear view get no background samples
_SHADED = 1e-2  # of opacity: what colour a fainter surface has, no normal decides


class LateShares(NamedTuple):
    """What is remembered from step to step of the shares of rays that are gone on with."""

    clear: LateValue
    """They see the background."""
    shaded: LateValue
    """They see the surface."""


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
        shares: LateShares | None = None,
    ) -> Rendering:
        """Render rays; jittered with a generator (training), in the middle of the strata without.

        Args:
            behind: colours behind the surface that replace the background (masked captures).
            probe: evaluated together with the samples, because each evaluation of the geometry that is differentiated
                costs a gradient of all its tables.
            shares: of the steps before; without them they are read from the device, which waits.
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
        weights, opacities = self.backend.unisurf.render_weight_from_logits(
            logits, samples.thicknesses, samples.packed_info, settings.sharpness, settings.opacity
        )
        normals, n_normals = self._normals(rays, samples, weights.detach(), opacities.detach(), shares)
        colors = self._shade(rays, samples, points, features, weights, normals)
        if behind is None:
            behind = self._behind(rays, opacities.detach(), settings, generator, shares)
        colors = colors + (1 - opacities)[:, None] * behind
        n_evaluations = len(all_logits) + n_normals + surface.n_evaluations
        return Rendering(colors, opacities, surface, len(points), n_evaluations, probed)

    def _normals(
        self,
        rays: Rays,
        samples: Samples,
        weights: Float[Tensor, "m"],
        opacities: Float[Tensor, "n"],
        shares: LateShares | None,
    ) -> tuple[Float[Tensor, "n 3"], int]:
        """The normals that colours see, one a ray, at the mean depth of its light; 0 where a ray meets next to nothing.

        Also the evaluations of the geometry that they took.
        """
        depths = self.backend.rays.accumulate_along_rays(weights, samples.ts[:, None], samples.packed_info)[
            :, 0
        ]
        index = self.backend.rows.all_below(-opacities, -_SHADED, None if shares is None else shares.shaded)
        points = rays.at(index, depths[index] / opacities[index].clamp_min(_SHADED))
        normals = torch.zeros_like(rays.origins).index_copy(0, index, self.field.shading_normals(points))
        return normals, N_TAPS * len(index)

    def _shade(
        self,
        rays: Rays,
        samples: Samples,
        points: Float[Tensor, "m 3"],
        features: Float[Tensor, "_ k"],
        weights: Float[Tensor, "m"],
        normals: Float[Tensor, "n 3"],
    ) -> Float[Tensor, "n 3"]:
        """Colour of the surface along each ray; only visible samples are shaded.

        Args:
            features: of the samples first; what follows is not looked at.
        """
        visible = weights.detach() > _VISIBLE_WEIGHT
        index, packed = self.backend.rows.packed_where(visible, samples.packed_info)
        features, seen = features[: len(points)], samples.ray_indices
        if index is not None:
            features = features.T.index_select(1, index).T
            points, weights, seen = (x.index_select(0, index) for x in (points, weights, seen))
        of_samples = (of_rays.index_select(0, seen) for of_rays in (rays.directions, normals))
        shades = self.field.colors_of(points, features, *of_samples)
        return self.backend.rays.accumulate_along_rays(weights, shades, packed)

    def _behind(
        self,
        rays: Rays,
        opacities: Float[Tensor, "n"],
        settings: RenderSettings,
        generator: torch.Generator | None,
        shares: LateShares | None,
    ) -> Float[Tensor, "n 3"]:
        """Colours behind the region; black where the surface hides them."""
        if isinstance(self.background, Tensor):
            return self.background.expand(len(rays.near), 3)
        clear = None if shares is None else shares.clear
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
