"""Triton kernels of the multiresolution grid (Müller et al. 2022, eq. 1–4): values, gradients by tables and by points.

A program takes TILE points of one level. Tiles are the first axis of the launch, levels the second, so that all
tiles of a level run before the next one begins: a level's table (512 KB at 2^16 entries of 2 values) is then read from
the second-level cache whatever the whole table's size. A point's F values are one load; `encoded[row, point]` is
row-major, so that neighbouring threads write neighbouring addresses.

Gradients by the tables are added atomically in float32. Sorting entries instead would order 8 keys a point and level;
the adds of one level meet in the second-level cache, where they cost as much as a store unless many points share an
entry. Their order is not fixed: sums differ in the last bits from run to run.

The specification is `reference.networks.grid_level`. No tensor is allocated and no shape checked here.
Triton compiles a function's source: a run-time type checker that wraps functions must leave these alone.
"""

from typing import no_type_check

import triton
import triton.language as tl

PRIME_Y = tl.constexpr(2654435761)
PRIME_Z = tl.constexpr(805459861)
RESOLUTION, SIZE, HASHED, OFFSET = (tl.constexpr(field) for field in range(4))
"""Columns of `levels`, one row of int64 a level; OFFSET counts entries."""
N_FIELDS = tl.constexpr(4)


@triton.jit
@no_type_check
def load_coordinate(x, points, n, stride_point, AXIS: tl.constexpr, stride_axis):
    """Return one coordinate of the tile's points, as it was given."""
    return tl.load(x + points * stride_point + AXIS * stride_axis, mask=points < n, other=0.0)


@triton.jit
@no_type_check
def cell_and_fraction(coordinate, scale):
    """Compute floor(p) and p − floor(p) of p = x · scale + 0.5, x clamped to [0, 1]; NaN counts as 0."""
    position = tl.minimum(tl.where(coordinate > 0, coordinate, 0.0), 1.0) * scale + 0.5
    cell = tl.floor(position)
    return cell.to(tl.int32).to(tl.uint32), position - cell


@triton.jit
@no_type_check
def entry_of_corner(level, cell_x, cell_y, cell_z, CORNER: tl.constexpr):
    """Index of a corner's entry among the entries of all levels; a dense level's last cell wraps, as in tiny-cuda-nn.

    `level` points at the level's row of `levels`.
    """
    resolution = tl.load(level + RESOLUTION).to(tl.uint32)
    size = tl.load(level + SIZE).to(tl.uint32)
    x, y, z = cell_x + (CORNER & 1), cell_y + (CORNER >> 1 & 1), cell_z + (CORNER >> 2)
    hashed = (x ^ (y * PRIME_Y) ^ (z * PRIME_Z)) & (size - 1)
    dense = x + resolution * (y + resolution * z)
    dense = tl.where(dense >= size, dense - size, dense)
    return tl.where(tl.load(level + HASHED) != 0, hashed, dense).to(tl.int64) + tl.load(level + OFFSET)


@triton.jit
@no_type_check
def end_weight(fraction, UPPER: tl.constexpr):
    """Weight of a cell's lower or upper end along one axis."""
    return fraction if UPPER else 1.0 - fraction


@triton.jit
@no_type_check
def encode_grid_forward(
    table,
    x,
    encoded,
    levels,
    scales,
    n,
    pitch,
    stride_point,
    stride_axis,
    F: tl.constexpr,
    TILE: tl.constexpr,
):
    """Compute encoded[level · F + f, i] = Σ_corners w · table[entry, f] for i < pitch; points from n on count as 0."""
    index = tl.program_id(1)
    level, scale = levels + index * N_FIELDS, tl.load(scales + index)
    points = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    features = tl.arange(0, F).to(tl.int64)
    cell_x, frac_x = cell_and_fraction(load_coordinate(x, points, n, stride_point, 0, stride_axis), scale)
    cell_y, frac_y = cell_and_fraction(load_coordinate(x, points, n, stride_point, 1, stride_axis), scale)
    cell_z, frac_z = cell_and_fraction(load_coordinate(x, points, n, stride_point, 2, stride_axis), scale)
    total = tl.zeros([TILE, F], tl.float32)
    for corner in tl.static_range(8):
        entry = entry_of_corner(level, cell_x, cell_y, cell_z, corner)
        weight = (
            end_weight(frac_x, corner & 1)
            * end_weight(frac_y, corner >> 1 & 1)
            * end_weight(frac_z, corner >> 2)
        )
        total += weight[:, None] * tl.load(table + entry[:, None] * F + features[None, :])
    rows = index * F + features
    tl.store(encoded + rows[None, :] * pitch + points[:, None], total, mask=points[:, None] < pitch)


