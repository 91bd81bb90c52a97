"""Which parts of the region of interest can hold the surface: nerfacc's occupancy grid around the unit ball.

The value of a cell is the largest occupancy that the field can have in it, o = sigmoid(κ (l + m)) with m a cell's
diagonal: the way to a far corner is half of it, and l may rise twice as fast as a distance. Steeper rises are near the
surface, where one probe or another meets them.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from nerfacc import OccGridEstimator
from torch import Tensor

Values = Callable[[Tensor], Float[Tensor, "n"]]

_SLOPE = 2.0  # of the logit across a cell
_UPDATE_EVERY = 32  # steps; an update costs as much as three of them
_DECAY = 0.8  # a cell that a surface left is forgotten after a score of updates
_EVERY_CELL_STEPS = 96  # in the first steps all cells are probed, later a quarter and the occupied ones


class OccupancyGrid:
    """nerfacc's estimator over the box around the unit ball."""

    def __init__(self, resolution: int, threshold: float, device: torch.device) -> None:
        self.estimator = OccGridEstimator([-1, -1, -1, 1, 1, 1], resolution, levels=1).to(device)
        self.estimator.binaries.fill_(True)
        self.threshold = threshold
        self.cell = 2 / resolution
        self._room: Bool[Tensor, "r r r"] | None = None

    @property
    def occupied(self) -> Bool[Tensor, "r r r"]:
        """Cells that may hold the surface or lie inside it."""
        binaries = self.estimator.get_buffer("binaries")
        return binaries[0]

    @property
    def aabb(self) -> Float[Tensor, "6"]:
        """The box of the grid."""
        return self.estimator.get_buffer("aabbs")[0]

    def restrict(self, room: Bool[Tensor, "r r r"]) -> None:
        """Keep all cells but those of `room` empty, now and in every update, besides those that are kept already."""
        room = room.to(self.estimator.binaries.device)
        self._room = room if self._room is None else self._room & room
        self.estimator.binaries[0] &= self._room

    def update(self, step: int, logits: Values, occupancy_of: Values, seed: int = 0) -> None:
        """Probe the field now and then, at places that `seed` and `step` decide; every cell at step 0.

        Args:
            logits: of points.
            occupancy_of: the method's, of logits.
        """
        if step % _UPDATE_EVERY:
            return
        reach = math.sqrt(3) / 2 * self.cell

        def occupancy(points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 1"]:
            inside = points.square().sum(-1) < (1 + reach) ** 2
            if self._room is not None:
                cells = ((points + 1) / self.cell).long().clamp(0, len(self._room) - 1)
                inside &= self._room[cells.unbind(-1)]
            return (occupancy_of(logits(points) + _SLOPE * reach) * inside.float())[:, None]

        with torch.random.fork_rng(devices=[]):  # the estimator draws from torch's global generator
            torch.manual_seed(seed + step)
            self.estimator.update_every_n_steps(
                step,
                occupancy,
                occ_thre=self.threshold,
                ema_decay=_DECAY,
                warmup_steps=_EVERY_CELL_STEPS,
                n=_UPDATE_EVERY,
            )
