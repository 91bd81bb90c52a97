"""Triton kernels of the fully fused network: y = W_L f(… f(W_0 [enc(x), 1])) without biases, forward and backward.

A program takes TILE points through all layers, activations staying in registers between layers; products run on
tensor cores through `tl.dot`. Left operands are activations [point, unit], so that a product's result becomes the next
one's left operand; weights [out, in] are read anew by every program and come from the caches (at most 64 KB a layer).

Training keeps every hidden activation (256 bytes a point and layer of 64 units) instead of computing them again in the
backward pass: writing and reading them takes a few percent of a step, and the backward kernel needs registers for one
layer only, whatever their number. The gradients by weights are not here: they are plain products over all points,
which the kernel prepares by writing d loss / d (layer before its activation) as `deltas`.

Padding: `encoded` has a multiple of 16 rows and `pitch` columns, a multiple of TILE: nothing inside needs a mask.
The specification is `reference.networks.run_network`.
"""

from typing import no_type_check

import triton
import triton.language as tl

SHARPNESS = tl.constexpr(10.0)  # reference.networks.SOFTPLUS_SHARPNESS
# 11 bits: rounding is averaged over points, and half the time is saved.
BACKWARD_PRECISION = tl.constexpr("tf32")


@triton.jit
@no_type_check
def activate(y, NAME: tl.constexpr):
    """Return tiny-cuda-nn's activations by name."""
    if NAME == "ReLU":
        y = tl.maximum(y, 0.0)
    if NAME == "Softplus":
        y = tl.maximum(y, 0.0) + tl.log(1.0 + tl.exp(tl.abs(y) * -SHARPNESS)) / SHARPNESS
    if NAME == "Sigmoid":
        y = 1.0 / (1.0 + tl.exp(-y))
    return y


@triton.jit
@no_type_check
def activation_slope(y, NAME: tl.constexpr):
    """Return the activation's derivative, from its value."""
    slope = tl.full(y.shape, 1.0, tl.float32)
    if NAME == "ReLU":
        slope = tl.where(y > 0, 1.0, 0.0)
    if NAME == "Softplus":
        slope = 1.0 - tl.exp(y * -SHARPNESS)
    if NAME == "Sigmoid":
        slope = y * (1.0 - y)
    return slope


@triton.jit
@no_type_check
def network_forward(
    weights,
    encoded,
    hidden,
    output,
    n,
    pitch,
    N_INPUT: tl.constexpr,
    WIDTH: tl.constexpr,
    N_HIDDEN: tl.constexpr,
    N_OUTPUT: tl.constexpr,
    ACTIVATION: tl.constexpr,
    OUTPUT_ACTIVATION: tl.constexpr,
    KEEP: tl.constexpr,
    PRECISION: tl.constexpr,
    TILE: tl.constexpr,
):
    """Compute output[j, i] for i < n; hidden[layer, i, unit] if KEEP. N_INPUT is padded, N_OUTPUT is not."""
    points = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    units, block = tl.arange(0, WIDTH), tl.arange(0, 16)
    kept = hidden + points[:, None] * WIDTH + units[None, :]
    y = tl.zeros([TILE, WIDTH], tl.float32)
    for k in tl.static_range(0, N_INPUT, 16):
        x = tl.load(encoded + (k + block).to(tl.int64)[None, :] * pitch + points[:, None])
        w = tl.load(weights + units[None, :] * N_INPUT + (k + block)[:, None])
        y = tl.dot(x, w, y, input_precision=PRECISION)
    y = activate(y, ACTIVATION)
    if KEEP:
        tl.store(kept, y)
    layer_weights = weights + WIDTH * N_INPUT
    for _ in tl.static_range(1, N_HIDDEN):
        w = tl.load(layer_weights + units[None, :] * WIDTH + units[:, None])
        y = activate(tl.dot(y, w, input_precision=PRECISION), ACTIVATION)
        if KEEP:
            kept += pitch * WIDTH
            tl.store(kept, y)
        layer_weights += WIDTH * WIDTH
    for k in tl.static_range(0, N_OUTPUT, 16):
        rows = (k + block).to(tl.int64)
        w = tl.load(layer_weights + rows[None, :] * WIDTH + units[:, None])
        z = activate(tl.dot(y, w, input_precision=PRECISION), OUTPUT_ACTIVATION)
        mask = (rows < N_OUTPUT)[None, :] & (points < n)[:, None]
        tl.store(output + rows[None, :] * n + points[:, None], z, mask=mask)


@triton.jit
@no_type_check
def network_backward(
    weights,
    hidden,
    output,
    grad_output,
    hidden_deltas,
    output_deltas,
    grad_encoded,
    n,
    pitch,
    stride_point,
    stride_row,
    N_INPUT: tl.constexpr,
    WIDTH: tl.constexpr,
    N_HIDDEN: tl.constexpr,
    N_OUTPUT: tl.constexpr,
    ACTIVATION: tl.constexpr,
    OUTPUT_ACTIVATION: tl.constexpr,
    WANT_ENCODED: tl.constexpr,
    TILE: tl.constexpr,
):
    """Compute hidden_deltas[layer, i, unit], output_deltas[i, padded row], and grad_encoded[row, i] if wanted; 0 from
    n on.

    `grad_output` is addressed by its strides, `output` is [N_OUTPUT, n].
    """
    points = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    units, block = tl.arange(0, WIDTH), tl.arange(0, 16)
    N_PADDED: tl.constexpr = (N_OUTPUT + 15) // 16 * 16
    LAST: tl.constexpr = N_HIDDEN - 1
    layer_weights = weights + WIDTH * N_INPUT + LAST * WIDTH * WIDTH
    grad = tl.zeros([TILE, WIDTH], tl.float32)
    for k in tl.static_range(0, N_OUTPUT, 16):
        rows = (k + block).to(tl.int64)
        mask = (rows < N_OUTPUT)[None, :] & (points < n)[:, None]
        z = tl.load(output + rows[None, :] * n + points[:, None], mask=mask, other=0.0)
        from_loss = grad_output + rows[None, :] * stride_row + points[:, None] * stride_point
        delta = tl.load(from_loss, mask=mask, other=0.0) * activation_slope(z, OUTPUT_ACTIVATION)
        tl.store(output_deltas + points[:, None] * N_PADDED + rows[None, :], delta)
        w = tl.load(layer_weights + rows[:, None] * WIDTH + units[None, :])
        grad = tl.dot(delta, w, grad, input_precision=BACKWARD_PRECISION)
    at = points[:, None] * WIDTH + units[None, :] + LAST * pitch * WIDTH
    delta = grad * activation_slope(tl.load(hidden + at), ACTIVATION)
    tl.store(hidden_deltas + at, delta)
    for _ in tl.static_range(1, N_HIDDEN):
        at -= pitch * WIDTH
        layer_weights -= WIDTH * WIDTH
        w = tl.load(layer_weights + units[:, None] * WIDTH + units[None, :])
        grad = tl.dot(delta, w, input_precision=BACKWARD_PRECISION)
        delta = grad * activation_slope(tl.load(hidden + at), ACTIVATION)
        tl.store(hidden_deltas + at, delta)
    if WANT_ENCODED:
        for k in tl.static_range(0, N_INPUT, 16):
            w = tl.load(weights + units[:, None] * N_INPUT + (k + block)[None, :])
            grad_rows = tl.dot(delta, w, input_precision=BACKWARD_PRECISION)
            tl.store(grad_encoded + (k + block).to(tl.int64)[None, :] * pitch + points[:, None], grad_rows)
