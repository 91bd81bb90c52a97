"""The engines of a GPU: tiny-cuda-nn for networks where it is installed, else Triton; Triton for rays.

Each is tried out before it is chosen: a build for other GPUs, or without a part, fails at its first kernel, and
extensions then raise whatever they like. What is caught here is any exception.
"""

import importlib.util
from types import ModuleType

import torch

from quicksurf.errors import INSTALL_TINYCUDANN, BackendError
from quicksurf.geometry.rays import Interval, Rays
from quicksurf.kernels.layout import network_layout
from quicksurf.kernels.modules import LogitNetwork, Modules, RunNetwork
from quicksurf.kernels.reference import networks as torch_networks

_NO_TRITON = (
    "Triton does not work on it ({}): it comes with torch's CUDA wheels on Linux and needs compute capability 8.0; "
    "--device cpu needs neither"
)


def networks(device: torch.device) -> tuple[RunNetwork, str]:
    """Return the fastest networks that work on the GPU, and what to say about them.

    Raises:
        BackendError: if neither tiny-cuda-nn nor Triton works.
    """
    advice = f"tiny-cuda-nn would make it faster: {INSTALL_TINYCUDANN}"
    if importlib.util.find_spec("tinycudann") is not None:
        try:
            from quicksurf.kernels.gpu import tiny_cuda_nn

            try_out_networks(tiny_cuda_nn.run_network, device)
            return tiny_cuda_nn.run_network, "networks by tiny-cuda-nn"
        except Exception as error:
            advice = f"tinycudann does not work ({_short(error)}), install it again: {INSTALL_TINYCUDANN}"
    try:
        from quicksurf.kernels.gpu import networks as triton_networks

        try_out_networks(triton_networks.run_network, device)
    except Exception as error:  # a TritonError is no RuntimeError
        raise BackendError(f"{_NO_TRITON.format(_short(error))}; {advice}") from error
    return triton_networks.run_network, f"networks by Triton; {advice}"


def rays(device: torch.device) -> tuple[ModuleType, ModuleType]:
    """Return Triton's ray operations, and UNISURF's.

    Raises:
        BackendError: if Triton does not work.
    """
    try:
        from quicksurf.kernels.gpu import rays as triton_rays
        from quicksurf.kernels.gpu import unisurf as triton_unisurf

        try_out_rays(triton_rays, triton_unisurf, device)
    except Exception as error:
        raise BackendError(_NO_TRITON.format(_short(error))) from error
    return triton_rays, triton_unisurf


def try_out_networks(run: RunNetwork, device: torch.device) -> None:
    """Run a small network forward and backward.

    Raises:
        RuntimeError: if its gradients are no numbers, or as the engine says what is wrong.
    """
    grid = {"otype": "HashGrid", "n_levels": 2, "log2_hashmap_size": 8}
    layout = network_layout(3, 1, grid, {"n_neurons": 16})
    params = torch.ones(layout.n_params, device=device, requires_grad=True)
    run(layout, params, torch.ones(1, 3, device=device), 2).sum().backward()
    if params.grad is None or not bool(params.grad.isfinite().all()):
        raise RuntimeError("gradients are no numbers")


def try_out_rays(engine: ModuleType, unisurf: ModuleType, device: torch.device) -> None:
    """Meet a ball, and take one step of the optimiser.

    Raises:
        RuntimeError: if either ends elsewhere, or as the engine says what is wrong.
    """
    network = Modules(torch_networks.run_network, device).Network(6, 2, {"n_neurons": 16})
    network.params.data.zero_()
    ball = LogitNetwork(network, radius=0.5, scale=1.0)
    origin, direction = torch.tensor([[[-3.0, 0, 0]], [[1, 0, 0]]], device=device)
    near, far = torch.tensor([[0.0], [9]], device=device)
    cells = torch.ones(1, 2, 2, 2, dtype=torch.bool, device=device)
    box = torch.tensor([[-1.0, -1, -1, 1, 1, 1]], device=device)
    jitter = torch.full((1, 4), 0.5, device=device)
    ray, interval = Rays(origin, direction, near, far), Interval(0.1, 0.0, 2, 2)
    surface, samples = unisurf.sample_surface(ball, ray, cells, box, 0.1, interval, jitter)
    param, *others = torch.ones(4, 1, device=device)
    known = {"learning_rate": 0.5, "betas": (0.9, 0.99), "epsilon": 1e-15, "step": 1, "skip_zero": True}
    engine.adam_step(param, *others, **known)
    if abs(float(surface.ts) - 2.5) > 1e-3 or abs(float(samples.ts[2]) - 2.45) > 1e-3 or float(param) >= 1:
        raise RuntimeError("rays end elsewhere")


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
