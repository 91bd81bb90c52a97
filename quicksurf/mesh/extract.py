"""From a field of logits to triangles: marching cubes where the occupancy grid says there may be a surface.

Notation: the lattice has `resolution` cells of edge `step` along the longest side of the box; lattice point
(i, j, k) lies at aabb_min + step · (i, j, k). Points are kept in blocks of 32³: a block holds its own points,
and its far planes are its neighbours' first ones, so every point is evaluated once and neighbouring blocks
cut a shared edge at the very same place. The mesh has no seams, and memory grows with the occupied part of
the box, not with the box.

A point that is not evaluated (no occupied cell near it, or outside the box) is NaN, not "outside". A face
between a point inside and a point never looked at would be a lid that nothing in the images asked for; its
vertices come out NaN and it is dropped. So neither the box nor the grid's border closes the mesh.

Skipping points by a coarser lattice first was left out: it cannot be made safe for rods thinner than the
coarse cell, and the grid already leaves little but the object.
"""

from collections.abc import Callable

import mcubes
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from quicksurf.errors import ConfigError, SurfaceError
from quicksurf.geometry.region import dilate
from quicksurf.mesh.types import Faces, Triangles, Vertices

# 33³ cells take PyMCubes 2 ms: long against a call, short against the empty cells a larger block adds.
BLOCK = 32
MAX_RESOLUTION = 2048
_BLOCKS_PER_BATCH = 8  # 2¹⁸ points a call: bounds the field's activations
_MAX_BLOCKS = 16384  # 2 GiB of values; a lattice that needs more is refused before memory is taken
_MERGE = 2.0**20  # per cell: copies of one vertex in two blocks differ by float64 rounding, 1e-13 of a cell

Logits = Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n"]]


def extract_surface(
    logits: Logits, occupied: Bool[Tensor, "rx ry rz"], aabb: Float[Tensor, "6"], resolution: int
) -> Triangles:
    """Triangulate the level set logit = 0 inside the occupied cells (and their neighbours), facing outward.

    `occupied` divides `aabb` (min, max) evenly along each axis. A field without a crossing gives an empty
    mesh.

    Raises:
        ConfigError: if `resolution` is not in 2..2048.
        SurfaceError: if the occupied part needs more than 2 GiB at this resolution.
    """
    if not 2 <= resolution <= MAX_RESOLUTION:
        raise ConfigError(
            f"mesh resolution is {resolution}: choose 2 to {MAX_RESOLUTION} (256 to 512 is usual)"
        )
    lattice = Lattice(occupied, aabb, resolution)
    blocks = lattice.blocks()
    if len(blocks) > _MAX_BLOCKS:
        raise SurfaceError(
            f"the mesh needs {len(blocks) / 8192:.1f} GiB at resolution {resolution}, allowed are "
            f"{_MAX_BLOCKS / 8192:.0f}: lower --resolution or choose a smaller --roi"
        )
    values = sample(logits, lattice, blocks, aabb.device)
    vertices, faces = march_cubes(values, blocks)
    vertices = lattice.low + lattice.step * vertices
    return _refine(logits, vertices, faces, lattice.step, aabb.device), faces


class Lattice:
    """Where the points lie, and which are evaluated: those in an occupied cell or a neighbour of one."""

    def __init__(self, occupied: Bool[Tensor, "rx ry rz"], aabb: Float[Tensor, "6"], resolution: int) -> None:
        bounds = aabb.detach().cpu().double().numpy()
        self.low, extent = bounds[:3], bounds[3:] - bounds[:3]
        self.step = float(extent.max()) / resolution
        self.n_points = np.floor(extent / self.step + 1e-6).astype(np.int64) + 1
        self._active = dilate(occupied).cpu().numpy()
        self._cells = [  # per axis, the cell of each point
            np.minimum(np.arange(n) * self.step / side * r, r - 1).astype(np.int64)
            for n, side, r in zip(self.n_points, extent, self._active.shape, strict=True)
        ]

    def blocks(self) -> Int64[np.ndarray, "b 3"]:
        """Return the positions (in blocks) of the blocks that hold a point to evaluate."""
        found = self._active
        for axis, cells in enumerate(self._cells):
            starts = np.arange(0, len(cells), BLOCK)
            found = np.logical_or.reduceat(found.take(cells, axis), starts, axis=axis)
        return np.argwhere(found)

    def points_of(self, block: Int64[np.ndarray, "3"]) -> Int64[np.ndarray, "n 3"]:
        """Return the lattice coordinates, within the block, of its points to evaluate."""
        cells = [table[BLOCK * b : BLOCK * (b + 1)] for b, table in zip(block, self._cells, strict=True)]
        return np.argwhere(self._active[np.ix_(*cells)])


