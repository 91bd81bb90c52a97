"""Cameras: lens models, projection and its inverse.

Notation: camera axes are OpenCV's (x right, y down, z forward); `c2w` is camera to world [R | t]; pixel
(column, row) has its centre at (column + 0.5, row + 0.5). With (a, b) = (x/z, y/z) and r² = a² + b² the two
lens models are

    perspective (OpenCV):  s = 1 + k1 r² + k2 r⁴ + k3 r⁶ + k4 r⁸
                           (a', b') = (s a + 2 p1 ab + p2 (r² + 2a²),  s b + p1 (r² + 2b²) + 2 p2 ab)
    fisheye (OpenCV):      θ = atan r,  (a', b') = θ (1 + k1 θ² + k2 θ⁴ + k3 θ⁶ + k4 θ⁸) / r · (a, b)

and a pixel is (fx a' + cx, fy b' + cy). COLMAP's PINHOLE, SIMPLE_PINHOLE, SIMPLE_RADIAL, RADIAL, OPENCV and
OPENCV_FISHEYE are all special cases. This module does not read files and knows nothing of images' content.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

N_DISTORTION = 6  # k1, k2, k3, k4, p1, p2
_NEWTON_STEPS = 20  # quadratic convergence: 3 suffice for a phone, the rest is for fisheye rims
_CONVERGED = {torch.float64: 1e-13, torch.float32: 1e-6}  # a Newton step this small squares to rounding
_WIDEST = math.pi / 2 - 1e-3  # radians off the axis; tan stays below 1000
_PROBES = 9  # pixels across a frame that say how many steps its lens takes
_lenses = WeakTensorKeyDictionary()


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

    def select(self, index: Tensor | slice) -> "Cameras":
        """Return the cameras at `index` (integers, a boolean mask or a slice)."""
        return Cameras(*(getattr(self, field.name)[index] for field in fields(self)))

    def centers(self) -> Float[Tensor, "n 3"]:
        """Return camera centres in the world."""
        return self.c2w[:, :, 3]

    def on(self, device: torch.device) -> "Cameras":
        """Return the same cameras with all tensors on `device`."""
        return Cameras(*(getattr(self, field.name).to(device) for field in fields(self)))

    def to(self, dtype: torch.dtype) -> "Cameras":
        """Return the same cameras with poses and lenses in `dtype`."""
        real = {name: getattr(self, name).to(dtype) for name in ("c2w", "intrinsics", "distortion")}
        return replace(self, **real)


class Lenses(NamedTuple):
    """What is common to some lenses, so that code that meets them need not look into tensors."""

    distorted: bool
    """Whether any has a distortion that is not 0."""
    any_fisheye: bool
    all_fisheye: bool
    n_newton_steps: int | None = None
    """That bring all pixels to rounding; None: until they are there."""

    @property
    def ideal(self) -> bool:
        """Whether all are pinholes."""
        return not (self.distorted or self.any_fisheye)


def lenses_of(cameras: Cameras) -> Lenses:
    """Tell what is common to the cameras' lenses; found once for a tensor of distortions."""
    if cameras.distortion not in _lenses:
        _lenses[cameras.distortion] = _look_at_lenses(cameras)
    return _lenses[cameras.distortion]


@torch.no_grad()
def _look_at_lenses(cameras: Cameras) -> Lenses:
    found = _common(cameras.distortion, cameras.fisheye)
    if found.ideal:
        return found._replace(n_newton_steps=0)
    axis = torch.linspace(0, 1, _PROBES, device=cameras.sizes.device, dtype=cameras.intrinsics.dtype)
    pixels = torch.cartesian_prod(axis, axis) * cameras.sizes[:, None]
    plane = (pixels - cameras.intrinsics[:, None, 2:]) / cameras.intrinsics[:, None, :2]
    shape = plane.shape[:2]
    distortion, fisheye = cameras.distortion[:, None].expand(*shape, -1), cameras.fisheye[:, None]
    counts = []
    if not found.all_fisheye:
        counts.append(_undistort_perspective(torch.where(fisheye[..., None], 0.0, plane), distortion)[1])
    if found.any_fisheye:
        counts.append(_undistort_fisheye(torch.where(fisheye[..., None], plane, 0.0), distortion)[1])
    return found._replace(n_newton_steps=max(counts))


def _common(distortion: Float[Tensor, "*n 6"], fisheye: Bool[Tensor, "*n"]) -> Lenses:
    return Lenses(bool(distortion.any()), bool(fisheye.any()), bool(fisheye.all()))


