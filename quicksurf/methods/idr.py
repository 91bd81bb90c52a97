"""IDR (Yariv et al. 2020): a ray has the colour of the one point where it meets the surface.

With l the logit (IDR's f = −l), x₀ = o + t₀ d the first point of a ray with l > 0 and ∇l the gradient there, the hit
depends on the field's parameters θ as (eq. 3)

    x(θ) = x₀ − (l(x₀; θ) − l(x₀)) / (∇l · d) d,

with ∇l and l(x₀) constant: first order, as the fused networks need it. l(x₀; θ) and ∇l are of four taps around x₀, so
that a hit costs five evaluations with a gradient and one colour. The search is that of all methods: steps through the
occupied cells as long as a bound on the slope allows, and three secant steps.

A colour teaches only on rays that meet the surface and, where there are masks, lie on the object. All other rays of
masked photos have the mask loss (eq. 7), on the largest logit l⁺ of N_FARTHEST places along the ray,

    (1/α) BCE(sigmoid(α l⁺), mask),

with α = 50 doubled at p = 1/8, 2/8, 3/8, 4/8, 5/8. The eikonal loss (|∇l| − 1)² is of points on the surface and as many
anywhere in the region. Without masks nothing tells a ray that misses the surface, and IDR fails as published.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quicksurf.config import IdrConfig
from quicksurf.fields.grid import OccupancyGrid
from quicksurf.fields.surface import N_TAPS, Geometry, gradients_from_taps, taps_around
from quicksurf.geometry.rays import Interval, Rays, Samples, Surface, pack_counts
from quicksurf.kernels import Backend
from quicksurf.methods import Method

N_FARTHEST = 16
_ALPHA, _DOUBLED = 50.0, (0.125, 0.25, 0.375, 0.5, 0.625)
_HALVED = 0.5, 0.75  # progress at which the learning rate is
_LEAST_COSINE = 0.05  # of ∇l · d: a ray that grazes the surface would move its hit without end
_SEARCHED = Interval(1e-3, 0.0, 2, 0)  # the search alone is wanted


class IdrSchedule(NamedTuple):
    """IDR at one moment of a fit."""

    sharpness: float
    """Of the mask loss."""
    geometry_rate: float
    interval: Interval = _SEARCHED
    query_noise: float = 0.0


class Idr(Method):
    """IDR with the settings of one fit."""

    name = "idr"
    without_masks = (
        "method idr without masks: rays that miss the surface teach nothing, so that it is expected to fail as "
        "published; use --masks make, or another --method"
    )

    def __init__(self, config: IdrConfig, cell: float) -> None:
        """Take the settings and the size of a cell of the occupancy grid."""
        self._config, self._cell = config, cell

    def schedule(self, progress: float) -> IdrSchedule:
        """Compute α and the learning rate's factor at `progress`."""
        alpha = _ALPHA * 2 ** sum(progress >= moment for moment in _DOUBLED)
        rate = min(1.0, 0.1 + 90 * progress) * 0.5 ** sum(progress >= moment for moment in _HALVED)
        return IdrSchedule(alpha, rate)

    @torch.no_grad()
    def sample(
        self,
        ops: Backend,
        geometry: Geometry,
        grid: OccupancyGrid,
        rays: Rays,
        schedule: IdrSchedule,
        generator: torch.Generator | None,
    ) -> tuple[Samples, Surface]:
        """Find the hit of each ray, with delta 1, and in training where its logit is largest, with delta 0."""
        n_rays, device = len(rays.near), rays.near.device
        jitter = torch.full((n_rays, _SEARCHED.n_interval), 0.5, device=device)
        cells = grid.estimator.binaries, grid.estimator.aabbs
        surface, _ = ops.unisurf.sample_surface(
            geometry.searched, rays, *cells, 0.5 * self._cell, _SEARCHED, jitter
        )
        chosen = [surface.ts[:, None]], [surface.hits[:, None]]
        n_evaluations = surface.n_evaluations
        if generator is not None:
            strata = torch.arange(N_FARTHEST, device=device) + torch.rand(
                (n_rays, N_FARTHEST), generator=generator, device=device
            )
            ts = rays.near[:, None] + strata / N_FARTHEST * (rays.far - rays.near)[:, None]
            owners = torch.arange(n_rays, device=device).repeat_interleave(N_FARTHEST)
            logits = geometry.logits(rays.at(owners, ts.reshape(-1))).view(n_rays, N_FARTHEST)
            n_evaluations += logits.numel()
            chosen[0].append(ts.gather(1, logits.argmax(1, keepdim=True)))
            chosen[1].append((rays.near < rays.far)[:, None])
        ts, kept = torch.cat(chosen[0], 1), torch.cat(chosen[1], 1)
        deltas = torch.zeros_like(ts)
        deltas[:, 0] = 1.0
        ray_indices = torch.arange(n_rays, device=device)[:, None].expand_as(ts)
        samples = Samples(ts[kept], deltas[kept], ray_indices[kept], pack_counts(kept.sum(1)))
        return samples, surface._replace(n_evaluations=n_evaluations)

    def points(self, geometry: Geometry, rays: Rays, samples: Samples) -> Float[Tensor, "m 3"]:
        """Compute the samples' points; hits are differentiable in the geometry, in first order."""
        points = rays.at(samples.ray_indices, samples.ts)
        if not torch.is_grad_enabled():
            return points
        index = torch.nonzero(samples.deltas)[:, 0]
        hits, directions = points[index], rays.directions[samples.ray_indices[index]]
        return points.index_add(0, index, hit_offsets(geometry, hits, directions))

    def weights(
        self, ops: Backend, logits: Float[Tensor, "m"], samples: Samples, schedule: IdrSchedule
    ) -> tuple[Float[Tensor, "m"], Float[Tensor, "n"]]:
        """Return 1 for the hit of a ray and 0 for its other sample; a ray is opaque or clear."""
        opacities = ops.rays.accumulate_along_rays(samples.deltas, None, samples.packed_info)[:, 0]
        return samples.deltas, opacities

    def occupancy(self, logits: Float[Tensor, "*n"], schedule: IdrSchedule) -> Float[Tensor, "*n"]:
        """Compute sigmoid(α l), what the mask loss reads."""
        return torch.sigmoid(schedule.sharpness * logits)

    def probe(
        self, geometry: Geometry, points: Float[Tensor, "n 3"], uniform: Callable[[torch.Size], Tensor]
    ) -> Float[Tensor, "p 3"]:
        """Choose taps for the gradient at surface points and at as many random places."""
        return taps_around(torch.cat([points, 2 * uniform(points.shape) - 1]), geometry.tap_step())

    def losses(
        self, geometry: Geometry, probed: Float[Tensor, "p"], unconfirmed: float, masked: bool
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the eikonal loss."""
        gradients = gradients_from_taps(probed, geometry.tap_step())
        return {"eikonal": self._config.eikonal_weight * eikonal(gradients)}

    def ray_losses(
        self,
        logits: Float[Tensor, "m"],
        samples: Samples,
        inside: Float[Tensor, "n"] | None,
        schedule: IdrSchedule,
        weights: Float[Tensor, "m"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the mask loss; none without masks."""
        if inside is None:
            return {}
        loss = mask_loss(logits, samples, inside, schedule.sharpness)
        return {"masks": self._config.mask_weight * loss}

    def taught(self, hits: Bool[Tensor, "n"], inside: Float[Tensor, "n"] | None) -> Bool[Tensor, "n"] | None:
        """Return the rays whose colour teaches: with masks those that meet the surface on the object."""
        return None if inside is None else hits & (inside >= 0.5)


def hit_offsets(
    geometry: Geometry, hits: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]
) -> Float[Tensor, "n 3"]:
    """Compute zeros whose gradient is that of points where rays meet the surface: eq. 3 of the module's docstring."""
    step = geometry.tap_step()
    taps = geometry.logits(taps_around(hits, step))
    slopes = (gradients_from_taps(taps.detach(), step) * directions).sum(-1).clamp_min(_LEAST_COSINE)
    logits = taps.view(-1, N_TAPS).mean(1)
    return (-(logits - logits.detach()) / slopes)[:, None] * directions


def mask_loss(
    logits: Float[Tensor, "m"], samples: Samples, inside: Float[Tensor, "n"], alpha: float
) -> Float[Tensor, ""]:
    """Compute the mask loss of the module's docstring, over all rays; those that no mask knows have none.

    Rays that meet the surface on the object have none either: their colour says where it is.
    """
    of_hits = samples.deltas > 0
    index, hit = samples.ray_indices[~of_hits], torch.zeros_like(inside, dtype=torch.bool)
    hit[samples.ray_indices[of_hits]] = True
    beside = (inside < 0.5) | ((inside > 0.5) & ~hit)
    wanted = (inside[index] > 0.5).float()
    values = torch.nn.functional.binary_cross_entropy_with_logits(
        alpha * logits[~of_hits], wanted, reduction="none"
    )
    return (values * beside[index]).sum() / (alpha * max(len(inside), 1))


def eikonal(gradients: Float[Tensor, "n 3"]) -> Float[Tensor, ""]:
    """Compute (|∇l| − 1)² (Gropp et al. 2020)."""
    return (gradients.norm(dim=-1) - 1).square().mean() if len(gradients) else gradients.sum()
