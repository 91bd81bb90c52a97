"""What the occupancy grid saves: evaluations of the geometry a ray takes, with grids of several sizes and with none.

    python tools/bench_search.py RUN [RUN ...]                   # fitted runs; the grids are probed from their fields

Rays go through random pixels of the held-out views. The march's step is the same for all grids, so that they differ in
what they skip alone. UNISURF evaluates 256 points on every ray to find its surface (Oechsle et al. 2021, section 3.4),
and as many samples again. Times are medians of five rounds in which all grids take turns, as ratios to no grid.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))

from quicksurf.app.run.folder import open_run
from quicksurf.errors import QuicksurfError
from quicksurf.fields.grid import OccupancyGrid
from quicksurf.geometry.rays import Rays, Surface
from quicksurf.geometry.region import roi_rays
from quicksurf.model import TrainedModel

_RESOLUTIONS = 32, 64, 96, 128, 192
_ROUNDS = 5
_SAME = 1e-3  # radii: surfaces nearer to one another than this are the same


class Row(NamedTuple):
    """One grid on one run."""

    grid: str
    occupied: float
    """Fraction of the cells."""
    search: float
    """Evaluations a ray takes to find its surface."""
    samples: float
    """Samples a ray is rendered with."""
    same: float
    """Fraction of the rays whose surface is where it is found without a grid."""
    time: float
    """Of search and sampling, beside the time without a grid."""


def main() -> int:
    """Print a table for each run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a finished fit")
    parser.add_argument("--rays", type=int, default=20_000, help="rays (%(default)s)")
    options = parser.parse_args()
    for path in options.runs:
        try:
            result = open_run(path).model()
        except QuicksurfError as error:
            print(f"bench_search: {error}", file=sys.stderr)
            return error.exit_code
        print(
            f"{path.name}: {options.rays:,} rays of held-out views, step {result.schedule().march_step:.4f}"
        )
        for row in compare(result, held_out_rays(result, options.rays)):
            print(
                f"  grid {row.grid:>4}  occupied {row.occupied:6.2%}  search {row.search:6.1f}"
                f"  samples {row.samples:5.1f}  same surface {row.same:7.2%}  time {row.time:.2f}"
            )
    return 0


def held_out_rays(result: TrainedModel, n_rays: int) -> Rays:
    """Rays through random pixels of the views that the fit did not see; of all, where it saw all."""
    generator = torch.Generator().manual_seed(0)
    views = torch.from_numpy(result.held_out.nonzero()[0] if result.held_out.any() else ~result.held_out)
    index = views[torch.randint(len(views), (n_rays,), generator=generator)]
    pixels = torch.rand(n_rays, 2, generator=generator) * result.cameras.sizes[index]
    device = result.device
    return roi_rays(result.roi_cameras().on(device), index.to(device), pixels.float().to(device))


@torch.no_grad()
def compare(result: TrainedModel, rays: Rays) -> list[Row]:
    """Every grid on the same rays; without a grid first."""
    grids = [_full(result), *(_probed(result, resolution) for resolution in _RESOLUTIONS)]
    names = ["none", *map(str, _RESOLUTIONS)]
    seconds: list[list[float]] = [[] for _ in grids]
    found: list[tuple[Surface, int]] = []
    for _ in range(_ROUNDS):
        found = []
        for times, grid in zip(seconds, grids, strict=True):
            begin = time.perf_counter()
            found.append(_sample(result, grid, rays))
            times.append(time.perf_counter() - begin)
    whole, n_rays = found[0][0], len(rays.near)
    medians = [statistics.median(times) for times in seconds]
    return [
        Row(
            name,
            float(grid.occupied.float().mean()),
            surface.n_evaluations / n_rays,
            n_samples / n_rays,
            _share_alike(surface, whole),
            median / medians[0],
        )
        for name, grid, (surface, n_samples), median in zip(names, grids, found, medians, strict=True)
    ]


def _sample(result: TrainedModel, grid: OccupancyGrid, rays: Rays) -> tuple[Surface, int]:
    renderer = result.renderer
    samples, surface = renderer.method.sample(
        renderer.backend, result.field.geometry, grid, rays, result.schedule(), None
    )
    return surface, len(samples.ts)


def _full(result: TrainedModel) -> OccupancyGrid:
    """A grid that skips nothing."""
    return OccupancyGrid(max(_RESOLUTIONS), result.config.render.grid_threshold, result.device)


def _probed(result: TrainedModel, resolution: int) -> OccupancyGrid:
    """A grid of another size on the same field, with several probes a cell as a fit makes."""
    grid = OccupancyGrid(resolution, result.config.render.grid_threshold, result.device)
    for seed in range(4):
        method, schedule = result.renderer.method, result.schedule()
        grid.update(0, result.field.logits, lambda logits: method.occupancy(logits, schedule), seed)  # noqa: B023
    return grid


def _share_alike(one: Surface, other: Surface) -> float:
    """Fraction of rays on which both find the same, or neither finds any."""
    near = (one.ts - other.ts).abs() < _SAME
    return float(torch.where(one.hits & other.hits, near, one.hits == other.hits).float().mean())


if __name__ == "__main__":
    sys.exit(main())
