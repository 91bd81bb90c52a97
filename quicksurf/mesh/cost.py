"""What a mesh will take, from the surface there is: a coarse lattice tells how many points and vertices a fine one has.

Lattice points in occupied cells grow with the cube of the resolution, vertices with its square. Both are counted, and
the evaluation timed, at COARSE: 1/64 of the points of 384. The rest is counted in faces, of which a closed surface
has two for each vertex. A facade that fills the region has five times the faces of an object in its middle.
"""

import time
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quicksurf.mesh.extract import count_vertices
from quicksurf.mesh.types import Field

COARSE = 96  # cells along the box
_STEP = 32
# Seconds after the extraction, measured and expected: 284,000 faces, 46 cameras 5.0 and 4.2; 551,000, 35 cameras 5.1
# and 7.0, two thirds of them cut off before they were coloured; 683,000, 53 cameras, on one core, 9.6 and 11.0.
_SECONDS_A_FACE, _SECONDS_A_FACE_AND_CAMERA = 6e-6, 1.9e-7


class MeshCost(NamedTuple):
    """Of the mesh at COARSE."""

    evaluation_seconds: float
    """Of all lattice points, as they took just now."""
    n_vertices: int
    n_cameras: int
    """That look at each face."""

    def seconds(self, resolution: int) -> float:
        """Tell what the mesh is expected to take at `resolution`, its files not counted."""
        scale = resolution / COARSE
        n_faces = 2 * self.n_vertices * scale**2
        a_face = _SECONDS_A_FACE + _SECONDS_A_FACE_AND_CAMERA * self.n_cameras
        return self.evaluation_seconds * scale**3 + n_faces * a_face

    def affordable(self, resolution: int, seconds: float) -> int:
        """Return the largest resolution, in steps of 32 down from the wanted one, that is expected to take
        `seconds`.
        """
        while resolution - _STEP >= COARSE and self.seconds(resolution) > seconds:
            resolution -= _STEP
        return resolution


def mesh_cost(
    field: Field, occupied: Bool[Tensor, "rx ry rz"], aabb: Float[Tensor, "6"], n_cameras: int
) -> MeshCost:
    """Measure what a mesh of `field` will take."""
    with torch.no_grad():
        field.logits(aabb[None, :3]).sum().item()  # the first call pays for set-up
    began = time.perf_counter()
    n_vertices = count_vertices(field.logits, occupied, aabb, COARSE)
    return MeshCost(time.perf_counter() - began, n_vertices, n_cameras)
