"""The slow twin of the ray kernels in plain torch and Python: the specification of csrc/rays.h.

The marching and sampling twins loop over rays; they are meant to be read and compared against, not to be fast.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from quicksurf.backends.modules import LogitNetwork
from quicksurf.rays import Rays, Samples, Steps, Surface, pack_counts

N_SECANT = 3  # the error falls with power 1.6: 1e-2 of a step after one, below float32 after three
_ROUNDS = (12, 48)  # steps of a ray evaluated at a time: most rays end in the first shell of occupied cells


def ray_aabb_intersect(
    rays_o: Float[Tensor, "n 3"], rays_d: Float[Tensor, "n 3"], aabbs: Float[Tensor, "m 6"]
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"], Bool[Tensor, "n m"]]:
    """Slab method for every ray and box: t where it enters, t where it leaves (inf for a miss), whether it hits."""
    a = (aabbs[None, :, :3] - rays_o[:, None]) / rays_d[:, None]
    b = (aabbs[None, :, 3:] - rays_o[:, None]) / rays_d[:, None]
    t_mins = torch.minimum(a, b).nan_to_num(-torch.inf, torch.inf, -torch.inf).amax(-1)
    t_maxs = torch.maximum(a, b).nan_to_num(torch.inf, torch.inf, -torch.inf).amin(-1)
    hits = (t_maxs > t_mins) & (t_maxs > 0)
    miss = torch.full_like(t_mins, torch.inf)
    return torch.where(hits, t_mins, miss), torch.where(hits, t_maxs, miss), hits


def traverse_grids(
    rays_o: Float[Tensor, "n 3"],
    rays_d: Float[Tensor, "n 3"],
    binaries: Bool[Tensor, "m x y z"],
    aabbs: Float[Tensor, "m 6"],
    near_planes: Float[Tensor, "n"],
    far_planes: Float[Tensor, "n"],
    step_size: float,
    cone_angle: float = 0.0,
) -> Steps:
    """Steps from `near_planes` on whose midpoint lies in an occupied cell of the smallest grid that holds it."""
    t_min, t_max, hits = (values[:, -1] for values in ray_aabb_intersect(rays_o, rays_d, aabbs[-1:]))
    resolution = torch.tensor(binaries.shape[1:])
    rows: list[tuple[float, float, int]] = []
    for ray in range(rays_o.shape[0]):
        t, end = float(near_planes[ray]), float(torch.minimum(far_planes, t_max)[ray])
        while bool(hits[ray]) and t < end:
            dt = max(step_size, t * cone_angle)
            mid = rays_o[ray] + (t + dt / 2) * rays_d[ray]
            inside = ((mid > aabbs[:, :3]) & (mid < aabbs[:, 3:])).all(-1)
            if t + dt / 2 < end and t + dt / 2 >= float(t_min[ray]) and bool(inside.any()):
                level = int(inside.int().argmax())
                cell = (mid - aabbs[level, :3]) / (aabbs[level, 3:] - aabbs[level, :3]) * resolution
                if bool(binaries[level][tuple(cell.long().clamp_max(resolution - 1))]):
                    rows.append((t, min(t + dt, end), ray))
            t += dt
    starts, ends, indices = zip(*rows, strict=True) if rows else ((), (), ())
    ray_indices = torch.tensor(indices, dtype=torch.long)
    counts = torch.bincount(ray_indices, minlength=rays_o.shape[0])
    return Steps(torch.tensor(starts).float(), torch.tensor(ends).float(), ray_indices, pack_counts(counts))


def first_crossing(
    steps: Steps, logits: Float[Tensor, "m"]
) -> tuple[Bool[Tensor, "n"], Float[Tensor, "4 n"]]:
    """First outside-to-inside change of sign at the steps' middles.

    Returns:
        Whether a ray has one, and (t_low, t_high, logit_low, logit_high) of the bracket. A stretch that starts inside
        has its surface at its start: t_low = t_high there, and logit_low is 0.
    """
    n_rays = steps.packed_info.shape[0]
    hits, brackets, mids = torch.zeros(n_rays, dtype=torch.bool), torch.zeros(4, n_rays), steps.t_mids
    for ray, (begin, count) in enumerate(steps.packed_info.tolist()):
        for i in range(begin, begin + count):
            if not logits[i] > 0:
                continue
            length = steps.t_ends[i] - steps.t_starts[i]
            joined = i > begin and bool(steps.t_starts[i] - steps.t_ends[i - 1] < 0.5 * length)
            start = steps.t_starts[i]
            bracket = (
                (mids[i - 1], mids[i], logits[i - 1], logits[i]) if joined else (start, start, 0.0, logits[i])
            )
            hits[ray], brackets[:, ray] = True, torch.tensor(bracket)
            break
    return hits, brackets


@torch.no_grad()
def find_surface(
    surface: LogitNetwork,
    rays: Rays,
    binaries: Bool[Tensor, "m x y z"],
    aabbs: Float[Tensor, "m 6"],
    step_size: float,
) -> Surface:
    """First change from outside to inside at the middles of a ray's occupied steps, refined by the secant method.

    Evaluates in rounds from the front and leaves a ray at its crossing. UNISURF (section 3.2) evaluates every ray
    everywhere; how many evaluations this takes is part of the result.
    """
    steps = traverse_grids(rays.origins, rays.directions, binaries, aabbs, rays.near, rays.far, step_size)
    values, n_evaluations = _evaluate_in_rounds(surface, rays, steps)
    hits, brackets = first_crossing(steps, values)
    refined = hits & (brackets[1] > brackets[0])
    ts = torch.where(hits, brackets[0], torch.zeros_like(rays.near))
    index = torch.nonzero(refined)[:, 0]
    ts[index] = _secant(surface, rays, index, *brackets[:, index].unbind(0))
    return Surface(hits, ts, n_evaluations + N_SECANT * len(index))


def _evaluate_in_rounds(surface: LogitNetwork, rays: Rays, steps: Steps) -> tuple[Float[Tensor, "m"], int]:
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
        values[index] = surface.query(rays.at(steps.ray_indices[index], mids[index]))[0]
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
    surface: LogitNetwork,
    rays: Rays,
    index: Int[Tensor, "k"],
    low: Tensor,
    high: Tensor,
    logit_low: Tensor,
    logit_high: Tensor,
) -> Float[Tensor, "k"]:
    """Root of the logit in [low, high] by regula falsi with the Illinois rule: a bracket is never lost."""
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
    hits: Bool[Tensor, "n"],
    t_surface: Float[Tensor, "n"],
    half_width: float,
    n_interval: int,
    n_front: int,
    jitter: Float[Tensor, "n k"],
) -> Samples:
    """UNISURF's samples (Oechsle et al. 2021, section 3.3) on the union S of a ray's steps.

    With a surface at t_s: `n_front` stratified over S before t_s − half_width, `n_interval` over S within half_width of
    t_s; without one: n_front + n_interval over S. `jitter` in [0, 1) places a sample in its stratum.
    """
    ts, lengths, rays = [], [], []
    for ray, (begin, count) in enumerate(steps.packed_info.tolist()):
        starts, ends = steps.t_starts[begin : begin + count], steps.t_ends[begin : begin + count]
        low = float(t_surface[ray]) - half_width if hits[ray] else -torch.inf
        high = float(t_surface[ray]) + half_width if hits[ray] else torch.inf
        parts = [(-torch.inf, low, n_front), (low, high, n_interval)]
        used = 0
        for part_low, part_high, number in parts if hits[ray] else [(low, high, n_front + n_interval)]:
            begins = starts.clamp(part_low, part_high)
            spans = (ends.clamp(part_low, part_high) - begins).clamp_min(0)
            measure = float(spans.sum())
            if measure <= 0 or number == 0:
                continue
            quantiles = (torch.arange(number) + jitter[ray, used : used + number]) * (measure / number)
            edges = spans.cumsum(0)
            index = torch.searchsorted(edges, quantiles).clamp_max(count - 1)
            ts.append(begins[index] + quantiles - (edges - spans)[index])
            lengths.append(torch.full((number,), measure / number))
            rays += [ray] * number
            used += number
    ray_indices = torch.tensor(rays, dtype=torch.long)
    packed = pack_counts(torch.bincount(ray_indices, minlength=len(hits)))
    empty = [torch.zeros(0)]
    return Samples(torch.cat(ts or empty), torch.cat(lengths or empty), ray_indices, packed)


def render_weight_from_alpha(
    alphas: Float[Tensor, "m"], packed_info: Tensor
) -> tuple[Float[Tensor, "m"], Float[Tensor, "m"]]:
    """Weights w_i = α_i T_i and transmittance T_i = Π_{j<i} (1 − α_j) (Mildenhall et al. 2020, eq. 3)."""
    through = [
        torch.cumprod(torch.cat([alphas.new_ones(1), 1 - alphas[begin : begin + count]]), 0)[:-1]
        for begin, count in packed_info.tolist()
        if count
    ]
    transmittance = torch.cat(through) if through else alphas.new_zeros(0)
    return alphas * transmittance, transmittance


def accumulate_along_rays(
    weights: Float[Tensor, "m"], values: Float[Tensor, "m d"] | None, packed_info: Tensor
) -> Float[Tensor, "n d"]:
    """Σ_i w_i v_i on each ray; opacity (d = 1) when `values` is None."""
    rays = torch.repeat_interleave(torch.arange(packed_info.shape[0]), packed_info[:, 1])
    terms = weights[:, None] if values is None else weights[:, None] * values
    return weights.new_zeros(packed_info.shape[0], terms.shape[1]).index_add(0, rays, terms)


def adam_step(
    param: Tensor,
    grad: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float,
    step: int,
    skip_zero: bool,
) -> None:
    """One step of Adam in place (Kingma and Ba 2015, algorithm 1).

    `skip_zero` leaves value and moments of entries without gradient alone.
    """
    moved = grad != 0 if skip_zero else torch.ones_like(grad, dtype=torch.bool)
    m = betas[0] * first + (1 - betas[0]) * grad
    v = betas[1] * second + (1 - betas[1]) * grad * grad
    update = learning_rate * m / (1 - betas[0] ** step) / ((v / (1 - betas[1] ** step)).sqrt() + epsilon)
    param.copy_(torch.where(moved, param - update, param))
    first.copy_(torch.where(moved, m, first))
    second.copy_(torch.where(moved, v, second))
