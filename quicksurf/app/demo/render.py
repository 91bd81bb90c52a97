"""Light and photos of the demo scene: rasterised object, ray-traced room, 2 × 2 samples per pixel.

A soft sun and a sky light the scene, and the object casts shadows on itself and on the table. The irradiance at a point
p with normal n is E = sum_k radiance_k max(0, n·l_k) visible_k(p) over a fixed set of directions l_k. Visibility comes
from an orthographic z-buffer of the object along each direction: many sharp shadows add up to the soft shadow of the
sun, and to the ambient occlusion of the sky. All of it is independent of the view, so it is computed once per vertex
and texel.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from quicksurf.app.demo.room import TABLE_RADIUS, Room, as_texture, room_radiance, texel_grid
from quicksurf.app.demo.solid import Solid
from quicksurf.geometry.cameras import Cameras, project, resize
from quicksurf.geometry.color import srgb_from_linear
from quicksurf.kernels.host import rasterize
from quicksurf.mesh.clean import decimate

SUN = torch.nn.functional.normalize(torch.tensor([0.55, -0.45, 0.80]), dim=0)
_SUN_SPREAD = 0.09  # radians: a window nearby rather than the sun
_N_SUN, _N_SKY = 16, 48
_SIDE = 448  # pixels of a z-buffer over 5 units: about one edge of the occluder's triangles
_EXTENT = 2.5
_FAR = 100.0  # the z-buffer interpolates 1/z; so far off, that is linear to 1e-6
_BIAS = 0.015  # along the normal, against a surface shadowing itself
_LIGHT_SIDE = 256  # texels of the table's shadows, which are soft: coarser than its paint
_SAMPLES = 2  # per pixel and axis
_OCCLUDER_FACES = 40_000  # the shadows are softer than these triangles
_EXPONENT = 50.0  # Blinn and Phong's: glazed stoneware


class Lights(NamedTuple):
    """Directions towards the light, and the radiance from there."""

    directions: Float[Tensor, "k 3"]
    radiance: Float[Tensor, "k 3"]
    depths: Float[Tensor, "k s s"]
    """Orthographic z-buffers of the object."""


class DemoScene(NamedTuple):
    """The lit object and room."""

    solid: Solid
    radiance: Float[Tensor, "v 3"]
    """Diffuse radiance of the object's vertices."""
    highlight: Float[Tensor, "v 3"]
    """Strength of the sun's reflection at the vertices: gloss times the sun's light that arrives."""
    room: Room


def make_lights(vertices: Float[Tensor, "v 3"], faces: np.ndarray) -> Lights:
    """Sample sun and sky, and rasterize the object's z-buffer along each of their directions."""
    sun_u, sun_v = _basis(SUN)
    disc = _spiral(_N_SUN)
    sun = SUN + _SUN_SPREAD * (disc[:, :1] * sun_u + disc[:, 1:] * sun_v)
    lift = _spiral(_N_SKY)  # uniform on the disc is cosine-weighted on the hemisphere above it
    sky = torch.cat([lift, (1 - lift.square().sum(1, keepdim=True)).clamp_min(1e-3).sqrt()], 1)
    directions = torch.nn.functional.normalize(torch.cat([sun, sky]), dim=1)
    # the sky's directions are drawn with density cos / pi: divide it out, its horizon counts as much as its zenith
    density = directions[_N_SUN:, 2:].clamp_min(0.15)
    radiance = torch.cat(
        [
            torch.tensor([1.75, 1.55, 1.25]).expand(_N_SUN, 3) / _N_SUN,
            torch.tensor([0.46, 0.52, 0.60]) / density / _N_SKY,
        ]
    )
    triangles = np.ascontiguousarray(faces, np.int32)
    depths = [
        rasterize(_orthographic(direction, vertices).numpy(), triangles, _SIDE, _SIDE)[0]
        for direction in directions
    ]
    return Lights(directions, radiance, torch.from_numpy(np.stack(depths)))


def irradiance(
    lights: Lights, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Compute E at `points` from the sun, and from the sky with a little light that the table reflects upwards."""
    raised = points + _BIAS * normals
    reflected = (1 - normals[:, 2:]) / (2 + 2 * points[:, 2:])
    parts = [torch.zeros_like(points), reflected * torch.tensor([0.09, 0.07, 0.045])]
    for index, (direction, radiance, depth) in enumerate(zip(*lights, strict=True)):
        column, row, z = _orthographic(direction, raised).unbind(1)
        nearest = depth[row.long().clamp_(0, _SIDE - 1), column.long().clamp_(0, _SIDE - 1)]
        cosine = (normals @ direction).clamp_min(0) * (z <= nearest)
        parts[index >= _N_SUN].addcmul_(cosine[:, None], radiance)
    return parts[0], parts[1]


def _orthographic(direction: Float[Tensor, "3"], points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    u, v = _basis(direction)
    scale = _SIDE / (2 * _EXTENT)
    axes = torch.stack([scale * u, scale * v, -direction], 1)
    return points @ axes + torch.tensor([scale * _EXTENT, scale * _EXTENT, _FAR])


def _basis(direction: Float[Tensor, "3"]) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    helper = torch.tensor([0.0, 1.0, 0.0] if abs(float(direction[1])) < 0.9 else [1.0, 0.0, 0.0])
    u = torch.nn.functional.normalize(torch.linalg.cross(helper, direction), dim=0)
    return u, torch.linalg.cross(direction, u)


def _spiral(n: int) -> Float[Tensor, "n 2"]:
    """Vogel's sunflower: n points spread evenly over the unit disc."""
    index = torch.arange(n)
    angle, radius = index * math.pi * (3 - math.sqrt(5)), ((index + 0.5) / n).sqrt()
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)


