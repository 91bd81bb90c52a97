"""Procedural paint of the demo's surfaces: noise at many scales, so that every patch can be matched between views."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample, pad


class Noise:
    """Value noise: linear interpolation of random values on a periodic lattice."""

    _SIDE = 64

    def __init__(self, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        lattice = torch.rand((self._SIDE,) * 3, generator=random) * 2 - 1
        self._volume = pad(lattice[None, None], (0, 1) * 3, mode="circular")

    def fbm(self, points: Float[Tensor, "n 3"], frequency: float, n_octaves: int) -> Float[Tensor, "n"]:
        """Sum octaves, each of twice the frequency and half the amplitude; the result is about -1 to 1."""
        total, amplitude = torch.zeros(len(points)), 1.0
        for octave in range(n_octaves):
            shift = 17.3 * (octave + 1)  # octaves of one lattice must not line up at the origin
            place = torch.remainder(points * frequency + shift, self._SIDE)
            total += amplitude * look_up(self._volume, (2 * place + 1) / (self._SIDE + 1) - 1)[:, 0]
            frequency, amplitude = 2.03 * frequency, 0.5 * amplitude
        return total / math.sqrt(2)


def look_up(texture: Float[Tensor, "1 c *size"], at: Float[Tensor, "n k"]) -> Float[Tensor, "n c"]:
    """Interpolate an image or a volume linearly; `at` is (x, y) or (x, y, z) in [-1, 1] over its outer edges."""
    n, n_axes = at.shape
    grid = at.reshape(1, *[1] * (n_axes - 1), n, n_axes)
    found = grid_sample(texture, grid, padding_mode="border", align_corners=False)
    return found.reshape(texture.shape[1], n).T


def rgb(red: float, green: float, blue: float) -> Float[Tensor, "3"]:
    """Make a linear colour."""
    return torch.tensor([red, green, blue])


def mix(a: Tensor, b: Tensor, weight: Float[Tensor, "n"]) -> Float[Tensor, "n 3"]:
    """Blend colours: `a` at weight 0, `b` at 1."""
    return a + (b - a) * weight[:, None]


def step(value: Tensor, low: float, high: float) -> Tensor:
    """Step smoothly from 0 at `low` to 1 at `high`."""
    t = ((value - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)
