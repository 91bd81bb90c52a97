"""Small corrections of camera poses, one twist ξ = (ω, v) a photo, in the frame where the region is the unit ball.

    R ← E R,   c ← E c + v,   E = exp([ω]×)

A camera turns about the centre of the region, not about its own: then ω shows other sides of the object and v moves it
in the picture. About its own centre the two would nearly cancel: a turn looks like a step aside.

The twists are found by Gauss and Newton's method on colours that the fit renders anyway (direct alignment, Lucas and
Kanade 1981): the surface point x, rendered as C at the pixel u, moves in the picture by J ξ, and the photo shows there
I(u + J ξ) ≈ I(u) + ∇I J ξ, which shall be C. It needs no gradient through the field, and all that was seen of a photo
over many steps speaks at once. Adam on the field's input gradient costs an eighth of a step and brought less.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from quicksurf.geometry.cameras import Cameras

_NOISE = 0.2  # of full scale, effective: the errors of neighbouring pixels come from one wrong surface
_ROBUST = 0.05  # larger residuals are highlights and things in front, and count by their first power
_SPREAD = 0.005  # radians, 0.3°: how far given poses are expected to be off, as seen from the region


class PoseTwists:
    """Twists of all cameras, and what the rays since the last update say about them."""

    def __init__(self, given: Cameras, together: Bool[Tensor, "n"]) -> None:
        """Start at the given cameras.

        Args:
            together: cameras that hang together by the field; the others are free.
        """
        self.given = given
        self.twists = torch.zeros_like(given.c2w[:, 0, :1]).repeat(1, 6)
        self._cameras = given
        self._together = together
        self._matrices = torch.zeros(len(given), 6, 6, device=self.twists.device)
        self._vectors = torch.zeros(len(given), 6, device=self.twists.device)

    def cameras(self) -> Cameras:
        """Return the corrected cameras."""
        return self._cameras

    def note(
        self,
        image_indices: Int[Tensor, "m"],
        points: Float[Tensor, "m 3"],
        slopes: Float[Tensor, "m 3 2"],
        residuals: Float[Tensor, "m 3"],
    ) -> None:
        """Add what surface points say to the normal equations of their cameras.

        Args:
            slopes: ∇I, the photo's colours by column and row.
            residuals: C − I, rendered minus photographed.
        """
        rows = slopes @ pixel_flows(self._cameras, image_indices, points)
        weights = _NOISE**-2 / (residuals.abs() / _ROBUST).clamp_min(1)
        weighted = weights[..., None] * rows
        self._matrices.index_add_(0, image_indices, weighted.transpose(1, 2) @ rows)
        self._vectors.index_add_(0, image_indices, (weighted * residuals[..., None]).sum(1))

    def update(self) -> None:
        """Move the cameras by what was noted, drawn to the given ones, and forget it.

        A camera that nothing was noted of is where it was given. The gauge is fixed as that of exposures is: what
        the cameras that hang together have in common, a motion or growth of the whole, is taken out, so that the
        field stays in the frame and the units of the given cameras.
        """
        confidence = 1 / self._spread() ** 2
        vectors = self._vectors.double() - confidence * self.twists
        steps = torch.linalg.solve(self._matrices.double() + torch.diag_embed(confidence), vectors[..., None])
        self.twists = without_gauge(
            self.twists + steps[..., 0].to(self.twists), self.given.centers(), self._together
        )
        self._cameras = moved(self.given, self.twists)
        self._matrices.zero_()
        self._vectors.zero_()

    def _spread(self) -> Float[Tensor, "n 6"]:
        """Standard deviations expected of the twists: a turn about the camera moves things by its distance."""
        distances = self.given.centers().norm(dim=-1, keepdim=True).double()
        return _SPREAD * torch.cat([torch.ones_like(distances).expand(-1, 3), distances.expand(-1, 3)], 1)


def moved(cameras: Cameras, twists: Float[Tensor, "n 6"]) -> Cameras:
    """Return the cameras after their twists."""
    turns, shifts = twists.split(3, 1)
    c2w = torch.linalg.matrix_exp(cross_matrices(turns)) @ cameras.c2w
    c2w = c2w + nn.functional.pad(shifts[:, :, None], (3, 0))
    return Cameras(c2w, cameras.intrinsics, cameras.distortion, cameras.fisheye, cameras.sizes)


def without_gauge(
    twists: Float[Tensor, "n 6"], centers: Float[Tensor, "n 3"], together: Bool[Tensor, "n"]
) -> Float[Tensor, "n 6"]:
    """Return the twists without the mean of those `together` (a rigid motion) and without growth of their centres
    (scale).

    In this parametrisation a small turn of the whole is the same ω in all cameras, a shift the same v, and a growth
    v ∝ c, which is orthogonal to a shift once the mean centre is taken off.
    """
    kept = together[:, None].to(twists)
    n_kept = kept.sum().clamp_min(1)
    centred = twists - kept * (kept * twists).sum(0) / n_kept
    growth = kept * (centers - (kept * centers).sum(0) / n_kept)
    growth = growth / growth.norm().clamp_min(1e-12)
    return centred - nn.functional.pad(growth * (growth * centred[:, 3:]).sum(), (3, 0))


def pixel_flows(
    cameras: Cameras, image_indices: Int[Tensor, "m"], points: Float[Tensor, "m 3"]
) -> Float[Tensor, "m 2 6"]:
    """Compute J = ∂u/∂ξ: how the pixel of a point moves with the twist of its camera.

    A camera that moves by ω × x + v sees the point move by the opposite. Lens distortion is left out: it changes J by
    a few percent, and the next update corrects that.
    """
    c2w = cameras.c2w[image_indices].to(points)
    local = ((points - c2w[:, :, 3])[:, None] @ c2w[:, :, :3])[:, 0]
    x, y, z = local.unbind(-1)
    zero, one = torch.zeros_like(z), torch.ones_like(z)
    projection = torch.stack([one, zero, -x / z, zero, one, -y / z], -1).view(-1, 2, 3)
    focal = cameras.intrinsics[image_indices][:, :2].to(points)
    projection = projection * (focal / z[:, None])[..., None]
    shifts = -torch.eye(3, device=points.device, dtype=points.dtype).expand(len(points), 3, 3)
    return projection @ c2w[:, :, :3].transpose(1, 2) @ torch.cat([cross_matrices(points), shifts], 2)


def cross_matrices(vectors: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """Build [a]×, with [a]× b = a × b."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(-1, 3, 3)
