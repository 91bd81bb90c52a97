"""Which rows a step goes on with: exactly those that a mask holds, their number read from the tensor.

Right where reading costs nothing. `steady_rows` keeps the same contract where the host would wait for it.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from quicksurf.kernels.async_scalar import LateValue


def first_where(mask: Bool[Tensor, "n"], n_wanted: int) -> Int[Tensor, "k"]:
    """The first `n_wanted` rows that the mask holds, or all if there are fewer."""
    return torch.nonzero(mask)[:n_wanted, 0]


def most_where(mask: Bool[Tensor, "n"], share: LateValue) -> Int[Tensor, "k"]:
    """Rows that the mask holds: all of them, or nearly all.

    Args:
        share: what a back end remembers of the share of rows that the mask held in the last call of this place.
    """
    return torch.nonzero(mask)[:, 0]


def all_below(values: Float[Tensor, "n"], limit: float, share: LateValue | None = None) -> Int[Tensor, "k"]:
    """Rows of values below `limit`, and perhaps some more; with `share` perhaps without some of the largest."""
    return torch.nonzero(values < limit)[:, 0]


def packed_where(
    mask: Bool[Tensor, "m"], packed_info: Int[Tensor, "n 2"]
) -> tuple[Int[Tensor, "k"] | None, Int[Tensor, "n 2"]]:
    """Samples that the mask holds and perhaps others, and their `packed_info`; None stands for all."""
    begins, counts = packed_info.unbind(1)
    before = torch.nn.functional.pad(mask.long().cumsum(0), (1, 0))
    firsts = before[begins]
    packed = torch.stack([firsts, before[begins + counts] - firsts], -1)
    return torch.nonzero(mask)[:, 0], packed
