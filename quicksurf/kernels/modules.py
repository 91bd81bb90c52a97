"""tiny-cuda-nn's three modules as torch modules, for any engine that can run a `NetworkLayout`.

`Encoding`, `Network` and `NetworkWithInputEncoding` take tiny-cuda-nn's constructor arguments and keep its one flat
`params` vector (weights first, then tables), so that a checkpoint of one back end loads in another. Inputs are
[n, n_input_dims], outputs [n, n_output_dims]. First order only: a gradient of a gradient is not offered.

Outputs are the transpose of a contiguous tensor (all values of one feature lie together): kernels work on tiles with
one point a lane, and a slice of features is then contiguous.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quicksurf.errors import ConfigError
from quicksurf.kernels.layout import NetworkLayout, encoding_layout, network_layout

RunNetwork = Callable[[NetworkLayout, Tensor, Tensor, int], Tensor]
"""(layout, params [n_params], x [n, n_input], number of active grid levels) → [n, n_output], differentiable."""

# Müller et al. 2022, section 4: small random entries, so that no level speaks before it learned
TABLE_RANGE = 1e-4
ALL_LEVELS = 1 << 16
_CPU = torch.device("cpu")


class EncodedNetwork(nn.Module):
    """A layout, its parameters and the engine that runs it."""

    params: nn.Parameter

    def __init__(self, layout: NetworkLayout, run: RunNetwork, seed: int, device: torch.device) -> None:
        super().__init__()
        self.layout = layout
        self.n_output_dims = layout.n_output
        self.n_active_levels = ALL_LEVELS
        """Grid levels beyond this many give zeros (coarse to fine)."""
        self._run = run
        self.params = nn.Parameter(initial_params(layout, seed).to(device))

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "n c"]:
        """Evaluate at x; grids and spherical harmonics expect coordinates in [0, 1].

        Raises:
            ConfigError: if x is not n rows of as many values as there are inputs.
        """
        if x.ndim != 2 or x.shape[1] != self.layout.n_input:
            raise ConfigError(f"x has shape {tuple(x.shape)}: [n, {self.layout.n_input}] is expected")
        if x.dtype is torch.float64 and self.params.dtype is torch.float32:
            x = x.float()
        return self._run(self.layout, self.params, x, self.n_active_levels)


MAX_SLOPE = 4.0
"""Of the logit: a search may take |l| / MAX_SLOPE for clear of the surface, and training sees to it."""


class LogitNetwork(NamedTuple):
    """A surface given by the first output of a network: l(x) = radius − |x| − scale · net([x, (x + 1) / 2])_0.

    Inside > 0. This much a back end knows of the model, so that it can search for the surface in one call.
    """

    network: EncodedNetwork
    radius: float
    scale: float

    def query(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n k"]]:
        """Evaluate logits, and the network's other outputs; differentiable in parameters and points."""
        rows = points.T  # the networks keep one value of all points together
        output = self.network(torch.cat([rows, 0.5 * rows + 0.5]).T).T
        first, others = output.split([1, len(output) - 1])  # its gradient is one copy, that of slices four
        return self.radius - points.norm(dim=-1) - self.scale * first[0], others.T


def initial_params(layout: NetworkLayout, seed: int) -> Float[Tensor, "p"]:
    """Draw Glorot-uniform weights and tables uniform in ±1e-4, as tiny-cuda-nn initialises them."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(layout.n_params, generator=generator) * 2 - 1
    params = uniform * TABLE_RANGE
    at = 0
    for outputs, inputs in layout.matrices():
        size = outputs * inputs
        params[at : at + size] = uniform[at : at + size] * (6 / (outputs + inputs)) ** 0.5
        at += size
    return params


class Modules:
    """The three constructors of tiny-cuda-nn's torch binding, bound to one engine and the device it computes on."""

    def __init__(self, run: RunNetwork, device: torch.device = _CPU) -> None:
        self.run = run
        self._device = device

    def Encoding(
        self, n_input_dims: int, encoding_config: dict[str, Any], seed: int = 1337
    ) -> EncodedNetwork:
        """Return an encoding alone: HashGrid, DenseGrid, SphericalHarmonics, Identity or a Composite of them."""
        layout = encoding_layout(n_input_dims, encoding_config)
        return EncodedNetwork(layout, self.run, seed, self._device)

    def Network(
        self, n_input_dims: int, n_output_dims: int, network_config: dict[str, Any], seed: int = 1337
    ) -> EncodedNetwork:
        """Return a fully fused MLP without biases on its raw inputs."""
        return self.NetworkWithInputEncoding(
            n_input_dims, n_output_dims, {"otype": "Identity"}, network_config, seed
        )

    def NetworkWithInputEncoding(
        self,
        n_input_dims: int,
        n_output_dims: int,
        encoding_config: dict[str, Any],
        network_config: dict[str, Any],
        seed: int = 1337,
    ) -> EncodedNetwork:
        """Return an encoding and a fully fused MLP in one pass."""
        layout = network_layout(n_input_dims, n_output_dims, encoding_config, network_config)
        return EncodedNetwork(layout, self.run, seed, self._device)
