"""Scale and axes of an exported mesh: from the frame of the cameras to one in metres that stands upright.

    x_export = s R x_camera        s metres per camera unit, R turns `up` to +z by the smallest angle

The origin stays where it was. Up comes from, in this order: gravity in the photos' EXIF
(quicksurf.capture.exif), believed within MAX_LEAN of how the cameras were held; the table that carries the
object; or the way the cameras were held.

Files whose formats have y up (GLB by its standard, OBJ by custom) get the quarter turn from z up on top;
viewers and Blender undo it when they load them. Nothing here touches a mesh that is not asked to be moved.
"""

from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from quicksurf.errors import ConfigError
from quicksurf.geometry.cameras import Cameras, pixel_rays
from quicksurf.mesh.support import find_support
from quicksurf.mesh.texture.bake import TexturedMesh
from quicksurf.mesh.types import Mesh

Y_UP_FORMATS = frozenset({"glb", "obj"})
Z_TO_Y_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
# Degrees between up and the cameras' up: photos are taken level or looking down, seldom from above.
MAX_LEAN = 45.0
_LEVEL_FRACTION = 0.05  # smallest spread of the cameras' x axes, of all, that tells the horizon's plane


class Similarity(NamedTuple):
    """x ↦ scale · rotation · x."""

    scale: float
    rotation: Float64[np.ndarray, "3 3"]

    def matrix(self) -> list[list[float]]:
        """Return the 4 × 4 matrix, for a column (x, y, z, 1)."""
        full = np.eye(4)
        full[:3, :3] = self.scale * self.rotation
        return full.tolist()

    def points(self, points: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
        """Return points in the new frame."""
        return self.scale * points @ self.rotation.T

    def directions(self, directions: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
        """Return unit vectors in the new frame."""
        return directions @ self.rotation.T

    def then(self, rotation: Float64[np.ndarray, "3 3"]) -> "Similarity":
        """Append a rotation."""
        return Similarity(self.scale, rotation @ self.rotation)


class Up(NamedTuple):
    """A direction that points away from the ground, in the cameras' frame."""

    direction: Float64[np.ndarray, "3"]
    source: str
    """`gravity`, `plane` or `cameras`."""


MeshT = TypeVar("MeshT", Mesh, TexturedMesh)


def check_metres(metres: float) -> None:
    """Refuse distances that are none.

    Raises:
        ConfigError: unless it is positive and finite.
    """
    if not 0 < metres < float("inf"):
        raise ConfigError(f"--scale-from: the distance {metres:g} must be above 0, in metres")


def metres_per_unit(
    first: Float64[np.ndarray, "3"], second: Float64[np.ndarray, "3"], metres: float
) -> float:
    """Return the scale at which two points of the cameras' frame lie `metres` apart.

    Raises:
        ConfigError: if the points are one, or the distance is not positive and finite.
    """
    check_metres(metres)
    distance = float(np.linalg.norm(second - first))
    if not 0 < distance < float("inf"):
        raise ConfigError("--scale-from: the two points are the same: give two that lie apart")
    return metres / distance


def upright(up: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "3 3"]:
    """Return the smallest rotation that takes `up` to +z (Rodrigues' formula); straight down turns about x."""
    x, y, z = up / np.linalg.norm(up)
    if z < -1 + 1e-9:
        return np.diag([1.0, -1.0, -1.0])
    cross = np.array([[0.0, 0, -x], [0, 0, -y], [x, y, 0]])  # of the axis up × z = (y, −x, 0)
    return np.eye(3) + cross + cross @ cross / (1 + z)


def up_from_cameras(cameras: Cameras) -> Up:
    """Estimate up as the photographer held the camera: across all x axes, which are level however it is pitched.

    Cameras on one side of the object share one x axis, which leaves the pitch open; the mean of their own ups serves.
    """
    axes = cameras.c2w[:, :, 0].double().numpy()
    mean = -cameras.c2w[:, :, 1].double().numpy().mean(0)
    values, vectors = np.linalg.eigh(axes.T @ axes / len(axes))
    across = vectors[:, 0] * np.sign(vectors[:, 0] @ mean)
    level = values[1] >= _LEVEL_FRACTION and values[0] < 0.2 * values[1] and np.linalg.norm(across) > 0
    chosen = across if level else mean
    length = np.linalg.norm(chosen)
    return Up(chosen / length if length > 1e-9 else np.array([0.0, 0.0, 1.0]), "cameras")


def up_from_plane(mesh: Mesh, cameras: Cameras) -> Up | None:
    """Return the normal of the table that carries the object (quicksurf.mesh.support); mesh and cameras in the fit's
    frame.
    """
    support = find_support(mesh.vertices, mesh.faces, cameras.centers().double().numpy())
    return None if support is None else Up(support.normal, "plane")


def up_from_gravity(cameras: Cameras, ups: list[Float64[np.ndarray, "3"] | None]) -> Up | None:
    """Return the mean of what the photos' sensors say, each in its camera's axes; None if none do or they contradict.

    A photo's vector is in its camera's axes (x right, y down, z forward). Half of them must agree within 15°
    with the mean.
    """
    rotations = cameras.c2w[:, :, :3].double().numpy()
    turned = [rotation @ up for rotation, up in zip(rotations, ups, strict=True) if up is not None]
    if not turned:
        return None
    units = np.stack(turned) / np.linalg.norm(np.stack(turned), axis=1, keepdims=True)
    mean = units.mean(0) / max(np.linalg.norm(units.mean(0)), 1e-9)
    agree = np.mean(units @ mean > np.cos(np.radians(15)))
    return Up(mean, "gravity") if agree > 0.5 else None


def angle(first: Up, second: Up) -> float:
    """Compute degrees between two ups."""
    return float(np.degrees(np.arccos(np.clip(first.direction @ second.direction, -1, 1))))


def to_file_axes(similarity: Similarity, suffix: str, turned: bool) -> Similarity:
    """Tell what a file of this format holds: y up where the format has it, if the mesh was made upright."""
    return similarity.then(Z_TO_Y_UP) if turned and suffix in Y_UP_FORMATS else similarity


def move(mesh: MeshT, similarity: Similarity) -> MeshT:
    """Return the mesh in another frame."""
    vertices, normals = similarity.points(mesh.vertices), similarity.directions(mesh.normals)
    return mesh._replace(vertices=vertices, normals=normals)


def scale_point(text: str) -> Float64[np.ndarray, "3"]:
    """Parse `x,y,z` as a point.

    Raises:
        ConfigError: unless it is three finite numbers.
    """
    try:
        point = np.array([float(part) for part in text.split(",")])
    except ValueError:
        point = np.zeros(0)
    if point.shape != (3,) or not np.isfinite(point).all():
        raise ConfigError(
            f"--scale-from {text!r}: give a point x,y,z of the mesh, or PHOTO@column,row of a photo's pixel"
        )
    return point


def point_in_photo(
    mesh: Mesh, cameras: Cameras, index: int, pixel: tuple[float, float]
) -> Float64[np.ndarray, "3"] | None:
    """Find where the ray through a pixel of camera `index` first meets the mesh (Möller and Trumbore); None if
    nowhere.
    """
    one: Tensor = torch.tensor([index])
    origins, directions = pixel_rays(cameras, one, torch.tensor([pixel]).to(cameras.intrinsics))
    origin, direction = origins[0].double().numpy(), directions[0].double().numpy()
    a = mesh.vertices[mesh.faces[:, 0]]
    ab, ac = mesh.vertices[mesh.faces[:, 1]] - a, mesh.vertices[mesh.faces[:, 2]] - a
    across = np.cross(direction, ac)
    determinant = np.einsum("fi,fi->f", ab, across)
    inverse = 1 / np.where(np.abs(determinant) > 1e-30, determinant, np.inf)
    offset = origin - a
    u = np.einsum("fi,fi->f", offset, across) * inverse
    turned = np.cross(offset, ab)
    v = turned @ direction * inverse
    t = np.einsum("fi,fi->f", ac, turned) * inverse
    hits = t[(u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0) & (inverse != 0)]
    return origin + hits.min() * direction if len(hits) else None
