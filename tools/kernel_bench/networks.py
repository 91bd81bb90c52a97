"""Rows of the network kernels: hash encoding, fused MLPs, and both in one call.

Points are samples in order along rays, as a training step has them. Inputs and outputs keep one feature of all points
together, the package's own layout. Forward is without autograd; forward+backward asks for the gradient by parameters,
and for MLPs by inputs too, so that backward is twice the products of forward.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kernel_bench import counts, limits
from kernel_bench.check import same_network
from kernel_bench.kernel import Kernel
from quicksurf import kernels as seam
from quicksurf.config import ModelConfig
from quicksurf.fields.surface import N_GEOMETRY_FEATURES, SurfaceField, geometry_encoding
from quicksurf.kernels.modules import EncodedNetwork

N_RAYS, N_ON_RAY = 4096, 32
_TWIN_POINTS = 1 << 15  # fewer, and the zeros of its table gradients would be most of its time
_MLP_POINTS = 1 << 16
ENCODING = {
    "otype": "HashGrid",
    "n_levels": 16,
    "n_features_per_level": 2,
    "log2_hashmap_size": 17,
    "base_resolution": 16,
    "per_level_scale": (2048 / 16) ** (1 / 15),
}


def kernels() -> list[Kernel]:
    """All rows of this file."""
    rows = _encode()
    rows += _mlp("MLP 32→64→16", 16, 1)
    rows += _mlp("MLP 32→64→64→3", 3, 2)
    return rows + _one_call()


def ray_points(n_rays: int = N_RAYS, n_on_ray: int = N_ON_RAY) -> Float[Tensor, "n 3"]:
    """Evenly spaced points on random rays between where they enter and leave the unit cube, ray after ray."""
    generator = torch.Generator().manual_seed(0)
    directions = nn.functional.normalize(torch.randn(n_rays, 3, generator=generator), dim=-1)
    inner = torch.rand(n_rays, 3, generator=generator)
    to_faces = torch.stack([-inner / directions, (1 - inner) / directions])
    near, far = to_faces.amin(0).amax(-1), to_faces.amax(0).amin(-1)
    ways = (torch.arange(n_on_ray) + 0.5) / n_on_ray
    ts = torch.lerp(near[:, None], far[:, None], ways)
    return (inner[:, None] + ts[..., None] * directions[:, None]).reshape(-1, 3).clamp(0, 1)


def _encode() -> list[Kernel]:
    native = seam.load("cpu").modules.Encoding(3, ENCODING)
    twin = seam.load("torch").modules.Encoding(3, ENCODING)
    points = _rows(ray_points())
    loads = counts.accesses(native.layout) * len(points)
    table = (
        limits.gather(native.layout.n_params // 2),
        limits.gather_entries(native.layout, points[: 1 << 15]),
    )
    return _both_ways(
        "hash encode L16 F2 T2^17",
        native,
        twin,
        points,
        limits_of=lambda passes: tuple((limit, loads * passes) for limit in table),
        passes=(1, 2),
        targets=({"times the twin": 25.0}, {"times the twin": 25.0}),
    )


def _mlp(name: str, n_output: int, n_hidden: int) -> list[Kernel]:
    config = {"otype": "FullyFusedMLP", "n_neurons": 64, "n_hidden_layers": n_hidden, "activation": "ReLU"}
    native, twin = (seam.load(b).modules.Network(32, n_output, config) for b in ("cpu", "torch"))
    x = torch.rand(32, _MLP_POINTS).T.requires_grad_()
    flops = counts.mlp_flops(native.layout) * len(x)
    gemm = limits.sgemm()
    return _both_ways(
        name,
        native,
        twin,
        x,
        limits_of=lambda passes: ((gemm, flops * passes),),
        passes=(1, 3),
        targets=({"fraction of sgemm": 0.65}, {"fraction of sgemm": 0.5}),
        flops=flops,
    )


def _both_ways(name, native, twin, x, *, limits_of, passes, targets, flops=None, rival=None) -> list[Kernel]:
    """Forward, and forward with backward, of one network."""
    part = x[:_TWIN_POINTS].detach().requires_grad_(x.requires_grad)
    kernels = []
    for suffix, run, passes_, target in zip(
        ("forward", "forward+backward"), (_forward, _train), passes, targets, strict=True
    ):
        unit = ("M points/s", 1e6, len(x)) if flops is None else ("GFLOP/s", 1e9, flops * passes_)
        kernels.append(
            Kernel(
                f"{name}, {suffix}",
                run(native, x),
                unit[2],
                unit[0],
                unit[1],
                check=lambda: same_network(name, native, twin, part),
                limits=limits_of(passes_),
                twin=run(twin, part),
                twin_part=len(part) / len(x),
                rivals={} if rival is None else {"times two calls": (run(rival, x), 1.0)},
                targets=target,
            )
        )
    return kernels


def _forward(network: nn.Module, x: Tensor):
    @torch.no_grad()
    def run() -> Tensor:
        return network(x)

    return run


def _train(network: nn.Module, x: Tensor):
    inputs = [*network.parameters(), *([x] if x.requires_grad else [])]
    with torch.no_grad():
        n_output = network(x[:1]).shape[1]
    grad = torch.rand(n_output, len(x)).T

    def run() -> tuple[Tensor, ...]:
        return torch.autograd.grad(network(x), inputs, grad)

    return run


def _rows(points: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """The same values with one coordinate of all points together."""
    return points.T.contiguous().T


def _one_call() -> list[Kernel]:
    """The default geometry net in one call, and its encoding and its MLP in two."""
    native, twin = (SurfaceField(ModelConfig(), seam.load(b), 0).geometry.network for b in ("cpu", "torch"))
    chain = two_calls(native)
    points = ray_points()
    x = _rows(torch.cat([2 * points - 1, points], -1))
    same_network("encoding, then network", chain, twin, x[:_TWIN_POINTS])
    return _both_ways(
        "geometry net, encode+MLP in one call",
        native,
        twin,
        x,
        limits_of=lambda passes: (),
        passes=(1, 3),
        targets=({"times two calls": 1.25}, {"times two calls": 1.25}),
        rival=chain,
    )


class TwoCalls(nn.Module):
    """An encoding, then a network that reads its output from memory; parameters in the order of one call."""

    def __init__(self, network: EncodedNetwork, encoding: EncodedNetwork) -> None:
        super().__init__()
        self.network, self.encoding = network, encoding

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """The network's values at x."""
        return self.network(self.encoding(x))


def two_calls(geometry: EncodedNetwork) -> TwoCalls:
    """The encoding and the network of the default geometry net one after the other, with the same parameters."""
    model, modules = ModelConfig(), seam.load("cpu").modules
    encoding = modules.Encoding(6, geometry_encoding(model))
    config = {"n_neurons": model.n_neurons, "n_hidden_layers": 1, "activation": "ReLU"}
    network = modules.Network(encoding.n_output_dims, 1 + N_GEOMETRY_FEATURES, config)
    weights, tables = geometry.params.detach().split([network.layout.n_params, encoding.layout.n_params])
    network.params.data.copy_(weights)
    encoding.params.data.copy_(tables)
    return TwoCalls(network, encoding)
