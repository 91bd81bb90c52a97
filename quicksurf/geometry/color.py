"""Values of pixels and the light they stand for: the curve of IEC 61966-2-1, both in [0, 1]."""

import numpy as np
from jaxtyping import Float64


def linear_from_srgb(values: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """Light, as glTF and renderers have it."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(values: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """Return the inverse of `linear_from_srgb`."""
    return np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)
