"""Photos of the demo scene: rasterised object, ray-traced room, 2 × 2 samples a pixel."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from quicksurf.app.demo.light import SUN, irradiance, make_lights
from quicksurf.app.demo.room import Room, light_room, room_radiance
from quicksurf.app.demo.solid import Solid
from quicksurf.geometry.cameras import Cameras, project, resize
from quicksurf.geometry.color import srgb_from_linear
from quicksurf.kernels.host import rasterize
from quicksurf.mesh.clean import decimate

_SAMPLES = 2  # per pixel and axis
_OCCLUDER_FACES = 40_000  # the shadows are softer than these triangles
_EXPONENT = 50.0  # Blinn and Phong's: glazed stoneware


class DemoScene(NamedTuple):
    """Everything that is seen, with its light."""

    solid: Solid
    radiance: Float[Tensor, "v 3"]
    """What the object's vertices send out to all sides alike."""
    highlight: Float[Tensor, "v 3"]
    """Strength of the sun's reflection at the vertices: gloss times the sun's light that arrives."""
    room: Room


def light_scene(solid: Solid, paint: Room) -> DemoScene:
    """Light the object and the painted room around it."""
    vertices, faces = decimate(solid.vertices.double().numpy(), solid.faces, _OCCLUDER_FACES)
    lights = make_lights(torch.from_numpy(vertices).float(), faces)
    sun, sky = irradiance(lights, solid.vertices, solid.normals)
    return DemoScene(solid, solid.albedo * (sun + sky), solid.gloss[:, None] * sun, light_room(lights, paint))


def photograph(scene: DemoScene, cameras: Cameras, index: int) -> UInt8[np.ndarray, "h w 3"]:
    """One photo, sRGB. Samples are averaged before the sRGB curve, as light is on a sensor."""
    fine = resize(cameras, cameras.sizes * _SAMPLES).to(torch.float32)
    width, height = fine.sizes[index].tolist()
    radiance = _radiance(scene, fine, index, width, height)
    image = radiance.T.reshape(1, 3, height, width)
    image = torch.nn.functional.avg_pool2d(image, _SAMPLES)[0].permute(1, 2, 0)
    return np.rint(255 * srgb_from_linear(image.clamp(0, 1).double().numpy())).astype(np.uint8)


def _radiance(
    scene: DemoScene, cameras: Cameras, index: int, width: int, height: int
) -> Float[Tensor, "n 3"]:
    origin, directions = _pinhole_rays(cameras, index)
    projected, depths = project(cameras, index, scene.solid.vertices)
    corners = torch.cat([projected, depths[:, None]], 1).numpy()
    _, faces = rasterize(corners, scene.solid.faces, width, height)
    face = torch.from_numpy(faces).reshape(-1)
    on_solid, beside = torch.nonzero(face >= 0)[:, 0], torch.nonzero(face < 0)[:, 0]
    radiance = torch.empty_like(directions)
    radiance[beside] = room_radiance(scene.room, origin, directions[beside])
    hit = torch.from_numpy(scene.solid.faces)[face[on_solid].long()]
    radiance[on_solid] = _shade(scene, hit, origin, directions[on_solid])
    return radiance


def _pinhole_rays(cameras: Cameras, index: int) -> tuple[Float[Tensor, "3"], Float[Tensor, "n 3"]]:
    """Centre and unit directions of all pixels' rays; a third of `pixel_rays`' time, which reads a pose per ray."""
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
