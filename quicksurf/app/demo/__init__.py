"""A rendered capture with exact ground truth: a painted teapot on a table in a room.

    images/0000.jpg …    photos on the upper hemisphere, every eighth held out
    transforms.json      their cameras, nerfstudio form (OpenGL axes, train and test names)
    truth.ply            the object alone, exactly the triangles that were rendered
    demo_truth.json      its bounding ball and the table's height, for evaluation only

Everything is deterministic in the seed. There are no masks: the background is part of the test.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from quicksurf.app.demo.render import light_scene, photograph
from quicksurf.app.demo.room import paint_room
from quicksurf.app.demo.solid import Solid, make_solid
from quicksurf.capture.assemble import HELD_OUT_EVERY
from quicksurf.capture.transforms import write_cameras
from quicksurf.files import write_atomic, write_json
from quicksurf.geometry.cameras import Cameras, pinholes, similarity
from quicksurf.geometry.paths import look_at
from quicksurf.kernels.host import usable_cpus
from quicksurf.mesh.export import write_mesh
from quicksurf.mesh.types import Mesh

_SCALE, _TURN, _SHIFT = 0.14, 0.6, (0.31, -0.24, 0.74)  # to metres, in a room whose origin is on the floor
_JPEG_QUALITY = 95


def write_demo_capture(folder: Path, n_views: int = 40, size: int = 400, seed: int = 0) -> None:
    """Render the demo scene from `n_views` cameras as `size` × `size` photos, with truth, into `folder`.

    Every task runs on one thread: torch's own threads spin after every operation, which is five times slower on a busy
    machine.

    Raises:
        OutputError: if the folder cannot be written or the disk is full.
    """
    folder = Path(folder)
    names = [f"images/{index:04d}.jpg" for index in range(n_views)]
    n_workers = usable_cpus()
    with ThreadPoolExecutor(n_workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        paint = pool.submit(paint_room, seed)
        solid = pool.submit(make_solid, seed).result()
        scene = pool.submit(light_scene, solid, paint.result()).result()
        cameras = _cameras(solid, n_views, size)
        photos = pool.map(lambda index: photograph(scene, cameras, index), range(n_views))
        for name, photo in zip(names, photos, strict=True):
            image = Image.fromarray(photo)
            write_atomic(
                folder / name, lambda file, image=image: image.save(file, "JPEG", quality=_JPEG_QUALITY)
            )
    cosine, sine = math.cos(_TURN), math.sin(_TURN)
    rotation = torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    shift = torch.tensor(_SHIFT, dtype=torch.float64)
    in_room = similarity(cameras, _SCALE, rotation, shift)
    held_out = np.arange(n_views) % HELD_OUT_EVERY == HELD_OUT_EVERY // 2
    write_cameras(folder / "transforms.json", in_room, names, held_out)
    truth = solid._replace(vertices=_SCALE * solid.vertices @ rotation.float().T + shift.float())
    truth = truth._replace(normals=solid.normals @ rotation.float().T)
    colors = (truth.albedo.clamp(0, 1) ** (1 / 2.2) * 255).round().to(torch.uint8).numpy()
    mesh = Mesh(truth.vertices.double().numpy(), truth.faces, colors, truth.normals.double().numpy())
    write_mesh(mesh, folder, "truth", ["ply"])
    write_json(folder / "demo_truth.json", _scoring(truth))


def _cameras(solid: Solid, n_views: int, size: int) -> Cameras:
    """A spiral from 12° to 62° above the table, at varying distance, aimed about the object's middle."""
    random = torch.Generator().manual_seed(7)
    middle = (solid.vertices.min(0).values + solid.vertices.max(0).values).double() / 2
    fraction = (torch.arange(n_views) + 0.5) / n_views
    sine = math.sin(math.radians(12)) + fraction * (math.sin(math.radians(62)) - math.sin(math.radians(12)))
    azimuth, flat = torch.arange(n_views) * math.pi * (3 - math.sqrt(5)), (1 - sine**2).sqrt()
    outward = torch.stack([flat * azimuth.cos(), flat * azimuth.sin(), sine], 1).double()
    distance = 3.9 + 0.7 * torch.rand(n_views, 1, generator=random, dtype=torch.float64)
    target = middle + 0.12 * (2 * torch.rand(n_views, 3, generator=random, dtype=torch.float64) - 1)
    centers = middle + distance * outward
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    return pinholes(look_at(centers, target, up), 1.75 * size, (size, size))


def _scoring(solid: Solid) -> dict[str, Any]:
    low, high = solid.vertices.min(0).values.double(), solid.vertices.max(0).values.double()
    center = (low + high) / 2
    radius = float((solid.vertices.double() - center).norm(dim=1).max())
    return {
        "center": center.tolist(),
        "radius": radius,
        "up": [0.0, 0.0, 1.0],
        "table_z": _SHIFT[2],
        "bbox_diagonal": float(np.linalg.norm(high - low)),
    }