@triton.jit
@no_type_check
def encode_grid_backward(
    grad_table,
    x,
    grad_encoded,
    levels,
    scales,
    n,
    pitch,
    stride_point,
    stride_axis,
    F: tl.constexpr,
    TILE: tl.constexpr,
):
    """Compute grad_table[entry, f] += w · grad_encoded[level · F + f, i]; points without gradient take no part."""
    index = tl.program_id(1)
    level, scale = levels + index * N_FIELDS, tl.load(scales + index)
    points = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    features = tl.arange(0, F).to(tl.int64)
    rows = index * F + features
    grads = tl.load(
        grad_encoded + rows[None, :] * pitch + points[:, None], mask=points[:, None] < n, other=0.0
    )
    active = tl.max((grads != 0).to(tl.int32), 1) > 0
    cell_x, frac_x = cell_and_fraction(load_coordinate(x, points, n, stride_point, 0, stride_axis), scale)
    cell_y, frac_y = cell_and_fraction(load_coordinate(x, points, n, stride_point, 1, stride_axis), scale)
    cell_z, frac_z = cell_and_fraction(load_coordinate(x, points, n, stride_point, 2, stride_axis), scale)
    for corner in tl.static_range(8):
        entry = entry_of_corner(level, cell_x, cell_y, cell_z, corner)
        weight = (
            end_weight(frac_x, corner & 1)
            * end_weight(frac_y, corner >> 1 & 1)
            * end_weight(frac_z, corner >> 2)
        )
        to = grad_table + entry[:, None] * F + features[None, :]
        tl.atomic_add(to, weight[:, None] * grads, mask=active[:, None], sem="relaxed")


@triton.jit
@no_type_check
def add_axis_gradient(grad_x, points, n, coordinate, scale, total, AXIS: tl.constexpr):
    """Compute grad_x[axis, i] += scale · total for coordinates in [0, 1], ends included: else the clamp stops it."""
    inside = (coordinate >= 0) & (coordinate <= 1)
    tl.atomic_add(grad_x + AXIS * n + points, scale * total, mask=inside & (points < n), sem="relaxed")


@triton.jit
@no_type_check
def encode_grid_backward_input(
    grad_x,
    table,
    x,
    grad_encoded,
    levels,
    scales,
    n,
    pitch,
    stride_point,
    stride_axis,
    F: tl.constexpr,
    TILE: tl.constexpr,
):
    """Compute grad_x[axis, i] += Σ_corners dw/dx_axis · ⟨table[entry], grad_encoded[level · F :, i]⟩."""
    index = tl.program_id(1)
    level, scale = levels + index * N_FIELDS, tl.load(scales + index)
    points = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    features = tl.arange(0, F).to(tl.int64)
    rows = index * F + features
    grads = tl.load(
        grad_encoded + rows[None, :] * pitch + points[:, None], mask=points[:, None] < n, other=0.0
    )
    x0 = load_coordinate(x, points, n, stride_point, 0, stride_axis)
    x1 = load_coordinate(x, points, n, stride_point, 1, stride_axis)
    x2 = load_coordinate(x, points, n, stride_point, 2, stride_axis)
    cell_x, frac_x = cell_and_fraction(x0, scale)
    cell_y, frac_y = cell_and_fraction(x1, scale)
    cell_z, frac_z = cell_and_fraction(x2, scale)
    total_x, total_y, total_z = tl.zeros_like(frac_x), tl.zeros_like(frac_y), tl.zeros_like(frac_z)
    for corner in tl.static_range(8):
        entry = entry_of_corner(level, cell_x, cell_y, cell_z, corner)
        product = tl.sum(tl.load(table + entry[:, None] * F + features[None, :]) * grads, 1)
        w_x = end_weight(frac_x, corner & 1)
        w_y = end_weight(frac_y, corner >> 1 & 1)
        w_z = end_weight(frac_z, corner >> 2)
        total_x += w_y * w_z * (product if corner & 1 else -product)
        total_y += w_x * w_z * (product if corner >> 1 & 1 else -product)
        total_z += w_x * w_y * (product if corner >> 2 else -product)
    add_axis_gradient(grad_x, points, n, x0, scale, total_x, 0)
    add_axis_gradient(grad_x, points, n, x1, scale, total_y, 1)
    add_axis_gradient(grad_x, points, n, x2, scale, total_z, 2)
