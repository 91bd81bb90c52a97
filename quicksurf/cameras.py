"""Cameras: lens models, projection and its inverse.

Notation: camera axes are OpenCV's (x right, y down, z forward); `c2w` is camera to world [R | t]; pixel (column,
row) has its centre at (column + 0.5, row + 0.5). With (a, b) = (x/z, y/z) and r² = a² + b² the two lens models are

    perspective (OpenCV):  s = 1 + k1 r² + k2 r⁴ + k3 r⁶ + k4 r⁸
                           (a', b') = (s a + 2 p1 ab + p2 (r² + 2a²),  s b + p1 (r² + 2b²) + 2 p2 ab)
    fisheye (OpenCV):      θ = atan r,  (a', b') = θ (1 + k1 θ² + k2 θ⁴ + k3 θ⁶ + k4 θ⁸) / r · (a, b)

and a pixel is (fx a' + cx, fy b' + cy). COLMAP's PINHOLE, SIMPLE_PINHOLE, SIMPLE_RADIAL, RADIAL, OPENCV and
OPENCV_FISHEYE are all special cases. This module does not read files and knows nothing of images' content.
"""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

N_DISTORTION = 6  # k1, k2, k3, k4, p1, p2
_NEWTON_STEPS = 12  # quadratic convergence: 5 suffice for a phone, the rest is for fisheye rims


@dataclass(frozen=True, eq=False)
class Cameras:
    """`n` posed cameras, one per image; float64 when read from disk, float32 inside the fit."""

    c2w: Float[Tensor, "n 3 4"]
    intrinsics: Float[Tensor, "n 4"]
    """fx, fy, cx, cy in pixels."""
    distortion: Float[Tensor, "n 6"]
    """k1, k2, k3, k4, p1, p2."""
    fisheye: Bool[Tensor, "n"]
    sizes: Int[Tensor, "n 2"]
    """Width, height in pixels."""

    def __len__(self) -> int:
        return self.c2w.shape[0]

    def select(self, index: Tensor) -> "Cameras":
        """The cameras at `index` (integers, a boolean mask or a slice)."""
        return Cameras(*(getattr(self, field.name)[index] for field in fields(self)))

    def centers(self) -> Float[Tensor, "n 3"]:
        """Camera centres in the world."""
        return self.c2w[:, :, 3]

    def to(self, dtype: torch.dtype) -> "Cameras":
        """The same cameras with poses and lenses in `dtype`."""
        return replace(
            self,
            c2w=self.c2w.to(dtype),
            intrinsics=self.intrinsics.to(dtype),
            distortion=self.distortion.to(dtype),
        )


def distort(
    points: Float[Tensor, "*n 2"], distortion: Float[Tensor, "*n 6"], fisheye: Bool[Tensor, "*n"]
) -> Float[Tensor, "*n 2"]:
    """Map ideal image-plane points (x/z, y/z) to distorted ones. Differentiable in `points`."""
    r2 = (points * points).sum(-1)
    theta = torch.where(fisheye, torch.atan(r2.sqrt()), r2.sqrt())
    t2 = theta * theta
    k1, k2, k3, k4, p1, p2 = distortion.unbind(-1)
    scale = 1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4)))
    fisheye_scale = scale * torch.where(r2 > 1e-12, theta / r2.clamp_min(1e-24).sqrt(), torch.ones_like(r2))
    a, b = points.unbind(-1)
    tangential = torch.stack([2 * p1 * a * b + p2 * (r2 + 2 * a * a), p1 * (r2 + 2 * b * b) + 2 * p2 * a * b], -1)
    ideal = points * torch.where(fisheye, fisheye_scale, scale)[..., None]
    return ideal + torch.where(fisheye[..., None], torch.zeros_like(tangential), tangential)


def undistort(
    points: Float[Tensor, "*n 2"], distortion: Float[Tensor, "*n 6"], fisheye: Bool[Tensor, "*n"]
) -> Float[Tensor, "*n 2"]:
    """Invert `distort` by Newton's method with a finite-difference Jacobian.

    Degenerate input (a lens model folded beyond its valid radius) gives the last finite iterate.
    """
    if not bool(distortion.any()) and not bool(fisheye.any()):
        return points
    ideal = points.clone()
    step = 1e-6 if points.dtype == torch.float64 else 1e-3
    offsets = step * torch.eye(2, dtype=points.dtype, device=points.device)
    for _ in range(_NEWTON_STEPS):
        error = distort(ideal, distortion, fisheye) - points
        columns = [
            (distort(ideal + o, distortion, fisheye) - distort(ideal - o, distortion, fisheye)) / (2 * step)
            for o in offsets
        ]
        (a, c), (b, d) = columns[0].unbind(-1), columns[1].unbind(-1)
        determinant = a * d - b * c
        safe = torch.where(determinant.abs() > 1e-6, determinant, torch.ones_like(determinant))
        update = torch.stack([d * error[..., 0] - b * error[..., 1], a * error[..., 1] - c * error[..., 0]], -1)
        ideal = ideal - (update / safe[..., None]).clamp(-0.5, 0.5)
    return ideal


def pixel_rays(
    cameras: Cameras, image_indices: Int[Tensor, "n"], pixels: Float[Tensor, "n 2"]
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Rays through `pixels` (column + 0.5, row + 0.5 for a centre): origins and unit directions in the world."""
    intrinsics = cameras.intrinsics[image_indices]
    plane = (pixels - intrinsics[:, 2:]) / intrinsics[:, :2]
    plane = undistort(plane, cameras.distortion[image_indices], cameras.fisheye[image_indices])
    local = torch.nn.functional.normalize(torch.cat([plane, torch.ones_like(plane[:, :1])], -1), dim=-1)
    c2w = cameras.c2w[image_indices]
    directions = (c2w[:, :, :3] @ local[:, :, None]).squeeze(-1)
    return c2w[:, :, 3], directions


def project(
    cameras: Cameras, image_index: int, points: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n"]]:
    """Pixels and depths (z in the camera) of world `points` in one image; depth ≤ 0 lies behind the camera."""
    c2w = cameras.c2w[image_index]
    local = (points - c2w[:, 3]) @ c2w[:, :3]
    depths = local[:, 2]
    plane = local[:, :2] / torch.where(depths.abs() > 1e-12, depths, torch.full_like(depths, 1e-12))[:, None]
    count = points.shape[0]
    plane = distort(plane, cameras.distortion[image_index].expand(count, -1), cameras.fisheye[image_index].expand(count))
    intrinsics = cameras.intrinsics[image_index]
    return plane * intrinsics[:2] + intrinsics[2:], depths


def resize(cameras: Cameras, sizes: Int[Tensor, "n 2"]) -> Cameras:
    """The same cameras for images resampled to `sizes`; intrinsics scale with the pixels' edges."""
    ratio = sizes.to(cameras.intrinsics.dtype) / cameras.sizes.to(cameras.intrinsics.dtype)
    return replace(cameras, intrinsics=cameras.intrinsics * ratio.repeat(1, 2), sizes=sizes)


def similarity(
    cameras: Cameras, scale: float, rotation: Float[Tensor, "3 3"], translation: Float[Tensor, "3"]
) -> Cameras:
    """The cameras after the world is mapped by x ↦ scale · rotation · x + translation (`rotation` is orthonormal)."""
    rotated = rotation @ cameras.c2w[:, :, :3]
    centers = scale * cameras.centers() @ rotation.T + translation
    return replace(cameras, c2w=torch.cat([rotated, centers[:, :, None]], -1))
