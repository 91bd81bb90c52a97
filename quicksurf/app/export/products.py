"""What is made of a mesh and its photos: a texture and confidence.

Meshes come and go in the cameras' frame; the work is done in the fit's, where float32 has room for every detail.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, UInt8
from scipy.spatial import KDTree

from quicksurf.app.export.texture_cost import SECONDS_A_PHOTO, texture_seconds
from quicksurf.app.film import write_png
from quicksurf.capture.images import read_pixels, shrink
from quicksurf.capture.scene import Scene
from quicksurf.errors import ConfigError
from quicksurf.mesh.build import MeshReport, color_vertices
from quicksurf.mesh.clean import decimate
from quicksurf.mesh.confidence import check_trim, confidence_of, confidence_picture, trim
from quicksurf.mesh.extract import vertex_normals
from quicksurf.mesh.observe import Observations, observe
from quicksurf.mesh.photos import Photos
from quicksurf.mesh.texture.bake import TexturedMesh, bake, check_texture_size
from quicksurf.mesh.types import Mesh
from quicksurf.model import TrainedModel

TEXTURED_FACES = 50_000  # the texture holds the detail; xatlas takes 7 to 11 s of processor time for these
TEXTURE_SIZE = 2048
_ENLARGE = 2.0  # pixels: a photo in memory serves in the place of one up to that much larger


@dataclass(frozen=True)
class Extras:
    """What is wanted beside the mesh."""

    texture: bool = False
    """A textured mesh: GLB and OBJ."""
    texture_size: int = TEXTURE_SIZE
    confidence: bool = False
    """Confidence of each vertex in the PLY, and a picture of it."""
    trim: float | None = None
    """Drop what is less certain than this; measures confidence, too."""

    def check(self, *, watertight: bool = False) -> None:
        """Refuse what cannot be made, of a surface that is to be closed if `watertight`.

        Raises:
            ConfigError: naming the option.
        """
        check_texture_size(self.texture_size)
        if self.trim is not None:
            check_trim(self.trim)
            if watertight:
                raise ConfigError("--trim opens what --watertight closes: choose one of the two")

    @property
    def measures(self) -> bool:
        """Whether confidence is measured."""
        return self.confidence or self.trim is not None

    @property
    def needs_photos(self) -> bool:
        """Whether anything is wanted that the photos are read for."""
        return self.texture or self.measures

    def seconds(self, n_photos: int) -> float:
        """Tell what it takes on two slow cores, roughly."""
        confidence = SECONDS_A_PHOTO * n_photos if self.measures else 0.0
        texture = texture_seconds(TEXTURED_FACES, self.texture_size, n_photos) if self.texture else 0.0
        return confidence + texture


def photos_of(reconstruction: TrainedModel, scene: Scene) -> Photos:
    """Return the photos that the field was fitted to, with masks if it was fitted with them."""
    used = np.flatnonzero(reconstruction.used)
    exposures = torch.eye(3, 4) + reconstruction.appearance.from_identity().detach().cpu()

    def read(
        index: int, max_pixels: int
    ) -> tuple[UInt8[np.ndarray, "_ _ 3"], Bool[np.ndarray, "_ _"] | None]:
        photo = int(used[index])
        file, mask = scene.files[photo], scene.masks[photo] if reconstruction.masked else None
        small = scene.images[photo]
        if max_pixels > _ENLARGE * small.size / 3:
            colors = read_pixels(file.path, max_pixels, file.upright).rgb
        else:
            colors = shrink(small, max_pixels)
        return colors, None if mask is None else _enlarged(mask, colors.shape[0], colors.shape[1])

    chosen = torch.from_numpy(used)
    return Photos(reconstruction.roi_cameras().select(chosen), exposures[chosen], read)


def _enlarged(mask: UInt8[np.ndarray, "h w"], height: int, width: int) -> Bool[np.ndarray, "i j"]:
    """The mask at another size, nearest."""
    rows = (np.arange(height) + 0.5) * mask.shape[0] / height
    columns = (np.arange(width) + 0.5) * mask.shape[1] / width
    return mask[rows.astype(np.int64)[:, None], columns.astype(np.int64)] > 127


class ExportedMesh(NamedTuple):
    """A surface with the photos that it was made of."""

    reconstruction: TrainedModel
    scene: Scene
    mesh: Mesh
    """In the cameras' frame."""
    report: MeshReport = MeshReport()
    """How the mesh was made."""

    def local(self) -> Mesh:
        """Return the mesh in the fit's frame."""
        return _to_fit(self.reconstruction, self.mesh)

    def observed(self) -> Observations:
        """Tell what the photos say of each vertex.

        Raises:
            ImageError: if a photo's file is gone or damaged.
        """
        return observe(self.local(), photos_of(self.reconstruction, self.scene))

    def trimmed(self, extras: Extras) -> "ExportedMesh":
        """Return the mesh with the confidence of the vertices, if it is wanted, and without what is less certain than
        wanted.

        Raises:
            ImageError: if a photo's file is gone or damaged.
            SurfaceError: if nothing is left.
        """
        if not extras.measures:
            return self
        mesh = self.mesh._replace(confidence=confidence_of(self.observed()))
        if extras.trim is None:
            return self._replace(mesh=mesh)
        mesh = trim(mesh, extras.trim)
        return self._replace(mesh=mesh, report=self.report.of_what_is_left(mesh))

    def write_confidence_picture(self, path: Path) -> Path:
        """Return the mesh from four sides, coloured by confidence."""
        write_png(path, confidence_picture(self.mesh, self.reconstruction.cameras))
        return path

    def textured(self, n_faces: int, size: int) -> TexturedMesh:
        """Return the mesh with at most `n_faces` faces and a texture of `size` texels a side, in the cameras' frame.

        Raises:
            ConfigError: if the texture's size cannot be baked.
            ImageError: if a photo's file is gone or damaged.
        """
        fitted = self.reconstruction
        local, cameras = _to_fit(fitted, simplify(self.mesh, n_faces)), fitted.roi_cameras()

        def field_colors(points: Float64[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "n 3"]:
            nobody = np.full((len(points), 3), -1)
            return color_vertices(fitted.field, points, nobody, cameras, fitted.renderer.grid.aabb.device)

        result = bake(local, photos_of(fitted, self.scene), field_colors, size)
        return result._replace(vertices=_center(fitted) + fitted.roi.radius * result.vertices)


def simplify(mesh: Mesh, n_faces: int) -> Mesh:
    """Return the mesh with at most `n_faces` faces; colours are those of the nearest old vertices."""
    vertices, faces = decimate(mesh.vertices, mesh.faces, n_faces)
    if len(faces) == len(mesh.faces):
        return mesh
    nearest = KDTree(mesh.vertices).query(vertices)[1]
    return Mesh(vertices, faces, mesh.colors[nearest], vertex_normals(vertices, faces))


def _to_fit(reconstruction: TrainedModel, mesh: Mesh) -> Mesh:
    vertices = (mesh.vertices - _center(reconstruction)) / reconstruction.roi.radius
    return mesh._replace(vertices=vertices)


def _center(reconstruction: TrainedModel) -> Float64[np.ndarray, "3"]:
    return np.asarray(reconstruction.roi.center, np.float64)
