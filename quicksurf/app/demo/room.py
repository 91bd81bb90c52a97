"""The room around the demo's object: a table with a printed mat, a floor with a rug, a wall with bookshelves.

Three analytic surfaces, which rays intersect exactly: a round table top (z = 0), a floor far below, a dome around both.
Each has a texture that is computed once.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from quicksurf.app.demo.paint import Noise, look_up, mix, rgb, step

TABLE_RADIUS = 2.7
_FLOOR_Z, _DOME_RADIUS = -5.0, 11.0  # of a table 70 cm high, the pot being 22 cm
_FLOOR_RADIUS = math.sqrt(_DOME_RADIUS**2 - _FLOOR_Z**2)  # where the dome meets it
_TABLE_SIDE, _FLOOR_SIDE, _WALL_SIZE = 1024, 768, (448, 1792)


class Room(NamedTuple):
    """Textures, albedo or radiance, as grid_sample takes them."""

    table: Float[Tensor, "1 3 a a"]
    floor: Float[Tensor, "1 3 b b"]
    wall: Float[Tensor, "1 3 h w"]


def paint_room(seed: int) -> Room:
    """Paint the albedo of the table, the floor and the wall."""
    noise = Noise(seed + 1)
    return Room(
        as_texture(_table_albedo(texel_grid(_TABLE_SIDE, TABLE_RADIUS), noise), (_TABLE_SIDE, _TABLE_SIDE)),
        as_texture(_floor_albedo(texel_grid(_FLOOR_SIDE, _FLOOR_RADIUS), noise), (_FLOOR_SIDE, _FLOOR_SIDE)),
        as_texture(_wall_albedo(noise), _WALL_SIZE),
    )


def room_radiance(
    room: Room, origin: Float[Tensor, "3"], directions: Float[Tensor, "n 3"]
) -> Float[Tensor, "n 3"]:
    """Trace rays from inside the dome, above the table, to the room's surfaces."""
    radiance = torch.empty_like(directions)
    left = torch.arange(len(directions))
    for texture, z, radius in ((room.table, 0.0, TABLE_RADIUS), (room.floor, _FLOOR_Z, _FLOOR_RADIUS)):
        ahead = directions[left]
        distance = (z - origin[2]) / ahead[:, 2].clamp_max(-1e-6)
        at = (origin[:2] + distance[:, None] * ahead[:, :2]) / radius
        hit = (ahead[:, 2] < -1e-6) & (at[:, 0].square() + at[:, 1].square() < 1)
        found = torch.nonzero(hit)[:, 0]
        radiance[left[found]] = look_up(texture, at[found])
        left = left[~hit]
    ahead = directions[left]
    toward = ahead @ origin
    reach = -toward + (toward**2 + _DOME_RADIUS**2 - origin.square().sum()).clamp_min(0).sqrt()
    on_dome = origin + reach[:, None] * ahead
    azimuth, height = torch.atan2(on_dome[:, 1], on_dome[:, 0]) / math.pi, on_dome[:, 2] / _DOME_RADIUS
    radiance[left] = look_up(room.wall, torch.stack([azimuth, height], 1))
    return radiance


def _table_albedo(points: Float[Tensor, "n 3"], noise: Noise) -> Float[Tensor, "n 3"]:
    """Planks with grain along x, and a round mat: indigo, with gold brush marks and a woven border."""
    x, y, _ = points.unbind(1)
    plank = torch.floor(y / 0.42)
    along = torch.stack([x * 0.35 + plank * 3.7, y * 5 + 0.3 * noise.fbm(points, 1.5, 2), plank], 1)
    grain = noise.fbm(along, 2.2, 5)
    wood = mix(rgb(0.16, 0.075, 0.03), rgb(0.50, 0.27, 0.12), step(grain, -0.7, 0.7))
    wood = wood * (1 + 0.35 * noise.fbm(torch.stack([plank, plank, plank], 1), 0.37, 1))[:, None]
    gap = step(0.008 - (y / 0.42 - plank - 0.5).abs().sub(0.5).abs() * 0.42, -0.003, 0.003)
    wood = mix(wood, rgb(0.03, 0.015, 0.01), gap)
    radius = torch.hypot(x, y)
    marks = noise.fbm(points, 5.0, 4) + 0.2 * torch.cos(24 * torch.atan2(y, x)) * step(radius, 0.9, 1.2)
    mat = mix(rgb(0.03, 0.05, 0.16), rgb(0.10, 0.16, 0.36), step(noise.fbm(points, 30.0, 2), -0.5, 0.5))
    mat = mix(mat, rgb(0.62, 0.44, 0.16), step(marks, 0.22, 0.30))
    border = step(0.05 - (radius - 1.33).abs(), -0.01, 0.01)
    mat = mix(mat, rgb(0.60, 0.52, 0.38), border * step(noise.fbm(points, 20.0, 2), -0.5, -0.2))
    return (
        mix(wood, mat, step(1.42 - radius, -0.006, 0.006)) * (1 + 0.22 * noise.fbm(points, 24.0, 3))[:, None]
    )


