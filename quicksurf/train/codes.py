"""The code of a view that the fit never saw, found on some of its pixels while all networks stay as they are.

Colours as a function of the eight numbers are linearised by differences, one rendering a number, and solved for by
damped least squares (Gauss and Newton): a few renderings instead of a training for each view.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from quicksurf.fields.appearance import N_CODES

_ROUNDS = 3
_DIFFERENCE = 0.05  # of a code; half precision tells colours apart that are a thousandth apart
_ALIKE = 30.0  # pixels whose errors count as one: neighbours err alike

Render = Callable[[Float[Tensor, "n c"]], Float[Tensor, "n 3"]]


@torch.no_grad()
def codes_of_groups(
    render: Render, targets: Float[Tensor, "n 3"], groups: Int[Tensor, "n"], fitted: Float[Tensor, "p c"]
) -> Float[Tensor, "g c"]:
    """Find the likeliest code of each group of pixels, given that they shall look like `targets`.

    Args:
        render: colours of the pixels for one code each.
        groups: of each pixel; an even number of groups, since a view has two halves.
        fitted: codes of photos. A view's is taken from a normal distribution as wide as theirs, and is no longer than
            the longest: beyond, colours are extrapolated.
    """
    variance = fitted.square().mean().clamp_min(1e-8)
    farthest = fitted.norm(dim=1).max().clamp_min(1e-4)
    n_groups = (int(groups.max()) // 2 + 1) * 2
    codes = targets.new_zeros(n_groups, N_CODES)
    counts = torch.zeros(n_groups, device=targets.device).index_add_(
        0, groups, torch.ones_like(targets[:, 0])
    )
    unit = torch.eye(N_CODES, device=targets.device)
    for _ in range(_ROUNDS):
        colors = render(codes[groups])
        slopes = [(render(codes[groups] + _DIFFERENCE * step) - colors) / _DIFFERENCE for step in unit]
        slope, residuals = torch.stack(slopes, -1), targets - colors
        squares = slope.new_zeros(n_groups, N_CODES, N_CODES).index_add_(0, groups, slope.mT @ slope)
        along = slope.new_zeros(n_groups, N_CODES).index_add_(
            0, groups, (slope.mT @ residuals[..., None])[..., 0]
        )
        noise = torch.zeros_like(counts).index_add_(0, groups, residuals.square().mean(1))
        pull = _ALIKE * (noise / counts.clamp_min(1) / variance).clamp_min(1e-6)[:, None]
        moves = torch.linalg.solve(squares + pull[..., None] * unit, along - pull * codes)
        codes = torch.where(torch.isfinite(moves), codes + moves, codes)
        codes = codes * (farthest / codes.norm(dim=1, keepdim=True).maximum(farthest))
    return codes
