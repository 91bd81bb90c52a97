"""nerfacc on CPU tensors: this module is what nerfacc expects of its CUDA extension `_C`.

All of nerfacc's operations call an object `nerfacc.cuda._backend._C`, which without CUDA is None. `install` puts this
module in its place: `OccGridEstimator.sampling`, `traverse_grids`, `inclusive_prod`, `render_weight_from_alpha`,
`importance_sampling`, ... then work unchanged. Of quicksurf's methods nerf alone uses it. Names, argument order and
results are nerfacc's, so its documentation holds, with these differences, where nerfacc 0.5.3 is wrong or undefined:

- the gradient of a product does not divide by its inputs and is right at zeros, that is at alpha = 1;
- values that no chunk of `packed_info` holds give zeros; chunks that overlap or reach outside are a ValueError;
- `rays_mask` is obeyed with and without `over_allocate`;
- importance sampling with a tensor of `n_intervals_per_ray`, one interval, or a ray without edges has a result.

The lens undistortion of `nerfacc.cameras` is not here. Scans take float32 or float64, everything else float32.
"""

import sys
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from quicksurf.errors import BackendError
from quicksurf.geometry.rays import pack_counts
from quicksurf.kernels import _native

_BACKEND = "nerfacc.cuda._backend"
_MAX_VALUES = 2**28  # of one traversal: 4 GB of edges and samples


def install() -> None:
    """Let nerfacc's functions take CPU tensors in this process; a second call changes nothing.

    Where a CUDA device or nerfacc's extension is present, nerfacc is left as it is. nerfacc's own loader is not run: it
    starts to compile for minutes where it finds nvcc, and fails there without the rest of the toolkit.
    """
    if getattr(sys.modules.get(_BACKEND), "_C", None) is None and not torch.cuda.is_available():
        _install()


def make_ready(device: torch.device) -> None:
    """Let nerfacc's functions take tensors on `device` in this process: this module for a CPU, even beside a GPU.

    Raises:
        BackendError: if they need nerfacc's extension and there is none.
    """
    if device.type == "cpu":
        return _install()
    from nerfacc.cuda import _backend

    if _backend._C in (None, sys.modules[__name__]):
        raise BackendError(
            "nerfacc's CUDA extension is not there, and method nerf needs it on a GPU: install nerfacc with it, or use "
            "--device cpu"
        )


def _install() -> None:
    import nerfacc.pack
    import nerfacc.volrend

    loaded = sys.modules.get(_BACKEND)
    if loaded is None:
        loaded = sys.modules[_BACKEND] = ModuleType(_BACKEND, "Installed by quicksurf.")
    loaded._C = sys.modules[__name__]  # type: ignore[attr-defined]
    for module in (
        nerfacc,
        nerfacc.pack,
        nerfacc.volrend,
    ):  # nerfacc's own refuses CPU tensors by an explicit test
        module.pack_info = pack_info  # type: ignore[attr-defined]


@dataclass
class RaySegmentsSpec:
    """Edges or samples on rays: batched `vals` [n, m], or flat ones with chunks."""

    vals: Tensor | None = None
    chunk_starts: Tensor | None = None
    chunk_cnts: Tensor | None = None
    ray_indices: Tensor | None = None
    is_left: Tensor | None = None
    is_right: Tensor | None = None
    is_valid: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        """Shape of `vals`."""
        return torch.Size() if self.vals is None else self.vals.shape

    def chunks(self) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"], Float[Tensor, "m"]]:
        """Return starts, counts and flat values of either layout.

        Raises:
            ValueError: if `vals` or the chunks of flat ones are missing.
        """
        if self.vals is None:
            raise ValueError("vals are missing")
        vals = self.vals.detach()
        if vals.ndim > 1:
            size = vals.shape[-1]
            n_rays = vals.shape[:-1].numel()
            return torch.arange(n_rays) * size, torch.full((n_rays,), size), vals.reshape(-1)
        if self.chunk_starts is None or self.chunk_cnts is None:
            raise ValueError("flat vals need packed_info")
        return self.chunk_starts, self.chunk_cnts, vals


def pack_info(ray_indices: Int[Tensor, "m"], n_rays: int | None = None) -> Int[Tensor, "n 2"]:
    """Return first sample and number of samples of each ray, from sorted ray indices.

    Raises:
        ValueError: if an index is negative or not below `n_rays`.
    """
    low, high = (int(v) for v in ray_indices.aminmax()) if len(ray_indices) else (0, -1)
    n_rays = high + 1 if n_rays is None else n_rays
    if low < 0 or high >= n_rays:
        raise ValueError(f"ray_indices reach from {low} to {high}, expected 0 to {n_rays - 1}")
    return pack_counts(torch.bincount(ray_indices, minlength=n_rays))


