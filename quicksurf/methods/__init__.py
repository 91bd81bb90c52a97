"""Rendering methods: how rays are sampled, how samples become weights, and which losses shape the geometry.

A method is a value. Colour loss, masks, patches, camera refinement, the grid, the optimiser and the loop are common to
all methods and know none of them.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quicksurf.config import Config
from quicksurf.errors import ConfigError
from quicksurf.fields.grid import OccupancyGrid
from quicksurf.fields.surface import Geometry
from quicksurf.geometry.rays import Interval, Rays, Samples, Surface
from quicksurf.kernels import Backend


@runtime_checkable
class Schedule(Protocol):
    """What every method decides for one moment of a fit; each has a NamedTuple with more of its own."""

    @property
    def sharpness(self) -> float:
        """κ in o = sigmoid(κ l)."""
        ...

    @property
    def interval(self) -> Interval:
        """Where samples are placed around the surface."""
        ...

    @property
    def query_noise(self) -> float:
        """Standard deviation of the noise on query points in training, in radii of the region."""
        ...

    @property
    def geometry_rate(self) -> float:
        """Factor of the geometry's learning rate."""
        ...


@runtime_checkable
class Method(Protocol):
    """One way to render a field and to shape it; implementations are stateless and inherit what they leave open."""

    name: str
    reads_normals: bool = True
    """Whether colours see the shading normal."""
    without_masks: str | None = None
    """What a user has to expect where there are no masks."""

    def schedule(self, progress: float) -> Any:
        """Compute the method's Schedule at `progress`, the elapsed fraction of the budget in [0, 1]."""
        ...

    def sample(
        self,
        ops: Backend,
        geometry: Geometry,
        grid: OccupancyGrid,
        rays: Rays,
        schedule: Any,
        generator: torch.Generator | None,
    ) -> tuple[Samples, Surface]:
        """Choose the samples of each ray; in the middle of the strata without a generator."""
        ...

    def points(self, geometry: Geometry, rays: Rays, samples: Samples) -> Float[Tensor, "m 3"]:
        """Compute the samples' points; a method may make them differentiable in the geometry."""
        return rays.at(samples.ray_indices, samples.ts)

    def weights(
        self, ops: Backend, logits: Float[Tensor, "m"], samples: Samples, schedule: Any
    ) -> tuple[Float[Tensor, "m"], Float[Tensor, "n"]]:
        """Compute the samples' weights and the rays' opacities; differentiable in `logits`."""
        ...

    def occupancy(self, logits: Float[Tensor, "*n"], schedule: Any) -> Float[Tensor, "*n"]:
        """Compute the occupancy in [0, 1] of points, for the grid and for queries."""
        ...

    def surface_logit(self, level: float) -> float:
        """Return the logit of the surface that is extracted at `level`, 0 for the method's own.

        Raises:
            ConfigError: if the method has no other.
        """
        if level:
            raise ConfigError(f"the surface of method {self.name} has no level: --level is of nerf's density")
        return 0.0

    def probe(
        self, geometry: Geometry, points: Float[Tensor, "n 3"], uniform: Callable[[torch.Size], Tensor]
    ) -> Float[Tensor, "p 3"]:
        """Choose the points whose logits `losses` looks at; the taps around `points`, at the surface, come first.

        Args:
            uniform: random numbers in [0, 1) of a shape.
        """
        return points[:0]

    def losses(
        self, geometry: Geometry, probed: Float[Tensor, "p"], unconfirmed: float, masked: bool
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the weighted losses on the geometry, by name.

        Args:
            probed: logits at the points of `probe`.
            unconfirmed: fraction in [0, 1] of the surface that the photos' patches do not confirm.
            masked: the fit has masks.
        """
        return {}

    def ray_losses(
        self,
        logits: Float[Tensor, "m"],
        samples: Samples,
        inside: Float[Tensor, "n"] | None,
        schedule: Any,
        weights: Float[Tensor, "m"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the weighted losses on what was rendered, by name.

        Args:
            inside: of rays, 1 on the object, 0 beside it, 1/2 where no mask says so; None without masks.
        """
        return {}

    def taught(self, hits: Bool[Tensor, "n"], inside: Float[Tensor, "n"] | None) -> Bool[Tensor, "n"] | None:
        """Return the rays whose colour teaches, given which meet the surface; None for all."""
        return None


def load(config: Config) -> Method:
    """Make the method that `config` asks for."""
    from quicksurf.methods.idr import Idr
    from quicksurf.methods.nerf import Nerf
    from quicksurf.methods.paper import Paper
    from quicksurf.methods.unisurf import Unisurf

    cell = 2 / config.render.grid_resolution
    makers: dict[str, Callable[[], Method]] = {
        "unisurf": lambda: Unisurf(config.unisurf, cell),
        "paper": lambda: Paper(config.unisurf, cell),
        "nerf": lambda: Nerf(config.nerf.distortion_weight),
        "idr": lambda: Idr(config.idr, cell),
    }
    return makers[config.train.method]()
