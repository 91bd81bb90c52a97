"""The slow twin of the UNISURF kernels in plain torch: the specification of csrc/search.h and csrc/opacity.h.

It loops over rays: it is meant to be read and compared against, not to be fast.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from quicksurf.geometry.rays import Interval, Rays, Samples, Steps, Surface, pack_counts
from quicksurf.kernels.modules import MAX_SLOPE, LogitNetwork
from quicksurf.kernels.reference.rays import accumulate_along_rays, render_weight_from_alpha, traverse_grids

N_SECANT = 3  # the error falls with power 1.6: 1e-2 of a step after one, below float32 after three
MAX_ALPHA = 1 - 1e-6  # a product through an exact zero has no gradient for what lies behind
MIN_SLOPE = 0.2  # rays that graze the surface get an interval at most five times as wide
ABSORPTION = 0.3  # per unit of κ l and of softplus(κ l): see methods/unisurf.py
# of κ l, so that fitted surfaces lie at l = 0: 0.5 for a wall met frontally, the rest is measured
SHIFT = 1.1


@torch.no_grad()
def sample_surface(
    surface: LogitNetwork,
    rays: Rays,
    binaries: Bool[Tensor, "m x y z"],
    aabbs: Float[Tensor, "m 6"],
    step_size: float,
    interval: Interval,
    jitter: Float[Tensor, "n k"],
) -> tuple[Surface, Samples]:
    """Search the surface in occupied cells, and lay UNISURF's samples around it."""
    found, slopes = find_surface(surface, rays, binaries, aabbs, step_size, interval.level)
    half_widths = (interval.reach / slopes.clamp_min(MIN_SLOPE)).clamp_min(interval.half_width)
    # Behind the interval nothing is sampled: the march may end there, one step later because steps are kept whole.
    behind_interval = found.ts + half_widths + step_size
    far = torch.minimum(torch.where(found.hits, behind_interval, rays.far), rays.far)
    steps = traverse_grids(rays.origins, rays.directions, binaries, aabbs, rays.near, far, step_size)
    return found, interval_samples(steps, found, half_widths, slopes, interval, jitter)


def find_surface(
    surface: LogitNetwork,
    rays: Rays,
    binaries: Bool[Tensor, "m x y z"],
    aabbs: Float[Tensor, "m 6"],
    step_size: float,
    level: float,
) -> tuple[Surface, Float[Tensor, "n"]]:
    """Find where a ray first rises above `level`, at the middles of its occupied steps, by the secant
    method.

    Leaves a ray there. UNISURF (section 3.2) evaluates every ray everywhere; how many evaluations this takes
    is part of the result.

    Returns:
        The surface, and dl/dt over the bracket of each crossing, 1 where there is none.
    """
    steps = traverse_grids(rays.origins, rays.directions, binaries, aabbs, rays.near, rays.far, step_size)
    hits, brackets, n_evaluations = first_crossing(surface, rays, steps, level)
    refined = hits & (brackets[1] > brackets[0])
    ts = torch.where(hits, brackets[0], torch.zeros_like(rays.near))
    index = torch.nonzero(refined)[:, 0]
    ts[index] = secant(surface, rays, index, *brackets[:, index].unbind(0))
    slopes = torch.where(refined, (brackets[3] - brackets[2]) / (brackets[1] - brackets[0]), 1.0)
    return Surface(hits, ts, n_evaluations + N_SECANT * len(index)), slopes


def first_crossing(
    surface: LogitNetwork, rays: Rays, steps: Steps, level: float
) -> tuple[Bool[Tensor, "n"], Float[Tensor, "4 n"], int]:
    """Find the last change from outside to inside before the first logit above `level`, at the steps' middles.

    A region that stays below is semi-transparent: a search that ended there would hide what lies behind it. After a
    logit l ≤ 0, steps nearer than |l| / MAX_SLOPE are passed over (sphere tracing, as in IDR).

    Returns:
        Whether a ray has a crossing, (t_low, t_high, logit_low, logit_high) of the bracket, and the number of steps
        that were looked at. With a gap between the bracket's steps the surface is where the later one starts:
        t_low = t_high there, and logit_low is 0.
    """
    logits = surface.query(rays.at(steps.ray_indices, steps.t_mids))[0]
    cleared = (steps.t_mids - logits / MAX_SLOPE).tolist()
    mids, starts, values = steps.t_mids.tolist(), steps.t_starts.tolist(), logits.tolist()
    stretch, n_evaluations = _stretch_indices(steps).tolist(), 0
    hits, brackets = torch.zeros(len(rays.near)).bool(), torch.zeros(4, len(rays.near))
    for ray, (begin, count) in enumerate(steps.packed_info.tolist()):
        i, entry, last = begin, -1, -1  # the step looked at, where the ray came inside, the last one outside
        while i < begin + count and not hits[ray]:
            n_evaluations += 1
            if not values[i] > 0:
                last = i
            elif entry <= last or stretch[entry] != stretch[i]:
                entry = i
            if values[i] > level:
                hits[ray] = True
                bracket = starts[entry], starts[entry], 0.0, values[entry]
                if last >= 0 and stretch[last] == stretch[entry]:
                    bracket = mids[last], mids[entry], values[last], values[entry]
                brackets[:, ray] = torch.tensor(bracket)
            reach, i = cleared[i], i + 1
            while i < begin + count and mids[i] < reach:
                i += 1
    return hits, brackets, n_evaluations