def distort(
    points: Float[Tensor, "*n 2"], distortion: Float[Tensor, "*n 6"], fisheye: Bool[Tensor, "*n"]
) -> Float[Tensor, "*n 2"]:
    """Map ideal image-plane points (x/z, y/z) to distorted ones. Differentiable in `points`."""
    r2 = (points * points).sum(-1)
    r = r2.clamp_min(1e-24).sqrt()  # a root's slope at zero is infinite: the centre would get NaN gradients
    theta = torch.atan(r)
    t2 = torch.where(fisheye, theta * theta, r2)
    k1, k2, k3, k4, p1, p2 = distortion.unbind(-1)
    scale = 1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4)))
    a, b = points.unbind(-1)
    tangential_a = 2 * p1 * a * b + p2 * (r2 + 2 * a * a)
    tangential_b = p1 * (r2 + 2 * b * b) + 2 * p2 * a * b
    tangential = torch.stack([tangential_a, tangential_b], -1)
    ideal = points * torch.where(fisheye, scale * theta / r, scale)[..., None]
    return ideal + torch.where(fisheye[..., None], torch.zeros_like(tangential), tangential)


def undistort(
    points: Float[Tensor, "*n 2"],
    distortion: Float[Tensor, "*n 6"],
    fisheye: Bool[Tensor, "*n"],
    lenses: Lenses | None = None,
) -> Float[Tensor, "*n 2"]:
    """Invert `distort` by Newton's method: in the plane for a perspective lens, in θ for a fisheye.

    Fisheye directions at 90° or more from the axis have no point (x/z, y/z): they are bent to just under 90°.
    Degenerate input (a lens model folded beyond its valid radius) gives the last finite iterate.

    Args:
        lenses: what is known of them; else it is read from the tensors, for which a device would be waited for.
    """
    if points.numel() == 0:
        return points
    lenses = lenses or _common(distortion, fisheye)
    if lenses.ideal:
        return points
    if not lenses.any_fisheye:
        return _undistort_perspective(points, distortion, lenses.n_newton_steps)[0]
    bent, _ = _undistort_fisheye(points, distortion, lenses.n_newton_steps)
    if lenses.all_fisheye:
        return bent
    straight, _ = _undistort_perspective(points, distortion, lenses.n_newton_steps)
    return torch.where(fisheye[..., None], bent, straight)


def _undistort_perspective(
    points: Float[Tensor, "*n 2"], distortion: Float[Tensor, "*n 6"], n_steps: int | None = None
) -> tuple[Float[Tensor, "*n 2"], int]:
    """Ideal points, and the steps that it took."""
    k1, k2, k3, k4, p1, p2 = distortion.unbind(-1)
    perspective = torch.zeros_like(k1, dtype=torch.bool)
    ideal, taken = points, 0
    while taken < (_NEWTON_STEPS if n_steps is None else n_steps):
        taken += 1
        error_a, error_b = (distort(ideal, distortion, perspective) - points).unbind(-1)
        a, b = ideal.unbind(-1)
        r2 = a * a + b * b
        scale = 1 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
        slope = k1 + r2 * (2 * k2 + r2 * (3 * k3 + r2 * 4 * k4))  # d scale / d r²
        # The Jacobian is symmetric: [[aa, ab], [ab, bb]].
        aa = scale + 2 * a * a * slope + 2 * p1 * b + 6 * p2 * a
        bb = scale + 2 * b * b * slope + 6 * p1 * b + 2 * p2 * a
        ab = 2 * a * b * slope + 2 * p1 * a + 2 * p2 * b
        determinant = aa * bb - ab * ab
        safe = torch.where(determinant.abs() > 1e-6, determinant, torch.ones_like(determinant))
        update = torch.stack([bb * error_a - ab * error_b, aa * error_b - ab * error_a], -1) / safe[..., None]
        ideal = ideal - update.clamp(-0.5, 0.5)  # a step that large comes from a fold, not from a lens
        if n_steps is None and float(update.abs().amax()) < _CONVERGED[points.dtype]:
            break
    return ideal, taken


def _undistort_fisheye(
    points: Float[Tensor, "*n 2"], distortion: Float[Tensor, "*n 6"], n_steps: int | None = None
) -> tuple[Float[Tensor, "*n 2"], int]:
    """Ideal points, and the steps that it took."""
    k1, k2, k3, k4, _, _ = distortion.unbind(-1)
    bent = points.norm(dim=-1)
    theta, taken = bent.clamp_max(_WIDEST), 0
    while taken < (_NEWTON_STEPS if n_steps is None else n_steps):
        taken += 1
        t2 = theta * theta
        error = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4)))) - bent
        slope = 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))
        update = error / torch.where(slope.abs() > 1e-3, slope, torch.ones_like(slope))
        theta = (theta - update).clamp(0, _WIDEST)
        if n_steps is None and float(update.abs().amax()) < _CONVERGED[points.dtype]:
            break
    ratio = torch.where(bent > 1e-12, torch.tan(theta) / bent.clamp_min(1e-12), torch.ones_like(bent))
    return points * ratio[..., None], taken


