"""The frame that a mesh is exported in: what the user asked for, found in the capture, and told in a sidecar.

See quicksurf.mesh.frame for the mathematics. Without a request a mesh stays in the frame and units of the cameras.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from quicksurf.data.gravity import up_in_photo
from quicksurf.data.images import read_header
from quicksurf.errors import ConfigError
from quicksurf.io import write_json
from quicksurf.mesh import frame
from quicksurf.mesh.frame import Similarity, Up
from quicksurf.products import Takeaway
from quicksurf.reconstruction import Reconstruction

UP_SOURCES = ("auto", "gravity", "plane", "cameras")
SIDECAR = "mesh.frame.json"


@dataclass(frozen=True)
class FrameRequest:
    """The frame that a user wants the mesh in; nothing asked leaves it in that of the cameras."""

    scale_from: tuple[str, str, float] | None = None
    """Two points, as x,y,z of the mesh or PHOTO@column,row, and the metres between them."""
    up: str | None = None
    """One of UP_SOURCES: turn up to +z."""

    @property
    def moves(self) -> bool:
        """Whether anything is asked."""
        return self.scale_from is not None or self.up is not None


def export_frame(taken: Takeaway, request: FrameRequest) -> tuple[Similarity, Up | None]:
    """The similarity from the cameras' frame to the one asked for, and where its up comes from.

    Raises:
        ConfigError: if a point or source cannot be used.
    """
    scale, up, rotation = 1.0, None, np.eye(3)
    if request.scale_from is not None:
        first, second, metres = request.scale_from
        scale = frame.metres_per_unit(_point(taken, first), _point(taken, second), metres)
    if request.up is not None:
        up = find_up(taken, request.up)
        rotation = frame.upright(up.direction)
    return Similarity(scale, rotation), up


def find_up(taken: Takeaway, source: str) -> Up:
    """Up from `source`, or from the best there is (`auto`).

    Raises:
        ConfigError: if the source is unknown or does not say.
    """
    if source not in UP_SOURCES:
        raise ConfigError(f"--up {source}: choose from {', '.join(UP_SOURCES)}")
    cameras = taken.reconstruction.cameras
    held = frame.up_from_cameras(cameras)
    if source == "cameras":
        return held
    if source in ("auto", "gravity"):
        ups = [up_in_photo(file.path, file.upright) for file in taken.scene.files]
        gravity = frame.up_from_gravity(cameras, ups)
        if gravity is not None and (source == "gravity" or frame.angle(gravity, held) < frame.MAX_LEAN):
            return gravity
    if source in ("auto", "plane"):
        plane = _up_from_plane(taken)
        if plane is not None:
            return plane
    if source == "auto":
        return held
    found = (
        "the photos hold no gravity, or contradict each other" if source == "gravity" else "no table is found"
    )
    raise ConfigError(f"--up {source}: {found}: choose another of {', '.join(UP_SOURCES)}")


def _up_from_plane(taken: Takeaway) -> Up | None:
    """The table that was cut off, or that is still there."""
    if taken.support_normal is not None:
        return Up(np.array(taken.support_normal), "plane")
    return frame.up_from_plane(taken.local(), taken.reconstruction.roi_cameras())


def write_frame(
    reconstruction: Reconstruction,
    similarity: Similarity,
    up: Up | None,
    request: FrameRequest,
    files: Sequence[Path],
) -> Path:
    """The sidecar beside `files`: units, up, and the chain of transforms from the field to each file."""
    radius, center = reconstruction.roi.radius, reconstruction.roi.center
    fit = np.eye(4)
    fit[:3, :3] *= radius
    fit[:3, 3] = center
    content: dict[str, Any] = {
        "units": "metres" if request.scale_from is not None else "those of the cameras",
        "up": None if up is None else {"source": up.source, "in_camera_frame": up.direction.tolist()},
        "scale_from": request.scale_from,
        "chain": [
            {
                "from": "fit (the region of interest is the unit ball)",
                "to": "cameras",
                "matrix": fit.tolist(),
            },
            {"from": "cameras", "to": "export", "matrix": similarity.matrix()},
        ],
        "files": {
            path.name: {
                "up_axis": _up_axis(path.suffix[1:], up),
                "cameras_to_file": frame.to_file_axes(similarity, path.suffix[1:], up is not None).matrix(),
            }
            for path in files
            if path.suffix in (".ply", ".obj", ".glb", ".stl")
        },
    }
    path = files[0].with_name(SIDECAR)
    write_json(path, content)
    return path


def _up_axis(suffix: str, up: Up | None) -> str | None:
    if up is None:
        return None
    return "+y" if suffix in frame.Y_UP_FORMATS else "+z"


def _point(taken: Takeaway, text: str) -> Float64[np.ndarray, "3"]:
    """A point of the cameras' frame: x,y,z, or where a photo's pixel meets the mesh."""
    name, at, pixel = text.rpartition("@")
    if not at:
        return frame.scale_point(text)
    names = {known: index for index, known in enumerate(taken.scene.names)}
    names |= {Path(known).name: index for known, index in names.items()}
    if name not in names:
        first = taken.scene.names[0]
        raise ConfigError(f"--scale-from {text!r}: no photo {name!r} in the capture, {first!r} is one")
    try:
        column, row = (float(part) for part in pixel.split(","))
    except ValueError as error:
        raise ConfigError(f"--scale-from {text!r}: expected PHOTO@column,row") from error
    point, size = _on_mesh(taken, names[name], (column, row))
    if point is None:
        raise ConfigError(f"--scale-from {text!r}: no surface under that pixel of {size[0]} x {size[1]}")
    return point


def _on_mesh(
    taken: Takeaway, index: int, pixel: tuple[float, float]
) -> tuple[Float64[np.ndarray, "3"] | None, tuple[int, int]]:
    """The mesh under a pixel of the photo as it lies on disk, and that photo's size."""
    file, cameras = taken.scene.files[index], taken.reconstruction.cameras
    header = read_header(file.path)
    width, height = (header.width, header.height) if file.upright else header.stored_size
    used = cameras.sizes[index].tolist()
    at = pixel[0] * used[0] / width, pixel[1] * used[1] / height
    return frame.point_in_photo(taken.mesh, cameras, index, at), (width, height)
