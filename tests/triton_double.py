"""A double of Triton's ray kernels for machines without a GPU: the torch twin computes each launch.

What lies around the launches, `gpu.search`, is the package's own. On a pretended device a launch is one operation:
nothing inside it counts as a wait, as the device alone reads what it reads.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from quicksurf.geometry.rays import Interval, Rays, Steps, Surface, pack_counts
from quicksurf.kernels.gpu.search import LatticeSteps, RayOps, accumulate_along_rays, lattice_size, sample_by
from quicksurf.kernels.reference import rays as torch_rays
from quicksurf.kernels.reference import unisurf as torch_unisurf

__all__ = ["accumulate_along_rays", "adam_step", "render_weight_from_logits", "sample_surface"]


@contextmanager
def launch() -> Iterator[None]:
    """Compute unseen by a pretended device; outputs are made before, so that it knows whose they are."""
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        yield


def traverse_lattice(rays: Rays, binaries: Tensor, aabbs: Tensor, step_size: float) -> LatticeSteps:
    shape = len(rays.near), lattice_size(aabbs, step_size)
    starts, ends, mids = (rays.near.new_empty(shape) for _ in range(3))
    occupied = torch.zeros(shape, dtype=torch.bool, device=rays.near.device)
    with launch():
        steps = torch_rays.traverse_grids(*rays[:2], binaries, aabbs, *rays[2:], step_size)
        entry = torch_rays.ray_aabb_intersect(*rays[:2], aabbs[-1:])[0][:, 0]
        skipped = ((entry - rays.near) / step_size - 0.5).floor().clamp_min(0).nan_to_num(posinf=0)
        starts[:] = rays.near[:, None] + step_size * (skipped[:, None] + torch.arange(shape[1]))
        mids[:], ends[:] = starts + step_size / 2, starts + step_size
        of = steps.ray_indices
        k = ((steps.t_starts - rays.near[of]) / step_size - skipped[of]).round().long().clamp_min(0)
        occupied[of, k], ends[of, k] = True, steps.t_ends
    return LatticeSteps(starts, ends, mids, occupied)


def interval_samples(
    steps: LatticeSteps,
    found: Surface,
    half_widths: Tensor,
    slopes: Tensor,
    interval: Interval,
    jitter: Tensor,
) -> tuple[Tensor, Tensor]:
    """Each sample in its slot: those in front, those of the interval; without a surface all over the ray."""
    ts, deltas = torch.zeros_like(jitter), torch.full_like(jitter, -1.0)
    with launch():
        of = torch.nonzero(steps.occupied)[:, 0]
        ends = (steps.t_starts[steps.occupied], steps.t_ends[steps.occupied])
        packed = Steps(*ends, of, pack_counts(steps.occupied.sum(1)))
        n, hits = interval.n_front, found.hits
        for window, columns, chosen in (
            (interval, slice(None), ~hits),
            (interval._replace(n_interval=0), slice(0, n), hits),
            (interval._replace(n_front=0), slice(n, None), hits),
        ):
            known = packed, found, half_widths, slopes, window, jitter[:, columns]
            samples = torch_unisurf.interval_samples(*known)
            rows = torch.nonzero(chosen & (samples.packed_info[:, 1] > 0))[:, 0]
            mine, shape = chosen[samples.ray_indices], (len(rows), jitter[:, columns].shape[1])
            ts[rows, columns] = samples.ts[mine].reshape(shape)
            deltas[rows, columns] = samples.deltas[mine].reshape(shape)
    return ts, deltas


def render_weight_from_logits(
    logits: Tensor, deltas: Tensor, packed_info: Tensor, sharpness: float, opacity: str
) -> tuple[Tensor, Tensor]:
    return _Weights.apply(logits, deltas, packed_info, sharpness, opacity)  # type: ignore[return-value]


class _Weights(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, deltas: Tensor, packed_info: Tensor, *options: Any
    ) -> tuple[Tensor, Tensor]:
        outputs = torch.empty_like(logits), logits.new_empty(len(packed_info))
        with launch(), torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            real = leaf.masked_fill(deltas < 0, -torch.inf), deltas.clamp_min(0)
            found = torch_unisurf.render_weight_from_logits(*real, packed_info, *options)
            for output, value in zip(outputs, found, strict=True):
                output.copy_(value.detach())
        ctx.graph = leaf, found
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        leaf, found = ctx.graph
        grad = torch.empty_like(leaf)
        with launch():
            grad.copy_(torch.autograd.grad(found, leaf, grads)[0])
        return grad, None, None, None, None


def adam_step(*tensors: Tensor, **options: Any) -> None:
    with launch():
        torch_rays.adam_step(*tensors, **options)


sample_surface = partial(sample_by, RayOps(traverse_lattice, torch_unisurf.secant, interval_samples))
