"""The surface: a logit, inside > 0, and a colour, in the frame where the region of interest is the unit ball at 0.

    l(x) = r₀ − |x| − s · g(x)_0        r₀ = s = 0.5
    c(x, d, n) = sigmoid(h(g(x)_{1..15}, x, r, n·d, Y(r), Y(d)))        r = d − 2 (n·d) n

with g a hash grid and a fused MLP, h a fused MLP, and Y spherical harmonics of degree 4. It begins as a ball of half
the region, and l stays below MAX_SLOPE times a distance, so that steps have a length. Occupancy is sigmoid(κ l), with κ
given by the schedule.

As in IDR and UNISURF the colour sees the normal, here by what it reflects (Ref-NeRF, Verbin et al. 2022): a highlight
stays at its r while the camera moves, and where h cannot say so, the surface is dented until parallax does. The normal
is that of the surface blurred over a few hundredths of the region, and nothing is learned through it: a sharp one would
let bumps explain highlights, and need a second derivative.
"""

from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quicksurf.config import ModelConfig
from quicksurf.kernels import Backend
from quicksurf.kernels.modules import LogitNetwork

INITIAL_RADIUS = 0.5
_SCALE = 0.5
N_GEOMETRY_FEATURES = 15
_SHADING_STEP = (
    0.06  # of the taps for shading normals; a glossy object is as good with 0.04 and 0.08, worse with 0.2
)
# Vertices of a regular tetrahedron: four taps give a gradient exact for quadratics' odd part.
_TAPS = torch.tensor([[1.0, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]])
N_TAPS = len(_TAPS)
_LEAST_TAP_STEP = 0.002


def per_level_scale(model: ModelConfig) -> float:
    """Compute the growth of the resolution from one level to the next."""
    return (model.finest_resolution / model.base_resolution) ** (1 / max(model.n_levels - 1, 1))


def geometry_encoding(model: ModelConfig) -> dict[str, Any]:
    """Describe the geometry network's encoding of [x, (x + 1) / 2]: the position and a hash grid."""
    grid = {
        "otype": "HashGrid",
        "n_levels": model.n_levels,
        "n_features_per_level": model.n_features_per_level,
        "log2_hashmap_size": model.log2_hashmap_size,
        "base_resolution": model.base_resolution,
        "per_level_scale": per_level_scale(model),
    }
    return {"otype": "Composite", "nested": [{"otype": "Identity", "n_dims_to_encode": 3}, grid]}


@lru_cache(maxsize=8)
def _taps(device: torch.device, dtype: torch.dtype) -> Float[Tensor, "4 3"]:
    """Keep the taps on the device: copying them each time makes the host wait."""
    return _TAPS.to(device, dtype)


def taps_around(points: Float[Tensor, "n 3"], step: float) -> Float[Tensor, "n*4 3"]:
    """Place four points at ±step around each, on a tetrahedron."""
    return (points[:, None] + step * _taps(points.device, points.dtype)).reshape(-1, 3)


def gradients_from_taps(logits: Float[Tensor, "taps"], step: float) -> Float[Tensor, "_ 3"]:
    """Compute ∇l ≈ Σ_k e_k l(x + step e_k) / (4 step) from the logits at `taps_around`.

    Finite differences, because nothing in training may differentiate a gradient; the step decides which detail a
    loss on it can see.
    """
    return logits.reshape(-1, 4) @ _taps(logits.device, logits.dtype) / (4 * step)