def _sum(
    inclusive: bool, chunk_starts: Tensor, chunk_cnts: Tensor, inputs: Tensor, normalize: bool, backward: bool
) -> Tensor:
    outputs = torch.empty_like(inputs)
    _native.sum_scan(chunk_starts, chunk_cnts, inclusive, normalize, backward, inputs.detach(), outputs)
    return outputs


def _prod(inclusive: bool, chunk_starts: Tensor, chunk_cnts: Tensor, inputs: Tensor) -> Tensor:
    outputs = torch.empty_like(inputs)
    _native.prod_scan(chunk_starts, chunk_cnts, inclusive, inputs.detach(), outputs)
    return outputs


def _prod_backward(inclusive: bool, chunk_starts: Tensor, chunk_cnts: Tensor, *arrays: Tensor) -> Tensor:
    """Return the gradient by x, from x, y and the gradient by y; right at x = 0, see csrc/packed_scans.h."""
    grad_inputs = torch.empty_like(arrays[0])
    detached = (array.detach() for array in arrays)
    _native.prod_scan_backward(chunk_starts, chunk_cnts, inclusive, *detached, grad_inputs)  # type: ignore[call-overload]
    return grad_inputs


# In each chunk y_i = Σ_{j≤i} x_j or Σ_{j<i} x_j, from its back if `backward`; `normalize` divides by max(Σ x, 1e-10).
inclusive_sum, exclusive_sum = partial(_sum, True), partial(_sum, False)
# In each chunk y_i = Π_{j≤i} x_j or Π_{j<i} x_j: the transmittance of x = 1 − α.
inclusive_prod_forward, exclusive_prod_forward = partial(_prod, True), partial(_prod, False)
inclusive_prod_backward, exclusive_prod_backward = (
    partial(_prod_backward, True),
    partial(_prod_backward, False),
)


def ray_aabb_intersect(
    rays_o: Float[Tensor, "n 3"],
    rays_d: Float[Tensor, "n 3"],
    aabbs: Float[Tensor, "m 6"],
    near_plane: float,
    far_plane: float,
    miss_value: float,
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"], Bool[Tensor, "n m"]]:
    """Find where rays enter and leave boxes, clamped to [near, far]; whether they meet."""
    shape = rays_o.shape[0], aabbs.shape[0]
    t_mins, t_maxs, hits = torch.empty(shape), torch.empty(shape), torch.empty(shape, dtype=torch.bool)
    rays = rays_o.detach(), rays_d.detach()
    _native.intersect_boxes(*rays, aabbs.detach(), near_plane, far_plane, miss_value, t_mins, t_maxs, hits)
    return t_mins, t_maxs, hits


def traverse_grids(
    rays_o: Float[Tensor, "n 3"],
    rays_d: Float[Tensor, "n 3"],
    rays_mask: Bool[Tensor, "n"],
    binaries: Bool[Tensor, "m x y z"],
    aabbs: Float[Tensor, "m 6"],
    t_sorted: Float[Tensor, "n c"],
    t_indices: Int[Tensor, "n c"],
    hits: Bool[Tensor, "n m"],
    near_planes: Float[Tensor, "n"],
    far_planes: Float[Tensor, "n"],
    step_size: float,
    cone_angle: float,
    compute_intervals: bool,
    compute_samples: bool,
    compute_terminate_planes: bool,
    traverse_steps_limit: int,
    over_allocate: bool,
) -> tuple[RaySegmentsSpec, RaySegmentsSpec, Tensor | None]:
    """Return the steps of rays through the occupied cells of nested grids; see csrc/traversal.h.

    `over_allocate` walks once and leaves `traverse_steps_limit` places for each ray, of which `is_left`, `is_right` and
    `is_valid` mark the used ones; without it there are two walks and no gaps.

    Raises:
        ValueError: if a ray takes more than 2²⁰ steps, all rays more than 2²⁸, or an argument is out of range.
    """
    arrays = rays_o, rays_d, rays_mask, binaries, aabbs, hits, t_sorted, t_indices, near_planes, far_planes
    options = step_size, cone_angle, traverse_steps_limit
    walks = _native.Walks(*(array.detach() for array in arrays), *options)  # type: ignore[call-arg]
    n_edges, n_samples = (torch.empty(rays_o.shape[0], dtype=torch.long) for _ in range(2))
    if over_allocate:
        if traverse_steps_limit <= 0:
            raise ValueError("traverse_steps_limit must be positive when over_allocate is true")
        n_samples = rays_mask.long() * min(traverse_steps_limit, _MAX_VALUES + 1)
        n_edges = 2 * n_samples
    else:
        walks.count(n_edges, n_samples)
    intervals, samples, t_ends = _fill(walks, n_edges, n_samples)
    return (
        intervals if compute_intervals else RaySegmentsSpec(),
        samples if compute_samples else RaySegmentsSpec(),
        t_ends if compute_terminate_planes else None,
    )


def _fill(
    walks: _native.Walks, n_edges: Int[Tensor, "n"], n_samples: Int[Tensor, "n"]
) -> tuple[RaySegmentsSpec, RaySegmentsSpec, Float[Tensor, "n"]]:
    """Walk and write, with room for the given numbers; packed_info holds what was written."""
    room, written = (n_edges, n_samples), (torch.empty_like(n_edges), torch.empty_like(n_samples))
    totals = [int(counts.sum()) for counts in room]
    if max(totals) > _MAX_VALUES:
        raise ValueError(
            f"{max(totals)} edges of steps, at most {_MAX_VALUES} are possible: choose a larger step_size, a smaller "
            "traverse_steps_limit or fewer rays"
        )
    edges, mids = (
        (torch.zeros(n), torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.bool)) for n in totals
    )
    is_right, t_ends = torch.zeros_like(edges[2]), torch.empty(len(n_edges))
    starts = [counts.cumsum(0) - counts for counts in room]
    walks.fill(
        starts[0], room[0], *edges, is_right, written[0], starts[1], room[1], *mids, written[1], t_ends
    )
    starts = [counts.cumsum(0) - counts for counts in written]
    intervals = RaySegmentsSpec(edges[0], starts[0], written[0], edges[1], edges[2], is_right)
    return intervals, RaySegmentsSpec(mids[0], starts[1], written[1], mids[1], is_valid=mids[2]), t_ends