def light_scene(solid: Solid, paint: Room) -> DemoScene:
    """Light the object and the painted room around it."""
    vertices, faces = decimate(solid.vertices.double().numpy(), solid.faces, _OCCLUDER_FACES)
    lights = make_lights(torch.from_numpy(vertices).float(), faces)
    sun, sky = irradiance(lights, solid.vertices, solid.normals)
    return DemoScene(
        solid, solid.albedo * (sun + sky), solid.gloss[:, None] * sun, _light_room(lights, paint)
    )


def _light_room(lights: Lights, paint: Room) -> Room:
    """The radiance of a painted room: the table is lit with the object's shadows, the rest evenly."""
    place = texel_grid(_LIGHT_SIDE, TABLE_RADIUS)
    sun, sky = irradiance(lights, place, torch.tensor([0.0, 0.0, 1.0]).expand_as(place))
    light = as_texture(sun + sky, (_LIGHT_SIDE, _LIGHT_SIDE))
    light = interpolate(light, size=paint.table.shape[2:], mode="bilinear", align_corners=False)
    return Room(paint.table * light, 0.55 * paint.floor, 0.75 * paint.wall)


def photograph(scene: DemoScene, cameras: Cameras, index: int) -> UInt8[np.ndarray, "h w 3"]:
    """Render one photo, sRGB. Samples are averaged before the sRGB curve, as light is on a sensor."""
    fine = resize(cameras, cameras.sizes * _SAMPLES).to(torch.float32)
    width, height = fine.sizes[index].tolist()
    origin, directions = _pinhole_rays(fine, index)
    projected, depths = project(fine, index, scene.solid.vertices)
    corners = torch.cat([projected, depths[:, None]], 1).numpy()
    _, faces = rasterize(corners, scene.solid.faces, width, height)
    face = torch.from_numpy(faces).reshape(-1)
    on_solid, beside = torch.nonzero(face >= 0)[:, 0], torch.nonzero(face < 0)[:, 0]
    radiance = torch.empty_like(directions)
    radiance[beside] = room_radiance(scene.room, origin, directions[beside])
    hit = torch.from_numpy(scene.solid.faces)[face[on_solid].long()]
    radiance[on_solid] = _shade(scene, hit, origin, directions[on_solid])
    image = radiance.T.reshape(1, 3, height, width)
    image = torch.nn.functional.avg_pool2d(image, _SAMPLES)[0].permute(1, 2, 0)
    return np.rint(255 * srgb_from_linear(image.clamp(0, 1).double().numpy())).astype(np.uint8)


def _pinhole_rays(cameras: Cameras, index: int) -> tuple[Float[Tensor, "3"], Float[Tensor, "n 3"]]:
    """Centre and unit directions of all pixels' rays; `pixel_rays` takes three times as long, with a pose per ray."""
    (width, height), (fx, fy, cx, cy) = cameras.sizes[index].tolist(), cameras.intrinsics[index].tolist()
    right, down, forward, center = cameras.c2w[index].unbind(1)
    across = (((torch.arange(width) + 0.5 - cx) / fx)[:, None] * right)[None]
    directions = across + (((torch.arange(height) + 0.5 - cy) / fy)[:, None] * down + forward)[:, None]
    return center, torch.nn.functional.normalize(directions.reshape(-1, 3), dim=1)


def _shade(
    scene: DemoScene,
    corners: Int[Tensor, "n 3"],
    origin: Float[Tensor, "3"],
    directions: Float[Tensor, "n 3"],
) -> Float[Tensor, "n 3"]:
    """Interpolated radiance, plus the sun's reflection (Blinn and Phong) that moves with the camera."""
    weights = _barycentric(scene.solid.vertices[corners], origin, directions)[..., None]
    normals = torch.nn.functional.normalize((scene.solid.normals[corners] * weights).sum(1), dim=1)
    half = torch.nn.functional.normalize(SUN - directions, dim=1)
    lobe = (normals * half).sum(1, keepdim=True).clamp_min(0) ** _EXPONENT
    return ((scene.radiance[corners] + scene.highlight[corners] * lobe[:, None]) * weights).sum(1)


def _barycentric(
    triangles: Float[Tensor, "n 3 3"], origin: Float[Tensor, "3"], directions: Float[Tensor, "n 3"]
) -> Float[Tensor, "n 3"]:
    """Where rays cross triangles, by Möller and Trumbore; edge-on triangles give their first corner."""
    first, second = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    across = torch.linalg.cross(directions, second)
    determinant = (first * across).sum(1)
    inverse = torch.where(determinant.abs() > 1e-12, 1 / determinant, torch.zeros_like(determinant))
    offset = origin - triangles[:, 0]
    u = (offset * across).sum(1) * inverse
    v = (directions * torch.linalg.cross(offset, first)).sum(1) * inverse
    u, v = u.clamp(0, 1), v.clamp(0, 1)
    return torch.stack([(1 - u - v).clamp_min(0), u, v], 1)