class Geometry(nn.Module):
    """The logit l(x) and the features that colours are computed from."""

    def __init__(self, model: ModelConfig, backend: Backend, seed: int) -> None:
        super().__init__()
        network = {
            "otype": "FullyFusedMLP",
            "n_neurons": model.n_neurons,
            "n_hidden_layers": 1,
            "activation": "ReLU",
        }
        self.network = backend.modules.NetworkWithInputEncoding(
            6, 1 + N_GEOMETRY_FEATURES, geometry_encoding(model), network, seed=seed
        )
        self._model = model

    @property
    def n_levels(self) -> int:
        """Levels of the hash grid."""
        return self._model.n_levels

    @property
    def searched(self) -> LogitNetwork:
        """The logit in the form that a back end can search."""
        return LogitNetwork(self.network, INITIAL_RADIUS, _SCALE)

    def activate_levels(self, progress: float, first: int) -> None:
        """Use `first` hash levels at the start of a fit and all from half time (coarse to fine)."""
        finer = int((self.n_levels - first + 1) * progress / 0.5)
        self.network.n_active_levels = min(self.n_levels, first + finer)

    def finest_cell(self) -> float:
        """Compute the size of a cell of the finest active hash level; the region's radius is 1."""
        level = min(self.network.n_active_levels, self.n_levels) - 1
        return 2 / (self._model.base_resolution * per_level_scale(self._model) ** level)

    def tap_step(self) -> float:
        """Choose the step of finite differences in losses: half a cell of the finest active level."""
        return max(0.5 * self.finest_cell(), _LEAST_TAP_STEP)

    def query(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n k"]]:
        """Evaluate logits and features; differentiable in parameters and points."""
        return self.searched.query(points)

    def logits(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """Evaluate l(x), inside > 0; training holds |∇l| below MAX_SLOPE, by a loss."""
        return self.query(points)[0]

    def gradients(self, points: Float[Tensor, "n 3"], step: float) -> Float[Tensor, "n 3"]:
        """Compute ∇l by finite differences; see `gradients_from_taps`."""
        return gradients_from_taps(self.logits(taps_around(points, step)), step)

    def normals(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Compute unit normals, outward: −∇l/|∇l|."""
        return -nn.functional.normalize(self.gradients(points, self.finest_cell()), dim=-1)

    @torch.no_grad()
    def shading_normals(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Compute unit normals, outward, of the surface as blurred as colours see it; not differentiable."""
        return -nn.functional.normalize(self.gradients(points, _SHADING_STEP), dim=-1, eps=1e-6)


class ColorHead(nn.Module):
    """The colour c(x, d, n) of a surface point, from the geometry's features there.

    It is IDR's M(x, n, v, z) (Yariv et al. 2020, section 3.2), z the features. What `inputs` leaves out is not seen,
    by networks of one size, so that any of them draws any geometry: without n the view direction counts as reflected,
    without v each point is seen along its normal, without z the features are 0.
    """

    def __init__(
        self, model: ModelConfig, backend: Backend, seed: int, inputs: str = "xnvz", n_codes: int = 0
    ) -> None:
        """Begin with random weights.

        Args:
            inputs: letters of M's arguments that it sees.
            n_codes: numbers of a photo's code that it sees besides.
        """
        super().__init__()
        self.inputs, self._n_codes = inputs, n_codes
        plain = N_GEOMETRY_FEATURES + 7 + n_codes
        encodings = {"otype": "Identity", "n_dims_to_encode": plain}
        sphere = {"otype": "SphericalHarmonics", "degree": 4, "n_dims_to_encode": 3}
        network = {
            "otype": "FullyFusedMLP",
            "n_neurons": model.n_neurons,
            "n_hidden_layers": 2,
            "activation": "ReLU",
            "output_activation": "Sigmoid",
        }
        encoding = {"otype": "Composite", "nested": [encodings, sphere, sphere]}
        self.network = backend.modules.NetworkWithInputEncoding(plain + 6, 3, encoding, network, seed=seed)

    def forward(
        self,
        points: Float[Tensor, "n 3"],
        features: Float[Tensor, "n k"],
        directions: Float[Tensor, "n 3"],
        normals: Float[Tensor, "n 3"],
        codes: Float[Tensor, "n c"] | None = None,
    ) -> Float[Tensor, "n 3"]:
        """Compute colours in [0, 1] seen along unit `directions` (from the camera on).

        Args:
            normals: `shading_normals`, or zeros where there is none: the view direction then counts as reflected.
            codes: of the photos' light; None is the mean, as is any where the network sees none.
        """
        if "v" not in self.inputs:
            directions = -normals
        if "z" not in self.inputs:
            features = torch.zeros_like(features)
        along = (directions * normals).sum(1, keepdim=True)
        reflected = directions - 2 * along * normals
        spheres = 0.5 * reflected.T + 0.5, 0.5 * directions.T + 0.5
        plain = [features.T, points.T, reflected.T, along.T]
        if self._n_codes:
            plain.append(points.new_zeros(self._n_codes, len(points)) if codes is None else codes.T)
        return self.network(torch.cat([*plain, *spheres]).T)


class SurfaceField(nn.Module):
    """Geometry and colour head of one capture."""

    def __init__(
        self,
        model: ModelConfig,
        backend: Backend,
        seed: int,
        *,
        reads_normals: bool = True,
        inputs: str = "xnvz",
        n_codes: int = 0,
    ) -> None:
        super().__init__()
        self.reads_normals = reads_normals and "n" in inputs
        """Whether colours see the shading normal."""
        self.geometry = Geometry(model, backend, seed)
        self.color = ColorHead(model, backend, seed + 1, inputs, n_codes)

    @classmethod
    def of(cls, geometry: Geometry, other: "SurfaceField") -> "SurfaceField":
        """Join a geometry and the colours of another field."""
        field = cls.__new__(cls)
        nn.Module.__init__(field)
        field.reads_normals, field.geometry, field.color = other.reads_normals, geometry, other.color
        return field

    def logits(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """Evaluate the geometry's logits."""
        return self.geometry.logits(points)

    def normals(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Compute the geometry's normals."""
        return self.geometry.normals(points)

    def shading_normals(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Compute the geometry's shading normals; zeros where colours do not see them."""
        if not self.reads_normals:
            return torch.zeros_like(points)
        return self.geometry.shading_normals(points)

    def colors(
        self, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]
    ) -> Float[Tensor, "n 3"]:
        """Compute colours of surface points; see `ColorHead`."""
        return self.color(points, self.geometry.query(points)[1], directions, normals)
