"""UNISURF (Oechsle et al. 2021): samples around the surface, weights from occupancy.

With z_i = κ l(x_i) and o_i = sigmoid(z_i) along a ray, alpha is computed in one of two ways:

    occupancy      α_i = o_i                                       (UNISURF, eq. 6)
    transmittance  α_i = 1 − exp(−max(0, s_i − s_{i−1}) − a κ δ_i s_i),  s_i = softplus(z_i − b),  s_{−1} = 0

The first depends on the number of samples in a semi-transparent region: the same field renders differently when
pruning changes that number, and its level set lies behind the expected termination depth. The second reads
1 − o = e^(−s) as transmittance: over a rise the weights of the first term sum to the o it reaches, whatever the
sampling. Alone, that term absorbs nothing where the logit does not rise, so that a wrong surface is not carved away
(dtu_scan24 loses 3 dB). The second term absorbs inside: δ_i is the length of the sample's stratum times the slope of
the logit along the ray, between 0.2 and 1, so that grazed surfaces absorb no more than others. It moves the expected
termination depth outwards by a constant in z, which b compensates.

Schedules are pure functions of progress p, the elapsed fraction of the budget in [0, 1]. Lengths are in radii of the
region.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from quicksurf.config import UnisurfConfig
from quicksurf.fields.grid import OccupancyGrid
from quicksurf.fields.surface import N_TAPS, Geometry, gradients_from_taps, taps_around
from quicksurf.geometry.rays import Interval, Rays, Samples, Surface
from quicksurf.kernels import Backend
from quicksurf.kernels.modules import MAX_SLOPE
from quicksurf.methods import Method

# κ at a rate of 1e-2: dtu_scan24 loses 2 dB where κ |∇l| is larger.
_STEADY_SHARPNESS = 120.0
_SHARPENING = 0.4, 0.85  # progress
# κ l at which a search ends: a transmittance of a quarter; an object on a table loses a tenth with 1.1.
_OPAQUE = 2.2
_BALLOON_WITHIN_MASKS = 2.0  # times the balloon force: silhouettes withstand it
_LEAST_REACH = 0.01  # of the neighbours whose normals are compared
_LEAST_SLOPE = 0.5  # of the logit: where it is flatter, there is no surface to move yet


class UnisurfSchedule(NamedTuple):
    """UNISURF at one moment of a fit."""

    interval: Interval
    sharpness: float
    march_step: float
    query_noise: float
    geometry_rate: float


class Unisurf(Method):
    """UNISURF with the settings of one fit."""

    name = "unisurf"

    def __init__(self, config: UnisurfConfig, cell: float) -> None:
        """Take the settings and the size of a cell of the occupancy grid."""
        self._config, self._cell = config, cell

    def schedule(self, progress: float) -> UnisurfSchedule:
        """Compute the interval, sharpness and steps at `progress`."""
        config = self._config
        kappa = sharpness(progress, config.sharpness_start, config.sharpness_end)
        reach = config.interval_reach / kappa
        half_width = interval_half_width(progress, config.interval_start, reach)
        level = _OPAQUE / kappa if config.alpha_from == "transmittance" else 0.0
        return UnisurfSchedule(
            Interval(half_width, reach, config.n_interval_samples, config.n_front_samples, level),
            kappa,
            march_step(half_width, self._cell),
            query_noise(progress, config.query_noise),
            geometry_rate(progress, kappa),
        )

    def sample(
        self,
        ops: Backend,
        geometry: Geometry,
        grid: OccupancyGrid,
        rays: Rays,
        schedule: UnisurfSchedule,
        generator: torch.Generator | None,
    ) -> tuple[Samples, Surface]:
        """Search the surface in the occupied cells and place stratified samples around it and in front of it."""
        shape = len(rays.near), schedule.interval.n_interval + schedule.interval.n_front
        jitter = torch.full(shape, 0.5, device=rays.near.device)
        if generator is not None:
            jitter = torch.rand(shape, generator=generator, device=rays.near.device)
        binaries, aabbs = grid.estimator.binaries, grid.estimator.aabbs
        surface, samples = ops.unisurf.sample_surface(
            geometry.searched, rays, binaries, aabbs, schedule.march_step, schedule.interval, jitter
        )
        return samples, surface

    def weights(
        self, ops: Backend, logits: Float[Tensor, "m"], samples: Samples, schedule: UnisurfSchedule
    ) -> tuple[Float[Tensor, "m"], Float[Tensor, "n"]]:
        """Compute weights and opacities; see the module's docstring."""
        return ops.unisurf.render_weight_from_logits(
            logits, samples.deltas, samples.packed_info, schedule.sharpness, self._config.alpha_from
        )

    def occupancy(self, logits: Float[Tensor, "*n"], schedule: UnisurfSchedule) -> Float[Tensor, "*n"]:
        """Compute o = sigmoid(κ l)."""
        return torch.sigmoid(schedule.sharpness * logits)

    def probe(
        self, geometry: Geometry, points: Float[Tensor, "n 3"], uniform: Callable[[torch.Size], Tensor]
    ) -> Float[Tensor, "p 3"]:
        """Choose taps for the gradient at surface points, beside them, and at random places; as many of each."""
        reach = max(_LEAST_REACH, geometry.finest_cell())
        beside = points + reach * (2 * uniform(points.shape) - 1)
        anywhere = 2 * uniform(points.shape) - 1
        return taps_around(torch.cat([points, beside, anywhere]), geometry.tap_step())

    def losses(
        self, geometry: Geometry, probed: Float[Tensor, "p"], unconfirmed: float, masked: bool
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute normal smoothness (UNISURF, eq. 13), the gradient penalty, and the balloon force.

        The balloon force acts where the photos' patches do not confirm the surface: what photos show of a glossy
        surface lies behind it, so the fit would end inside.
        """
        config = self._config
        gradients = gradients_from_taps(probed, geometry.tap_step())
        at_surface, neighbours, _ = gradients.chunk(3)
        logits = probed.view(-1, N_TAPS).mean(1)[: len(at_surface)]
        balloon = config.balloon_weight * (_BALLOON_WITHIN_MASKS if masked else 1.0)
        return {
            "normal_smoothness": config.normal_smoothness_weight * normal_smoothness(at_surface, neighbours),
            "gradient_penalty": config.gradient_penalty_weight * gradient_penalty(gradients, MAX_SLOPE),
            "balloon_force": unconfirmed * balloon * balloon_force(logits, at_surface),
        }


def sharpness(progress: float, start: float, end: float) -> float:
    """Compute κ in o = sigmoid(κ l): `start` until p = 0.4, exponential to `end` at p = 0.85, then constant.

    The semi-transparent region is about 4/(κ |∇l|) wide. |∇l| is small where the photos do not agree yet and grows
    where they do: with κ low for long, each place sharpens when it is ready, and the rest can still be carved.
    """
    begin, finish = _SHARPENING
    return start * (end / start) ** min(1.0, max(0.0, (progress - begin) / (finish - begin)))


def interval_half_width(progress: float, start: float, least: float) -> float:
    """Compute the half-width of the sampling interval: start · e^(−6p) (UNISURF, eq. 11), at least `least`.

    The least is what the logit needs to become opaque at the present sharpness: in a shorter interval the surface
    stays transparent, and the fit fills hollows behind it.
    """
    return max(start * math.exp(-6 * progress), least)


def query_noise(progress: float, start: float) -> float:
    """Compute the standard deviation of the noise on query points: start · (1 − 2p)², 0 after half time.

    Stochastic preconditioning (SIGGRAPH 2025): the field is fitted blurred first.
    """
    return start * max(0.0, 1 - 2 * progress) ** 2


def geometry_rate(progress: float, sharpness: float) -> float:
    """Compute the factor of the geometry's learning rate: 1 until κ = 120, then as 1/κ, halved over the last fifth.

    A step of Adam moves the logit by about the rate, however small the gradient. Where that exceeds the width of the
    semi-transparent region, space grows opaque by chance; what is opaque has no gradient to shrink, so surfaces swell.
    """
    late = max(0.0, (progress - 0.8) / 0.2)
    return min(1.0, 0.1 + 90 * progress, _STEADY_SHARPNESS / sharpness) * 0.5**late


def march_step(half_width: float, cell: float) -> float:
    """Compute the step of the surface search: a quarter of the interval, between half a grid cell and two cells."""
    return min(max(0.25 * half_width, 0.5 * cell), 2 * cell)


def normal_smoothness(gradients: Float[Tensor, "n 3"], neighbours: Float[Tensor, "n 3"]) -> Float[Tensor, ""]:
    """Compute ‖n(x_s) − n(x_s + ε)‖ between unit normals at surface points and beside them (UNISURF, eq. 13)."""
    a, b = (torch.nn.functional.normalize(g, dim=-1, eps=1e-6) for g in (gradients, neighbours))
    return ((a - b).square().sum(-1) + 1e-12).sqrt().mean() if len(a) else gradients.sum()


def gradient_penalty(gradients: Float[Tensor, "n 3"], largest: float) -> Float[Tensor, ""]:
    """Compute max(0, |∇l| / largest − 1)²: the logit stays below `largest` times a distance, so it can be searched.

    The upper half of the eikonal loss (Gropp et al. 2020). The other half would give the semi-transparent region the
    same width everywhere, and sharpen what the photos do not agree on yet (dtu_scan24: −2 dB).
    """
    excess = (gradients.norm(dim=-1) / largest - 1).clamp_min(0)
    return excess.square().mean() if len(gradients) else gradients.sum()


def balloon_force(logits: Float[Tensor, "n"], gradients: Float[Tensor, "n 3"]) -> Float[Tensor, ""]:
    """Compute −l / |∇l| at surface points, the negated outward offset: a balloon's force (Cohen 1991)."""
    slopes = gradients.detach().norm(dim=-1).clamp_min(_LEAST_SLOPE)
    return -(logits / slopes).mean() if len(logits) else logits.sum()
