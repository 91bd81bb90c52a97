"""Coordinates far from the origin, as surveys have them, in files that hold single precision.

A float keeps 24 bits: at 4,600,000 m half a metre. Where that would move a vertex by more than 1e-5 of the mesh's
size, files keep doubles (PLY), all digits as text (OBJ, STL), or coordinates about a stated offset (GLB).
"""

import numpy as np
from jaxtyping import Float64

from quicksurf.mesh.types import Vertices

_TOLERANCE = 1e-5  # of the mesh's diagonal: a two-hundredth of an edge at the usual resolution
_ROUNDING = 2.0**-24  # of a float, relative


def fits_single(vertices: Vertices) -> bool:
    """Tell whether single precision moves no vertex by more than the tolerance; True of what is not finite."""
    extent = float(np.linalg.norm(np.ptp(vertices, axis=0)))
    return not _ROUNDING * float(np.abs(vertices).max()) > _TOLERANCE * extent


def offset_of(vertices: Vertices) -> Float64[np.ndarray, "3"]:
    """Return a round point near the middle, to be subtracted before single precision; 0 where that suffices."""
    if fits_single(vertices):
        return np.zeros(3)
    extent = float(np.linalg.norm(np.ptp(vertices, axis=0)))
    unit = 10.0 ** np.ceil(np.log10(max(extent, 1e-12)))
    return np.round((vertices.min(0) + vertices.max(0)) / 2 / unit) * unit


def n_digits(vertices: Vertices) -> int:
    """Return the significant digits that a text file needs for what single precision would keep of the mesh alone."""
    return 9 if fits_single(vertices) else 15
