"""Surface search: the first change from outside to inside along a ray, within occupied cells only."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from quicksurf.backends import Backend
from quicksurf.rays import Rays, Steps
from quicksurf.render.grid import Logits

_ROUNDS = (12, 48)  # steps of a ray evaluated at a time: most rays end in the first shell of occupied cells
_SECANT_STEPS = 3  # the error falls with power 1.6: 1e-2 of a step after one, below float32 after three


class Surface(NamedTuple):
    """Where rays meet the surface; `ts` is meaningless where `hits` is false."""

    hits: Bool[Tensor, "n"]
    ts: Float[Tensor, "n"]
    n_evaluations: int
    """Evaluations of the field that the search took."""


@torch.no_grad()
def find_surface(backend: Backend, logits: Logits, rays: Rays, steps: Steps) -> Surface:
    """Evaluate the steps in rounds from the front, stop a ray at its crossing, refine by the secant method."""
    values, n_evaluations = _evaluate_in_rounds(logits, rays, steps)
    hits, brackets = backend.rays.first_crossing(steps, values)
    index = torch.nonzero(hits)[:, 0]
    low, high, logit_low, logit_high = brackets[:, index].unbind(0)
    ts = torch.zeros_like(rays.near)
    ts[index] = _secant(logits, rays, index, low, high, logit_low, logit_high)
    return Surface(hits, ts, n_evaluations + _SECANT_STEPS * len(index))


def _evaluate_in_rounds(logits: Logits, rays: Rays, steps: Steps) -> tuple[Float[Tensor, "m"], int]:
    """Logits at the steps' middles up to the round that holds a ray's first inside point; −1 behind it."""
    mids = steps.t_mids
    values = torch.full_like(mids, -1.0)
    begins, counts = steps.packed_info.unbind(1)
    done, evaluated = torch.zeros_like(counts), 0
    active = torch.nonzero(counts > 0)[:, 0]
    for width in (*_ROUNDS, int(counts.max()) if len(counts) else 0):
        if not len(active):
            break
        take = (counts[active] - done[active]).clamp_max(width)
        index = _ranges(begins[active] + done[active], take)
        values[index] = logits(rays.at(steps.ray_indices[index], mids[index]))
        evaluated += len(index)
        inside = torch.zeros_like(counts).index_add_(0, steps.ray_indices[index], (values[index] > 0).long())
        done[active] += take
        active = active[(inside[active] == 0) & (done[active] < counts[active])]
    return values, evaluated


def _ranges(begins: Int[Tensor, "n"], counts: Int[Tensor, "n"]) -> Int[Tensor, "m"]:
    """begins[0], begins[0] + 1, … counts[0] values, then those of the next."""
    ends = counts.cumsum(0)
    shift = torch.repeat_interleave(begins - (ends - counts), counts)
    return shift + torch.arange(len(shift), device=begins.device)


def _secant(
    logits: Logits,
    rays: Rays,
    index: Int[Tensor, "k"],
    low: Tensor,
    high: Tensor,
    logit_low: Tensor,
    logit_high: Tensor,
) -> Float[Tensor, "k"]:
    """Root of the logit in [low, high] by regula falsi with the Illinois rule: a bracket is never lost."""
    side = torch.zeros_like(low)
    for _ in range(_SECANT_STEPS):
        t = _false_position(low, high, logit_low, logit_high)
        value = logits(rays.at(index, t))
        inside = value > 0
        high, logit_high_new = torch.where(inside, t, high), torch.where(inside, value, logit_high)
        low, logit_low_new = torch.where(inside, low, t), torch.where(inside, logit_low, value)
        # an end that stays twice running is halved, so that it moves too
        logit_low = torch.where(inside & (side > 0), logit_low_new / 2, logit_low_new)
        logit_high = torch.where(~inside & (side < 0), logit_high_new / 2, logit_high_new)
        side = inside.float() * 2 - 1
    return _false_position(low, high, logit_low, logit_high)


def _false_position(low: Tensor, high: Tensor, logit_low: Tensor, logit_high: Tensor) -> Tensor:
    fraction = -logit_low / (logit_high - logit_low).clamp_min(1e-12)
    return low + fraction.clamp(0, 1) * (high - low)
