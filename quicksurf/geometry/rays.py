"""Packed samples on rays, the one layout that passes between the parts.

Samples of all rays lie one ray after another; `packed_info[r]` = (first sample, number of samples) of ray r, and
`ray_indices[i]` is the ray of sample i. Zero samples, on one ray or on all, are legal everywhere.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Rays(NamedTuple):
    """Rays in the frame of the fit: unit directions, and the stretch [near, far] that is looked at."""

    origins: Float[Tensor, "n 3"]
    directions: Float[Tensor, "n 3"]
    near: Float[Tensor, "n"]
    far: Float[Tensor, "n"]

    def at(self, ray_indices: Int[Tensor, "m"], ts: Float[Tensor, "m"]) -> Float[Tensor, "m 3"]:
        """Return points x = o + t d on the given rays."""
        origins, directions = (rows.index_select(0, ray_indices) for rows in self[:2])
        return torch.addcmul(origins, ts[:, None], directions)

    def followed_by(self, others: "Rays") -> "Rays":
        """Append `others` to these rays."""
        return Rays(*(torch.cat(parts) for parts in zip(self, others, strict=True)))


class Steps(NamedTuple):
    """March steps that lie in occupied cells, in order along each ray."""

    t_starts: Float[Tensor, "m"]
    t_ends: Float[Tensor, "m"]
    ray_indices: Int[Tensor, "m"]
    packed_info: Int[Tensor, "n 2"]

    @property
    def t_mids(self) -> Float[Tensor, "m"]:
        """Middle of each step."""
        return 0.5 * (self.t_starts + self.t_ends)


class Samples(NamedTuple):
    """Sampled depths, in order along each ray."""

    ts: Float[Tensor, "m"]
    deltas: Float[Tensor, "m"]
    """Of the stratum that each sample stands for: its length, times the logit's slope (0.2 to 1) where one is met."""
    ray_indices: Int[Tensor, "m"]
    packed_info: Int[Tensor, "n 2"]


class Interval(NamedTuple):
    """How samples are laid around a surface: see `sample_surface` of a back end."""

    half_width: float
    reach: float
    """What the logit shall reach at the ends of the interval, where that needs a wider one."""
    n_interval: int
    n_front: int
    level: float = 0.0
    """What the logit must reach for the search to end; regions that stay below are semi-transparent."""


class Surface(NamedTuple):
    """Where rays meet the surface; `ts` is 0 where `hits` is false."""

    hits: Bool[Tensor, "n"]
    ts: Float[Tensor, "n"]
    n_evaluations: int
    """Evaluations of the field that the search took."""

    def first(self, n: int) -> "Surface":
        """Return the surface of the first `n` rays."""
        return Surface(self.hits[:n], self.ts[:n], self.n_evaluations)


def pack_counts(counts: Int[Tensor, "n"]) -> Int[Tensor, "n 2"]:
    """Return `packed_info` of rays with the given numbers of samples."""
    return torch.stack([counts.cumsum(0) - counts, counts], -1)


def unit_ball_span(
    origins: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Find where unit-direction rays enter and leave the unit ball at 0, not before t = 0.

    A ray that misses it has near = far, its closest approach. |o + t d|² = 1 has roots −b ± √(b² − c) with
    b = o·d and c = |o|² − 1.
    """
    b = (origins * directions).sum(-1)
    closest = origins - b[:, None] * directions  # 1 − |closest|² keeps the digits that b² − c loses far away
    root = (1 - (closest * closest).sum(-1)).clamp_min(0).sqrt()
    near, far = (-b - root).clamp_min(0), (-b + root).clamp_min(0)
    return near, far
