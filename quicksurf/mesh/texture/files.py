"""Textured meshes on disk: GLB, and OBJ with its MTL and PNG, each file written whole or not at all.

The material is the photos' own light: it reflects nothing and, in the GLB, is marked as unlit
(KHR_materials_unlit), so that viewers show the texture as it is instead of lighting it a second time. glTF
counts v downwards, OBJ upwards.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image
from trimesh.exchange.gltf import export_glb
from trimesh.visual.material import PBRMaterial
from trimesh.visual.texture import TextureVisuals

from quicksurf.files import write_atomic, write_text
from quicksurf.mesh.gltf import mark_unlit, move_nodes
from quicksurf.mesh.precision import n_digits, offset_of
from quicksurf.mesh.texture.bake import TexturedMesh

TEXTURED_SUFFIXES = ("glb", "obj", "mtl", "png")


def write_textured(
    mesh: TexturedMesh,
    folder: Path,
    stem: str,
    moved: Callable[[TexturedMesh, str], TexturedMesh] = lambda mesh, suffix: mesh,
) -> list[Path]:
    """Write `folder/stem.glb` and `folder/stem.obj` with `stem.mtl` and `stem.png`; return the four paths.

    Coordinates are kept as they are unless `moved` by format.

    Raises:
        OutputError: if the folder cannot be written or the disk is full.
    """
    folder = Path(folder)
    glb, obj, mtl, png = (folder / f"{stem}.{suffix}" for suffix in TEXTURED_SUFFIXES)
    encoded = io.BytesIO()
    Image.fromarray(mesh.texture).save(encoded, "PNG", compress_level=4)
    write_atomic(png, lambda file: file.write(encoded.getvalue()))
    write_text(mtl, f"newmtl photos\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {png.name}\n")
    write_text(obj, _obj(moved(mesh, "obj"), mtl.name))
    encoded.seek(0)
    with Image.open(encoded) as image:
        blob = _glb(moved(mesh, "glb"), image)
    write_atomic(glb, lambda file: file.write(blob))
    return [glb, obj, mtl, png]


def _obj(mesh: TexturedMesh, mtl_name: str) -> str:
    """The text of the OBJ file; its three lists run in parallel, so a corner is n/n/n."""
    lines = [f"mtllib {mtl_name}", "o mesh"]
    digits = n_digits(mesh.vertices)
    lines += [f"v {x:.{digits}g} {y:.{digits}g} {z:.{digits}g}" for x, y, z in mesh.vertices.tolist()]
    lines += [f"vt {u:.7g} {1 - v:.7g}" for u, v in mesh.uvs.tolist()]
    lines += [f"vn {x:.5f} {y:.5f} {z:.5f}" for x, y, z in mesh.normals.tolist()]
    lines += ["usemtl photos"]
    lines += [f"f {a}/{a}/{a} {b}/{b}/{b} {c}/{c}/{c}" for a, b, c in (mesh.faces + 1).tolist()]
    return "\n".join(lines) + "\n"


def _glb(mesh: TexturedMesh, image: Image.Image) -> bytes:
    material = PBRMaterial(baseColorTexture=image, metallicFactor=0.0, roughnessFactor=1.0)
    upward = np.stack([mesh.uvs[:, 0], 1 - mesh.uvs[:, 1]], 1)  # trimesh counts v upwards
    offset = offset_of(mesh.vertices)
    surface = trimesh.Trimesh(
        mesh.vertices - offset,
        mesh.faces,
        vertex_normals=mesh.normals,
        visual=TextureVisuals(uv=upward, material=material),
        process=False,
    )

    def finish(tree: dict[str, Any]) -> None:
        mark_unlit(tree)
        move_nodes(tree, offset)

    return export_glb(trimesh.Scene(surface), include_normals=True, tree_postprocessor=finish)
