"""Losses, each the mean over what it is given; pure functions of tensors."""

import torch
from jaxtyping import Float
from torch import Tensor

_LEAST_PASSED, _LEAST_OPACITY = 1e-6, 1e-12  # what rounding leaves of 1 − O, and of O far from the surface
_LEAST_SLOPE = 0.5  # of the logit: where it is flatter, there is no surface yet to be moved


def color_loss(colors: Float[Tensor, "n 3"], targets: Float[Tensor, "n 3"]) -> Float[Tensor, ""]:
    """L1 colour error, as in UNISURF (eq. 12): highlights and edges pull less than with squares."""
    return (colors - targets).abs().mean()


def silhouette_loss(opacities: Float[Tensor, "n"], inside: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """Binary cross-entropy of opacity against the mask, as in IDR (Yariv et al. 2020, eq. 7).

    In the largest logit that a ray meets it is softplus(∓κ l): a ray that misses the object by much pulls as much as
    one that misses it by little, where |O − inside| would not pull at all; so dents are filled and gaps opened at any
    κ. A ray that is opaque to six digits no longer pulls: single precision does not tell how far its logit is from 0.
    """
    if not len(inside):
        return opacities.sum()
    passed = (1 - opacities).clamp_min(_LEAST_PASSED).log()
    return -torch.lerp(passed, opacities.clamp_min(_LEAST_OPACITY).log(), inside).mean()


def normal_smoothness(gradients: Float[Tensor, "n 3"], neighbours: Float[Tensor, "n 3"]) -> Float[Tensor, ""]:
    """‖n(x_s) − n(x_s + ε)‖ between unit normals at surface points and beside them (UNISURF, eq. 13)."""
    a, b = (torch.nn.functional.normalize(g, dim=-1, eps=1e-6) for g in (gradients, neighbours))
    return ((a - b).square().sum(-1) + 1e-12).sqrt().mean() if len(a) else gradients.sum()


def steepness(gradients: Float[Tensor, "n 3"], largest: float) -> Float[Tensor, ""]:
    """max(0, |∇l| / largest − 1)²: the logit stays below `largest` times a distance, so that it can be searched.

    The upper half of the eikonal loss (Gropp et al. 2020). The other half would give the surface the same width
    everywhere, and sharpen what the photos do not agree on yet (dtu_scan24: −2 dB).
    """
    excess = (gradients.norm(dim=-1) / largest - 1).clamp_min(0)
    return excess.square().mean() if len(gradients) else gradients.sum()


def outward_pressure(logits: Float[Tensor, "n"], gradients: Float[Tensor, "n 3"]) -> Float[Tensor, ""]:
    """−l / |∇l| at surface points: how far the surface moves out, negated; the pressure of a balloon (Cohen 1991).

    Where a surface shines, what the photos show of it lies behind it, and so the fit ends inside.
    """
    slopes = gradients.detach().norm(dim=-1).clamp_min(_LEAST_SLOPE)
    return -(logits / slopes).mean() if len(logits) else logits.sum()


def psnr_of(squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB of colours in [0, 1] with the given mean squared error, at most 100."""
    return float(-10 * torch.log10(torch.tensor(max(squared_error, 1e-10))))
