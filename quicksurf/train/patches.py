"""Photometric consistency of surface patches across views: the plane at a hit, seen from elsewhere, looks the same.

A patch is a square of pixels around pixel p of a reference image. Its rays meet the plane through the surface point x
with normal n; another camera projects these points, and the grey values there should match but for brightness and
contrast (Geo-NeuS, Fu et al. 2022, section 3.3; PGSR, Chen et al. 2024, section 3.3):

    loss = mean of 1 − NCC over the views that show the same

The map between the two images is taken as affine over the patch, from the projections of five points, lenses included:
over ± 5 pixels a homography differs from it by less than a tenth of a pixel. The colour net explains what changes with
the view, and no hash grid holds the finest texture; this comparison needs neither. It knows nothing of the field:
`implicit_depths` ties it to the logit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from quicksurf.geometry.cameras import Cameras, distort, lenses_of, pixel_rays
from quicksurf.kernels.selection import AsyncScalar

_GREY = torch.tensor([0.299, 0.587, 0.114])  # ITU-R BT.601, of sRGB values
_LEAST_COSINE = 0.2  # between a plane's normal and a line of sight: beyond 78° a patch is a streak
_NEAREST_COSINE = 0.9994  # 2°: views closer together see no depth
_PATCH = 7  # pixels across: 5 is noisier, 9 and 11 hold more than one plane (LOG.md)
_VIEWS = 6
_SAME = 0.85  # of the contrast: keeps 3/4 of the right pull on a textured object, 1/20 of the wrong on a glossy one
# Fractions of views that show the same: 0.17 on a glossy object, 0.5 on a textured one.
_CONFIDENT = 0.25, 0.4
_PAUSE = 8  # steps between comparisons that are not believed
_NOISE = 1.0  # grey levels: a patch that varies less than this shows only noise


class Patches(NamedTuple):
    """Surface points seen at pixels of reference images, each with the plane through it."""

    image_indices: Int[Tensor, "n"]
    pixels: Float[Tensor, "n 2"]
    points: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    """Unit, towards the camera."""

    def select(self, index: Tensor) -> "Patches":
        """Return the patches at `index`."""
        return Patches(*(part[index] for part in self))


@dataclass(frozen=True)
class GreyImages:
    """Images of any mix of sizes as grey levels in [0, 255], one behind the other."""

    levels: Float[Tensor, "p"]
    starts: Int[Tensor, "k"]
    sizes: Int[Tensor, "k 2"]
    """Width, height."""

    @classmethod
    def of(cls, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], device: torch.device) -> "GreyImages":
        """Return grey copies of the images on `device`; half precision keeps an eighth of a level."""
        levels = [(torch.from_numpy(image).float() @ _GREY).half().reshape(-1) for image in images]
        counts = torch.tensor([len(part) for part in levels])
        sizes = torch.tensor([(image.shape[1], image.shape[0]) for image in images])
        starts = counts.cumsum(0) - counts
        return cls(torch.cat(levels).to(device), starts.to(device), sizes.to(device))

    def sample(
        self, image_indices: Int[Tensor, "n"], pixels: Float[Tensor, "n k 2"]
    ) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"], Float[Tensor, "n k"]]:
        """Interpolate grey levels and their slopes along columns and rows, at pixels of one image a row."""
        sizes = self.sizes[image_indices]
        columns, u = _cell(pixels[..., 0], sizes[:, :1])
        rows, v = _cell(pixels[..., 1], sizes[:, 1:])
        width = sizes[:, :1]
        first = torch.addcmul(columns + self.starts[image_indices][:, None], rows, width)
        a, b, c, d = (self._at(first + step) for step in (0, 1, width, width + 1))
        along_top, along_bottom = b - a, d - c
        top = torch.addcmul(a, u, along_top)
        down = torch.addcmul(c, u, along_bottom) - top
        return torch.addcmul(top, v, down), torch.lerp(along_top, along_bottom, v), down

    def _at(self, index: Int[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        return self.levels.index_select(0, index.reshape(-1)).float().view(index.shape)


def _cell(
    at: Float[Tensor, "n k"], sizes: Int[Tensor, "n 1"]
) -> tuple[Int[Tensor, "n k"], Float[Tensor, "n k"]]:
    """The pixel whose centre lies before a coordinate, and the way from there to the next one in [0, 1]."""
    low = (at - 0.5).floor().long()
    low = torch.minimum(low.clamp_min(0), sizes - 2)
    return low, (at - 0.5 - low).clamp(0, 1)


def offsets_of(n_across: int, spacing: float) -> Float[Tensor, "k 2"]:
    """Return pixels of a patch relative to its middle: `n_across`² of them, `spacing` apart."""
    axis = spacing * (torch.arange(n_across) - 0.5 * (n_across - 1))
    return torch.cartesian_prod(axis, axis)


def choose_views(
    cameras: Cameras, candidates: Int[Tensor, "c"], patches: Patches, n_views: int
) -> Int[Tensor, "n m"]:
    """Choose for each patch the views of least angle to its own that see its plane from the front; −1 where there are
    fewer.

    The angle is the one between the lines of sight at the point. Views under 2° show no depth.
    """
    sight = cameras.c2w[candidates, :, 3] - patches.points[:, None]
    sight = torch.nn.functional.normalize(sight, dim=-1)
    own = cameras.c2w[patches.image_indices, :, 3] - patches.points
    own = torch.nn.functional.normalize(own, dim=-1)
    closeness = (sight @ own[..., None])[..., 0]
    facing = (sight @ patches.normals[..., None])[..., 0] > _LEAST_COSINE
    own_facing = (own * patches.normals).sum(-1) > _LEAST_COSINE
    usable = (
        own_facing[:, None]
        & facing
        & (closeness < _NEAREST_COSINE)
        & _in_frame(cameras, candidates, patches.points)
    )
    best = torch.where(usable, closeness, -2.0).topk(min(n_views, len(candidates)), dim=1)
    return torch.where(best.values > -2, candidates[best.indices], -1)


def _in_frame(
    cameras: Cameras, candidates: Int[Tensor, "c"], points: Float[Tensor, "n 3"]
) -> Bool[Tensor, "n c"]:
    """Which cameras have which points in frame, and not only by a lens model that folds back outside of it."""
    n, c = len(points), len(candidates)
    pixels, depths = project_each(cameras, candidates.expand(n, c), points[:, None].expand(n, c, 3))
    distances = (points[:, None] - cameras.c2w[candidates, :, 3]).norm(dim=-1)
    in_cone = depths > distances * _cones(cameras)[candidates]
    return in_cone & (pixels > 0).all(-1) & (pixels < cameras.sizes[candidates]).all(-1)


def _cones(cameras: Cameras) -> Float[Tensor, "n"]:
    """Cosine of the angle between each camera's axis and the corner of its frame farthest from it."""
    n = len(cameras)
    device = cameras.sizes.device
    number = torch.arange(4, device=device)
    corners = cameras.sizes[:, None] * torch.stack([number // 2, number % 2], -1)
    index = torch.arange(n, device=device).repeat_interleave(4)
    _, directions = pixel_rays(cameras, index, corners.reshape(-1, 2).to(cameras.c2w))
    return (directions * cameras.c2w[index, :, 2]).sum(-1).view(n, 4).amin(1).clamp_min(0)


def project_each(
    cameras: Cameras, image_indices: Int[Tensor, "*n"], points: Float[Tensor, "*n 3"]
) -> tuple[Float[Tensor, "*n 2"], Float[Tensor, "*n"]]:
    """Project points to pixels and depths, each in an image of its own; see `cameras.project`."""
    c2w = cameras.c2w[image_indices]
    local = ((points - c2w[..., 3])[..., None] * c2w[..., :3]).sum(-2)
    depths = local[..., 2]
    plane = local[..., :2] / torch.where(depths.abs() > 1e-9, depths, 1e-9)[..., None]
    if not lenses_of(cameras).ideal:
        plane = distort(plane, cameras.distortion[image_indices], cameras.fisheye[image_indices])
    intrinsics = cameras.intrinsics[image_indices]
    return plane * intrinsics[..., :2] + intrinsics[..., 2:], depths


class Warps(NamedTuple):
    """Affine maps from a patch's pixel offsets to pixels of other views."""

    middles: Float[Tensor, "n m 2"]
    """Where the patch's own pixel falls."""
    jacobians: Float[Tensor, "n m 2 2"]
    """d (column, row) / d offset."""
    parallaxes: Float[Tensor, "n m 2"]
    """d (column, row) / d depth along the patch's ray."""


def plane_warps(
    cameras: Cameras, patches: Patches, views: Int[Tensor, "n m"], reach: float | Float[Tensor, ""]
) -> Warps:
    """Return the maps through the patches' planes, by central differences over ± `reach` pixels, lenses included."""
    right, down = torch.eye(2, device=views.device)
    cross = reach * torch.stack([torch.zeros_like(right), right, -right, down, -down])
    n, m = views.shape
    pixels = (patches.pixels[:, None] + cross).reshape(-1, 2)
    origins, directions = pixel_rays(cameras, patches.image_indices.repeat_interleave(5), pixels)
    origins, directions = origins.view(n, 5, 3), directions.view(n, 5, 3)
    above = ((patches.points[:, None] - origins) * patches.normals[:, None]).sum(-1)
    slopes = (directions * patches.normals[:, None]).sum(-1)
    depths = above / slopes.clamp_max(-0.5 * _LEAST_COSINE)
    step = 1e-3 * depths[:, :1]
    depths = torch.cat([depths[:, 1:], depths[:, :1] + step, depths[:, :1] - step], 1)
    origins, directions = (torch.cat([x[:, 1:], x[:, :1], x[:, :1]], 1) for x in (origins, directions))
    points = origins + directions * depths[..., None]
    seen, _ = project_each(cameras, views[..., None].expand(n, m, 6), points[:, None].expand(n, m, 6, 3))
    right, left, below, top, behind, before = seen.unbind(2)
    jacobians = torch.stack([right - left, below - top], -1) / (2 * reach)
    return Warps(0.5 * (behind + before), jacobians, (behind - before) / (2 * step[..., None]))


class PatchMatches(NamedTuple):
    """How well patches match, and which way they would match better."""

    correlations: Float[Tensor, "n m"]
    """NCC with each view; 0 where there is no view."""
    slopes: Float[Tensor, "n m"]
    """d NCC / d depth along the patch's ray; 0 where there is no view."""
    differences: Float[Tensor, "n m"]
    """Root mean square difference of the grey levels, brightness included, over the patch's own contrast; infinite
    where there is no view."""


def match_patches(
    images: GreyImages,
    cameras: Cameras,
    patches: Patches,
    views: Int[Tensor, "n m"],
    offsets: Float[Tensor, "k 2"],
) -> PatchMatches:
    """Compare each patch with each of its views.

    NCC = Σ â b̂ of centred patches â = (a − ā)/sqrt(|a − ā|² + kσ²), with σ one grey level: towards 0 where there is
    only noise. Slopes are exact for the bilinear images; the change of the affine map with depth is left out.
    """
    at_own = patches.pixels[:, None] + offsets
    own, _, _ = images.sample(patches.image_indices, at_own)
    there = views >= 0
    views = views.clamp_min(0)
    warps = plane_warps(cameras, patches, views, offsets.max())
    at = warps.middles[..., None, :] + offsets @ warps.jacobians.transpose(-1, -2)
    other, du, dv = images.sample(views.reshape(-1), at.flatten(0, 1))
    parallaxes = warps.parallaxes.flatten(0, 1)[:, None]
    shape = *views.shape, len(offsets)
    moving = (du * parallaxes[..., 0] + dv * parallaxes[..., 1]).view(shape)
    other = other.view(shape)
    (a, contrast), (b, other_contrast) = _unit(own), _unit(other)
    moving = (moving - moving.mean(-1, keepdim=True)) / other_contrast
    matches = (a[:, None] * b).sum(-1)
    slopes = ((a[:, None] - matches[..., None] * b) * moving).sum(-1)
    differences = (other - own[:, None]).norm(dim=-1) / contrast
    return PatchMatches(matches * there, slopes * there, torch.where(there, differences, torch.inf))


def _unit(patch: Float[Tensor, "*n k"]) -> tuple[Float[Tensor, "*n k"], Float[Tensor, "*n 1"]]:
    """A patch less its mean over its contrast, and that: sqrt(|a − ā|² + kσ²)."""
    patch = patch - patch.mean(-1, keepdim=True)
    contrast = ((patch * patch).sum(-1, keepdim=True) + patch.shape[-1] * _NOISE**2).sqrt()
    return patch / contrast, contrast


def consistency_loss(matches: PatchMatches, depths: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """Return the part of mean (1 − NCC) that depends on depth, by its slope, over the views that show the same.

    Its value says nothing, its gradient by `depths` is that of 1 − NCC. A view that differs by nearly as much as the
    patch varies shows something in front of it, or a reflection: those match best behind the surface. Brightness has
    to agree, too, for reflections have contrast to correlate.
    """
    slopes = torch.where(matches.differences < _SAME, matches.slopes, 0.0)
    return -confidence(matches) * (slopes.sum(1) * depths).sum() / max(slopes.numel(), 1)


def confidence(matches: PatchMatches) -> Float[Tensor, ""]:
    """Compute the weight in [0, 1] of a batch, by the fraction of views that show the same.

    Where few do, the object shines or has no texture, and those few agree by chance or by what they reflect.
    """
    fraction = (matches.differences < _SAME).sum() / matches.differences.isfinite().sum().clamp_min(1)
    least, enough = _CONFIDENT
    return ((fraction - least) / (enough - least)).clamp(0, 1)


def implicit_depths(
    logits: Float[Tensor, "n"], gradients: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]
) -> Float[Tensor, "n"]:
    """Return zeros whose gradient is that of the depth t_s where a ray meets l = 0: dt_s = −dl / (∇l·d).

    Differentiable in the logits alone (IDR, Yariv et al. 2020, eq. 3). Slopes ∇l·d count as 0.1 at least.
    """
    slopes = (gradients.detach() * directions).sum(-1).clamp_min(0.1)
    return (logits.detach() - logits) / slopes


class ViewConsistency:
    """What one capture's patches are compared with."""

    def __init__(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], views: Sequence[int], device: torch.device
    ) -> None:
        self._images = GreyImages.of(images, device)
        self._views = torch.tensor(views, device=device)
        self._offsets = offsets_of(_PATCH, 1.0).to(device)
        self._confidence = AsyncScalar()

    def look_at(self, views: Sequence[int]) -> None:
        """Compare with these views from now on."""
        self._views = torch.tensor(views, device=self._views.device)

    def due(self, step: int) -> bool:
        """Tell whether to compare in this step: in each, or now and then where the last comparison was not believed."""
        return self._confidence.get() != 0 or step % _PAUSE == 0

    @property
    def unconfirmed(self) -> float:
        """1 − `confidence` of the last comparison: 1 where the object shines or has no texture; 0 before the first."""
        last = self._confidence.get()
        return 0.0 if last is None else 1 - last

    @torch.no_grad()
    def compare(self, cameras: Cameras, patches: Patches) -> PatchMatches:
        """Return each patch with the nearest views that see it."""
        views = choose_views(cameras, self._views, patches, _VIEWS)
        matches = match_patches(self._images, cameras, patches, views, self._offsets)
        self._confidence.put(confidence(matches))
        return matches
