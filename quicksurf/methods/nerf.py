"""NeRF (Mildenhall et al. 2020) in today's form: density in the occupied cells, no surface at all.

With the logit l read as a log density, δ_i the length of a step, and σ per radius of the region:

    σ_i = exp(g l(x_i))        α_i = 1 − exp(−σ_i δ_i)        w_i = α_i Π_{j<i} (1 − α_j)

The exponential is instant-ngp's, with its gradient's exponent clamped; cells, steps and weights are nerfacc's (Li et
al. 2023). An evaluation without gradient finds the steps that less than a thousandth of the light reaches: they are
left out. The distortion loss of mip-NeRF 360 (Barron et al. 2022, eq. 15) draws the weights of a ray together,

    Σ_ij w_i w_j |m_i − m_j| + Σ_i w_i² d_i / 3,

with m the middles and d the lengths of the steps, in diameters of the region. Nothing else shapes the geometry, and
colours see no normals. Where a surface is asked for, for depths and cameras, it is where half of the light is stopped;
the mesh is a level of σ, and none of them is the surface.
"""

import math
from typing import Any, NamedTuple

import nerfacc
import torch
from jaxtyping import Float, Int
from torch import Tensor

from quicksurf.fields.grid import OccupancyGrid
from quicksurf.fields.surface import Geometry
from quicksurf.geometry.rays import Interval, Rays, Samples, Surface
from quicksurf.kernels import Backend
from quicksurf.kernels.nerfacc import make_ready, pack_info
from quicksurf.methods import Method

# g: the field begins as a fog of σ = 150 in the middle, e^-5 at the region's border
GAIN = 10.0
LEVEL = 50.0  # σ of the mesh, as in NeRF's own notebook
STEP = 0.01  # radii
_UNSEEN = 1e-3  # of the light
_LARGEST_EXPONENT = 15.0
_DIAMETER = 2.0
_LATE = 0.4, 0.05  # progress from which the rate falls, and what it falls to: as that of all other networks


class NerfSchedule(NamedTuple):
    """NeRF at one moment of a fit: only the learning rate changes."""

    geometry_rate: float
    interval: Interval = Interval(0.0, 0.0, 0, 0)
    sharpness: float = GAIN
    query_noise: float = 0.0


class Nerf(Method):
    """NeRF with the settings of one fit."""

    name = "nerf"
    reads_normals = False

    def __init__(self, distortion_weight: float) -> None:
        self._distortion_weight = distortion_weight

    def schedule(self, progress: float) -> NerfSchedule:
        """Compute the learning rate's factor at `progress`."""
        begin, end = _LATE
        return NerfSchedule(min(1.0, 0.1 + 90 * progress) * end ** max(0.0, (progress - begin) / (1 - begin)))

    @torch.no_grad()
    def sample(
        self,
        ops: Backend,
        geometry: Geometry,
        grid: OccupancyGrid,
        rays: Rays,
        schedule: NerfSchedule,
        generator: torch.Generator | None,
    ) -> tuple[Samples, Surface]:
        """Take the steps in occupied cells that light reaches, all of a ray shifted by one random part of a step."""
        make_ready(rays.near.device)
        shift = torch.full_like(rays.near, 0.5)
        if generator is not None:
            shift = torch.rand(shift.shape, generator=generator, device=shift.device)
        near = (rays.near - STEP * shift).clamp_min(0)
        ray_indices, starts, ends = grid.estimator.sampling(
            rays.origins, rays.directions, t_min=near, t_max=rays.far, render_step_size=STEP
        )
        mids, deltas = 0.5 * (starts + ends), ends - starts
        logits = geometry.logits(rays.at(ray_indices, mids))
        packed = pack_info(ray_indices, len(rays.near))
        passed, alphas = nerfacc.render_transmittance_from_density(starts, ends, density(logits), packed)
        surface = _where_half_is_stopped(mids, passed * (1 - alphas), ray_indices, rays)
        seen = passed > _UNSEEN
        mids, deltas, ray_indices = mids[seen], deltas[seen], ray_indices[seen]
        return Samples(mids, deltas, ray_indices, pack_info(ray_indices, len(rays.near))), surface

    def weights(
        self, ops: Backend, logits: Float[Tensor, "m"], samples: Samples, schedule: NerfSchedule
    ) -> tuple[Float[Tensor, "m"], Float[Tensor, "n"]]:
        """Compute the weights of the module's docstring, and their sums."""
        weights, _, _ = nerfacc.render_weight_from_density(
            *_steps(samples), density(logits), samples.packed_info
        )
        return weights, ops.rays.accumulate_along_rays(weights, None, samples.packed_info)[:, 0]

    def occupancy(self, logits: Float[Tensor, "*n"], schedule: NerfSchedule) -> Float[Tensor, "*n"]:
        """Compute σ / (σ + L), a half at the level L of the mesh."""
        return torch.sigmoid(GAIN * logits - math.log(LEVEL))

    def surface_logit(self, level: float) -> float:
        """Return the logit of σ = `level`; of LEVEL for 0."""
        return math.log(level or LEVEL) / GAIN

    def ray_losses(
        self,
        logits: Float[Tensor, "m"],
        samples: Samples,
        inside: Float[Tensor, "n"] | None,
        schedule: NerfSchedule,
        weights: Float[Tensor, "m"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the distortion loss, the mean over the rays."""
        mids, lengths = samples.ts / _DIAMETER, samples.deltas / _DIAMETER
        loss = distortion(weights, mids, lengths, samples.packed_info)
        return {"distortion": self._distortion_weight * loss}


class _Density(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, exponents: Tensor) -> Tensor:
        ctx.save_for_backward(exponents)
        return exponents.exp()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (exponents,) = ctx.saved_tensors
        return grad * exponents.clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT).exp()


def density(logits: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Compute σ = exp(g l); its gradient is clamped, so that neither void nor what is opaque is lost for ever."""
    return _Density.apply(GAIN * logits)  # type: ignore[return-value]


def distortion(
    weights: Float[Tensor, "m"],
    mids: Float[Tensor, "m"],
    lengths: Float[Tensor, "m"],
    packed_info: Int[Tensor, "n 2"],
) -> Float[Tensor, ""]:
    """Compute the distortion of the module's docstring, the mean over the rays, in time linear in the samples.

    The middles ascend along a ray, so that |m_i − m_j| = m_i − m_j for all j < i, and sums of w_j and w_j m_j do.
    """
    before = nerfacc.exclusive_sum(weights, packed_info)
    moments = nerfacc.exclusive_sum(weights * mids, packed_info)
    total = 2 * weights * (mids * before - moments) + weights.square() * lengths / 3
    return total.sum() / max(len(packed_info), 1)


def _steps(samples: Samples) -> tuple[Float[Tensor, "m"], Float[Tensor, "m"]]:
    """Where the samples' steps begin and end."""
    return samples.ts - 0.5 * samples.deltas, samples.ts + 0.5 * samples.deltas


def _where_half_is_stopped(
    mids: Float[Tensor, "m"], behind: Float[Tensor, "m"], ray_indices: Int[Tensor, "m"], rays: Rays
) -> Surface:
    """The median depth of each ray's light, where half of it is stopped at all.

    Args:
        behind: light that passes each step.
    """
    candidates = torch.where(behind <= 0.5, mids, torch.inf)
    ts = torch.full_like(rays.near, torch.inf).scatter_reduce(0, ray_indices, candidates, "amin")
    hits = ts.isfinite()
    return Surface(hits, torch.where(hits, ts, 0.0), len(mids))
