"""A mesh with its photos, and what is made of both: confidence, a texture.

Meshes come and go in the cameras' frame; the work is done in the fit's, where float32 has room for every detail.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, UInt8
from PIL import Image
from scipy.spatial import KDTree

from quicksurf.capture.images import read_header, read_pixels, shrink
from quicksurf.capture.scene import Scene
from quicksurf.geometry.cameras import resize
from quicksurf.mesh.build import MeshReport, color_vertices
from quicksurf.mesh.clean import decimate
from quicksurf.mesh.confidence import confidence_of, trim
from quicksurf.mesh.extract import vertex_normals
from quicksurf.mesh.observe import Observations, observe
from quicksurf.mesh.photos import Photos
from quicksurf.mesh.texture.bake import TexturedMesh, bake
from quicksurf.mesh.types import Mesh
from quicksurf.model import TrainedModel

_ENLARGE = 2.0  # pixels: a photo in memory serves in the place of one up to that much larger


def photos_of(reconstruction: TrainedModel, scene: Scene) -> Photos:
    """Collect the photos that the field was fitted to, with masks if it was fitted with them."""
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
        if mask is None:
            return colors, None
        size = colors.shape[1], colors.shape[0]
        return colors, np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.BILINEAR)) > 127

    chosen = torch.from_numpy(used)
    return Photos(reconstruction.roi_cameras().select(chosen), exposures[chosen], read)


class ExportedMesh(NamedTuple):
    """A surface with the photos that it was made of."""

    reconstruction: TrainedModel
    capture: Scene | None
    """None where nothing is asked that the photos are read for."""
    mesh: Mesh
    """In the cameras' frame."""
    report: MeshReport = MeshReport()
    """How the mesh was made."""

    @property
    def scene(self) -> Scene:
        """The photos, where they are needed."""
        assert self.capture is not None, "MeshRequest.needs_photos says whether to read them"
        return self.capture

    def local(self) -> Mesh:
        """Move the mesh into the fit's frame."""
        return _to_fit(self.reconstruction, self.mesh)

    def observed(self) -> Observations:
        """Tell what the photos say of each vertex.

        Raises:
            ImageError: if a photo's file is gone or damaged.
        """
        return observe(self.local(), photos_of(self.reconstruction, self.scene))

    def with_confidence(self) -> "ExportedMesh":
        """Measure the confidence of the vertices.

        Raises:
            ImageError: if a photo's file is gone or damaged.
        """
        return self._replace(mesh=self.mesh._replace(confidence=confidence_of(self.observed())))

    def trimmed(self, least: float) -> "ExportedMesh":
        """Drop what has less confidence than `least`.

        Raises:
            SurfaceError: if nothing is left.
        """
        mesh = trim(self.mesh, least)
        return self._replace(mesh=mesh, report=self.report.of_what_is_left(mesh))

    def textured(self, n_faces: int, size: int | None = None) -> TexturedMesh:
        """Bake a mesh of at most `n_faces` faces with a texture of `size` texels a side, in the cameras' frame.

        Without a size, as many as the photos resolve.

        Raises:
            ConfigError: if the texture's size cannot be baked.
            ImageError: if a photo's file is gone or damaged.
        """
        fitted = self.reconstruction
        local, cameras = _to_fit(fitted, simplify(self.mesh, n_faces)), fitted.roi_cameras()

        def field_colors(points: Float64[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "n 3"]:
            nobody = np.full((len(points), 3), -1)
            return color_vertices(fitted.field, points, nobody, cameras, fitted.renderer.grid.aabb.device)

        photos = _at_full_size(photos_of(fitted, self.scene), fitted, self.scene)
        result = bake(local, photos, field_colors, size)
        return result._replace(vertices=_center(fitted) + fitted.roi.radius * result.vertices)


def _at_full_size(photos: Photos, reconstruction: TrainedModel, scene: Scene) -> Photos:
    """The photos with the cameras of their files, not of what the fit has in memory."""
    files = [scene.files[index] for index in np.flatnonzero(reconstruction.used)]
    headers = [(read_header(file.path), file.upright) for file in files]
    sizes = [(header.width, header.height) if upright else header.stored_size for header, upright in headers]
    return replace(photos, cameras=resize(photos.cameras, torch.tensor(sizes)))


def simplify(mesh: Mesh, n_faces: int) -> Mesh:
    """Reduce the mesh to at most `n_faces` faces; colours are those of the nearest old vertices."""
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