def sample(
    logits: Logits, lattice: Lattice, blocks: Int64[np.ndarray, "b 3"], device: torch.device
) -> Float32[np.ndarray, "b 32 32 32"]:
    """Evaluate the logits at the lattice's points; NaN at those that are not to be evaluated."""
    values = np.full((len(blocks), BLOCK, BLOCK, BLOCK), np.nan, np.float32)
    for first in range(0, len(blocks), _BLOCKS_PER_BATCH):
        batch = range(first, min(first + _BLOCKS_PER_BATCH, len(blocks)))
        locals_ = [lattice.points_of(blocks[b]) for b in batch]
        index = np.concatenate([p + BLOCK * blocks[b] for p, b in zip(locals_, batch, strict=True)])
        result = _query(logits, lattice.low + lattice.step * index, device)
        owner = np.repeat(batch, [len(p) for p in locals_])
        values[(owner, *np.concatenate(locals_).T)] = result
    return values


def _query(
    logits: Logits, points: Float64[np.ndarray, "n 3"], device: torch.device
) -> Float32[np.ndarray, "n"]:
    with torch.no_grad():
        result = logits(torch.from_numpy(points.astype(np.float32)).to(device))
    return result.float().cpu().numpy()


def march_cubes(values: Float32[np.ndarray, "b 32 32 32"], blocks: Int64[np.ndarray, "b 3"]) -> Triangles:
    """Triangulate block by block (marching cubes); vertices in lattice coordinates, shared ones merged."""
    owners = {tuple(block): index for index, block in enumerate(blocks.tolist())}
    parts, faces, n_vertices = [np.zeros((0, 3))], [np.zeros((0, 3), np.int64)], 0
    for block in blocks:
        padded = _with_far_planes(values, owners, block)
        if not ((padded > 0).any() and (padded <= 0).any()):
            continue
        part, triangles = mcubes.marching_cubes(padded, 0.0)
        parts.append(part + BLOCK * block)
        faces.append(triangles.astype(np.int64) + n_vertices)  # facing the smaller values: outward
        n_vertices += len(part)
    return _merge(np.concatenate(parts), np.concatenate(faces))


def _with_far_planes(
    values: Float32[np.ndarray, "b 32 32 32"],
    owners: dict[tuple[int, ...], int],
    block: Int64[np.ndarray, "3"],
) -> Float32[np.ndarray, "33 33 33"]:
    padded = np.full((BLOCK + 1,) * 3, np.nan, np.float32)
    for offset in np.ndindex(2, 2, 2):
        owner = owners.get(tuple((block + offset).tolist()))
        if owner is not None:
            target = tuple(slice(BLOCK, None) if o else slice(0, BLOCK) for o in offset)
            source = tuple(slice(0, 1) if o else slice(None) for o in offset)
            padded[target] = values[owner][source]
    return padded


def _merge(vertices: Vertices, faces: Faces) -> Triangles:
    """One vertex for its copies on the planes between blocks and on lattice points of value exactly 0.

    Faces with a NaN vertex, or fewer than three distinct ones, are dropped.
    """
    representative = np.arange(len(vertices))
    finite = np.all(np.isfinite(vertices), axis=1)
    on_plane, on_point = (np.mod(vertices, BLOCK) == 0).any(1), (np.mod(vertices, 1) == 0).all(1)
    shared = np.flatnonzero(finite & (on_plane | on_point))
    keys = np.round(vertices[shared] * _MERGE).astype(np.int64)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    representative[shared] = shared[first[inverse.ravel()]]
    faces = representative[faces]
    distinct = (faces != np.roll(faces, 1, axis=1)).all(1)
    faces = faces[distinct & finite[faces].all(1)]
    used, renumbered = np.unique(faces, return_inverse=True)
    return vertices[used], renumbered.reshape(-1, 3)


def _refine(logits: Logits, vertices: Vertices, faces: Faces, step: float, device: torch.device) -> Vertices:
    """One secant step along the vertex normal: marching cubes interpolates linearly, the logits are curved.

    With l₀ the logit at the vertex and l₁ half a cell further out, it moves by (step/2) l₀ / (l₀ − l₁),
    cut to a quarter of a cell so that faces cannot fold; where the logits do not fall outward it stays.
    """
    normals = vertex_normals(vertices, faces)
    refined, size = vertices.copy(), _BLOCKS_PER_BATCH * BLOCK**3
    for first in range(0, len(vertices), size):
        batch = slice(first, first + size)
        here = _query(logits, vertices[batch], device).astype(np.float64)
        fall = here - _query(logits, vertices[batch] + 0.5 * step * normals[batch], device)
        move = np.where(fall > 1e-6, here / np.maximum(fall, 1e-6), 0.0)
        refined[batch] += (0.5 * step * np.clip(move, -0.5, 0.5))[:, None] * normals[batch]
    return refined


def vertex_normals(vertices: Vertices, faces: Faces) -> Vertices:
    """Return unit normals, the area-weighted mean over a vertex's faces; (0, 0, 0) for a vertex of none."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    face_normals = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for axis in range(3):
        weights = np.repeat(face_normals[:, axis], 3)
        normals[:, axis] = np.bincount(faces.ravel(), weights, minlength=len(vertices))
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
