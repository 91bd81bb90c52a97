"""Confidence of each vertex, as a number, a picture, and a way to drop the rest.

    confidence = evidence / (evidence + 2)        evidence = Σ_i cos θ_i · agreement_i  (quicksurf.mesh.observe)

0 where no photo looked, ½ for two photos that look straight at it and agree (the least that gives a depth),
towards 1 with many. It grows with the number of views, falls with their obliqueness and with the difference
between what they show; it is no error in units of length.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32, UInt8
from PIL import Image, ImageDraw

from quicksurf.errors import ConfigError, SurfaceError
from quicksurf.geometry.cameras import Cameras, project
from quicksurf.geometry.paths import close_up
from quicksurf.kernels.host import rasterize
from quicksurf.mesh.clean import compact
from quicksurf.mesh.extract import vertex_normals
from quicksurf.mesh.observe import Observations
from quicksurf.mesh.types import Mesh

HALF = 2.0  # evidence of two frontal views that agree
_SCALE = np.array([[64, 10, 84], [49, 104, 142], [53, 183, 121], [250, 231, 60]], np.float64)
_BAR = 36  # rows of the picture's legend


def confidence_of(observations: Observations) -> Float32[np.ndarray, "v"]:
    """Return the confidence in [0, 1) of each vertex."""
    return (observations.evidence / (observations.evidence + HALF)).astype(np.float32)


def check_trim(least: float) -> None:
    """Refuse thresholds that keep everything or nothing.

    Raises:
        ConfigError: unless `least` is in (0, 1).
    """
    if not 0 < least < 1:
        raise ConfigError(f"--trim is {least:g}: choose a confidence between 0 and 1, 0.5 is two good views")


def trim(mesh: Mesh, least: float) -> Mesh:
    """Return the mesh without faces that have a vertex of less confidence than `least`.

    Raises:
        ConfigError: as `check_trim`.
        SurfaceError: if nothing is left.
    """
    check_trim(least)
    assert mesh.confidence is not None, "confidence is measured before"
    kept = (mesh.confidence >= least)[mesh.faces].all(1)
    if not kept.any():
        raise SurfaceError(
            f"no face has the confidence {least:g} of --trim, the best vertex has {mesh.confidence.max():.2f}: "
            "lower it, or take more photos"
        )
    vertices, faces, old = compact(mesh.vertices, mesh.faces[kept])
    return Mesh(vertices, faces, mesh.colors[old], vertex_normals(vertices, faces), mesh.confidence[old])


def scale_colors(values: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n 3"]:
    """Return the colours (0 to 255) of confidences: violet 0, blue, green, yellow 1; lightness grows all along."""
    at = np.linspace(0, 1, len(_SCALE))
    return np.stack([np.interp(values, at, _SCALE[:, k]) for k in range(3)], -1)


def confidence_picture(mesh: Mesh, cameras: Cameras, side: int = 480) -> UInt8[np.ndarray, "h w 3"]:
    """Return the mesh from four sides, two by two, coloured by confidence, with the scale below.

    Args:
        cameras: the photos', in the mesh's frame; the views stand as high, and see the mesh fill them.
    """
    views = close_up(cameras, mesh.vertices, 4, (side, side))
    tiles = [_shaded(mesh, views, index) for index in range(4)]
    rows = [np.concatenate(tiles[:2], 1), np.concatenate(tiles[2:], 1)]
    return np.concatenate([*rows, _legend(2 * side)])


def _shaded(mesh: Mesh, cameras: Cameras, index: int) -> UInt8[np.ndarray, "h w 3"]:
    """One view on white, faces in the mean colour of their corners and darker where they are oblique."""
    assert mesh.confidence is not None, "confidence is measured before"
    width, height = cameras.sizes[index].tolist()
    pixels, depths = project(cameras, index, torch.tensor(mesh.vertices))
    corners = torch.cat([pixels, depths[:, None]], 1).float().numpy()
    shown: Int32[np.ndarray, "h w"] = rasterize(corners, mesh.faces, width, height)[1]
    forward = cameras.c2w[index, :, 2].numpy()
    slopes = np.abs(mesh.normals[mesh.faces].mean(1) @ forward)
    paint = scale_colors(mesh.confidence[mesh.faces].mean(1)) * (0.45 + 0.55 * slopes)[:, None]
    image = np.full((height, width, 3), 255.0)
    image[shown >= 0] = paint[shown[shown >= 0]]
    return np.rint(image.clip(0, 255)).astype(np.uint8)


def _legend(width: int) -> UInt8[np.ndarray, "h w 3"]:
    """The colour scale with its numbers."""
    bar = np.full((_BAR, width, 3), 255, np.uint8)
    bar[: _BAR // 2] = np.rint(scale_colors(np.linspace(0, 1, width))).astype(np.uint8)
    image = Image.fromarray(bar)
    draw = ImageDraw.Draw(image)
    for value, text in ((0.0, "0 unseen"), (0.5, "0.5 two good views"), (0.9, "0.9 many agree")):
        draw.text((4 + value * width, _BAR // 2 + 3), text, fill=(0, 0, 0))
    return np.asarray(image)
