"""UNISURF (Oechsle et al. 2021): samples around the surface, weights from occupancy.

With z_i = κ l(x_i) and o_i = sigmoid(z_i) along a ray, two readings of opacity:

    occupancy      α_i = o_i                                       (UNISURF, eq. 6)
    transmittance  α_i = 1 − exp(−max(0, s_i − s_{i−1}) − a κ δ_i s_i),  s_i = softplus(z_i − b),  s_{−1} = 0

The first depends on how many samples fall in soft matter, so the same field renders differently when pruning
changes their number, and its level set lies behind where light stops. The second reads 1 − o = e^(−s) as what
passes: over a rise the first term's weights sum to the o it reaches, whatever the sampling. Alone, it lets light leak
through matter whose logit does not keep rising, and asks nothing of samples where o falls, so that a wrong surface is
not carved away (dtu_scan24 loses 3 dB). The second term therefore absorbs inside: δ_i is the length of the sample's
stratum times the slope of the logit along the ray, between 0.2 and 1, so that grazed surfaces absorb no more than
others. It moves the end of light outwards by a constant in z, which b takes back.
"""

import torch

from quicksurf.fields.grid import OccupancyGrid
from quicksurf.geometry.rays import Interval, Rays, Samples, Surface
from quicksurf.kernels import Backend
from quicksurf.kernels.modules import LogitNetwork


def sample(
    backend: Backend,
    surface: LogitNetwork,
    grid: OccupancyGrid,
    rays: Rays,
    step_size: float,
    interval: Interval,
    generator: torch.Generator | None,
) -> tuple[Surface, Samples]:
    """Search the surface and sample around it; in the middle of the strata without a generator."""
    shape = len(rays.near), interval.n_interval + interval.n_front
    jitter = torch.full(shape, 0.5, device=rays.near.device)
    if generator is not None:
        jitter = torch.rand(shape, generator=generator, device=rays.near.device)
    estimator = grid.estimator
    return backend.unisurf.sample_surface(
        surface, rays, estimator.binaries, estimator.aabbs, step_size, interval, jitter
    )
