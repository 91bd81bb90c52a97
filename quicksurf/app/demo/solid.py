"""The demo's solid and its paint: a fluted teapot with a bail handle, from smooth signed distances.

It has what photogrammetry finds hard: a hole as wide as the object (under the handle), two small ones (the lugs), thin
parts (handle 2.5 % of the height), relief (the flutes), a concave tip, contact with a table. Coordinates: z up, the
table at z = 0, the pot about 1.7 long and 1.6 high. Colours are linear albedo.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from quicksurf.app.demo.paint import Noise, mix, rgb, step
from quicksurf.mesh.extract import extract_surface

LOW, HIGH = (-1.0, -1.0, -0.2), (1.2, 1.0, 1.8)
_RESOLUTION = 288  # cells of 7 thousandths: about a pixel of the images
_COARSE = 96  # cells that decide where the fine lattice is evaluated
_N_FLUTES = 14


class Solid(NamedTuple):
    """The triangulated object: the photos and the ground truth show the same triangles."""

    vertices: Float[Tensor, "v 3"]
    faces: Int64[np.ndarray, "f 3"]
    normals: Float[Tensor, "v 3"]
    albedo: Float[Tensor, "v 3"]
    gloss: Float[Tensor, "v"]
    """Strength of the highlight."""


def make_solid(seed: int) -> Solid:
    """Triangulate and paint the teapot."""
    box = torch.tensor([*LOW, *HIGH])
    centers = [
        low + (torch.arange(_COARSE) + 0.5) / _COARSE * (high - low)
        for low, high in zip(LOW, HIGH, strict=True)
    ]
    grid = torch.stack(torch.meshgrid(*centers, indexing="ij"), -1).reshape(-1, 3)
    near = distance(grid).abs() < 0.02  # half the diagonal of a coarse cell
    vertices, faces = extract_surface(lambda p: -distance(p), near.reshape((_COARSE,) * 3), box, _RESOLUTION)
    points = torch.from_numpy(vertices).float()
    albedo, gloss = _paint(points, seed)
    return Solid(points, faces, _gradient(points), albedo, gloss)


def distance(points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
    """Compute the signed distance, negative inside; a bound only, as ellipsoids are not exact."""
    parts = _parts(points)
    body = _smooth_min(_smooth_min(parts["body"], parts["foot"], 0.05), parts["lid"], 0.02)
    body = _smooth_min(_smooth_min(body, parts["spout"], 0.07), parts["lugs"], 0.03)
    body = torch.maximum(body, -parts["mouth"])
    body = _smooth_min(body, parts["knob"], 0.02)
    return torch.maximum(_smooth_min(body, parts["handle"], 0.012), -points[:, 2])


def _parts(points: Float[Tensor, "n 3"]) -> dict[str, Float[Tensor, "n"]]:
    x, y, z = (column.contiguous() for column in points.unbind(1))
    radius = torch.hypot(x, y)
    flank = torch.exp(-(((z - 0.48) / 0.24) ** 2))
    flutes = 0.016 * flank * torch.cos(_N_FLUTES * torch.atan2(y, x) + 5 * (z - 0.5))
    grip = 0.036 + 0.022 * torch.sigmoid((0.30 - x.abs()) * 60)  # thicker where it is wrapped in rattan
    arch = torch.where(
        z > 0.86, (torch.hypot(x, z - 0.86) - 0.63).abs(), torch.hypot(x.abs() - 0.63, z - 0.86)
    )
    return {
        "body": _ellipsoid(radius, z - 0.50, 0.64, 0.44) - flutes,
        "foot": torch.maximum(radius - 0.33 - 0.04 * torch.sin(30 * z), (z - 0.06).abs() - 0.06),
        "lid": _ellipsoid(radius, z - 0.90, 0.33, 0.10).minimum(torch.hypot(radius - 0.31, z - 0.90) - 0.028),
        "knob": torch.hypot(radius, z - 1.06) - 0.07,
        "spout": _spout(x, y, z),
        "mouth": torch.hypot(torch.hypot(x - 1.045, y), z - 0.985) - 0.05,
        "lugs": torch.hypot(torch.hypot(x.abs() - 0.585, z - 0.83) - 0.075, y) - 0.03,
        "handle": torch.hypot(arch, y) - grip,
    }


def _spout(x: Float[Tensor, "n"], y: Float[Tensor, "n"], z: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """A swan's neck: round cones along a quadratic Bézier curve in the plane y = 0."""
    t = np.linspace(0, 1, 7)[:, None]
    curve = (1 - t) ** 2 * [0.42, 0.36] + 2 * t * (1 - t) * [0.98, 0.42] + t**2 * [1.02, 0.95]
    radii, nearest = 0.16 - 0.09 * t[:, 0], torch.full_like(x, math.inf)
    for a, b, ra, rb in zip(curve[:-1], curve[1:], radii[:-1], radii[1:], strict=True):
        (dx, dz), length2 = b - a, float((b - a) @ (b - a))
        along = (((x - a[0]) * dx + (z - a[1]) * dz) / length2).clamp(0, 1)
        axis = torch.hypot(torch.hypot(x - a[0] - along * dx, z - a[1] - along * dz), y)
        nearest = torch.minimum(nearest, axis - ra - along * (rb - ra))
    return nearest


