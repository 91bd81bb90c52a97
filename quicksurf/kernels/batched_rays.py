"""Ray operations as operations on whole tensors, for devices where a loop over rays would wait for the host.

Same results as `torch_rays`, which says what each computes. Rays march on a lattice [n, S] of equal steps, a row a ray:
its size follows from the box and the step alone, so that no shape depends on data.
"""

import math
from typing import NamedTuple

import nerfacc
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from quicksurf.geometry.rays import Rays
from quicksurf.kernels.reference.rays import ray_aabb_intersect

_diagonals = WeakTensorKeyDictionary()


class LatticeSteps(NamedTuple):
    """Steps k of all rays; those that are not `occupied` do not count."""

    t_starts: Float[Tensor, "n s"]
    t_ends: Float[Tensor, "n s"]
    t_mids: Float[Tensor, "n s"]
    occupied: Bool[Tensor, "n s"]


def traverse_lattice(
    rays: Rays,
    binaries: Bool[Tensor, "m x y z"],
    aabbs: Float[Tensor, "m 6"],
    step_size: float,
) -> LatticeSteps:
    """Return the steps of `torch_rays.traverse_grids`, unpacked: each starts at near + k · step_size.

    The march begins where a ray enters the largest box.
    """
    t_mins, t_maxs, hits = (values[:, -1:] for values in ray_aabb_intersect(*rays[:2], aabbs[-1:]))
    near, end = rays.near[:, None], torch.minimum(rays.far[:, None], t_maxs)
    skipped = ((t_mins - near) / step_size - 0.5).floor().clamp_min(0).nan_to_num(posinf=0)
    t_starts = near + step_size * (skipped + torch.arange(lattice_size(aabbs, step_size), device=near.device))
    t_mids = t_starts + step_size / 2
    occupied = hits & (t_mids < end) & (t_mids >= t_mins)
    occupied = occupied & _occupied_at(rays, t_mids, binaries, aabbs)
    return LatticeSteps(t_starts, torch.minimum(t_starts + step_size, end), t_mids, occupied)


def lattice_size(aabbs: Float[Tensor, "m 6"], step_size: float) -> int:
    """Return s: as many steps as cross the largest box, and one at each end."""
    return math.ceil(_diagonal(aabbs) / step_size) + 2


def accumulate_along_rays(
    weights: Float[Tensor, "m"], values: Float[Tensor, "m d"] | None, packed_info: Tensor
) -> Float[Tensor, "n d"]:
    """See `torch_rays.accumulate_along_rays`; differentiable in `weights` and `values`. nerfacc's own sum."""
    n_rays = len(packed_info)
    rays = torch.arange(n_rays, device=weights.device)
    rays = rays.repeat_interleave(packed_info[:, 1], output_size=len(weights))  # known: no wait for the host
    return nerfacc.accumulate_along_rays(weights, values, rays, n_rays)


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
    """See `torch_rays.adam_step`; the truth of `sound` is not read, but weighs the step."""
    rate = learning_rate / (1 - betas[0] ** step)
    root = (1 - betas[1] ** step) ** 0.5
    sound = torch.ones_like(grad[:1], dtype=torch.bool) if sound is None else sound
    grad = grad.where(sound, 0.0)
    moved = (((grad != 0) & sound) if skip_zero else sound).to(grad.dtype)
    first.lerp_(grad, moved * (1 - betas[0]))
    second.lerp_(grad * grad, moved * (1 - betas[1]))
    change = first * moved
    param.addcdiv_(change, second.sqrt().div_(root).add_(epsilon), value=-rate)


def _occupied_at(
    rays: Rays, ts: Float[Tensor, "n s"], binaries: Bool[Tensor, "m x y z"], aabbs: Float[Tensor, "m 6"]
) -> Bool[Tensor, "n s"]:
    """Whether the cell at depth t, of the smallest box around it, is occupied."""
    shape, found = binaries.shape[1:], torch.zeros_like(ts, dtype=torch.bool)
    outside = ~found
    coordinates = [rays.origins[:, k, None] + ts * rays.directions[:, k, None] for k in range(3)]
    for level, box in zip(binaries, aabbs.split(1), strict=True):
        index, inside = torch.zeros_like(ts, dtype=torch.long), torch.ones_like(ts, dtype=torch.bool)
        for k, x in enumerate(coordinates):
            low, high = box[0, k], box[0, 3 + k]
            cell = ((x - low) * (shape[k] / (high - low))).clamp(0, shape[k] - 1).long()
            index = index * shape[k] + cell
            inside = inside & (x > low) & (x < high)
        found = found | level.reshape(-1)[index] & inside & outside
        outside = outside & ~inside
    return found


def _diagonal(aabbs: Float[Tensor, "m 6"]) -> float:
    """Length of the largest box's diagonal; read once per tensor, because reading waits for the device."""
    if aabbs not in _diagonals:
        _diagonals[aabbs] = float((aabbs[-1, 3:] - aabbs[-1, :3]).norm())
    return _diagonals[aabbs]
