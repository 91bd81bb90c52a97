"""The mesh that leaves the package, and the field that it is made from."""

from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from torch import Tensor

Vertices: TypeAlias = Float64[np.ndarray, "v 3"]
Faces: TypeAlias = Int64[np.ndarray, "f 3"]
Triangles: TypeAlias = tuple[Float64[np.ndarray, "w 3"], Int64[np.ndarray, "g 3"]]
"""Vertices and faces that a function returns; their numbers are others than those it was given."""


class Mesh(NamedTuple):
    """Triangles wound so that they face outward, with a colour and a normal at each vertex."""

    vertices: Vertices
    faces: Faces
    colors: UInt8[np.ndarray, "v 3"]
    """sRGB."""
    normals: Vertices
    """Unit, outward."""
    confidence: Float32[np.ndarray, "v"] | None = None
    """In [0, 1), where it was measured (quicksurf.mesh.confidence)."""

    def to_world(self, center: tuple[float, float, float], radius: float) -> "Mesh":
        """Map from the fit's frame, where the ROI is the unit ball, to the input's: x ↦ center + radius x."""
        return self._replace(vertices=np.asarray(center, np.float64) + radius * self.vertices)


@runtime_checkable
class Field(Protocol):
    """A fitted field as the mesh needs it. Points are in the fit's frame; nothing is differentiated."""

    def logits(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """Return logits, inside > 0."""
        ...

    def normals(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Return unit normals, outward."""
        ...

    def shading_normals(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Return unit normals, outward, of a blurred surface: what colours depend on."""
        ...

    def colors(
        self, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]
    ) -> Float[Tensor, "n 3"]:
        """Return sRGB in [0, 1] seen along `directions` (unit, away from the camera), with `shading_normals`."""
        ...


class LevelSet(NamedTuple):
    """A field whose surface is another level of its logit."""

    field: Field
    level: float

    def logits(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """Return logits above the level."""
        return self.field.logits(points) - self.level

    def normals(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Return the field's normals."""
        return self.field.normals(points)

    def shading_normals(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Return the field's shading normals."""
        return self.field.shading_normals(points)

    def colors(
        self, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]
    ) -> Float[Tensor, "n 3"]:
        """Return the field's colours."""
        return self.field.colors(points, normals, directions)
