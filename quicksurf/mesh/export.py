"""Meshes on disk: PLY, OBJ, GLB and STL, each written whole or not at all."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import UInt8
from trimesh.visual.texture import TextureVisuals

from quicksurf.errors import ConfigError, SurfaceError
from quicksurf.files import atomic_path
from quicksurf.mesh.gltf import colors_of_glb, glb_with_colors
from quicksurf.mesh.precision import fits_single
from quicksurf.mesh.types import Faces, Mesh, Triangles, Vertices
from quicksurf.untrusted import LARGEST

_EXPECTED = "PLY, OBJ, GLB or STL"
FORMATS = ("ply", "obj", "glb", "stl")
_MAX_PLY_HEADER = 1 << 16  # bytes
_PLY_TYPES = {"<f8": "double", "<f4": "float", "<u1": "uchar"}


def check_formats(formats: Sequence[str]) -> None:
    """Refuse formats that cannot be written; callers that work long ask before.

    Raises:
        ConfigError: if there is none, or naming the unknown one.
    """
    if not formats:
        raise ConfigError(f"no mesh format is given: choose one or more from {', '.join(FORMATS)}")
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(f"unknown mesh format {name!r}: choose from {', '.join(FORMATS)}")


def write_mesh(
    mesh: Mesh,
    folder: Path,
    stem: str,
    formats: Sequence[str],
    moved: Callable[[Mesh, str], Mesh] = lambda mesh, suffix: mesh,
) -> list[Path]:
    """Write `folder/stem.FORMAT` for each of `formats`; coordinates are kept as they are unless `moved` by format.

    PLY is binary with colours, normals and the confidence if it was measured, OBJ has colours as the usual extension
    of its `v` lines, GLB has colours, linear as glTF wants them, and normals, STL holds neither. Files are in single
    precision except OBJ (text); where that would bend the surface, see quicksurf.mesh.precision.

    Raises:
        ConfigError: as `check_formats`.
        SurfaceError: if the mesh has no faces.
        OutputError: if the folder cannot be written or the disk is full.
    """
    check_formats(formats)
    if not len(mesh.faces):
        raise SurfaceError(
            "the mesh has no faces, so there is nothing to write: fit longer or check the --roi"
        )
    paths = []
    for suffix in dict.fromkeys(formats):
        path = Path(folder) / f"{stem}.{suffix}"
        with atomic_path(path) as temporary:
            _export(moved(mesh, suffix), temporary, suffix)
        paths.append(path)
    return paths


def read_mesh(path: Path) -> Mesh:
    """Read a mesh file; colours are grey and normals those of the faces around where the file holds none.

    Raises:
        SurfaceError: if the file is not a mesh that can be read, or holds no faces.
    """
    loaded, colors = _load(path)
    vertices, faces = _vertices_and_faces(loaded)
    if not len(faces):
        raise SurfaceError(f"{path} holds no faces: expected a triangle mesh, not a point cloud")
    try:
        if colors is None:
            visual = loaded.visual
            visual = visual.to_color() if isinstance(visual, TextureVisuals) else visual
            colors = np.asarray(visual.vertex_colors)[:, :3].astype(np.uint8)
        normals = np.asarray(loaded.vertex_normals, np.float64)
    except Exception as error:  # as in `_load`
        raise SurfaceError(f"cannot read {path} ({_short(error)}): expected {_EXPECTED}") from error
    if not colors.shape == normals.shape == vertices.shape:
        raise SurfaceError(
            f"{path} holds {len(vertices)} vertices, {len(colors)} colours and {len(normals)} normals: export it again"
        )
    return Mesh(vertices, faces, colors, np.nan_to_num(normals))


def read_points(path: Path) -> Triangles:
    """Read the vertices and triangles of a file; a point cloud has none of the latter.

    Raises:
        SurfaceError: if the file is neither a mesh nor a cloud that can be read, or holds no points.
    """
    return _vertices_and_faces(_load(path)[0])


def _load(path: Path) -> tuple[Any, UInt8[np.ndarray, "v 3"] | None]:
    """What trimesh makes of a file, one mesh or cloud with at least one finite vertex; and colours that it loses."""
    colors = None
    try:
        if not path.is_file():  # a pipe would be waited for
            raise FileNotFoundError("no such file")
        loaded: Any = trimesh.load(path, process=False)
        geometry = loaded
        if isinstance(loaded, trimesh.Scene):
            geometry, colors = loaded.to_geometry(), colors_of_glb(loaded)
        vertices, faces = _vertices_and_faces(geometry)
        stated = _stated_counts(path) if path.suffix.lower() == ".ply" else {}
    except Exception as error:  # each of trimesh's readers fails in its own way on a broken file
        raise SurfaceError(f"cannot read {path} ({_short(error)}): expected {_EXPECTED}") from error
    found = _missing(stated, vertices, faces) or _damage(vertices, faces)
    if found is not None:
        raise SurfaceError(f"{path} holds {found}: expected a surface; export it again")
    return geometry, colors


def _missing(stated: Mapping[str, int], vertices: Vertices, faces: Faces) -> str | None:
    """What a file states and does not hold: trimesh reads a text file that is cut off without a word."""
    for name, held in (("vertex", len(vertices)), ("face", len(faces))):  # a polygon has several triangles
        if held < stated.get(name, 0):
            return f"{held} of the {stated[name]} elements '{name}' that it states"
    return None


def _damage(vertices: Vertices, faces: Faces) -> str | None:
    """What of a surface cannot be used."""
    if not len(vertices):
        return "no points"
    if not np.isfinite(vertices).all():
        return "NaN or infinity"
    if np.abs(vertices).max() > LARGEST:
        return f"coordinates beyond {LARGEST:g}"
    if len(faces) and not 0 <= faces.min() <= faces.max() < len(vertices):
        return f"faces of vertices {faces.min()} to {faces.max()}, and {len(vertices)} vertices"
    return None


def _short(error: Exception) -> str:
    return str(error)[:200] or type(error).__name__


def _vertices_and_faces(geometry: Any) -> Triangles:
    faces = getattr(geometry, "faces", np.zeros((0, 3)))
    return (
        np.asarray(geometry.vertices, np.float64).reshape(-1, 3),
        np.asarray(faces, np.int64).reshape(-1, 3),
    )


def _export(mesh: Mesh, path: Path, suffix: str) -> None:
    if suffix in ("glb", "ply"):
        path.write_bytes(glb_with_colors(mesh) if suffix == "glb" else _ply_of(mesh))
        return
    surface = trimesh.Trimesh(
        mesh.vertices,
        mesh.faces,
        vertex_colors=np.concatenate([mesh.colors, np.full_like(mesh.colors[:, :1], 255)], 1),
        vertex_normals=mesh.normals,
        process=False,
    )
    binary = suffix == "obj" or fits_single(mesh.vertices)  # STL has no doubles but as text
    surface.export(path, file_type=suffix if binary else "stl_ascii")


def _ply_of(mesh: Mesh) -> bytes:
    """Encode the mesh; coordinates in single precision, or double where that would be seen."""
    real = "<f4" if fits_single(mesh.vertices) else "<f8"
    columns = [
        *zip("xyz", [real] * 3, mesh.vertices.T, strict=True),
        *zip(("nx", "ny", "nz"), ["<f4"] * 3, mesh.normals.T, strict=True),
        *zip(("red", "green", "blue"), ["<u1"] * 3, mesh.colors.T, strict=True),
        ("alpha", "<u1", np.full(len(mesh.vertices), 255)),
        *([] if mesh.confidence is None else [("confidence", "<f4", mesh.confidence)]),
    ]
    vertices = np.empty(len(mesh.vertices), [(name, kind) for name, kind, _ in columns])
    for name, _, values in columns:
        vertices[name] = values
    faces = np.empty(len(mesh.faces), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, mesh.faces
    header = [
        *("ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"),
        *(f"property {_PLY_TYPES[kind]} {name}" for name, kind, _ in columns),
        *(f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""),
    ]
    return "\n".join(header).encode() + vertices.tobytes() + faces.tobytes()


def _stated_counts(path: Path) -> dict[str, int]:
    """Tell how many elements of each name the header of a PLY states.

    Raises:
        OSError: if it cannot be read.
    """
    with open(path, "rb") as file:
        header = file.read(_MAX_PLY_HEADER).partition(b"end_header")[0].decode("ascii", "replace")
    return {name: int(n) for name, n in re.findall(r"^element[ \t]+(\w+)[ \t]+(\d{1,18})\s*$", header, re.M)}
