"""Vertex colours in glTF: linear by its specification, where those of a mesh are sRGB; with 16 bits dark ones survive.

Without a material glTF's default holds, a metal, which viewers show dark. Colours that are the photos' own light need
no other, so theirs is unlit (KHR_materials_unlit).
"""

from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float64, Shaped, UInt8
from trimesh.exchange.gltf import export_glb

from quicksurf.geometry.color import linear_from_srgb, srgb_from_linear
from quicksurf.mesh.precision import offset_of
from quicksurf.mesh.types import Mesh

_ATTRIBUTE = "_COLOR16"  # under which trimesh takes them; it has no way to give COLOR_0 more than 8 bits
_MOST = 65535
_LINEAR = np.rint(_MOST * linear_from_srgb(np.arange(256) / 255.0)).astype(np.uint16)  # of each sRGB value


def glb_with_colors(mesh: Mesh, *, lit: bool = False) -> bytes:
    """Return the mesh as GLB with its colours and normals; matt and in the viewer's light if `lit`, else unlit.

    Vertices far from the origin are written about an offset, which the node's translation adds again.
    """
    offset = offset_of(mesh.vertices)
    colors = _LINEAR[mesh.colors]
    opaque = np.full_like(colors[:, :1], _MOST)
    surface = trimesh.Trimesh(
        mesh.vertices - offset,
        mesh.faces,
        vertex_normals=mesh.normals,
        vertex_attributes={_ATTRIBUTE: np.concatenate([colors, opaque], 1)},
        process=False,
    )

    def finish(tree: dict[str, Any]) -> None:
        (_matt if lit else _unlit)(tree)
        move_nodes(tree, offset)

    return export_glb(trimesh.Scene(surface), include_normals=True, tree_postprocessor=finish)


def colors_of_glb(scene: trimesh.Scene) -> UInt8[np.ndarray, "v 3"] | None:
    """Return the sRGB colours of what trimesh read from a GLB of one mesh; None if it holds no vertex colours."""
    geometries: list[Any] = list(scene.geometry.values())
    if len(geometries) != 1:
        return None
    visual = geometries[0].visual
    stored: Shaped[np.ndarray, "v c"] | None = getattr(visual, "vertex_attributes", {}).get("color")
    if stored is None and visual.kind == "vertex":
        stored = visual.vertex_colors
    if stored is None:
        return None
    most = np.iinfo(stored.dtype).max if stored.dtype.kind == "u" else 1.0
    return np.rint(255 * srgb_from_linear(stored[:, :3] / most)).astype(np.uint8)


def move_nodes(tree: dict[str, Any], offset: Float64[np.ndarray, "3"]) -> None:
    """Move every mesh of a glTF tree by `offset`, in the tree's doubles."""
    if offset.any():
        for node in (node for node in tree["nodes"] if "mesh" in node):
            node["translation"] = offset.tolist()


def mark_unlit(tree: dict[str, Any]) -> None:
    """Mark every material of a glTF tree as shown without light."""
    for material in tree.get("materials", []):
        material.setdefault("extensions", {})["KHR_materials_unlit"] = {}
    tree["extensionsUsed"] = sorted({*tree.get("extensionsUsed", []), "KHR_materials_unlit"})


def _unlit(tree: dict[str, Any]) -> None:
    _matt(tree)
    mark_unlit(tree)


def _matt(tree: dict[str, Any]) -> None:
    """Name the attribute as glTF does, as fractions of 65535, and give the mesh its material."""
    tree["materials"] = [{"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}}]
    for primitive in (primitive for mesh in tree["meshes"] for primitive in mesh["primitives"]):
        index = primitive["attributes"].pop(_ATTRIBUTE)
        primitive["attributes"]["COLOR_0"] = index
        tree["accessors"][index]["normalized"] = True
        primitive["material"] = 0
