"""The one seam to hardware: `load(name)` gives the modules and ray operations of one back end.

Neural modules have tiny-cuda-nn's constructor arguments and JSON vocabulary, ray operations nerfacc's names and packed
layout. `cpu` is native code, `torch` the slow twin that specifies it, `cuda` runs on an NVIDIA GPU: networks by
tiny-cuda-nn where it is installed, else by Triton, rays by Triton. Nothing outside this folder asks for a
device, and nothing of CUDA is imported without one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch

from quicksurf.errors import BackendError
from quicksurf.kernels.gpu import choose as gpu
from quicksurf.kernels.gpu.selection import AsyncSelection
from quicksurf.kernels.modules import Modules
from quicksurf.kernels.reference import networks as torch_networks
from quicksurf.kernels.reference import rays as torch_rays
from quicksurf.kernels.reference import unisurf as torch_unisurf
from quicksurf.kernels.selection import Selection


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
    selection: Selection
    """Which rays and samples a step continues with."""
    batch_multiplier: int = 1
    """Times the settings' samples a step that it takes to keep the device busy."""


# 2^18 samples with the default settings: below, launching kernels takes as long as running them
_GPU_BATCH_MULTIPLIER = 8
NAMES = ("auto", "cpu", "cuda", "torch")


def load(name: str = "auto") -> Backend:
    """Return the back end called `name`; for "auto" cuda where there is a GPU that works, else cpu.

    Raises:
        BackendError: if the name is unknown or this machine cannot run it.
    """
    makers: dict[str, Callable[[str], Backend]] = {"cpu": _cpu, "cuda": _cuda, "torch": _torch}
    if name == "auto":
        return _auto()
    if name not in makers:
        raise BackendError(f"device '{name}' is unknown: choose {', '.join(NAMES)}")
    return makers[name]("asked for")


def may_use_gpu(name: str) -> bool:
    """Tell whether the back end called `name` computes on a GPU where there is one."""
    return name in ("auto", "cuda")


def set_num_threads(n: int) -> None:
    """Set the number of threads of the native kernels.

    Raises:
        ValueError: unless 1 ≤ n ≤ 1024.
    """
    from quicksurf.kernels import _native

    _native.set_num_threads(n)


def _auto() -> Backend:
    if not torch.cuda.is_available():
        return _cpu("the native kernels need no GPU")
    try:
        return _cuda("there is a GPU")
    except BackendError as error:
        return _cpu(str(error))


def _cuda(reason: str) -> Backend:
    if not torch.cuda.is_available():
        built = "sees no NVIDIA GPU or driver" if torch.version.cuda else "is its build without CUDA"
        raise BackendError(f"torch {built}: use --device cpu, or see `quicksurf doctor`")
    device = torch.device("cuda", torch.cuda.current_device())
    try:
        (run, engine), (rays, unisurf) = gpu.networks(device), gpu.rays(device)
    except BackendError as error:
        raise BackendError(f"there is a GPU, but {error}") from error
    return Backend(
        "cuda",
        device,
        f"{reason}; {engine}",
        Modules(run, device),
        rays,
        unisurf,
        AsyncSelection(),
        _GPU_BATCH_MULTIPLIER,
    )


def _cpu(reason: str) -> Backend:
    try:
        from quicksurf.kernels import _native, cpu
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
    return Backend("cpu", torch.device("cpu"), reason, Modules(cpu.run_network), cpu, cpu, Selection())


def _torch(reason: str) -> Backend:
    modules = Modules(torch_networks.run_network)
    return Backend("torch", torch.device("cpu"), reason, modules, torch_rays, torch_unisurf, Selection())
