"""The background, outside the region of interest: one solid colour, or a small density field in contracted space.

The contraction is mip-NeRF 360's (Barron et al. 2022, eq. 10): c(x) = x inside the unit ball, (2 − 1/|x|) x/|x|
outside, so that all of space is a ball of radius 2. Density σ is per unit of contracted length:
α = 1 − e^(−σ |c_{i+1} − c_i|).

The field begins as fog of the colour that the photos' borders have. Where it begins brighter or darker than what the
photos show, the surface grows over the whole region within a few steps, to hide it, and is painted as the background.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quicksurf.geometry.rays import Rays, unit_ball_span
from quicksurf.kernels import Backend
from quicksurf.kernels.modules import EncodedNetwork

_FAR = 50.0  # radii: farther than this the contraction moves less than 2 % of its unit
_DARKEST = 0.02  # at the start: a sigmoid closer to 0 or 1 would hardly learn
# Weight spread evenly over the strata, so that places believed empty are sampled now and then.
_EXPLORE = 0.1


def contract(points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """Map space into the ball of radius 2; the identity inside the unit ball."""
    norm = points.norm(dim=-1, keepdim=True).clamp_min(1.0)
    return points * ((2 - 1 / norm) / norm)


class Border(NamedTuple):
    """The background as the borders of the images show it."""

    color: Float[Tensor, "3"]
    """In [0, 1]."""
    solid: bool
    """Whether it is of that colour everywhere: it needs no model then, and silhouettes get sharper without."""


class SolidBackground(nn.Module):
    """One colour in every direction; nothing of it is learned."""

    networks = ()
    color: Tensor

    def __init__(self, color: Float[Tensor, "3"]) -> None:
        """Take a colour in [0, 1]."""
        super().__init__()
        self.register_buffer("color", color)

    def render(self, rays: Rays) -> Float[Tensor, "n 3"]:
        """Return the colour for each ray."""
        return self.color.expand(len(rays.near), 3)


class BackgroundField(nn.Module):
    """Density and view-independent colour in contracted space."""

    color_offset: Tensor

    def __init__(
        self, backend: Backend, color: Float[Tensor, "3"], seed: int, start: float = 1.0, n_codes: int = 0
    ) -> None:
        """Begin as fog of one colour, in [0, 1].

        Args:
            start: radii from the region's centre at which the background begins; 1 is where the region ends.
            n_codes: numbers of a photo's code, of its light, that it is a function of: skies and rooms change whole.
        """
        super().__init__()
        self._start, self._n_codes = start, n_codes
        self.register_buffer("color_offset", torch.logit(color.clamp(_DARKEST, 1 - _DARKEST)))
        grid = {
            "otype": "HashGrid",
            "n_levels": 12,
            "n_features_per_level": 2,
            "log2_hashmap_size": 16,
            "base_resolution": 16,
            "per_level_scale": 1.45,
        }
        network = {"otype": "FullyFusedMLP", "n_neurons": 32, "n_hidden_layers": 1, "activation": "ReLU"}
        if n_codes:
            codes = {"otype": "Identity", "n_dims_to_encode": n_codes}
            grid = {"otype": "Composite", "nested": [grid | {"n_dims_to_encode": 3}, codes]}
        self.network = backend.modules.NetworkWithInputEncoding(3 + n_codes, 4, grid, network, seed=seed)

    @property
    def networks(self) -> tuple[EncodedNetwork, ...]:
        """What is learned of the background."""
        return (self.network,)

    def query(
        self, contracted: Float[Tensor, "n 3"], codes: Float[Tensor, "n c"] | None = None
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]:
        """Evaluate density and colour at contracted points; without codes in the mean light."""
        rows = 0.25 * contracted.T + 0.5
        if self._n_codes:
            seen = rows.new_zeros(self._n_codes, len(contracted)) if codes is None else codes.T
            rows = torch.cat([rows, seen])
        output = self.network(rows.T)
        return nn.functional.softplus(output[:, 0]), torch.sigmoid(output[:, 1:] + self.color_offset)

    def render(
        self,
        rays: Rays,
        jitter: Float[Tensor, "n k"],
        noise: Float[Tensor, "n k 3"] | None = None,
        codes: Float[Tensor, "n c"] | None = None,
    ) -> Float[Tensor, "n 3"]:
        """Render the part of each ray behind the region of interest, opaque at its end.

        The stretch from where the ray leaves the ball to far away is divided uniformly in 1/t. A first pass without
        gradients looks at twice as many strata as there are samples, which are then drawn from its weights
        (hierarchical sampling, Mildenhall et al. 2020, section 5.2). Rays that miss the ball count as leaving it at
        their closest approach.

        Args:
            jitter: in [0, 1), places each of k samples in its quantile.
            noise: moves each sample in contracted space, so that the field is fitted blurred.
            codes: of the light of the photo that each ray is of; None is the mean.
        """
        coarse = torch.linspace(0, 1, 2 * jitter.shape[1] + 1, device=jitter.device).expand(len(jitter), -1)
        with torch.no_grad():
            weights = self._march(rays, 0.5 * (coarse[:, 1:] + coarse[:, :-1]), None, codes)[0]
        s = _draw(coarse, weights + _EXPLORE / weights.shape[1], jitter)
        weights, colors = self._march(rays, s, noise, codes)
        return (weights[..., None] * colors).sum(1)

    def _march(
        self,
        rays: Rays,
        s: Float[Tensor, "n k"],
        noise: Float[Tensor, "n k 3"] | None,
        codes: Float[Tensor, "n c"] | None,
    ) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k 3"]]:
        """Compute weights and colours at `s` in [0, 1] of the stretch behind the region, uniform in 1/t."""
        begin = self._begin(rays).clamp_min(0.05)[:, None]
        ts = begin / (1 - s * (1 - begin / (begin + _FAR)))
        points = contract(rays.origins[:, None] + ts[..., None] * rays.directions[:, None])
        lengths = (points[:, 1:] - points[:, :-1]).norm(dim=-1)
        lengths = torch.nn.functional.pad(lengths, (0, 1), value=1e3)  # something is behind everything
        points = points if noise is None else points + noise
        of_samples = None if codes is None else codes.repeat_interleave(s.shape[1], 0)
        density, colors = self.query(points.reshape(-1, 3), of_samples)
        alphas = 1 - torch.exp(-density.view_as(ts) * lengths)
        transmittance = torch.cat([torch.ones_like(alphas[:, :1]), 1 - alphas + 1e-7], 1).cumprod(1)
        return alphas * transmittance[:, :-1], colors.view(*ts.shape, 3)

    def _begin(self, rays: Rays) -> Float[Tensor, "n"]:
        if self._start <= 1:
            return rays.far
        far = self._start * unit_ball_span(rays.origins / self._start, rays.directions)[1]
        return torch.maximum(rays.far, far)


def _draw(
    edges: Float[Tensor, "n b1"], weights: Float[Tensor, "n b"], jitter: Float[Tensor, "n k"]
) -> Float[Tensor, "n k"]:
    """Stratified draws from the density `weights`, constant in each bin of `edges`, by inverting its integral."""
    n_samples = jitter.shape[1]
    integral = torch.nn.functional.pad(weights.cumsum(1), (1, 0))
    integral = integral / integral[:, -1:]
    wanted = (torch.arange(n_samples, device=jitter.device) + jitter) / n_samples
    right = torch.searchsorted(integral, wanted, right=True).clamp(1, weights.shape[1])
    low, high = integral.gather(1, right - 1), integral.gather(1, right)
    fraction = (wanted - low) / (high - low).clamp_min(1e-9)
    return torch.lerp(edges.gather(1, right - 1), edges.gather(1, right), fraction.clamp(0, 1))
