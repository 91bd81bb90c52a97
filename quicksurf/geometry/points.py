"""Points as people have them: a tensor, an array or a list, of any real type."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from quicksurf.errors import ConfigError

PointsLike: TypeAlias = Tensor | np.ndarray | Sequence[Sequence[float]]


def as_points(points: PointsLike) -> Tensor:
    """Return a tensor [n, 3] of a floating type, on the device of the points if they have one.

    Raises:
        ConfigError: if they are not n points of three real numbers.
    """
    try:
        found = points if isinstance(points, Tensor) else torch.from_numpy(_as_array(points))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"points are {type(points).__name__}: an array of numbers, [n, 3], is expected"
        ) from error
    if found.ndim != 2 or found.shape[1] != 3 or found.is_complex() or found.dtype == torch.bool:
        raise ConfigError(
            f"points are {found.dtype} of shape {tuple(found.shape)}: [n, 3] is expected, x, y, z of each in the "
            "cameras' frame"
        )
    return found if found.is_floating_point() else found.double()


def _as_array(points: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
    array = np.asarray(points)
    if array.dtype.kind in "iuf" and array.dtype != np.float32:
        return array.astype(np.float64)
    return array
