"""Pose a folder of photos and write the poses: `python -m pose_bench.worker quicksurf|colmap PHOTOS OUTPUT.json …`.

A process of its own for each, so that a crash costs one row. Seconds are from photos on disk to poses, without
imports: of ours those that the report states, of COLMAP extraction, matching and mapping.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from jaxtyping import Float

from quicksurf.capture.assemble import ReadOptions
from quicksurf.capture.listing import list_images
from quicksurf.capture.photos import read_photos
from quicksurf.errors import QuicksurfError
from quicksurf.files import write_json

_PIXELS = 300_000  # of each photo that is read for the scene: poses do not depend on it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=("quicksurf", "colmap"))
    parser.add_argument("photos", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--one-camera", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="poses-") as work:
        photos = alone(options.photos, Path(work) / "photos")
        if options.method == "colmap":
            found = colmap(photos, Path(work), options.one_camera)
        else:
            found = quicksurf(photos, options.seconds)
    write_json(options.output, found)


def alone(photos: Path, folder: Path) -> Path:
    """A folder of links to the photos and nothing else: neither masks nor cameras lie beside them."""
    folder.mkdir()
    for path in list_images(photos):
        (folder / path.name).symlink_to(path.resolve())
    return folder


def quicksurf(photos: Path, seconds: float) -> dict[str, object]:
    """Our poses; what the run refuses is a warning, and it places nothing."""
    started = time.monotonic()
    try:
        scene = read_photos(photos, ReadOptions(max_pixels=_PIXELS, pose_seconds=seconds))
    except QuicksurfError as error:
        return {"seconds": time.monotonic() - started, "poses": {}, "warnings": [f"refused: {error}"]}
    return {
        "seconds": scene.report.seconds_poses,
        "poses": _by_stem(scene.names, scene.cameras.c2w.double().numpy()),
        "warnings": scene.report.warnings,
    }


def colmap(photos: Path, work: Path, one_camera: bool) -> dict[str, object]:
    """Poses of the largest model of COLMAP's incremental mapping."""
    import pycolmap

    extraction = pycolmap.FeatureExtractionOptions()
    extraction.max_image_size = 1600
    extraction.sift.first_octave = -1  # the doubled image
    extraction.sift.max_num_features = 4096
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.max_num_trials = 1000
    mode = pycolmap.CameraMode.SINGLE if one_camera else pycolmap.CameraMode.AUTO
    database, cpu = work / "database.db", pycolmap.Device.cpu
    pycolmap.set_random_seed(0)
    started = time.monotonic()
    pycolmap.extract_features(database, photos, camera_mode=mode, extraction_options=extraction, device=cpu)
    pycolmap.match_exhaustive(database, verification_options=verification, device=cpu)
    models = pycolmap.incremental_mapping(database, photos, work / "models")
    seconds = time.monotonic() - started
    if not models:
        return {"seconds": seconds, "poses": {}, "warnings": ["no model"]}
    sizes = sorted((model.num_reg_images() for model in models.values()), reverse=True)
    largest = max(models.values(), key=lambda model: model.num_reg_images())
    images = [largest.images[index] for index in largest.reg_image_ids()]
    poses = np.array([image.cam_from_world().inverse().matrix() for image in images])
    warnings = [f"models of {' + '.join(map(str, sizes))}"] if len(sizes) > 1 else []
    names = [image.name for image in images]
    return {"seconds": seconds, "poses": _by_stem(names, poses), "warnings": warnings}


def _by_stem(names: list[str], c2w: Float[np.ndarray, "n 3 4"]) -> dict[str, list]:
    return {Path(name).stem: pose.tolist() for name, pose in zip(names, c2w, strict=True)}


if __name__ == "__main__":
    sys.exit(main())
