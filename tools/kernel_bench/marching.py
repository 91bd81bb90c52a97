"""Rows of what walks through the occupancy grid: the surface search with its samples, and the traversal.

Rays run from cameras through a shell of occupied cells around the default field's first surface, a ball. The search is
held against the rate at which the network alone answers; no limit bounds a traversal but the steps that it writes.
"""

from typing import NamedTuple

import nerfacc
import torch
from jaxtyping import Bool, Float
from tolerances import BOUNDARY
from torch import Tensor

from kernel_bench import counts, limits
from kernel_bench.check import Mismatch, same
from kernel_bench.kernel import Kernel
from quicksurf import kernels as seam
from quicksurf.config import Config
from quicksurf.fields.surface import INITIAL_RADIUS, SurfaceField
from quicksurf.geometry.rays import Interval, Rays, Samples, Surface, unit_ball_span
from quicksurf.kernels.reference import rays as torch_rays

_N_RAYS = 1 << 14
_CHECK_RAYS = 64  # the twins are loops in Python
_TWIN_RAYS = 4096
_STEP = 0.02
_SHELL = 0.15  # a dozen steps on a ray before it meets the ball
_HALF_WIDTH = 0.03


def kernels() -> list[Kernel]:
    """All rows of this file."""
    march = _march()
    return [_search(march), _traverse(march)]


class March(NamedTuple):
    """Rays through the shell of occupied cells."""

    rays: Rays
    binaries: Bool[Tensor, "1 r r r"]
    aabbs: Float[Tensor, "1 6"]

    def first(self, n: int) -> "March":
        """The same with the first `n` rays only."""
        return self._replace(rays=Rays(*(part[:n] for part in self.rays)))

    def geometry(self) -> tuple:
        """Arguments of traverse_grids."""
        rays = self.rays
        return rays.origins, rays.directions, self.binaries, self.aabbs, rays.near, rays.far, _STEP


def _march() -> March:
    generator = torch.Generator().manual_seed(0)
    origins = torch.nn.functional.normalize(torch.randn(_N_RAYS, 3, generator=generator), dim=-1) * 3
    targets = 1.2 * (torch.rand(_N_RAYS, 3, generator=generator) - 0.5)
    directions = torch.nn.functional.normalize(targets - origins, dim=-1)
    rays = Rays(origins, directions, *unit_ball_span(origins, directions))
    resolution = Config().render.grid_resolution
    middles = (torch.arange(resolution) + 0.5) * (2 / resolution) - 1
    distance = torch.stack(torch.meshgrid(middles, middles, middles, indexing="ij")).norm(dim=0)
    binaries = ((distance - INITIAL_RADIUS).abs() < _SHELL)[None]
    return March(rays, binaries, torch.tensor([[-1.0, -1, -1, 1, 1, 1]]))


def _search(march: March) -> Kernel:
    """The search and its samples, beside as many points of the same kind evaluated by the network alone."""
    fields = {name: SurfaceField(Config().model, seam.load(name), 0) for name in ("cpu", "torch")}
    n_evaluations = _sample("cpu", fields, march)[0].n_evaluations
    steps = torch_rays.traverse_grids(*march.first(_TWIN_RAYS).geometry())
    points = march.rays.at(steps.ray_indices, steps.t_mids)[:n_evaluations]
    x = torch.cat([points.T, 0.5 * points.T + 0.5]).T

    @torch.no_grad()
    def network() -> Tensor:
        return fields["cpu"].geometry.network(x)

    return Kernel(
        "surface search and samples",
        lambda: _sample("cpu", fields, march),
        n_evaluations,
        "M evaluations/s",
        1e6,
        lambda: _check_search(march.first(_CHECK_RAYS), fields),
        rivals={"fraction of the network's own rate": (network, len(x) / n_evaluations)},
    )


def _sample(name: str, fields: dict[str, SurfaceField], march: March) -> tuple[Surface, Samples]:
    """One back end's search and samples, with the default numbers and a jitter that depends on nothing."""
    unisurf = Config().unisurf
    interval = Interval(_HALF_WIDTH, 0.01, unisurf.n_interval_samples, unisurf.n_front_samples)
    n_samples = interval.n_interval + interval.n_front
    jitter = torch.linspace(0.1, 0.9, len(march.rays.near))[:, None].expand(-1, n_samples).contiguous()
    grid = march.binaries, march.aabbs, _STEP
    return seam.load(name).unisurf.sample_surface(
        fields[name].geometry.searched, march.rays, *grid, interval, jitter
    )


def _check_search(march: March, fields: dict[str, SurfaceField]) -> None:
    (found, samples), (expected, expected_samples) = (
        _sample(name, fields, march) for name in ("cpu", "torch")
    )
    if not torch.equal(found.hits, expected.hits):
        raise Mismatch("surface search: other rays hit than in the torch twin")
    if not torch.equal(samples.packed_info, expected_samples.packed_info):
        raise Mismatch("surface search: other numbers of samples than in the torch twin")
    same("surface search", found.ts, expected.ts, BOUNDARY)
    same("samples, depths", samples.ts, expected_samples.ts, BOUNDARY)
    same("samples, lengths", samples.deltas, expected_samples.deltas, BOUNDARY)


def _traverse(march: March) -> Kernel:
    n_steps = len(nerfacc.traverse_grids(*march.geometry())[1].vals)
    return Kernel(
        "nerfacc.traverse_grids",
        lambda: nerfacc.traverse_grids(*march.geometry()),
        n_steps,
        "M steps/s",
        1e6,
        lambda: _check_traverse(march.first(_CHECK_RAYS)),
        limits=((limits.copy(counts.TRAVERSE * n_steps), counts.TRAVERSE * n_steps),),
    )


def _check_traverse(march: March) -> None:
    """As many steps as the twin; nerfacc begins them where a ray enters a stretch of cells, so ends may differ."""
    _, samples, _ = nerfacc.traverse_grids(*march.geometry())
    expected = torch_rays.traverse_grids(*march.geometry())
    difference = (samples.packed_info[:, 1] - expected.packed_info[:, 1]).abs()
    if int(difference.max()) > 2:
        raise Mismatch(
            f"traverse_grids: a ray has {int(difference.max())} steps more or less than in the twin"
        )