def _stretch_indices(steps: Steps) -> Int[Tensor, "m"]:
    """The number of the stretch that a step belongs to: steps of a ray without a gap between them."""
    lengths = steps.t_ends - steps.t_starts
    gap = steps.t_starts[1:] - steps.t_ends[:-1] >= 0.5 * lengths[1:]
    gap |= steps.ray_indices[1:] != steps.ray_indices[:-1]
    return torch.nn.functional.pad(gap.long().cumsum(0), (1, 0))[: len(lengths)]


def secant(
    surface: LogitNetwork,
    rays: Rays,
    index: Int[Tensor, "k"],
    low: Tensor,
    high: Tensor,
    logit_low: Tensor,
    logit_high: Tensor,
) -> Float[Tensor, "k"]:
    """Compute the root of the logit in [low, high] by regula falsi with the Illinois rule: a bracket is never lost."""
    side = torch.zeros_like(low)
    for _ in range(N_SECANT):
        t = _false_position(low, high, logit_low, logit_high)
        value = surface.query(rays.at(index, t))[0]
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


def interval_samples(
    steps: Steps,
    found: Surface,
    half_widths: Float[Tensor, "n"],
    slopes: Float[Tensor, "n"],
    interval: Interval,
    jitter: Float[Tensor, "n k"],
) -> Samples:
    """Compute UNISURF's samples (Oechsle et al. 2021, section 3.3) on the union S of a ray's steps.

    With a surface at t_s: `n_front` stratified over S before t_s − half_width, `n_interval` over S within half_width
    of t_s, with half_width = max(interval.half_width, reach / max(dl/dt, MIN_SLOPE)); without one: n_front + n_interval
    over S. `jitter` in [0, 1) places a sample in its stratum. A sample's delta is its stratum's length times the
    slope, kept within MIN_SLOPE and 1.
    """
    n_interval, n_front, hits = interval.n_interval, interval.n_front, found.hits
    ts, deltas, rays = [], [], []
    across = torch.where(hits, slopes.clamp(MIN_SLOPE, 1), 1.0)
    lows, highs = found.ts - half_widths, found.ts + half_widths
    for ray, (begin, count) in enumerate(steps.packed_info.tolist()):
        starts, ends = steps.t_starts[begin : begin + count], steps.t_ends[begin : begin + count]
        low, high = float(lows[ray]), float(highs[ray])
        windows = [(-torch.inf, low, n_front), (low, high, n_interval)]
        used = 0
        for near, far, number in windows if hits[ray] else [(-torch.inf, torch.inf, n_front + n_interval)]:
            begins = starts.clamp(near, far)
            spans = (ends.clamp(near, far) - begins).clamp_min(0)
            measure = float(spans.sum())
            if measure <= 0 or number == 0:
                continue
            quantiles = (torch.arange(number) + jitter[ray, used : used + number]) * (measure / number)
            edges = spans.cumsum(0)
            index = torch.searchsorted(edges, quantiles).clamp_max(count - 1)
            ts.append(begins[index] + quantiles - (edges - spans)[index])
            deltas.append(torch.full((number,), measure / number) * across[ray])
            rays += [ray] * number
            used += number
    ray_indices = torch.tensor(rays, dtype=torch.long)
    packed = pack_counts(torch.bincount(ray_indices, minlength=len(hits)))
    empty = [torch.zeros(0)]
    return Samples(torch.cat(ts or empty), torch.cat(deltas or empty), ray_indices, packed)


def render_weight_from_logits(
    logits: Float[Tensor, "m"],
    deltas: Float[Tensor, "m"],
    packed_info: Int[Tensor, "n 2"],
    sharpness: float,
    opacity: str,
) -> tuple[Float[Tensor, "m"], Float[Tensor, "n"]]:
    """Compute weights of samples and their sums on rays, opacity read as methods/unisurf.py says."""
    weights, _ = render_weight_from_alpha(
        alphas_from_logits(logits, deltas, packed_info, sharpness, opacity), packed_info
    )
    return weights, accumulate_along_rays(weights, None, packed_info)[:, 0]


def alphas_from_logits(
    logits: Float[Tensor, "m"],
    deltas: Float[Tensor, "m"],
    packed_info: Int[Tensor, "n 2"],
    sharpness: float,
    opacity: str,
) -> Float[Tensor, "m"]:
    """Compute α_i of the two readings of opacity in methods/unisurf.py, at most MAX_ALPHA."""
    if opacity == "occupancy":
        return torch.sigmoid(sharpness * logits).clamp_max(MAX_ALPHA)
    begins, counts = packed_info.unbind(1)
    optical = torch.nn.functional.softplus(sharpness * logits - SHIFT)
    before = torch.nn.functional.pad(optical, (1, 0))[:-1].index_fill(0, begins[counts > 0], 0.0)
    gained = torch.relu(optical - before) + ABSORPTION * sharpness * deltas * optical
    return (1 - torch.exp(-gained)).clamp_max(MAX_ALPHA)
