"""The captures, where their photos lie, and what is known of their cameras."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pose_bench.measures import Poses
from quicksurf.capture.idr import decompose
from quicksurf.capture.listing import list_images
from quicksurf.capture.transforms import read_cameras

PEERS_OWN = "COLMAP's own"
DOUBTFUL = "doubtful"


class Case(NamedTuple):
    """A folder of photos with the file of its cameras."""

    name: str
    photos: Path
    truth: Path | None
    one_camera: bool = False
    """COLMAP is told that one camera took all photos."""
    note: str = ""
    """What restricts the truth."""
    turned: str = ""
    """Names of photos that are turned by 180° against their cameras, as a regular expression."""


class _Known(NamedTuple):
    truth: str
    photos: str = "images"
    one_camera: bool = False
    note: str = ""
    turned: str = ""


_KNOWN = {
    "kitchen": _Known("openmvs_cameras.json", note=PEERS_OWN),
    "flowerpot": _Known("openmvs_cameras.json", note=PEERS_OWN),
    "sceaux": _Known("openmvs_cameras.json", note=PEERS_OWN),
    "castle_p30": _Known("transforms_gt.json", one_camera=True),
    "herzjesu": _Known("transforms_gt.json", one_camera=True),
    "tankard": _Known("transforms_llff.json", one_camera=True),
    "socketed_axe": _Known("transforms_photoscan.json"),
    "blowtorch": _Known("transforms_llff.json"),
    "statue_of_liberty": _Known("transforms_llff.json", note=DOUBTFUL),
    "fox": _Known("transforms.json"),
    # Matches between photos 1 to 31 and 32 to 47 are within 0.5 pixels of the calibration only after that turn.
    "temple": _Known("transforms.json", turned=r"templeR00(3[2-9]|4\d)"),
    "dino": _Known("transforms.json"),
    "dev-a": _Known("transforms.json"),
    "dev-b": _Known("transforms.json"),
    "dev-c": _Known("transforms.json"),
    "dtu_scan24": _Known("cameras_sphere.npz", photos="image"),
    "dtu_scan37": _Known("cameras_sphere.npz", photos="image"),
}
NAMES = tuple(_KNOWN)


def select(folder: Path, pattern: str) -> list[Case]:
    """The captures in `folder` whose name matches `pattern`."""
    cases = [
        Case(
            name,
            folder / name / known.photos,
            folder / name / known.truth,
            known.one_camera,
            known.note,
            known.turned,
        )
        for name, known in _KNOWN.items()
        if re.search(pattern, name)
    ]
    return [case for case in cases if case.photos.is_dir()]


def read_truth(case: Case) -> Poses:
    """The true poses of a case, whose photos need not be there; none where it has no truth.

    Raises:
        CaptureError: if the file is broken.
    """
    poses = {} if case.truth is None else _read(case.truth, case.photos)
    half_turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    return {
        name: pose @ half_turn if case.turned and re.fullmatch(case.turned, name) else pose
        for name, pose in poses.items()
    }


def _read(path: Path, photos: Path) -> Poses:
    """Poses of a transforms.json, or of IDR's npz, whose camera i is that of photo i."""
    if path.suffix == ".npz":
        with np.load(path) as matrices:
            return {
                photo.stem: decompose(matrices[f"world_mat_{index}"][:3])[1]
                for index, photo in enumerate(list_images(photos))
            }
    cameras, names, _ = read_cameras(path)
    poses = cameras.c2w.double().numpy()
    return {Path(name).stem: pose for name, pose in zip(names, poses, strict=True)}
