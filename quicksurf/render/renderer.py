"""Colours of rays: sample by the method, shade, composite, and the background outside the region of interest.

    C = Σ_i w_i c_i + (1 − Σ_i w_i) B

with w_i the surface's weights and B the background behind the region. Nothing is modelled between a camera and the
region: a field there explains each photo by a veil of its own before the lens (fox: −1.8 dB on held-out views).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from quicksurf.fields.background import BackgroundField, SolidBackground
from quicksurf.fields.grid import OccupancyGrid
from quicksurf.fields.surface import N_TAPS, SurfaceField
from quicksurf.geometry.rays import Rays, Samples, Surface
from quicksurf.kernels import Backend
from quicksurf.methods import Method, Schedule

_VISIBLE_WEIGHT = 1e-4  # samples below are not shaded: together they are under half a grey level
_VISIBLE_BACKGROUND = 2e-3  # transmittance below which rays get no background samples
_SHADED = 1e-2  # opacity below which a ray gets no shading normal


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
    """Logits at the points of the probe."""
    samples: Samples
    logits: Float[Tensor, "m"]
    """Of the samples."""
    weights: Float[Tensor, "m"]


ProbePoints = Callable[[Rays, Surface], Float[Tensor, "p 3"]]
"""Points whose logits are wanted besides the samples', given where rays meet the surface."""


@dataclass(frozen=True)
class Renderer:
    """The parts that colours are made of."""

    backend: Backend
    method: Method
    field: SurfaceField
    grid: OccupancyGrid
    background: BackgroundField | SolidBackground
    n_background: int
    """Samples of a ray behind the region."""

    def render(
        self,
        rays: Rays,
        schedule: Schedule,
        generator: torch.Generator | None = None,
        behind: Float[Tensor, "n 3"] | None = None,
        probe: ProbePoints | None = None,
        background_noise: float = 0.0,
        codes: Float[Tensor, "n c"] | None = None,
    ) -> Rendering:
        """Render rays; jittered and with noise given a generator (training), in the middle of the strata without.

        Args:
            behind: colours behind the surface that replace the background (masked captures).
            probe: evaluated together with the samples, because each differentiated evaluation of the geometry costs a
                gradient of all its tables.
            background_noise: standard deviation of the noise on the background's samples, in contracted space.
            codes: of the light of the photo that each ray is of; None is the mean.
        """
        training = generator is not None
        geometry = self.field.geometry
        samples, surface = self.method.sample(self.backend, geometry, self.grid, rays, schedule, generator)
        extra = rays.origins[:0] if probe is None else probe(rays, surface)
        points = self.method.points(geometry, rays, samples)
        if training and schedule.query_noise > 0:
            noise = torch.randn(points.shape, generator=generator, device=points.device)
            points = points + schedule.query_noise * noise
        all_logits, features = geometry.query(torch.cat([points, extra]))
        logits, probed = all_logits.split([len(points), len(extra)])
        weights, opacities = self.method.weights(self.backend, logits, samples, schedule)
        normals, n_normals = self._normals(rays, samples, weights.detach(), opacities.detach(), training)
        colors = self._shade(rays, samples, points, features, weights, normals, codes)
        if behind is None:
            behind = self._behind(rays, opacities.detach(), generator, background_noise, codes)
        colors = colors + (1 - opacities)[:, None] * behind
        n_evaluations = len(all_logits) + n_normals + surface.n_evaluations
        counts = len(points), n_evaluations
        return Rendering(colors, opacities, surface, *counts, probed, samples, logits, weights)

    def _normals(
        self,
        rays: Rays,
        samples: Samples,
        weights: Float[Tensor, "m"],
        opacities: Float[Tensor, "n"],
        training: bool,
    ) -> tuple[Float[Tensor, "n 3"], int]:
        """Compute a shading normal a ray, at its expected termination depth, and count the evaluations it took.

        Rays of hardly any opacity have 0.
        """
        lengths = self.backend.rays.accumulate_along_rays(weights, samples.ts[:, None], samples.packed_info)[
            :, 0
        ]
        index = self.backend.selection.all_below(-opacities, -_SHADED, "shaded" if training else None)
        points = rays.at(index, lengths[index] / opacities[index].clamp_min(_SHADED))
        normals = self.field.shading_normals(points)
        n_evaluations = N_TAPS * len(index) if self.field.reads_normals else 0
        return torch.zeros_like(rays.origins).index_copy(0, index, normals), n_evaluations

    def _shade(
        self,
        rays: Rays,
        samples: Samples,
        points: Float[Tensor, "m 3"],
        features: Float[Tensor, "_ k"],
        weights: Float[Tensor, "m"],
        normals: Float[Tensor, "n 3"],
        codes: Float[Tensor, "n c"] | None,
    ) -> Float[Tensor, "n 3"]:
        """Composite the colours of the visible samples of each ray.

        Args:
            features: of the samples first; the rest is ignored.
        """
        visible = weights.detach() > _VISIBLE_WEIGHT
        index, packed = self.backend.selection.packed_where(visible, samples.packed_info)
        features, seen = features[: len(points)], samples.ray_indices
        if index is not None:
            features = features.T.index_select(1, index).T
            points, weights, seen = (x.index_select(0, index) for x in (points, weights, seen))
        of_samples = (of_rays.index_select(0, seen) for of_rays in (rays.directions, normals))
        lights = None if codes is None else codes.index_select(0, seen)
        shades = self.field.color(points, features, *of_samples, lights)
        return self.backend.rays.accumulate_along_rays(weights, shades, packed)

    def _behind(
        self,
        rays: Rays,
        opacities: Float[Tensor, "n"],
        generator: torch.Generator | None,
        background_noise: float,
        codes: Float[Tensor, "n c"] | None,
    ) -> Float[Tensor, "n 3"]:
        """Render what lies behind the region; black where the surface hides it."""
        if isinstance(self.background, SolidBackground):
            return self.background.render(rays)
        place = None if generator is None else "background"
        index = self.backend.selection.all_below(opacities, 1 - _VISIBLE_BACKGROUND, place)
        shape = len(index), self.n_background
        jitter, noise = torch.full(shape, 0.5, device=index.device), None
        if generator is not None:
            jitter = torch.rand(shape, generator=generator, device=index.device)
        if background_noise > 0 and generator is not None:
            noise = background_noise * torch.randn((*shape, 3), generator=generator, device=index.device)
        lights = None if codes is None else codes.index_select(0, index)
        colors = self.background.render(Rays(*(part[index] for part in rays)), jitter, noise, lights)
        return torch.zeros_like(rays.origins).index_put((index,), colors)
