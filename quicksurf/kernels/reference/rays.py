"""The slow twin of the ray kernels in plain torch: the specification of csrc/rays.h, march.h and the scan in opacity.h.

The marching twin loops over rays; it is meant to be read and compared against, not to be fast.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quicksurf.geometry.rays import Steps, pack_counts


def ray_aabb_intersect(
    rays_o: Float[Tensor, "n 3"], rays_d: Float[Tensor, "n 3"], aabbs: Float[Tensor, "m 6"]
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"], Bool[Tensor, "n m"]]:
    """Intersect every ray and box by the slab method: t of entry, t of exit (inf for a miss), whether it hits."""
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
) -> Steps:
    """Return the steps whose midpoint lies in an occupied cell of the smallest grid that holds it."""
    t_mins, t_maxs, hits = (values[:, -1] for values in ray_aabb_intersect(rays_o, rays_d, aabbs[-1:]))
    resolution, starts, ends = torch.tensor(binaries.shape[1:]), [], []
    for ray in range(rays_o.shape[0]):
        near, end = float(near_planes[ray]), float(torch.minimum(far_planes, t_maxs)[ray])
        n_steps = max(0, math.ceil((end - near) / step_size)) if hits[ray] else 0
        ts = near + step_size * torch.arange(n_steps)
        mids = ts + step_size / 2
        points = rays_o[ray] + mids[:, None] * rays_d[ray]
        inside = ((points[:, None] > aabbs[:, :3]) & (points[:, None] < aabbs[:, 3:])).all(-1)
        level = inside.int().argmax(1)
        cells = (points - aabbs[level, :3]) / (aabbs[level, 3:] - aabbs[level, :3]) * resolution
        x, y, z = cells.long().clamp_min(0).minimum(resolution - 1).unbind(1)
        kept = binaries[level, x, y, z] & inside.any(1) & (mids < end) & (mids >= t_mins[ray])
        starts.append(ts[kept])
        ends.append((ts[kept] + step_size).clamp_max(end))
    counts = torch.tensor([len(part) for part in starts], dtype=torch.long)
    ray_indices = torch.arange(len(starts)).repeat_interleave(counts)
    empty = [torch.zeros(0)]
    return Steps(torch.cat(starts or empty), torch.cat(ends or empty), ray_indices, pack_counts(counts))


def render_weight_from_alpha(
    alphas: Float[Tensor, "m"], packed_info: Tensor
) -> tuple[Float[Tensor, "m"], Float[Tensor, "m"]]:
    """Compute weights w_i = α_i T_i and transmittance T_i = Π_{j<i} (1 − α_j) (Mildenhall et al. 2020, eq. 3)."""
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
    """Compute Σ_i w_i v_i on each ray; opacity (d = 1) when `values` is None."""
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
    sound: Bool[Tensor, ""] | None = None,
) -> None:
    """Make one step of Adam in place (Kingma and Ba 2015, algorithm 1).

    `skip_zero` leaves value and moments of entries without gradient alone; so is everything where `sound`, a truth
    value on the same device, is false: the gradient may then hold anything.
    """
    if sound is not None and not bool(sound):
        return
    moved = grad != 0 if skip_zero else torch.ones_like(grad, dtype=torch.bool)
    m = betas[0] * first + (1 - betas[0]) * grad
    v = betas[1] * second + (1 - betas[1]) * grad * grad
    update = learning_rate * m / (1 - betas[0] ** step) / ((v / (1 - betas[1] ** step)).sqrt() + epsilon)
    param.copy_(torch.where(moved, param - update, param))
    first.copy_(torch.where(moved, m, first))
    second.copy_(torch.where(moved, v, second))
