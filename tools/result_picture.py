"""A photo of a run beside its mesh from the same camera, in clay and in its own colours: the README's picture.

    python tools/result_picture.py RUN PHOTO docs/pages/images/boot.jpg
    python tools/result_picture.py --clay RUN PHOTO PHOTO docs/pages/images/portal.jpg

PHOTO is a part of the photo's name in RUN/cameras.json. Nothing of the fit is drawn but the mesh file. --clay leaves
out what is of the photos themselves, for those that carry no licence.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image

from quicksurf.app.export.surface import mesh_of
from quicksurf.app.run.folder import open_run
from quicksurf.capture.transforms import read_cameras
from quicksurf.geometry.cameras import Cameras, project, resize
from quicksurf.kernels import _native
from quicksurf.mesh.export import read_mesh
from quicksurf.mesh.types import Mesh

FINER = 3  # drawn so many times larger and averaged down: smooth edges
CLAY = np.array([0.93, 0.91, 0.88])
LIGHTS = (
    (0.75, (-0.5, -0.7, -0.5)),
    (0.25, (0.8, 0.1, -0.6)),
)  # strength, direction towards it in camera axes
AMBIENT = 0.12
QUALITY = 88


def main() -> None:
    """Write the picture that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("photos", nargs="+", metavar="photo", help="part of the photo's name")
    parser.add_argument("output", type=Path)
    parser.add_argument("--clay", action="store_true", help="draw the mesh in clay alone")
    parser.add_argument("--size", type=int, default=420, help="pixels of the longer side of each tile")
    asked = parser.parse_args()
    run = open_run(asked.run)
    known = read_cameras(run.path / "cameras.json")
    mesh = read_mesh(mesh_of(run))
    tiles = []
    for part in asked.photos:
        index = next(i for i, name in enumerate(known.names) if part in name)
        ratio = asked.size / known.cameras.sizes[index].max().item()
        camera = known.cameras.select(torch.tensor([index]))
        camera = resize(camera, (camera.sizes * ratio).round().to(camera.sizes.dtype))
        clay, colored = draw(mesh, camera)
        tiles += [clay] if asked.clay else [_photo(run.source / known.names[index], camera), clay, colored]
    Image.fromarray(np.concatenate(tiles, 1)).save(asked.output, quality=QUALITY, optimize=True)


def _photo(path: Path, camera: Cameras) -> UInt8[np.ndarray, "h w 3"]:
    """The photo at the camera's size."""
    size = tuple(camera.sizes[0].tolist())
    return np.asarray(Image.open(path).convert("RGB").resize(size, Image.Resampling.BOX))


def draw(mesh: Mesh, camera: Cameras) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]]:
    """The mesh on white as the one camera sees it: clay under two lamps, and its vertex colours."""
    fine = resize(camera, camera.sizes * FINER)
    width, height = fine.sizes[0].tolist()
    pixels, depths = project(fine, 0, torch.from_numpy(mesh.vertices).to(fine.c2w.dtype))
    corners = torch.cat([pixels, depths[:, None]], 1).float().numpy()
    faces = mesh.faces.astype(np.int32)
    _, shown = _native.rasterize(np.ascontiguousarray(corners), faces, width, height)
    normals = mesh.normals @ fine.c2w[0, :, :3].double().numpy()
    lit = np.full(len(normals), AMBIENT)
    for strength, towards in LIGHTS:
        lit += strength * np.clip(normals @ (np.array(towards) / np.linalg.norm(towards)), 0, None)
    clay = CLAY * lit.clip(0, 1)[:, None] ** 0.7
    return _paint(clay, mesh.faces, shown), _paint(mesh.colors / 255.0, mesh.faces, shown)


def _paint(
    colors: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], shown: Int[np.ndarray, "i j"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Mean vertex colours of the faces shown, averaged down."""
    image = np.ones((*shown.shape, 3))
    hit = shown >= 0
    image[hit] = colors[faces[shown[hit]]].mean(1)
    height, width = shown.shape[0] // FINER, shown.shape[1] // FINER
    image = image.reshape(height, FINER, width, FINER, 3).mean((1, 3))
    return np.rint(255 * image).astype(np.uint8)


if __name__ == "__main__":
    main()