def pixel_rays(
    cameras: Cameras, image_indices: Int[Tensor, "n"], pixels: Float[Tensor, "n 2"]
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Return origins and unit directions in the world of the rays through `pixels`."""
    intrinsics = cameras.intrinsics[image_indices]
    plane = (pixels - intrinsics[:, 2:]) / intrinsics[:, :2]
    lenses = lenses_of(cameras)
    if not lenses.ideal:
        plane = undistort(plane, cameras.distortion[image_indices], cameras.fisheye[image_indices], lenses)
    local = torch.nn.functional.normalize(torch.cat([plane, torch.ones_like(plane[:, :1])], -1), dim=-1)
    c2w = cameras.c2w[image_indices]
    directions = (c2w[:, :, :3] @ local[:, :, None]).squeeze(-1)
    return c2w[:, :, 3], directions


def project(
    cameras: Cameras, image_index: int, points: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n"]]:
    """Return pixels and depths (z in the camera) of world `points` in one image; depth ≤ 0 is behind the camera.

    Beyond the radius where the lens model folds back (see `fold_radius`) it is continued in proportion, so
    that a point far outside the frame stays there instead of landing in the picture.
    """
    c2w = cameras.c2w[image_index]
    local = (points - c2w[:, 3]) @ c2w[:, :3]
    depths = local[:, 2]
    plane = local[:, :2] / torch.where(depths.abs() > 1e-12, depths, torch.full_like(depths, 1e-12))[:, None]
    distortion, fisheye = cameras.distortion[image_index], cameras.fisheye[image_index]
    beyond = (plane.norm(dim=1, keepdim=True) / fold_radius(distortion, bool(fisheye))).clamp_min(1)
    count = points.shape[0]
    plane = beyond * distort(plane / beyond, distortion.expand(count, -1), fisheye.expand(count))
    intrinsics = cameras.intrinsics[image_index]
    return plane * intrinsics[:2] + intrinsics[2:], depths


def fold_radius(distortion: Float[Tensor, "6"], fisheye: bool) -> float:
    """Return the radius in the ideal image plane up to which a radial lens model is monotone; infinity for most.

    The smallest positive root of d(t s(t²))/dt = 1 + 3 k1 t² + 5 k2 t⁴ + 7 k3 t⁶ + 9 k4 t⁸, with t the
    radius, or θ for a fisheye.
    """
    k1, k2, k3, k4 = distortion[:4].tolist()
    roots = np.roots([9 * k4, 7 * k3, 5 * k2, 3 * k1, 1.0])
    squares = roots.real[(np.abs(roots.imag) < 1e-9) & (roots.real > 0)]
    turn = math.sqrt(squares.min()) if len(squares) else math.inf
    if fisheye:
        return math.tan(min(turn, _WIDEST))
    return turn


def resize(cameras: Cameras, sizes: Int[Tensor, "n 2"]) -> Cameras:
    """Return the same cameras for images resampled to `sizes`; intrinsics scale with the pixels' edges."""
    ratio = sizes.to(cameras.intrinsics.dtype) / cameras.sizes.to(cameras.intrinsics.dtype)
    return replace(cameras, intrinsics=cameras.intrinsics * ratio.repeat(1, 2), sizes=sizes)


def pinholes(c2w: Float[Tensor, "n 3 4"], focal: float, size: tuple[int, int]) -> Cameras:
    """Return cameras with ideal lenses of one focal length and size, the principal point in the middle."""
    count = len(c2w)
    intrinsics = torch.tensor([focal, focal, size[0] / 2, size[1] / 2], dtype=torch.float64)
    return Cameras(
        c2w=c2w,
        intrinsics=intrinsics.repeat(count, 1),
        distortion=torch.zeros(count, N_DISTORTION, dtype=torch.float64),
        fisheye=torch.zeros(count, dtype=torch.bool),
        sizes=torch.tensor(size).repeat(count, 1),
    )


def fit_within(cameras: Cameras, side: int) -> Cameras:
    """Return the same cameras with a longer side of at most `side` pixels."""
    ratio = (side / cameras.sizes.max(1, keepdim=True).values.double()).clamp(max=1.0)
    return resize(cameras, (cameras.sizes * ratio).round().clamp_min(1).to(cameras.sizes.dtype))


def evenly_chosen(cameras: Cameras, n: int) -> Cameras:
    """Return at most `n` of the cameras, evenly over their order."""
    return cameras.select(torch.linspace(0, len(cameras) - 1, min(len(cameras), n)).round().long())


def similarity(
    cameras: Cameras, scale: float, rotation: Float[Tensor, "3 3"], translation: Float[Tensor, "3"]
) -> Cameras:
    """Return the cameras after the world is mapped by x ↦ scale · rotation · x + translation."""
    rotated = rotation @ cameras.c2w[:, :, :3]
    centers = scale * cameras.centers() @ rotation.T + translation
    return replace(cameras, c2w=torch.cat([rotated, centers[:, :, None]], -1))
