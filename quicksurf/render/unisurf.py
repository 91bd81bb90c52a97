"""UNISURF (Oechsle et al. 2021): samples around the surface, weights from occupancy.

With z_i = κ l(x_i) and o_i = sigmoid(z_i) along a ray, two readings of opacity:

    occupancy      α_i = o_i                                       (UNISURF, eq. 6)
    transmittance  α_i = max(0, (o_i − o_{i−1}) / (1 − o_{i−1})),  o_{−1} = 0

The first depends on how many samples fall in soft matter, so the same field renders differently when pruning
changes their number, and its level set lies behind where light stops. The second reads 1 − o as what passes: over a
rise the weights sum to the o it reaches, whatever the sampling, and falling o absorbs nothing. In logits it is
α_i = 1 − exp(−max(0, s_i − s_{i−1})) with s = softplus(z), which has no cancellation.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from quicksurf.backends import Backend
from quicksurf.rays import Rays, Samples, Steps, Surface

MAX_ALPHA = 1 - 1e-6  # a product through an exact zero has no gradient for what lies behind


class Interval(NamedTuple):
    """How samples are laid around a surface."""

    half_width: float
    n_interval: int
    n_front: int


def place_samples(
    backend: Backend,
    rays: Rays,
    steps: Steps,
    surface: Surface,
    interval: Interval,
    generator: torch.Generator | None,
) -> Samples:
    """UNISURF's samples on the occupied steps; in the middle of their strata without a generator."""
    shape = len(rays.near), interval.n_interval + interval.n_front
    jitter = torch.full(shape, 0.5) if generator is None else torch.rand(shape, generator=generator)
    return backend.rays.interval_samples(
        steps,
        surface.hits,
        surface.ts,
        interval.half_width,
        interval.n_interval,
        interval.n_front,
        jitter.to(rays.near.device),
    )


def alphas_from_logits(
    logits: Float[Tensor, "m"], samples: Samples, sharpness: float, opacity: str
) -> Float[Tensor, "m"]:
    """Opacity of each sample by one of the two readings in the module's docstring."""
    scaled = sharpness * logits
    if opacity == "occupancy":
        return torch.sigmoid(scaled).clamp_max(MAX_ALPHA)
    depth = torch.nn.functional.softplus(scaled)
    before = torch.nn.functional.pad(depth, (1, 0))[:-1]
    first = torch.nn.functional.pad(samples.ray_indices[1:] != samples.ray_indices[:-1], (1, 0), value=True)
    gained = torch.relu(depth - before.masked_fill(first[: len(depth)], 0.0))
    return (1 - torch.exp(-gained)).clamp_max(MAX_ALPHA)