def importance_sampling(
    ray_segments: RaySegmentsSpec, cdfs: Tensor, n_intervals_per_ray: int | Tensor, stratified: bool
) -> tuple[RaySegmentsSpec, RaySegmentsSpec]:
    """Return new intervals and their samples by the inverse of `cdfs`, given at the edges of `ray_segments`.

    Batched results for an int, flat ones for a number per ray. Stratified sampling shifts all samples of a ray by one
    random number, as nerfacc's.

    Raises:
        ValueError: if a number of intervals is negative or all together are more than 2²⁸.
    """
    keys, shape = ray_segments.chunks(), ray_segments.shape[:-1]
    n_rays = len(keys[0])
    if not isinstance(n_intervals_per_ray, Tensor):
        size, n = n_intervals_per_ray, torch.full((n_rays,), n_intervals_per_ray)
        edge_ts, ts = _invert(keys, cdfs, n, n + 1, stratified)
        shape = shape or (n_rays,)
        return RaySegmentsSpec(edge_ts.reshape(*shape, size + 1)), RaySegmentsSpec(ts.reshape(*shape, size))
    n = n_intervals_per_ray.long().reshape(-1)
    n_edges = (n + 1) * (n > 0)
    edge_ts, ts = _invert(keys, cdfs, n, n_edges, stratified)
    rays, edge_starts = torch.arange(n_rays), n_edges.cumsum(0) - n_edges
    is_left, is_right = torch.ones(2, len(edge_ts), dtype=torch.bool)
    is_left[(edge_starts + n)[n > 0]] = False
    is_right[edge_starts[n > 0]] = False
    edge_rays = rays.repeat_interleave(n_edges)
    intervals = RaySegmentsSpec(edge_ts, edge_starts, n_edges, edge_rays, is_left, is_right)
    return intervals, RaySegmentsSpec(ts, n.cumsum(0) - n, n, rays.repeat_interleave(n))


def _invert(
    keys: tuple[Tensor, Tensor, Tensor], cdfs: Tensor, n: Tensor, n_edges: Tensor, stratified: bool
) -> tuple[Float[Tensor, "e"], Float[Tensor, "s"]]:
    """Edges and samples of all rays, one ray after another."""
    if len(n) and (int(n.min()) < 0 or int(n.max()) > _MAX_VALUES or int(n.sum()) > _MAX_VALUES):
        raise ValueError(f"n_intervals_per_ray must not be negative, nor more than {_MAX_VALUES} in all")
    biases = torch.rand(len(n)) if stratified else torch.full((len(n),), 0.5)
    ts, edge_ts = torch.empty(int(n.sum())), torch.empty(int(n_edges.sum()))
    room = n.cumsum(0) - n, n, ts, n_edges.cumsum(0) - n_edges, n_edges, edge_ts
    _native.importance_sampling(*keys, cdfs.detach().reshape(-1), biases, *room)
    return edge_ts, ts


def searchsorted(query: RaySegmentsSpec, key: RaySegmentsSpec) -> list[Tensor]:
    """Return each query's neighbours among its ray's keys: keys[left] ≤ query < keys[right], clamped."""
    queries = query.chunks()
    left, right = torch.empty(2, len(queries[2]), dtype=torch.long)
    _native.searchsorted(*key.chunks(), *queries, len(query.shape) > 1, left, right)
    return [left.reshape(query.shape), right.reshape(query.shape)]
