"""The choices of `exact_rows` without waiting for the device: how many rows come out is known before.

A wait empties the device's queue, and it idles until the host has filled it again. The number is that of the last
call, a step ago, made smaller where a few rows less do no harm, larger where a few more do none.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from quicksurf.kernels import exact_rows
from quicksurf.kernels.async_scalar import LateValue

_LESS, _MORE = 0.97, 1.1  # of what is expected; a share of 2^13 random rays varies by a hundredth
_SPARE = 64  # rows; of few, a share says little


def first_where(mask: Bool[Tensor, "n"], n_wanted: int) -> Int[Tensor, "k"]:
    """The first `n_wanted` rows that the mask holds, in turn again and again where it holds fewer.

    A mean over the rows stays one over those that the mask holds. Where it holds none, the last row is repeated.
    """
    n_wanted = min(n_wanted, len(mask))
    ranks = mask.cumsum(0)
    wanted = torch.arange(n_wanted, device=mask.device) % ranks[-1:].clamp_min(1) + 1
    return torch.searchsorted(ranks, wanted).clamp_max(len(mask) - 1)


def most_where(mask: Bool[Tensor, "n"], share: LateValue) -> Int[Tensor, "k"]:
    """See `exact_rows.most_where`; the first call of a place waits."""
    expected = _expected(mask, share)
    if expected is None:
        return exact_rows.most_where(mask, share)
    return first_where(mask, int(_LESS * expected))


def all_below(values: Float[Tensor, "n"], limit: float, share: LateValue | None = None) -> Int[Tensor, "k"]:
    """See `exact_rows.all_below`; waits without `share`, and in the first call of a place."""
    expected = None if share is None else _expected(values < limit, share)
    if expected is None:
        return exact_rows.all_below(values, limit)
    n_wanted = min(int(_MORE * expected) + _SPARE, len(values))
    return values.topk(n_wanted, largest=False, sorted=False).indices


def packed_where(
    mask: Bool[Tensor, "m"], packed_info: Int[Tensor, "n 2"]
) -> tuple[Int[Tensor, "k"] | None, Int[Tensor, "n 2"]]:
    """All samples: a colour network is cheaper on a GPU than the wait for their number."""
    return None, packed_info


def _expected(mask: Bool[Tensor, "n"], share: LateValue) -> float | None:
    """Rows that the mask should hold by the last call's share; None before there was one."""
    last = share.get()
    if len(mask):
        share.put(mask.double().mean())
    return None if last is None else last * len(mask)
