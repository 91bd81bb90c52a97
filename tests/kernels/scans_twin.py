"""What nerfacc's operations compute on CPU tensors, in plain torch and Python: the specification.

Of csrc/packed_scans.h, importance.h and traversal.h. Differentiable by torch's own autograd where nerfacc has a
backward. Boxes have their twin in `quicksurf.kernels.reference.rays`.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Scan = Callable[[Float[Tensor, "m"]], Float[Tensor, "m"]]


def inclusive_sum(x: Float[Tensor, "m"]) -> Float[Tensor, "m"]:
    """Compute y_i = Σ_{j≤i} x_j."""
    return x.cumsum(0)


def exclusive_sum(x: Float[Tensor, "m"]) -> Float[Tensor, "m"]:
    """Compute y_i = Σ_{j<i} x_j."""
    return torch.cat([x.new_zeros(1), x[:-1]]).cumsum(0)


def inclusive_prod(x: Float[Tensor, "m"]) -> Float[Tensor, "m"]:
    """Compute y_i = Π_{j≤i} x_j; torch's gradient of cumprod is right at zeros."""
    return x.cumprod(0)


def exclusive_prod(x: Float[Tensor, "m"]) -> Float[Tensor, "m"]:
    """Compute y_i = Π_{j<i} x_j."""
    return torch.cat([x.new_ones(1), x[:-1]]).cumprod(0)


def scan_chunks(
    scan: Scan, inputs: Float[Tensor, "m"], packed_info: Int[Tensor, "n 2"], normalize: bool = False
) -> Float[Tensor, "m"]:
    """Return `scan` in each chunk, over max(Σ x, 1e-10) if `normalize`; zero outside of all chunks."""
    outputs = torch.zeros_like(inputs)
    for start, count in packed_info.tolist():
        if count == 0:
            continue
        indices = torch.arange(start, start + count)
        chunk = inputs[indices]
        scale = chunk.sum().clamp_min(1e-10) if normalize else 1
        outputs = outputs.index_put((indices,), scan(chunk) / scale)
    return outputs


def importance_sampling(
    keys: Float[Tensor, "k"], cdf: Float[Tensor, "k"], n: int, bias: float = 0.5
) -> tuple[Float[Tensor, "e"], Float[Tensor, "n"]]:
    """Return the edges and samples of one ray: the inverse of the interpolated `cdf` in n strata of its range."""
    if n == 0 or len(keys) == 0:
        return torch.zeros(n + 1), torch.zeros(n)
    samples = []
    for i in range(n):
        u = float(cdf[0]) + (i + bias) * (float(cdf[-1]) - float(cdf[0])) / n
        above = int((cdf[:-1] <= u).sum())
        low, high = max(above - 1, 0), min(above, len(keys) - 1)
        weight = float(cdf[high] - cdf[low])
        fraction = (u - float(cdf[low])) / weight if weight >= 1e-10 else 0.5
        samples.append(float(keys[low]) + fraction * float(keys[high] - keys[low]))
    ts = torch.tensor(samples)
    if n == 1:
        return keys[[0, -1]], ts
    first, last = ts[0] - (ts[1] - ts[0]) / 2, ts[-1] + (ts[-1] - ts[-2]) / 2
    ends = torch.stack([torch.maximum(first, keys[0]), torch.minimum(last, keys[-1])])
    return torch.cat([ends[:1], (ts[1:] + ts[:-1]) / 2, ends[1:]]), ts


def searchsorted(keys: Float[Tensor, "k"], queries: Float[Tensor, "q"]) -> Int[Tensor, "2 q"]:
    """Return the neighbours of each query on one ray with keys, clamped to them."""
    above = (keys[None, :-1] <= queries[:, None]).sum(1)
    return torch.stack([(above - 1).clamp_min(0), above.clamp_max(len(keys) - 1)])


def ray_cells(
    origin: Float[Tensor, "3"],
    direction: Float[Tensor, "3"],
    binaries: Bool[Tensor, "m x y z"],
    aabbs: Float[Tensor, "m 6"],
    near: float,
    far: float,
) -> list[tuple[float, float, bool]]:
    """Return the cells that a ray crosses between near and far: begin, end, occupied. The smallest of the nested grids
    decides.
    """
    o, d, boxes = origin.double(), direction.double(), aabbs.double()
    resolution = torch.tensor(binaries.shape[1:])

    def cuts(planes: Tensor, low: float, high: float) -> list[float]:
        ts = ((planes - o) / d).flatten()
        return [low, *sorted(set(ts[(ts > low) & (ts < high)].tolist())), high]

    # Begin, end and deciding grid; neighbours with the same grid are joined.
    stretches: list[tuple[float, float, int]] = []
    outer = cuts(boxes.reshape(-1, 3), near, far)
    for low, high in pairwise(outer):
        middle = o + d * (low + high) / 2
        inside = ((middle > boxes[:, :3]) & (middle < boxes[:, 3:])).all(1)
        level = int(inside.int().argmax()) if bool(inside.any()) else -1
        if stretches and stretches[-1][2] == level:
            low = stretches.pop()[0]
        stretches.append((low, high, level))
    cells = []
    for low, high, level in stretches:
        if level < 0:
            continue
        size = (boxes[level, 3:] - boxes[level, :3]) / resolution
        inner = cuts(boxes[level, :3] + torch.arange(int(resolution.max()) + 1)[:, None] * size, low, high)
        for begin, end in pairwise(inner):
            index = ((o + d * (begin + end) / 2 - boxes[level, :3]) / size).long()
            index = torch.minimum(index.clamp_min(0), resolution - 1)
            cells.append((begin, end, bool(binaries[level][tuple(index)])))
    return cells


def march_cells(
    cells: list[tuple[float, float, bool]], near: float, step_size: float, cone_angle: float, limit: int = 0
) -> tuple[list[tuple[float, float]], float]:
    """Return nerfacc's steps of one ray: those whose middle lies in an occupied cell; and where the march stops.

    dt = max(step_size, t · cone_angle); an empty cell is left with the dt of its beginning. One step per cell for
    step_size <= 0.
    """
    steps: list[tuple[float, float]] = []
    t = near

    def advance(to: float) -> float:
        if step_size <= 0:
            return to
        dt = max(step_size, t * cone_angle)
        return t + max(0, math.ceil((to - t) / dt - 0.5)) * dt

    for begin, end, occupied in cells:
        if limit and len(steps) >= limit:
            break
        t = advance(begin)
        while occupied and not (limit and len(steps) >= limit):
            after = t + max(step_size, t * cone_angle) if step_size > 0 else end
            if (t + after) / 2 >= end:
                break
            steps.append((t, after))
            t = after
        if not occupied:
            t = advance(end)
    return steps, t
