"""A number of the device, read without waiting for it: one step later, when it has long been on the host.

What a step needs to know of the device only roughly (which fraction of its rays was of use) or soon enough (whether its
losses are numbers) is put here and read in the next step. On the CPU it is there at once.
"""

import torch
from torch import Tensor


class AsyncScalar:
    """The newest value that was put."""

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
