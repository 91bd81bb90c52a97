"""UNISURF's search and samples: Triton's kernels for the march, the root finding and the samples.

A step on a GPU is short enough for launches to decide how long it takes: the march and the samples are one launch each,
the root finding four; as operations of torch on whole tensors they were 84, 53 and 84.
"""

from functools import partial
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int
from torch import Tensor

from quicksurf.geometry.rays import Interval, Rays, Surface
from quicksurf.kernels.gpu.search import LatticeSteps, RayOps, lattice_size, sample_by
from quicksurf.kernels.gpu.weights import render_weight_from_logits
from quicksurf.kernels.modules import LogitNetwork
from quicksurf.kernels.reference.unisurf import MIN_SLOPE, N_SECANT

__all__ = ["render_weight_from_logits", "sample_surface"]
TILE = 256  # steps or rays
_LEAST_SLOPE = tl.constexpr(MIN_SLOPE)


def traverse_lattice(
    rays: Rays, binaries: Bool[Tensor, "m x y z"], aabbs: Float[Tensor, "m 6"], step_size: float
) -> LatticeSteps:
    """See `RayOps.march`."""
    origins, directions, near, far = (part.contiguous() for part in rays)
    shape = len(near), lattice_size(aabbs, step_size)
    starts, ends, mids = (near.new_empty(shape) for _ in range(3))
    occupied = torch.empty(shape, dtype=torch.bool, device=near.device)
    cells, boxes, n = binaries.contiguous().view(torch.uint8), aabbs.contiguous(), starts.numel()
    with torch.cuda.device_of(near):
        march[(-(-n // TILE),)](
            origins,
            directions,
            near,
            far,
            cells,
            boxes,
            starts,
            ends,
            mids,
            occupied.view(torch.uint8),
            step_size,
            n,
            shape[1],
            *binaries.shape[1:],
            N_BOXES=len(binaries),
            TILE=TILE,
        )
    return LatticeSteps(starts, ends, mids, occupied)


@triton.jit
@no_type_check
def march(
    origins,
    directions,
    near,
    far,
    cells,
    boxes,
    starts,
    ends,
    mids,
    occupied,
    step_size,
    n,
    n_steps,
    n_x,
    n_y,
    n_z,
    N_BOXES: tl.constexpr,
    TILE: tl.constexpr,
):
    """Place one tile of all rays' steps, each on its own: where it lies, and whether its cell is occupied."""
    at = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = at < n
    ray, k = at // n_steps, at % n_steps
    x, y, z = load_point(origins, ray, inside)
    dx, dy, dz = load_point(directions, ray, inside)
    enter_x, leave_x = slab(boxes + 6 * (N_BOXES - 1), x, dx)
    enter_y, leave_y = slab(boxes + 6 * (N_BOXES - 1) + 1, y, dy)
    enter_z, leave_z = slab(boxes + 6 * (N_BOXES - 1) + 2, z, dz)
    enter = tl.maximum(tl.maximum(enter_x, enter_y), enter_z)
    leave = tl.minimum(tl.minimum(leave_x, leave_y), leave_z)
    met = (leave > enter) & (leave > 0)
    begin = tl.load(near + ray, mask=inside, other=0.0)
    end = tl.minimum(tl.load(far + ray, mask=inside, other=0.0), tl.where(met, leave, float("inf")))
    skipped = tl.maximum(tl.floor((enter - begin) / step_size - 0.5), 0.0)
    start = begin + step_size * (tl.where(met, skipped, 0.0) + k.to(tl.float32))
    mid = start + step_size / 2
    x, y, z = x + mid * dx, y + mid * dy, z + mid * dz
    found = tl.zeros([TILE], tl.int32)
    outside = tl.full([TILE], 1, tl.int32)
    for level in tl.static_range(N_BOXES):
        cell_x, in_x = cell(boxes + 6 * level, x, n_x)
        cell_y, in_y = cell(boxes + 6 * level + 1, y, n_y)
        cell_z, in_z = cell(boxes + 6 * level + 2, z, n_z)
        index = ((level * n_x + cell_x) * n_y + cell_y) * n_z + cell_z
        here = tl.where(in_x & in_y & in_z, outside, 0)
        found |= here * tl.load(cells + index, mask=inside, other=0).to(tl.int32)
        outside -= here
    on_way = met & (mid < end) & (mid >= enter)
    tl.store(starts + at, start, mask=inside)
    tl.store(ends + at, tl.minimum(start + step_size, end), mask=inside)
    tl.store(mids + at, mid, mask=inside)
    tl.store(occupied + at, tl.where(on_way, found, 0).to(tl.uint8), mask=inside)


@triton.jit
@no_type_check
def load_point(points, row, mask):
    """Return three coordinates of a row."""
    x = tl.load(points + 3 * row, mask=mask, other=0.0)
    y = tl.load(points + 3 * row + 1, mask=mask, other=0.0)
    return x, y, tl.load(points + 3 * row + 2, mask=mask, other=1.0)


@triton.jit
@no_type_check
def slab(box, x, dx):
    """Return depths between which a ray is within the box on one axis; all of it where it runs along a face."""
    a = (tl.load(box) - x) / dx
    b = (tl.load(box + 3) - x) / dx
    unknown = (a != a) | (b != b)
    enter = tl.where(unknown, float("-inf"), tl.minimum(a, b))
    return enter, tl.where(unknown, float("inf"), tl.maximum(a, b))


@triton.jit
@no_type_check
def cell(box, x, n):
    """Number of the cell on one axis, and whether the point is within the box there."""
    low, high = tl.load(box), tl.load(box + 3)
    number = (x - low) * (n / (high - low))
    number = tl.minimum(tl.maximum(number, 0.0), n - 1.0)
    return number.to(tl.int32), (x > low) & (x < high)


def secant(
    surface: LogitNetwork,
    rays: Rays,
    index: Int[Tensor, "k"],
    low: Tensor,
    high: Tensor,
    logit_low: Tensor,
    logit_high: Tensor,
) -> Float[Tensor, "k"]:
    """See `reference.unisurf.secant`: one launch between two evaluations."""
    bracket = torch.stack([low, high, logit_low, logit_high, torch.zeros_like(low)])
    origins, directions = (part.contiguous() for part in rays[:2])
    ts, points, n = torch.empty_like(low), low.new_empty(len(low), 3), len(low)
    value = low
    for k in range(N_SECANT + 1):
        with torch.cuda.device_of(low):
            narrow[(-(-n // TILE),)](origins, directions, index, bracket, value, ts, points, n, k > 0, TILE)
        if k < N_SECANT:
            value = surface.query(points)[0].contiguous()
    return ts


@triton.jit
@no_type_check
def narrow(
    origins, directions, index, bracket, value, ts, points, n, KNOWN: tl.constexpr, TILE: tl.constexpr
):
    """Take up the logit at the last depth, where one is KNOWN, and propose the next one by false position."""
    at = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = at < n
    low = tl.load(bracket + at, mask=inside, other=0.0)
    high = tl.load(bracket + n + at, mask=inside, other=0.0)
    logit_low = tl.load(bracket + 2 * n + at, mask=inside, other=0.0)
    logit_high = tl.load(bracket + 3 * n + at, mask=inside, other=0.0)
    if KNOWN:
        side = tl.load(bracket + 4 * n + at, mask=inside, other=0.0)
        t = tl.load(ts + at, mask=inside, other=0.0)
        logit = tl.load(value + at, mask=inside, other=0.0)
        within = logit > 0
        # an end that stays twice running is halved, so that it moves too
        logit_low = tl.where(within, tl.where(side > 0, logit_low / 2, logit_low), logit)
        logit_high = tl.where(within, logit, tl.where(side < 0, logit_high / 2, logit_high))
        low, high = tl.where(within, low, t), tl.where(within, t, high)
        tl.store(bracket + at, low, mask=inside)
        tl.store(bracket + n + at, high, mask=inside)
        tl.store(bracket + 2 * n + at, logit_low, mask=inside)
        tl.store(bracket + 3 * n + at, logit_high, mask=inside)
        tl.store(bracket + 4 * n + at, tl.where(within, 1.0, -1.0), mask=inside)
    fraction = -logit_low / tl.maximum(logit_high - logit_low, 1e-12)
    t = low + tl.minimum(tl.maximum(fraction, 0.0), 1.0) * (high - low)
    tl.store(ts + at, t, mask=inside)
    ray = tl.load(index + at, mask=inside, other=0)
    x, y, z = load_point(origins, ray, inside)
    dx, dy, dz = load_point(directions, ray, inside)
    tl.store(points + 3 * at, x + t * dx, mask=inside)
    tl.store(points + 3 * at + 1, y + t * dy, mask=inside)
    tl.store(points + 3 * at + 2, z + t * dz, mask=inside)


def interval_samples(
    steps: LatticeSteps,
    found: Surface,
    half_widths: Float[Tensor, "n"],
    slopes: Float[Tensor, "n"],
    interval: Interval,
    jitter: Float[Tensor, "n k"],
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
    """See `RayOps.spread`."""
    n, n_steps = steps.t_starts.shape
    ts, deltas = torch.empty_like(jitter), torch.empty_like(jitter)
    if n:
        with torch.cuda.device_of(jitter):
            spread[(n,)](
                steps.t_starts.contiguous(),
                steps.t_ends.contiguous(),
                steps.occupied.contiguous().view(torch.uint8),
                found.hits.view(torch.uint8),
                found.ts,
                half_widths,
                slopes,
                jitter.contiguous(),
                ts,
                deltas,
                n_steps,
                interval.n_front,
                interval.n_interval,
                triton.next_power_of_2(n_steps),
            )
    return ts, deltas


@triton.jit
@no_type_check
def spread(
    starts,
    ends,
    occupied,
    hits,
    surface,
    half_widths,
    slopes,
    jitter,
    ts,
    deltas,
    n_steps,
    n_front,
    n_interval,
    STEPS: tl.constexpr,
):
    """Place all samples of one ray, in the measure of its occupied steps."""
    ray = tl.program_id(0)
    k = tl.arange(0, STEPS)
    of_ray = k < n_steps
    at = ray.to(tl.int64) * n_steps + k
    start = tl.load(starts + at, mask=of_ray, other=0.0)
    lies = tl.load(occupied + at, mask=of_ray, other=0)
    span = tl.where(lies != 0, tl.load(ends + at, mask=of_ray, other=0.0) - start, 0.0)
    span = tl.maximum(span, 0.0)
    edge = tl.cumsum(span, 0)
    total = tl.sum(span, 0)
    hit = tl.load(hits + ray) != 0
    t, half = tl.load(surface + ray), tl.load(half_widths + ray)
    low = tl.sum(tl.minimum(tl.maximum(t - half - start, 0.0), span), 0)
    high = tl.sum(tl.minimum(tl.maximum(t + half - start, 0.0), span), 0)
    across = tl.where(hit, tl.minimum(tl.maximum(tl.load(slopes + ray), _LEAST_SLOPE), 1.0), 1.0)
    n_samples = n_front + n_interval
    first = ray.to(tl.int64) * n_samples
    for sample in range(n_samples):
        front = sample < n_front
        begin = tl.where(hit, tl.where(front, 0.0, low), 0.0)
        end = tl.where(hit, tl.where(front, low, high), total)
        number = tl.where(hit, tl.where(front, n_front, n_interval), n_samples)
        rank = tl.where(hit, tl.where(front, sample, sample - n_front), sample)
        length = tl.maximum(end - begin, 0.0) / number
        wanted = begin + (rank + tl.load(jitter + first + sample)) * length
        step = tl.minimum(tl.sum(tl.where(of_ray & (edge <= wanted), 1, 0), 0), n_steps - 1)
        ahead = tl.sum(tl.where(k == step, start - (edge - span), 0.0), 0)
        tl.store(ts + first + sample, ahead + wanted)
        tl.store(deltas + first + sample, tl.where(length > 0, length * across, -1.0))


sample_surface = partial(sample_by, RayOps(traverse_lattice, secant, interval_samples))
