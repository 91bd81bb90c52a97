"""A small capture with known cameras, pixels and masks, for every loader's round trip."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from quicksurf.geometry.cameras import N_DISTORTION, Cameras

N_IMAGES, WIDTH, HEIGHT = 10, 48, 40


@dataclass(frozen=True)
class Capture:
    """Ten views of a ball of radius 0.5 at (0.2, -0.1, 0.3), from a wobbly ring."""

    cameras: Cameras
    images: list[np.ndarray]
    masks: list[np.ndarray]
    center: tuple[float, float, float] = (0.2, -0.1, 0.3)
    radius: float = 0.5

    def save_images(self, folder: Path, pattern: str = "{:03d}.png", scale: int = 1) -> list[Path]:
        return self._save(self.images, folder, pattern, scale)

    def save_masks(self, folder: Path, pattern: str = "{:03d}.png", scale: int = 1) -> list[Path]:
        return self._save(self.masks, folder, pattern, scale)

    def _save(self, arrays: list[np.ndarray], folder: Path, pattern: str, scale: int) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / pattern.format(index) for index in range(len(arrays))]
        for path, array in zip(paths, arrays, strict=True):
            enlarged = array.repeat(scale, axis=0).repeat(scale, axis=1)
            Image.fromarray(enlarged).save(path)
        return paths


def look_at(eye: np.ndarray, target: np.ndarray, up: np.ndarray) -> np.ndarray:
    """OpenCV camera to world: z towards the target, y away from `up`."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward, eye], axis=1)


def ring(center: tuple[float, float, float], n_images: int = N_IMAGES, distance: float = 3.0) -> Cameras:
    """Cameras around `center` at alternating heights, each with a lens of its own."""
    angles = np.linspace(0, 2 * np.pi, n_images, endpoint=False)
    heights = np.where(np.arange(n_images) % 2, 0.6, -0.1) + 0.3 * np.sin(3 * angles)
    offsets = np.stack([np.cos(angles), np.sin(angles), heights], axis=1)
    eyes = np.array(center) + distance * offsets / np.linalg.norm(offsets, axis=1, keepdims=True)
    poses = [look_at(eye, np.array(center), np.array([0.0, 0.0, 1.0])) for eye in eyes]
    lenses = [[60.0 + index, 61.0 + index, 24.5, 19.25] for index in range(n_images)]
    return Cameras(
        c2w=torch.from_numpy(np.stack(poses)),
        intrinsics=torch.tensor(lenses, dtype=torch.float64),
        distortion=torch.zeros(n_images, N_DISTORTION, dtype=torch.float64),
        fisheye=torch.zeros(n_images, dtype=torch.bool),
        sizes=torch.tensor([[WIDTH, HEIGHT]] * n_images),
    )


def ball_mask(cameras: Cameras, index: int, center: tuple[float, float, float], radius: float) -> np.ndarray:
    """255 where the ray through a pixel passes the ball (pinholes only)."""
    fx, fy, cx, cy = cameras.intrinsics[index].tolist()
    width, height = cameras.sizes[index].tolist()
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    local = np.stack([(columns - cx) / fx, (rows - cy) / fy, np.ones_like(rows)], -1)
    pose = cameras.c2w[index].numpy()
    directions = local @ pose[:, :3].T
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    towards = np.array(center) - pose[:, 3]
    misses = np.linalg.norm(np.cross(directions, towards), axis=-1)
    return np.where(misses < radius, 255, 0).astype(np.uint8)


def made_capture() -> Capture:
    """Images whose pixels tell column, row and number; masks that are the ball's silhouette."""
    cameras = ring(Capture.center)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    images = [
        np.stack([columns * 5, rows * 6, np.full_like(rows, 20 * index)], -1).astype(np.uint8)
        for index in range(N_IMAGES)
    ]
    masks = [ball_mask(cameras, index, Capture.center, Capture.radius) for index in range(N_IMAGES)]
    return Capture(cameras, images, masks)