def _ellipsoid(
    radius: Float[Tensor, "n"], height: Float[Tensor, "n"], a: float, b: float
) -> Float[Tensor, "n"]:
    """An ellipsoid of revolution with half-axes a (across) and b (up)."""
    k0 = torch.hypot(radius / a, height / b)
    return k0 * (k0 - 1) / torch.hypot(radius / a**2, height / b**2).clamp_min(1e-6)


def _smooth_min(a: Tensor, b: Tensor, width: float) -> Tensor:
    """Polynomial smooth minimum: blends within `width` of a = b."""
    h = (width - (a - b).abs()).clamp_min(0) / width
    return torch.minimum(a, b) - h * h * width / 4


def _gradient(points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    step = 2e-3
    taps = points.new_tensor([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]])
    gradient = sum(tap * distance(points + step * tap)[:, None] for tap in taps)
    assert isinstance(gradient, Tensor)
    return torch.nn.functional.normalize(gradient, dim=1)


def _paint(points: Float[Tensor, "n 3"], seed: int) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n"]]:
    """Teal glaze with a cream band and brush strokes, bare clay at the foot, brass knob, iron and rattan handle."""
    noise = Noise(seed)
    parts = _parts(points)
    owner = torch.stack(
        [parts[k] for k in ("body", "foot", "lid", "knob", "spout", "lugs", "handle")]
    ).argmin(0)
    x, y, z = points.unbind(1)
    broad, fine = noise.fbm(points, 2.5, 3), noise.fbm(points, 14.0, 3)
    glaze = mix(rgb(0.02, 0.16, 0.20), rgb(0.10, 0.42, 0.36), step(broad, -0.25, 0.3))
    glaze = mix(glaze, rgb(0.45, 0.55, 0.42), step(fine + 0.4 * broad, 0.18, 0.4))
    band = step(0.075 - (z - 0.66 - 0.02 * broad).abs(), -0.004, 0.004) * (owner == 0)
    strokes = noise.fbm(points * points.new_tensor([1.0, 1.0, 0.6]), 9.0, 3)
    cream = mix(rgb(0.72, 0.62, 0.44), rgb(0.05, 0.06, 0.25), step(strokes, 0.05, 0.12))
    glaze = mix(glaze, cream, band)
    clay = mix(rgb(0.42, 0.17, 0.08), rgb(0.60, 0.32, 0.18), step(fine, -0.3, 0.3))
    brass = mix(rgb(0.55, 0.36, 0.10), rgb(0.30, 0.18, 0.06), step(fine, -0.1, 0.3))
    iron = mix(rgb(0.06, 0.055, 0.06), rgb(0.22, 0.12, 0.07), step(fine + broad, 0.0, 0.5))
    turns = torch.atan2(x, z - 0.86) * 40 + 2.0 * torch.atan2(y, torch.hypot(x, z - 0.86) - 0.63)
    rattan = mix(rgb(0.50, 0.30, 0.12), rgb(0.20, 0.10, 0.04), step(turns.sin() + fine, 0.2, 0.9))
    handle = mix(iron, rattan, step(0.31 - x.abs(), -0.005, 0.005) * (z > 1))
    rim = step(0.02 - (torch.hypot(x, y) - 0.325).abs(), -0.005, 0.005)
    lid = mix(glaze, brass, rim)
    albedo = torch.stack([glaze, clay, lid, brass, glaze, iron, handle])[owner, torch.arange(len(points))]
    speckle = 1 + 0.25 * fine + 0.35 * noise.fbm(points, 45.0, 2)
    gloss = torch.tensor([0.35, 0.02, 0.35, 0.5, 0.35, 0.12, 0.1])[owner]
    return (albedo * speckle[:, None]).clamp(0.01, 0.95), gloss
