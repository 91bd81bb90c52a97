"""The frame that a mesh is exported in: what the user asked for, found in the capture, and told in a sidecar.

See quicksurf.mesh.frame for the mathematics. Without a request a mesh stays in the frame and units of the cameras.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from quicksurf.app.export.markers import Ruler, find_ruler
from quicksurf.app.export.products import ExportedMesh
from quicksurf.app.export.request import MARKERS, UP_SOURCES, MeshRequest, Pixel, ScaleFrom, parse_point
from quicksurf.capture.images import read_header, up_in_photo
from quicksurf.errors import ConfigError
from quicksurf.files import write_json
from quicksurf.mesh import frame
from quicksurf.mesh.frame import Similarity, Up
from quicksurf.model import TrainedModel

SIDECAR = "mesh.frame.json"


class ExportFrame(NamedTuple):
    """The frame that files are written in."""

    similarity: Similarity
    """From the cameras' frame."""
    up: Up | None
    ruler: Ruler | None
    """The markers that told the scale, if they did."""


def export_frame(taken: ExportedMesh, request: MeshRequest) -> ExportFrame:
    """Find the frame asked for, and where its scale and up come from.

    Raises:
        ConfigError: if a point, the markers or a source cannot be used.
    """
    scale, ruler, up, rotation = 1.0, None, None, np.eye(3)
    if request.scale_from is not None:
        scale, ruler = _scale(taken, request.scale_from)
    if request.up is not None:
        up = find_up(taken, request.up)
        rotation = frame.upright(up.direction)
    return ExportFrame(Similarity(scale, rotation), up, ruler)


def _scale(taken: ExportedMesh, scale_from: ScaleFrom) -> tuple[float, Ruler | None]:
    """Metres per unit of the cameras, by two points or by markers."""
    *ends, metres = scale_from
    if ends == [MARKERS]:
        files = [(file.path, file.upright) for file in taken.scene.files]
        ruler = find_ruler(taken.reconstruction.cameras, files)
        return metres / ruler.side, ruler
    first, second = (_point(taken, end) for end in ends)
    return frame.metres_per_unit(first, second, metres), None


def find_up(taken: ExportedMesh, source: str) -> Up:
    """Find up from `source`, or from the best there is (`auto`).

    Raises:
        ConfigError: if the source does not say.
    """
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


def _up_from_plane(taken: ExportedMesh) -> Up | None:
    """The table that was cut off, or that is still there."""
    if taken.report.support_normal is not None:
        return Up(np.array(taken.report.support_normal), "plane")
    return frame.up_from_plane(taken.local(), taken.reconstruction.roi_cameras())


def write_frame(
    reconstruction: TrainedModel, export: ExportFrame, request: MeshRequest, files: Sequence[Path]
) -> Path:
    """Write the sidecar beside `files`: units, up, and the chain of transforms from the field to each file."""
    similarity, up, ruler = export
    radius, center = reconstruction.roi.radius, reconstruction.roi.center
    fit = np.eye(4)
    fit[:3, :3] *= radius
    fit[:3, 3] = center
    content: dict[str, Any] = {
        "units": "metres" if request.scale_from is not None else "those of the cameras",
        "up": None if up is None else {"source": up.source, "in_camera_frame": up.direction.tolist()},
        "scale_from": request.scale_from,
        "markers": None if ruler is None else ruler._asdict(),
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
                "up_axis": None if up is None else "+y" if path.suffix[1:] in frame.Y_UP_FORMATS else "+z",
                "cameras_to_file": frame.to_file_axes(similarity, path.suffix[1:], up is not None).matrix(),
            }
            for path in files
            if path.suffix in (".ply", ".obj", ".glb", ".stl")
        },
    }
    path = files[0].with_name(SIDECAR)
    write_json(path, content)
    return path


def _point(taken: ExportedMesh, text: str) -> Float64[np.ndarray, "3"]:
    """A point of the cameras' frame: x,y,z, or where a photo's pixel meets the mesh."""
    point = parse_point(text)
    if not isinstance(point, Pixel):
        return point
    name, column, row = point
    names = {known: index for index, known in enumerate(taken.scene.names)}
    names |= {Path(known).name: index for known, index in names.items()}
    if name not in names:
        first = taken.scene.names[0]
        raise ConfigError(f"--scale-from {text!r}: no photo {name!r} in the capture, {first!r} is one")
    found, size = _on_mesh(taken, names[name], (column, row))
    if found is None:
        cut = "; the table and what lies on it is cut off, --keep scene keeps it"
        raise ConfigError(
            f"--scale-from {text!r}: no surface under that pixel of {size[0]} x {size[1]}"
            + (cut if taken.report.faces_of_support else "")
        )
    return found


def _on_mesh(
    taken: ExportedMesh, index: int, pixel: tuple[float, float]
) -> tuple[Float64[np.ndarray, "3"] | None, tuple[int, int]]:
    """The mesh under a pixel of the photo as it lies on disk, and that photo's size."""
    file, cameras = taken.scene.files[index], taken.reconstruction.cameras
    header = read_header(file.path)
    width, height = (header.width, header.height) if file.upright else header.stored_size
    used = cameras.sizes[index].tolist()
    at = pixel[0] * used[0] / width, pixel[1] * used[1] / height
    return frame.point_in_photo(taken.mesh, cameras, index, at), (width, height)
