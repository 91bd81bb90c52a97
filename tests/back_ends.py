"""The back ends that contract tests run on, besides `cpu` and `torch`.

`triton` is what a GPU runs, on the CPU, with a double of Triton's kernels; `double` has the adapter of tiny-cuda-nn on
a double of it, too; `cuda` is the real thing, which the tests see as if it took and gave tensors of the CPU.
"""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import tinycudann_double
import torch
import triton_double
from torch.utils._pytree import tree_map

from quicksurf import kernels
from quicksurf.kernels.gpu.selection import AsyncSelection
from quicksurf.kernels.modules import Modules
from quicksurf.kernels.reference import networks as torch_networks
from quicksurf.kernels.selection import Selection

CPU = torch.device("cpu")


def present(name: str) -> Any:
    """The back end called `name`; without a GPU `cuda` is reported as not run, which is not a pass."""
    if name in ("triton", "double"):
        return doubled(torch_networks.run_network if name == "triton" else adapter().run_network, CPU)
    if name != "cuda":
        return kernels.load(name)
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device: the cuda back end is not run here")
    return hosted(kernels.load("cuda"))


def doubled(run: Any, device: torch.device) -> Any:
    """A GPU's back end with a double of Triton's ray kernels."""
    rays = triton_double
    return kernels.Backend("double", device, "for tests", Modules(run, device), rays, rays, AsyncSelection())


def adapter(double: Any = tinycudann_double) -> ModuleType:
    """`quicksurf.kernels.gpu.tiny_cuda_nn` with `double` in place of tinycudann, beside the real one."""
    origin = importlib.util.find_spec("quicksurf.kernels.gpu.tiny_cuda_nn")
    assert origin is not None and origin.origin is not None
    spec = importlib.util.spec_from_file_location("cuda_on_double", origin.origin)
    assert spec is not None and spec.loader is not None
    module, before = importlib.util.module_from_spec(spec), sys.modules.get("tinycudann")
    sys.modules["tinycudann"] = double
    try:
        spec.loader.exec_module(module)
    finally:
        if before is None:
            del sys.modules["tinycudann"]
        else:
            sys.modules["tinycudann"] = before
    return module


def hosted(backend: Any) -> Any:
    """`backend` with tensors of the CPU outside, moved to its device and back at every call."""
    run, device = backend.modules.run, backend.device

    def run_moved(layout: Any, params: torch.Tensor, x: torch.Tensor, n_active_levels: int) -> torch.Tensor:
        return run(layout, params.to(device), x.to(device), n_active_levels).to(x.device)

    unisurf = SimpleNamespace(
        sample_surface=_moved(backend.unisurf.sample_surface, device),
        render_weight_from_logits=_moved(backend.unisurf.render_weight_from_logits, device),
    )
    rays = SimpleNamespace(
        accumulate_along_rays=_moved(backend.rays.accumulate_along_rays, device),
        adam_step=_moved_in_place(backend.rays.adam_step, device),
    )
    return kernels.Backend(backend.name, CPU, backend.reason, Modules(run_moved), rays, unisurf, Selection())  # type: ignore[arg-type]


def _moved(function: Any, device: torch.device) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        there = tree_map(lambda x: x.to(device) if isinstance(x, torch.Tensor) else x, args)
        return tree_map(lambda x: x.cpu() if isinstance(x, torch.Tensor) else x, function(*there, **kwargs))

    return call


def _moved_in_place(function: Any, device: torch.device) -> Any:
    def call(*args: torch.Tensor, **kwargs: Any) -> None:
        there = [arg.to(device) for arg in args]
        sound = kwargs.pop("sound", None)
        function(*there, **kwargs, sound=None if sound is None else sound.to(device))
        for arg, result in zip(args, there, strict=True):
            arg.copy_(result)

    return call
