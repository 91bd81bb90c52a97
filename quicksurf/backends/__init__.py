"""The one seam to hardware: `load(name)` gives the modules and ray operations of one back end.

Neural modules have tiny-cuda-nn's constructor arguments and JSON vocabulary, ray operations nerfacc's names and packed
layout. `cpu` is native code, `torch` the slow twin that specifies it. Nothing outside this folder asks for a device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch

from quicksurf.backends import torch_networks, torch_rays, torch_unisurf
from quicksurf.backends.modules import Modules
from quicksurf.errors import BackendError


@dataclass(frozen=True)
class Backend:
    """Modules and ray operations of one kind of hardware."""

    name: str
    device: torch.device
    reason: str
    """Why this one was chosen, for the user."""
    modules: Modules
    rays: ModuleType
    """accumulate_along_rays and adam_step; what else is done along rays is nerfacc's, on every device."""
    unisurf: ModuleType
    """sample_surface, render_weight_from_logits."""


NAMES = ("auto", "cpu", "torch")


def load(name: str = "auto") -> Backend:
    """The back end called `name`, or the fastest one here for "auto".

    Raises:
        BackendError: if the name is unknown or this machine cannot run it.
    """
    makers: dict[str, Callable[[str], Backend]] = {"cpu": _cpu, "torch": _torch}
    if name == "auto":
        return _cpu("the native kernels need no GPU")
    if name not in makers:
        raise BackendError(f"back end '{name}' is unknown: choose {', '.join(NAMES)}")
    return makers[name]("asked for")


def set_num_threads(n: int) -> None:
    """Threads of the native kernels.

    Raises:
        ValueError: unless 1 ≤ n ≤ 1024.
    """
    from quicksurf import _native

    _native.set_num_threads(n)


def _cpu(reason: str) -> Backend:
    try:
        from quicksurf import _native
        from quicksurf.backends import cpu_networks, cpu_rays, cpu_unisurf, nerfacc_cpu
    except ImportError as error:
        raise BackendError(
            f"the native kernels cannot be loaded ({error}): "
            "install again with `pip install --force-reinstall quicksurf`"
        ) from error
    try:
        _native.instruction_set()  # chosen at first use
    except ValueError as error:
        raise BackendError(f"QUICKSURF_ISA: {error}, or unset it") from error
    # A second pool that spins between torch's small operations would take the cores from the kernels: with two torch
    # threads beside two of ours a step took ten times longer on a busy machine.
    torch.set_num_threads(1)
    nerfacc_cpu.serve_nerfacc()
    return Backend(
        "cpu", torch.device("cpu"), reason, Modules(cpu_networks.run_network), cpu_rays, cpu_unisurf
    )


def _torch(reason: str) -> Backend:
    modules = Modules(torch_networks.run_network)
    return Backend("torch", torch.device("cpu"), reason, modules, torch_rays, torch_unisurf)
