"""Useful work of each operation: products, table accesses and bytes that no implementation can do without.

What an implementation recomputes, pads or zeroes does not count.
"""

import itertools
from typing import NamedTuple

from quicksurf.kernels.layout import NetworkLayout

_FLOAT, _INT = 4, 8  # bytes
WEIGHTS_FORWARD = 3 * _FLOAT  # α in; w, T out
WEIGHTS_BACKWARD = 5 * _FLOAT  # α, T, ∂w, ∂T in; ∂α out
ADAM = 7 * _FLOAT  # value, gradient and two moments in; value and two moments out
ADAM_SKIPPED = _FLOAT  # an entry without gradient: the gradient alone
TRAVERSE = 2 * _FLOAT + _INT  # t_start, t_end, ray index out


def mlp_flops(layout: NetworkLayout) -> float:
    """Additions and multiplications of one point's forward pass: 2 m k for each matrix, padding left out."""
    if layout.n_hidden_layers == 0:
        return 0.0
    widths = [layout.n_encoded, *[layout.width] * layout.n_hidden_layers, layout.n_output]
    return float(sum(2 * rows * columns for columns, rows in itertools.pairwise(widths)))


def accesses(layout: NetworkLayout, n_active_levels: int = 1 << 16) -> int:
    """Table entries that one point touches: 8 corners of every active level."""
    return 8 * sum(min(len(part.levels), n_active_levels) for part in layout.parts)


def accumulate_forward_bytes(n_samples: int, n_rays: int, n_values: int) -> float:
    """Bytes of Σ w v: weights and values in, one row a ray out."""
    return float(_FLOAT * (n_samples * (1 + n_values) + n_rays * n_values))


def accumulate_backward_bytes(n_samples: int, n_rays: int, n_values: int) -> float:
    """Bytes of its gradient: weights, values and ∂out in, ∂w and ∂v out."""
    return float(_FLOAT * (n_samples * (2 + 2 * n_values) + n_rays * n_values))


def logits_forward_bytes(n_samples: int, n_rays: int) -> float:
    """Bytes of weights from logits: logits in, weights out, and an opacity a ray."""
    return float(_FLOAT * (2 * n_samples + n_rays))


def logits_backward_bytes(n_samples: int, n_rays: int) -> float:
    """Bytes of its gradient: logits, ∂w and ∂opacity in, ∂logits out."""
    return float(_FLOAT * (3 * n_samples + n_rays))


class StepWork(NamedTuple):
    """Useful work of one training step (or a mean over several)."""

    flops: float
    accesses: float
    adam_bytes: float
    scan_bytes: float


class Rates(NamedTuple):
    """What the machine does of each in a second."""

    flops: float
    accesses: float
    bytes: float


def floor_seconds(work: StepWork, rates: Rates) -> float:
    """Time of a step whose every part runs at its limit, one part after another."""
    moved = work.adam_bytes + work.scan_bytes
    return work.flops / rates.flops + work.accesses / rates.accesses + moved / rates.bytes


def network_work(
    layout: NetworkLayout, n_inference: float, n_training: float, n_active_levels: int = 1 << 16
) -> tuple[float, float]:
    """Flops and accesses of points that are only evaluated and of points that are trained on.

    Backward is two products for each of the forward pass (by the input and by the weights) and one more visit of
    every entry.
    """
    flops = mlp_flops(layout) * (n_inference + 3 * n_training)
    return flops, accesses(layout, n_active_levels) * (n_inference + 2 * n_training)


def step_scan_bytes(n_samples: float, n_shaded: float, n_rays: float) -> float:
    """Bytes of the scans of a step: weights from logits and colours, each forward and backward."""
    samples, shaded, rays = round(n_samples), round(n_shaded), round(n_rays)
    weights = logits_forward_bytes(samples, rays) + logits_backward_bytes(samples, rays)
    return weights + accumulate_forward_bytes(shaded, rays, 3) + accumulate_backward_bytes(shaded, rays, 3)
