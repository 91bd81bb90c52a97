"""Binary PLY of a mesh: coordinates, normals, colours, and confidence where it was measured."""

import re
from pathlib import Path

import numpy as np

from quicksurf.mesh.precision import fits_single
from quicksurf.mesh.types import Mesh

_MAX_HEADER = 1 << 16  # bytes
_NAMES = {"<f8": "double", "<f4": "float", "<u1": "uchar"}


def ply_of(mesh: Mesh) -> bytes:
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
        *(f"property {_NAMES[kind]} {name}" for name, kind, _ in columns),
        *(f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""),
    ]
    return "\n".join(header).encode() + vertices.tobytes() + faces.tobytes()


def stated_counts(path: Path) -> dict[str, int]:
    """Tell how many elements of each name the header of a PLY states.

    Raises:
        OSError: if it cannot be read.
    """
    with open(path, "rb") as file:
        header = file.read(_MAX_HEADER).partition(b"end_header")[0].decode("ascii", "replace")
    return {name: int(n) for name, n in re.findall(r"^element[ \t]+(\w+)[ \t]+(\d{1,18})\s*$", header, re.M)}
