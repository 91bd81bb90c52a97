"""Photos of a textured box on a textured floor, ray-cast with numpy: enough for features, with known cameras."""

import functools
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from quicksurf.geometry import cameras as lens
from quicksurf.geometry.cameras import N_DISTORTION, Cameras

WIDTH, HEIGHT, FOCAL = 512, 384, 520.0
_HALF = np.array([0.6, 0.4, 0.5])
_TEXELS = 512


def arc(n_images: int) -> Cameras:
    """Cameras on an arc of 12 degrees a step, at two heights, looking at the box."""
    poses = []
    for index in range(n_images):
        angle = np.radians(12.0 * index)
        eye = np.array([3 * np.cos(angle), 3 * np.sin(angle), 1.2 + 0.5 * (index % 2)])
        forward = -eye / np.linalg.norm(eye)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        poses.append(np.stack([right, np.cross(forward, right), forward, eye], 1))
    return Cameras(
        c2w=torch.from_numpy(np.stack(poses)),
        intrinsics=torch.tensor([[FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2]]).double().repeat(n_images, 1),
        distortion=torch.zeros(n_images, N_DISTORTION).double(),
        fisheye=torch.zeros(n_images, dtype=torch.bool),
        sizes=torch.tensor([[WIDTH, HEIGHT]]).repeat(n_images, 1),
    )


def render(cameras: Cameras, index: int) -> np.ndarray:
    """What camera `index` sees: the nearest of the box's faces and the floor, lit by nothing, on grey."""
    columns, rows = torch.meshgrid(torch.arange(WIDTH) + 0.5, torch.arange(HEIGHT) + 0.5, indexing="xy")
    pixels = torch.stack([columns, rows], -1).reshape(-1, 2).double()
    origins, directions = lens.pixel_rays(cameras, torch.full((len(pixels),), index), pixels)
    o, d = origins.numpy(), directions.numpy()
    slabs = np.sort(np.stack([(-_HALF - o) / d, (_HALF - o) / d]), axis=0)
    enter, leave = slabs[0].max(1), slabs[1].min(1)
    axis = slabs[0].argmax(1)
    hit_box = (enter < leave) & (enter > 0)
    floor = (-_HALF[2] - o[:, 2]) / d[:, 2]
    hit_floor = (floor > 0) & ~hit_box
    points = o + np.where(hit_box, enter, np.where(hit_floor, floor, 0))[:, None] * d
    side = (axis + 3 * (np.take_along_axis(points, axis[:, None], 1)[:, 0] > 0)).astype(int)
    side = np.where(hit_box, side, 6)
    plane = np.where(hit_box, axis, 2)
    u, v = points[np.arange(len(points)), (plane + 1) % 3], points[np.arange(len(points)), (plane + 2) % 3]
    grey = np.full(len(points), 128.0)
    textures = _textures()
    for face in range(7):
        on = (side == face) & (hit_box | hit_floor) & (np.hypot(u, v) < 2.5)
        at = np.stack([u[on], v[on]]) * (_TEXELS / 5) * (3 if face < 6 else 1) + _TEXELS / 2
        grey[on] = ndimage.map_coordinates(textures[face], at, order=1, mode="wrap")
    shown = np.clip(grey, 0, 255).reshape(HEIGHT, WIDTH, 1).astype(np.uint8)
    return np.repeat(shown, 3, axis=2)


def save(folder: Path, n_images: int, pattern: str = "view_{:02d}.jpg") -> Cameras:
    """Write the views and return their cameras."""
    folder.mkdir(parents=True, exist_ok=True)
    cameras = arc(n_images)
    for index in range(n_images):
        Image.fromarray(render(cameras, index)).save(folder / pattern.format(index), quality=95)
    return cameras


def noise(seed: int, shape: tuple[int, int]) -> np.ndarray:
    """Blobs of several sizes about 128."""
    generator = np.random.default_rng(seed)
    layers = [
        ndimage.gaussian_filter(generator.standard_normal(shape), s, mode="wrap") * s for s in (1.2, 2.5, 5)
    ]
    return 128 + 130 * sum(layers)


@functools.cache
def _textures() -> list[np.ndarray]:
    return [noise(seed, (_TEXELS, _TEXELS)) for seed in range(7)]