def _floor_albedo(points: Float[Tensor, "n 3"], noise: Noise) -> Float[Tensor, "n 3"]:
    x, y, _ = points.unbind(1)
    tile = torch.stack([torch.floor(x / 1.3), torch.floor(y / 1.3), torch.zeros_like(x)], 1)
    shade = noise.fbm(tile * 7.31, 1.0, 1)
    stone = mix(rgb(0.20, 0.17, 0.15), rgb(0.46, 0.40, 0.33), step(shade, -0.8, 0.8))
    stone = stone * (1 + 0.3 * noise.fbm(points, 1.6, 5))[:, None]
    rug = mix(rgb(0.35, 0.06, 0.05), rgb(0.62, 0.40, 0.20), step(noise.fbm(points, 1.2, 4), 0.05, 0.25))
    return mix(stone, rug, step(6.5 - torch.hypot(x, y), -0.05, 0.05))


def _wall_albedo(noise: Noise) -> Float[Tensor, "n 3"]:
    """Plaster, and three shelves with books of random width, height and colour."""
    rows, columns = _WALL_SIZE
    height = ((torch.arange(rows) + 0.5) / rows * 2 - 1)[:, None].expand(rows, columns).reshape(-1)
    azimuth = ((torch.arange(columns) + 0.5) / columns * 2 - 1)[None].expand(rows, columns).reshape(-1)
    on_wall = torch.stack([torch.cos(math.pi * azimuth), torch.sin(math.pi * azimuth), height], 1)
    plaster = mix(rgb(0.42, 0.44, 0.38), rgb(0.62, 0.60, 0.52), step(noise.fbm(on_wall, 5.0, 5), -0.6, 0.6))
    shelf = torch.floor(height / 0.16)
    book = torch.floor(azimuth * 130 + 0.8 * torch.sin(azimuth * 61 + 2 * shelf))
    pick = [noise.fbm(torch.stack([book, 3 * shelf, book * 0 + k], 1) * 5.17, 1.0, 1) for k in range(4)]
    color = mix(rgb(0.06, 0.13, 0.20), rgb(0.42, 0.10, 0.06), step(pick[0], -0.25, 0.25))
    color = mix(color, rgb(0.58, 0.46, 0.28), step(pick[1], 0.05, 0.35)) * (1 + 0.7 * pick[2])[:, None]
    color = color * (1 + 0.4 * noise.fbm(on_wall, 18.0, 3))[:, None]
    top = 0.72 + 0.2 * pick[3]
    color = mix(color, rgb(0.05, 0.04, 0.035), step(height / 0.16 - shelf - top, 0.0, 0.03))
    board = step(0.05 - (height / 0.16 - shelf), -0.01, 0.01)
    color = mix(color, rgb(0.30, 0.19, 0.10), board)
    cabinet = step(0.6 - (azimuth * 4 + 0.5 - torch.floor(azimuth * 4 + 0.5) - 0.5).abs() * 1.6, -0.01, 0.01)
    return mix(plaster, color, cabinet * (height < 0.48) * (height > -0.48))


def texel_grid(side: int, radius: float) -> Float[Tensor, "n 3"]:
    """Compute the texel centres of a square of half-width `radius` on z = 0, rows along y."""
    line = ((torch.arange(side) + 0.5) / side * 2 - 1) * radius
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)], -1).reshape(-1, 3)


def as_texture(colors: Float[Tensor, "n 3"], size: tuple[int, int]) -> Float[Tensor, "1 3 h w"]:
    """Convert texels, row by row, to the layout of grid_sample."""
    return colors.T.reshape(1, 3, *size).contiguous()
