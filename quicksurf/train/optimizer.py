"""Adam over parameter groups with their own learning rates, run by the back end's fused step."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from quicksurf.config import TrainConfig
from quicksurf.errors import OutputError
from quicksurf.kernels import Backend
from quicksurf.kernels.modules import EncodedNetwork
from quicksurf.model import TrainedModel

BETAS = (0.9, 0.99)
# Gradients of hash entries are tiny; a larger one would stop their steps (Müller et al. 2022).
EPSILON = 1e-15


class Group(NamedTuple):
    """A slice of one parameter."""

    name: str
    param: nn.Parameter
    part: slice
    learning_rate: float
    skip_zero: bool
    """Entries without gradient stay as they are: most of a hash table in most steps."""


def network_groups(
    name: str, network: EncodedNetwork, weights_rate: float, tables_rate: float
) -> list[Group]:
    """Compute weights and tables of a network as two groups; an empty one is left out."""
    n = network.layout.n_network_params
    groups = [Group(name, network.params, slice(0, n), weights_rate, False)]
    if network.layout.n_params > n:
        groups.append(Group(name, network.params, slice(n, None), tables_rate, True))
    return groups


def groups_of(model: TrainedModel, train: TrainConfig) -> list[Group]:
    """Compute the groups of all that a fit changes, each with its learning rate."""
    rates = train.learning_rate_networks, train.learning_rate_tables
    groups = network_groups("geometry", model.field.geometry.network, train.learning_rate_geometry, rates[1])
    groups += network_groups("color", model.field.color.network, *rates)
    for network in model.renderer.background.networks:
        groups += network_groups("background", network, *rates)
    offsets, codes = model.appearance.offsets, model.appearance.codes
    if train.appearance != "none":
        groups.append(Group("appearance", offsets, slice(None), train.learning_rate_appearance, True))
    if codes is not None:
        groups.append(Group("codes", codes, slice(None), train.learning_rate_codes, True))
    return groups


class Adam:
    """Adam (Kingma and Ba 2015) with the moments kept by parameter name."""

    def __init__(self, groups: list[Group], backend: Backend) -> None:
        self._groups = groups
        self._backend = backend
        self.step_count = 0
        self.first = {group.name: torch.zeros_like(group.param.data).reshape(-1) for group in groups}
        self.second = {group.name: torch.zeros_like(group.param.data).reshape(-1) for group in groups}

    def step(
        self,
        factor: float,
        special: Mapping[str, float] = MappingProxyType({}),
        sound: Bool[Tensor, ""] | None = None,
    ) -> None:
        """Update all parameters that have a gradient and drop the gradients.

        Args:
            factor: of the learning rates.
            special: the factors of groups, by name, that go by another one.
            sound: where it is false on the device, nothing moves; such a step is counted all the same.
        """
        self.step_count += 1
        for group in self._groups:
            if group.param.grad is None:
                continue
            self._backend.rays.adam_step(
                group.param.data.view(-1)[group.part],
                group.param.grad.reshape(-1)[group.part],
                self.first[group.name][group.part],
                self.second[group.name][group.part],
                learning_rate=group.learning_rate * special.get(group.name, factor),
                betas=BETAS,
                epsilon=EPSILON,
                step=self.step_count,
                skip_zero=group.skip_zero,
                sound=sound,
            )
        for group in self._groups:
            group.param.grad = None

    def set_learning_rate(self, name: str, learning_rate: float) -> None:
        """Give one group another learning rate from the next step on."""
        self._groups = [
            g._replace(learning_rate=learning_rate) if g.name == name else g for g in self._groups
        ]

    def state(self) -> dict[str, Tensor]:
        """Return the moments and step count, to be saved."""
        moments = {f"first.{name}": value for name, value in self.first.items()}
        moments |= {f"second.{name}": value for name, value in self.second.items()}
        return moments | {"step": torch.tensor([self.step_count])}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up a saved state of the same groups.

        Raises:
            OutputError: if it is of others.
        """
        try:
            self.step_count = int(state["step"][0])
            for name in self.first:
                self.first[name].copy_(state[f"first.{name}"])
                self.second[name].copy_(state[f"second.{name}"])
        except (KeyError, IndexError, RuntimeError) as error:
            raise OutputError(
                f"the optimiser's state in the checkpoint is damaged ({str(error)[:200]}): fit anew"
            ) from error
