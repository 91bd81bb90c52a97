"""Surfaces to be measured, with the cameras that each stands on, and the photos of a capture at full size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int32, UInt8

from quicksurf.capture.images import read_pixels
from quicksurf.capture.listing import list_images
from quicksurf.capture.masks import find_masks, read_coverage
from quicksurf.capture.transforms import read_cameras
from quicksurf.errors import CaptureError
from quicksurf.geometry.cameras import Cameras, project, resize
from quicksurf.kernels.host import rasterize
from quicksurf.mesh.export import read_points

MAX_PIXELS = 1 << 26
_CAMERA_FILES = ("cameras.json", "openmvs_cameras.json", "transforms.json")


@dataclass(frozen=True)
class Photos:
    """The photos of a capture by their names without suffix, at full size."""

    files: dict[str, Path]
    masks: dict[str, Path]
    """Empty where masks are not asked for."""

    def read(self, name: str) -> UInt8[np.ndarray, "h w 3"]:
        """Return the pixels of a photo.

        Raises:
            ImageError: if its file is damaged.
        """
        return read_pixels(self.files[name], MAX_PIXELS).rgb

    def mask(self, name: str, width: int, height: int) -> Bool[np.ndarray, "h w"]:
        """Return where the pixels of a photo count."""
        if name not in self.masks:
            return np.ones((height, width), bool)
        mask = read_coverage(self.masks[name], False)
        return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST) > 127


def find_photos(capture: Path, masked: bool) -> Photos:
    """List the photos in `capture`, or in its folder images/, and their masks if they count.

    Raises:
        CaptureError: if there are none.
    """
    folder = capture / "images" if (capture / "images").is_dir() else capture
    paths = list_images(folder)
    masks = find_masks(capture, paths)[0] if masked else []
    found = {path.stem: mask for path, mask in zip(paths, masks, strict=masked) if mask is not None}
    return Photos({path.stem: path for path in paths}, found)


@dataclass(frozen=True, eq=False)
class Surface:
    """A mesh and its cameras, in one frame."""

    label: str
    vertices: Float64[np.ndarray, "v 3"]
    faces: Int32[np.ndarray, "f 3"]
    cameras: Cameras
    """float64, of any size: `camera` resizes them."""
    names: list[str]
    """Of the cameras' photos, without folder and suffix."""

    def camera(self, name: str, width: int, height: int) -> Cameras:
        """Return the camera of a photo of width × height."""
        index = self.names.index(name)
        one = self.cameras.select(slice(index, index + 1))
        return resize(one, torch.tensor([[width, height]]))

    def draw(self, camera: Cameras) -> tuple[Float32[np.ndarray, "h w"], Int32[np.ndarray, "h w"]]:
        """Return the depth and the face at each pixel of a camera: infinity and -1 where the mesh is not."""
        pixels, depths = project(camera, 0, torch.from_numpy(self.vertices))
        corners = torch.cat([pixels, depths[:, None]], 1).float().numpy()
        width, height = camera.sizes[0].tolist()
        return rasterize(corners, self.faces, width, height)


def read_surface(text: str) -> Surface:
    """Read RUN, MESH or MESH@CAMERAS; without cameras, those beside the mesh.

    Raises:
        CaptureError: if there are no cameras, or they cannot be read.
        SurfaceError: if the mesh cannot be read.
    """
    name, _, given = text.partition("@")
    mesh = Path(name) / "mesh.ply" if Path(name).is_dir() else Path(name)
    beside = (mesh.parent / file for file in _CAMERA_FILES)
    path = Path(given) if given else next((file for file in beside if file.is_file()), None)
    if path is None:
        raise CaptureError(f"{mesh.parent} has none of {', '.join(_CAMERA_FILES)}: give {name}@CAMERAS")
    vertices, faces = read_points(mesh)
    file = read_cameras(path)
    return Surface(text, vertices, np.int32(faces), file.cameras, [Path(photo).stem for photo in file.names])


def shared_names(surfaces: Sequence[Surface], photos: Photos) -> list[str]:
    """Return the photos that all surfaces have a camera of.

    Raises:
        CaptureError: if there are fewer than two.
    """
    names = sorted(set(photos.files).intersection(*(surface.names for surface in surfaces)))
    if len(names) < 2:
        raise CaptureError(
            f"{len(names)} photos have a camera of every surface, expected two or more: give the capture they are of"
        )
    return names
