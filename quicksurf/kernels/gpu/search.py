"""The search for the surface on a GPU, around Triton's kernels, without a loop over rays or a wait for each step.

Rays march on a lattice [n, S] of equal steps, a row a ray: S follows from the box and the step alone. The search
evaluates every fourth occupied step of all rays at once, then those between that the distance does not clear: two
batches instead of one after another step of each ray, at two to three times the evaluations. The host waits for the
device once, when the rays are marched, and learns how many of them cross the surface and in how many steps. All shapes
follow from these two numbers: a ray that crosses the surface has room for all samples of an interval, and those that
stand for nothing have a negative delta; the second batch has room for `_FINE_STEPS` a ray.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import nerfacc
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from quicksurf.geometry.rays import Interval, Rays, Samples, Surface, pack_counts
from quicksurf.kernels.gpu.selection import first_where
from quicksurf.kernels.modules import MAX_SLOPE, LogitNetwork
from quicksurf.kernels.reference.unisurf import MIN_SLOPE, N_SECANT

_STRIDE = 4  # of the first batch: with 2 it is the larger part of the work, with 8 the second one

# Of the second batch for each ray that crosses the surface: 6 are asked for on the mean, 11.5 at the start.
_FINE_STEPS = 12
_diagonals = WeakTensorKeyDictionary()


class LatticeSteps(NamedTuple):
    """Steps k of all rays, from near + k · step_size on; those that are not `occupied` do not count."""

    t_starts: Float[Tensor, "n s"]
    t_ends: Float[Tensor, "n s"]
    t_mids: Float[Tensor, "n s"]
    occupied: Bool[Tensor, "n s"]


class RayOps(NamedTuple):
    """The kernels of the search and the sampling."""

    march: Callable[[Rays, Tensor, Tensor, float], LatticeSteps]
    """The steps of `reference.rays.traverse_grids` on a lattice that begins where a ray enters the largest box."""
    narrow: Callable[..., Float[Tensor, "n"]]
    """See `reference.unisurf.secant`."""
    spread: Callable[..., tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]]
    """Depths and deltas of `reference.unisurf.interval_samples`; negative deltas where a window is empty."""


def lattice_size(aabbs: Float[Tensor, "m 6"], step_size: float) -> int:
    """Return S: as many steps as cross the largest box, and one at each end.

    The box is read once per tensor, because reading waits for the device.
    """
    if aabbs not in _diagonals:
        _diagonals[aabbs] = float((aabbs[-1, 3:] - aabbs[-1, :3]).norm())
    return math.ceil(_diagonals[aabbs] / step_size) + 2


@torch.no_grad()
def sample_by(
    ops: RayOps,
    surface: LogitNetwork,
    rays: Rays,
    binaries: Bool[Tensor, "m x y z"],
    aabbs: Float[Tensor, "m 6"],
    step_size: float,
    interval: Interval,
    jitter: Float[Tensor, "n k"],
) -> tuple[Surface, Samples]:
    """See `reference.unisurf.sample_surface`; march the rays once, and search only those that cross the surface.

    Samples of negative delta weigh nothing: they stand for no stretch of the ray.
    """
    steps = ops.march(rays, binaries, aabbs, step_size)
    crosses = steps.occupied.any(1)
    n_crossing, n_coarse = _read(torch.stack([crosses.sum(), steps.occupied[:, ::_STRIDE].sum()]))
    index = first_where(crosses, n_crossing)
    rays, steps = Rays(*(part[index] for part in rays)), LatticeSteps(*(part[index] for part in steps))
    found, slopes = find_surface(ops, surface, rays, steps, interval.level, n_coarse)
    half_widths = (interval.reach / slopes.clamp_min(MIN_SLOPE)).clamp_min(interval.half_width)
    ts, deltas = ops.spread(steps, found, half_widths, slopes, interval, jitter[index])
    hits = torch.zeros_like(crosses).index_copy(0, index, found.hits)
    depths = torch.zeros_like(jitter[:, 0]).index_copy(0, index, found.ts)
    of_rays = index[:, None].expand(ts.shape).reshape(-1)
    packed_info = pack_counts(crosses.long() * ts.shape[1])
    samples = Samples(ts.view(-1), deltas.view(-1), of_rays, packed_info)
    return Surface(hits, depths, found.n_evaluations), samples


def _read(counts: Int[Tensor, "k"]) -> list[int]:
    """Numbers that shapes depend on: the one place of a step where the host waits for the device."""
    return counts.tolist()


def find_surface(
    ops: RayOps, surface: LogitNetwork, rays: Rays, steps: LatticeSteps, level: float, n_coarse: int
) -> tuple[Surface, Float[Tensor, "n"]]:
    """Find where a ray first rises above `level`, and dl/dt there; 1 where there is none.

    Args:
        n_coarse: occupied steps among every `_STRIDE`th.
    """
    logits, evaluated, n_evaluations = _evaluate(surface, rays, steps, level, n_coarse)
    hits, bracket = first_crossing(steps, logits, evaluated, level)
    every = torch.arange(len(hits), device=hits.device)
    roots = ops.narrow(surface, rays, every, *bracket.unbind(0))
    widths = bracket[1] - bracket[0]
    refined = hits & (widths > 0)
    slopes = torch.where(refined, (bracket[3] - bracket[2]) / widths, 1.0)
    return Surface(hits, roots.where(refined, bracket[0]), n_evaluations + N_SECANT * len(hits)), slopes


def first_crossing(
    steps: LatticeSteps, logits: Float[Tensor, "n s"], evaluated: Bool[Tensor, "n s"], level: float
) -> tuple[Bool[Tensor, "n"], Float[Tensor, "4 n"]]:
    """Return `hits` and brackets as `reference.unisurf.first_crossing`; zeros without a hit."""
    opaque = evaluated & (logits > level)
    hits, goal = opaque.any(1), opaque.int().argmax(1, keepdim=True)
    index = torch.arange(logits.shape[1], device=logits.device)
    n_gaps = (~steps.occupied).int().cumsum(1)
    outside = evaluated & ~(logits > 0) & (index < goal)
    before = torch.where(outside, index, -1).amax(1, keepdim=True)
    low = before.clamp_min(0)
    same = n_gaps == n_gaps.gather(1, goal)
    here = (evaluated & same & (index > before)).int().argmax(1, keepdim=True)
    joined = (before >= 0) & (n_gaps.gather(1, low) == n_gaps.gather(1, here))
    start, logit = steps.t_starts.gather(1, here), logits.gather(1, here)
    bracket = torch.stack(
        [steps.t_mids.gather(1, low), steps.t_mids.gather(1, here), logits.gather(1, low), logit]
    )
    bracket = bracket.where(joined, torch.stack([start, start, torch.zeros_like(start), logit]))
    return hits, torch.where(hits, bracket[..., 0], 0.0)


def _evaluate(
    surface: LogitNetwork, rays: Rays, steps: LatticeSteps, level: float, n_coarse: int
) -> tuple[Float[Tensor, "n s"], Bool[Tensor, "n s"], int]:
    """Logits of the steps that decide where the first crossing is, which those are, and how many.

    Where the second batch is full, each ray keeps the last of its steps, which are nearest to the crossing, and as many
    as every other ray; what is left out is passed over.
    """
    n_steps = steps.t_mids.shape[1]
    index = torch.arange(n_steps, device=rays.near.device)
    logits = torch.zeros_like(steps.t_mids)
    coarse = steps.occupied & (index % _STRIDE == 0)
    _fill(logits, surface, rays, steps, coarse, n_coarse)
    opaque = coarse & (logits > level)
    first = torch.where(opaque, index, n_steps).amin(1, keepdim=True)
    clear = torch.where(coarse, logits.neg() / MAX_SLOPE, 0.0)
    fine = steps.occupied & ~coarse & (index < first) & ~_cleared(steps.t_mids, clear)
    n_fine = _FINE_STEPS * len(logits)
    fine = _last_of_each(fine, n_fine)
    _fill(logits, surface, rays, steps, fine, n_fine)
    return logits, coarse | fine, n_coarse + n_fine


def _last_of_each(chosen: Bool[Tensor, "n s"], n_most: int) -> Bool[Tensor, "n s"]:
    """The chosen steps, or the last r of each ray with the largest r of which all rays together have `n_most`."""
    ranks = chosen.flip(1).cumsum(1).flip(1)  # of a ray's last chosen step: 1
    numbers = torch.zeros(chosen.shape[1] + 1, dtype=torch.long, device=chosen.device)
    numbers = numbers.scatter_add(0, ranks.view(-1), chosen.reshape(-1).long())
    return chosen & (numbers.cumsum(0) <= n_most)[ranks]


def _fill(
    logits: Float[Tensor, "n s"],
    surface: LogitNetwork,
    rays: Rays,
    steps: LatticeSteps,
    chosen: Bool[Tensor, "n s"],
    n_chosen: int,
) -> None:
    """Write the logits of the chosen steps, of which there are `n_chosen` at most."""
    index = first_where(chosen.reshape(-1), n_chosen)
    points = rays.at(index // chosen.shape[1], steps.t_mids.view(-1)[index])
    logits.view(-1)[index] = surface.query(points)[0]


def _cleared(t_mids: Float[Tensor, "n s"], clear: Float[Tensor, "n s"]) -> Bool[Tensor, "n s"]:
    """Steps that the distance at the coarse step before or behind them clears; `clear` is 0 or less elsewhere."""
    n_steps = t_mids.shape[1]
    room = -n_steps % _STRIDE
    blocks, radii = (
        torch.nn.functional.pad(x, (0, room)).unflatten(1, (-1, _STRIDE)) for x in (t_mids, clear)
    )
    ts, radii = (
        torch.nn.functional.pad(x[..., :1], (0, 0, 0, 1)) for x in (blocks, radii)
    )  # the last has no successor
    cleared = (blocks < (ts + radii)[:, :-1]) | (blocks > (ts - radii)[:, 1:]) & (radii[:, 1:] > 0)
    return cleared.flatten(1)[:, :n_steps]


def accumulate_along_rays(
    weights: Float[Tensor, "m"], values: Float[Tensor, "m d"] | None, packed_info: Tensor
) -> Float[Tensor, "n d"]:
    """See `reference.rays.accumulate_along_rays`; differentiable in `weights` and `values`. nerfacc's own sum."""
    n_rays = len(packed_info)
    rays = torch.arange(n_rays, device=weights.device)
    rays = rays.repeat_interleave(packed_info[:, 1], output_size=len(weights))  # known: no wait for the host
    return nerfacc.accumulate_along_rays(weights, values, rays, n_rays)
