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


class AsyncScalar:
    """A number of the device, read without waiting for it: one step later, when it has long been on the host.

    What a step needs to know only roughly (which fraction of its rays was of use) or soon enough (whether its losses
    are numbers) is put here and read in the next step. On the CPU it is there at once.
    """

    def __init__(self) -> None:
        self._copy: Tensor | None = None
        self._copied: torch.cuda.Event | None = None

    def put(self, value: Tensor) -> None:
        """Send one number to the host, behind what the device does now."""
        self._copy = value.detach().to(torch.device("cpu"), non_blocking=True)  # to pinned memory
        if value.is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(value.device))

    def get(self) -> float | None:
        """Return the value, None before the first; wait only if it is still being copied."""
        if self._copied is not None:
            self._copied.synchronize()
        return None if self._copy is None else float(self._copy)
