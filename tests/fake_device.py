"""A trainer moved to a CUDA device that is not there: torch's fake tensors have shapes, types and devices, no values.

An operation on tensors of two devices is refused as a GPU would refuse it, with CUDA's own rules for each operation,
and so is every look at a value.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from quicksurf import backends
from quicksurf.backends import torch_networks

DEVICE = torch.device("cuda", 0)
_GENERATED = "rand", "randn", "randint"


def backend() -> backends.Backend:
    """What runs on a GPU without Triton and tiny-cuda-nn."""
    return backends.on_device("fake", DEVICE, "for tests", torch_networks.run_network)


@contextmanager
def on_fake_device(trainer: Any, host: torch.device) -> Iterator[Any]:
    """A copy of a trainer of the CPU with all of its tensors on the device."""
    torch._C._ensureCUDADeviceGuardSet()  # of a torch without CUDA
    with ExitStack() as stack:
        mode = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        for name in _GENERATED:
            stack.enter_context(mock.patch.object(torch, name, _without_generator(getattr(torch, name))))

        def moved(tensor: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
            there = mode.from_tensor(tensor.detach()).to(DEVICE)
            memo[id(tensor)] = nn.Parameter(there) if isinstance(tensor, nn.Parameter) else there
            return memo[id(tensor)]

        stack.enter_context(mock.patch.object(torch.Tensor, "__deepcopy__", moved))
        stack.enter_context(mock.patch.object(nn.Parameter, "__deepcopy__", moved))
        known = {
            id(trainer.result.renderer.backend): backend(),
            id(trainer._rows): trainer._rows,
            id(trainer._generator): None,
            id(host): DEVICE,
        }
        yield copy.deepcopy(trainer, known)


def _without_generator(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Generators of a device need the device."""

    def call(*args: Any, generator: Any = None, **kwargs: Any) -> torch.Tensor:
        return make(*args, **kwargs)

    return call
