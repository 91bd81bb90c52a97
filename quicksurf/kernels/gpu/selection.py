"""Selections of rows without waiting for the device: how many rows come out is known before.

A wait empties the device's queue, and the device idles until the host has filled it again. The number is that of the
last call at the same place, a step ago, made smaller where a few rows less do no harm, larger where a few more do none.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from quicksurf.kernels.selection import AsyncScalar, Selection

_LESS, _MORE = 0.97, 1.1  # of what is expected; a fraction of 2^13 random rays varies by a hundredth
_SPARE = 64  # rows; of few, a fraction says little


class AsyncSelection(Selection):
    """Selections that wait in the first call of a place only."""

    def __init__(self) -> None:
        self._fractions: dict[str, AsyncScalar] = {}

    def first_where(self, mask: Bool[Tensor, "n"], n_wanted: int) -> Int[Tensor, "k"]:
        """Select the first `n_wanted` rows that the mask holds, in turn again and again where it holds fewer.

        A mean over the rows stays one over those that the mask holds. Where it holds none, the last row is repeated.
        """
        return first_where(mask, n_wanted)

    def most_where(self, mask: Bool[Tensor, "n"], place: str | None = None) -> Int[Tensor, "k"]:
        """Select nearly all rows that the mask holds; exactly those in the first call of a place, which waits."""
        expected = self._expected(mask, place)
        if expected is None:
            return super().most_where(mask)
        return first_where(mask, int(_LESS * expected))

    def all_below(
        self, values: Float[Tensor, "n"], limit: float, place: str | None = None
    ) -> Int[Tensor, "k"]:
        """Select all rows of values below `limit` and a few more; without `place`, and the first time, wait."""
        expected = self._expected(values < limit, place)
        if expected is None:
            return super().all_below(values, limit)
        n_wanted = min(int(_MORE * expected) + _SPARE, len(values))
        return values.topk(n_wanted, largest=False, sorted=False).indices

    def packed_where(
        self, mask: Bool[Tensor, "m"], packed_info: Int[Tensor, "n 2"]
    ) -> tuple[Int[Tensor, "k"] | None, Int[Tensor, "n 2"]]:
        """Select all samples: a colour network is cheaper on a GPU than the wait for their number."""
        return None, packed_info

    def _expected(self, mask: Bool[Tensor, "n"], place: str | None) -> float | None:
        """Compute the number of rows by the last call's fraction; None before there was one."""
        if place is None:
            return None
        fraction = self._fractions.setdefault(place, AsyncScalar())
        last = fraction.get()
        if len(mask):
            fraction.put(mask.double().mean())
        return None if last is None else last * len(mask)


def first_where(mask: Bool[Tensor, "n"], n_wanted: int) -> Int[Tensor, "k"]:
    """See `AsyncSelection.first_where`."""
    n_wanted = min(n_wanted, len(mask))
    ranks = mask.cumsum(0)
    wanted = torch.arange(n_wanted, device=mask.device) % ranks[-1:].clamp_min(1) + 1
    return torch.searchsorted(ranks, wanted).clamp_max(len(mask) - 1)
