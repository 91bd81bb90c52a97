"""Which rows of a tensor a step continues with: exactly those that a mask holds, their number read from the tensor.

Right where reading costs nothing. `gpu.selection` keeps the same contract where the host would wait for the device.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Selection:
    """Selections of rows. A call site in a loop gives its `place`, whose last outcome may be used for the next."""

    def first_where(self, mask: Bool[Tensor, "n"], n_wanted: int) -> Int[Tensor, "k"]:
        """Select the first `n_wanted` rows that the mask holds, or all if there are fewer."""
        return torch.nonzero(mask)[:n_wanted, 0]

    def most_where(self, mask: Bool[Tensor, "n"], place: str | None = None) -> Int[Tensor, "k"]:
        """Select the rows that the mask holds; with a `place` a back end may leave out a few."""
        return torch.nonzero(mask)[:, 0]

    def all_below(
        self, values: Float[Tensor, "n"], limit: float, place: str | None = None
    ) -> Int[Tensor, "k"]:
        """Select all rows of values below `limit`; with a `place` a back end may add a few of the next larger ones."""
        return torch.nonzero(values < limit)[:, 0]

    def packed_where(
        self, mask: Bool[Tensor, "m"], packed_info: Int[Tensor, "n 2"]
    ) -> tuple[Int[Tensor, "k"] | None, Int[Tensor, "n 2"]]:
        """Select the samples that the mask holds, with their `packed_info`; None stands for all samples."""
        begins, counts = packed_info.unbind(1)
        before = torch.nn.functional.pad(mask.long().cumsum(0), (1, 0))
        firsts = before[begins]
        packed = torch.stack([firsts, before[begins + counts] - firsts], -1)
        return torch.nonzero(mask)[:, 0], packed
