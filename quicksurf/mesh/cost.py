"""What a mesh will take, from a coarse one made just now: of the surface there is, on the machine as busy as it is.

Lattice points in occupied cells grow with the cube of the resolution, faces with its square. Both parts are timed at
COARSE: 1/64 of the points of 384. A facade that fills the region has five times the faces of an object in its middle,
and a machine that is busy, or slow, takes as much longer for what follows as for the triangles.
"""

import time
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quicksurf.mesh.extract import Lattice, march_cubes, sample
from quicksurf.mesh.types import Field

COARSE = 96  # cells along the box
_STEP = 32
# Seconds of all that is done for each face, in seconds of marching cubes: a part for each face and one for each camera
# that looks at it. At 384, measured and expected: 1,385,000 faces, 21 cameras 11.2 and 14.6 s; 843,000, 52 cameras 12.5
# and 11.0 s; at 256: 4.6 and 5.8, 5.0 and 4.5 s.
_A_FACE, _A_FACE_AND_CAMERA = 3.5, 0.16
_A_FACE_REFINED = 3.0  # besides, where vertices move to points


class MeshCost(NamedTuple):
    """Of the mesh at COARSE, as it took just now."""

    evaluation_seconds: float
    """Of all lattice points."""
    march_seconds: float
    """Of marching cubes."""
    n_cameras: int
    """That look at each face."""
    refined: bool = False
    """Whether vertices are moved to points of stereo."""

    def seconds(self, resolution: int) -> float:
        """Tell what the mesh is expected to take at `resolution`, its files not counted."""
        scale = resolution / COARSE
        a_face = _A_FACE + _A_FACE_AND_CAMERA * self.n_cameras + _A_FACE_REFINED * self.refined
        return self.evaluation_seconds * scale**3 + self.march_seconds * a_face * scale**2

    def affordable(self, resolution: int, seconds: float) -> int:
        """Return the largest resolution, in steps of 32 down from the wanted one, that should fit in `seconds`."""
        while resolution - _STEP >= COARSE and self.seconds(resolution) > seconds:
            resolution -= _STEP
        return resolution


def mesh_cost(
    field: Field, occupied: Bool[Tensor, "rx ry rz"], aabb: Float[Tensor, "6"], n_cameras: int, refined: bool
) -> MeshCost:
    """Measure what a mesh of `field` will take."""
    with torch.no_grad():
        field.logits(aabb[None, :3]).sum().item()  # the first call pays for set-up
    lattice = Lattice(occupied, aabb, COARSE)
    blocks = lattice.blocks()
    began = time.perf_counter()
    values = sample(field.logits, lattice, blocks, aabb.device)
    evaluated = time.perf_counter()
    march_cubes(values, blocks)
    return MeshCost(evaluated - began, time.perf_counter() - evaluated, n_cameras, refined)
