"""Losses, each the mean over what it is given; pure functions of tensors."""

import torch
from jaxtyping import Float
from torch import Tensor

_LEAST_PASSED, _LEAST_OPACITY = 1e-6, 1e-12  # what rounding leaves of 1 − O, and of O far from the surface


def color_loss(colors: Float[Tensor, "n 3"], targets: Float[Tensor, "n 3"]) -> Float[Tensor, ""]:
    """Compute the L1 colour error, as in UNISURF (eq. 12): highlights and edges pull less than with squares."""
    return (colors - targets).abs().mean()


def silhouette_loss(opacities: Float[Tensor, "n"], inside: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """Compute the binary cross-entropy of opacity against the mask, as in IDR (Yariv et al. 2020, eq. 7).

    In the largest logit that a ray meets it is softplus(∓κ l): a ray that misses the object by much pulls as much as
    one that misses it by little, where |O − inside| would not pull at all; so dents are filled and gaps opened at any
    κ. A ray that is opaque to six digits no longer pulls: single precision does not tell how far its logit is from 0.
    """
    if not len(inside):
        return opacities.sum()
    passed = (1 - opacities).clamp_min(_LEAST_PASSED).log()
    return -torch.lerp(passed, opacities.clamp_min(_LEAST_OPACITY).log(), inside).mean()


def psnr_of(squared_error: float) -> float:
    """Compute the PSNR in dB of colours in [0, 1] with a mean squared error; at most 100."""
    return float(-10 * torch.log10(torch.tensor(max(squared_error, 1e-10))))
