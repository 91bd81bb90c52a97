"""IDR's form (DTU, BlendedMVS, NeuS): `cameras_sphere.npz` or `cameras.npz` with `image/` and `mask/`.

world_mat_i is the projection P = K [R | t] to pixels, and scale_mat_i maps the unit ball to the ball that
holds the object, both in the frame of the world. Cameras are left in that frame, so the mesh comes out in its
units (mm for DTU). IDR counts pixels from 0 at the first pixel's centre; ours are at +0.5.

In DVR's and UNISURF's form world_mat_i is [R | t] alone and camera_mat_i = N K, where N takes a photo of w x h pixels
to [-1, 1]²: P = N⁻¹ camera_mat_i world_mat_i. Files of IDR may hold a camera_mat_i as well, which means something
else there; what tells the two apart is whether world_mat_i is a rigid motion.
"""

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.linalg import rq

from quicksurf.capture.assemble import ReadOptions, Views, assemble, every_eighth
from quicksurf.capture.images import read_header, require_images
from quicksurf.capture.listing import PHOTO_FOLDERS, list_images
from quicksurf.capture.scene import ReadReport, Scene
from quicksurf.errors import CaptureError, ImageError
from quicksurf.geometry.cameras import N_DISTORTION, Cameras
from quicksurf.geometry.region import Roi
from quicksurf.untrusted import matrix

NAMES = ("cameras_sphere.npz", "cameras.npz")
_FOLDERS = ("image", *PHOTO_FOLDERS)
_KEYS = ("world_mat_", "scale_mat_", "camera_mat_")
_RIGID = 1e-3  # how far RᵀR may be from the identity
_MAX_ENTRY_BYTES = 1 << 16  # a 4 x 4 matrix has 128 bytes and a header


def read_idr(source: Path, options: ReadOptions) -> Scene:
    """Read the capture of the npz file `source`: image number i has world_mat_i, see `_paired`.

    Raises:
        CaptureError: if keys are missing, matrices are not those of cameras, or images cannot be told apart.
        ImageError: if there are no images, or fewer than three can be read.
        RoiError: if no camera sees the region of interest.
    """
    folder = next((source.parent / name for name in _FOLDERS if (source.parent / name).is_dir()), None)
    if folder is None:
        raise ImageError(
            f"{source.parent} has no folder {' or '.join(dict.fromkeys(_FOLDERS))} beside {source.name}; add the images"
        )
    paths = list_images(folder)
    matrices = _load(source)
    report = ReadReport(photos=len(paths))
    posed = _paired(matrices, paths, source, report)
    sizes: dict[int, tuple[int, int]] = {}
    for number, path in posed.items():
        try:
            sizes[number] = read_header(path).stored_size
        except ImageError as error:
            report.lost[path.name] = str(error)
    require_images(len(sizes), report.lost, folder)
    used = [posed[number] for number in sizes]
    views = Views(
        root=source.parent,
        paths=used,
        cameras=_cameras(matrices, sizes, source),
        held_out=every_eighth(len(used)),
        roi=_roi(matrices, list(sizes), source),
    )
    return assemble(views, source, options, report)


def decompose(
    projection: Float[np.ndarray, "3 4"],
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3 4"]]:
    """Split P ~ K Rᵀ[I | −c] into intrinsics K (K[2, 2] = 1, positive focal lengths) and c2w = [R | c].

    P is known up to a factor, its sign included: the sign that makes det Rᵀ positive is taken (Hartley and
    Zisserman, 6.2.4). A singular P gives NaN or raises `LinAlgError`.
    """
    left = projection[:, :3] * np.sign(np.linalg.det(projection[:, :3]))
    upper, rotation = rq(left)
    signs = np.sign(np.diag(upper))
    upper, rotation = upper * signs, signs[:, None] * rotation
    center = -np.linalg.solve(projection[:, :3], projection[:, 3])
    return upper / upper[2, 2], np.concatenate([rotation.T, center[:, None]], axis=1)


def _load(source: Path) -> dict[str, np.ndarray]:
    """The 4 x 4 matrices of the file; never unpickled, never larger than matrices are."""
    try:
        with zipfile.ZipFile(source) as archive:
            large = [entry.filename for entry in archive.infolist() if entry.file_size > _MAX_ENTRY_BYTES]
        if large:
            raise CaptureError(
                f"{source}: {large[0]} is too large for a camera matrix; expected 4 x 4 numbers"
            )
        with np.load(source, allow_pickle=False) as content:
            return {key: content[key] for key in content.files if key.startswith(_KEYS)} or {
                key: np.empty(0) for key in content.files
            }
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CaptureError(
            f"{source} cannot be read ({error}); an npz of plain 4 x 4 matrices is expected"
        ) from error


def _paired(
    matrices: Mapping[str, np.ndarray], paths: Sequence[Path], source: Path, report: ReadReport
) -> dict[int, Path]:
    """The image of each world_mat_i, by i; images without are noted as lost.

    As many images as cameras belong together in order. Otherwise their numbers tell, if they count from the same
    number as the cameras: image 7 has world_mat_7, whatever was removed.

    Raises:
        CaptureError: if there are no cameras, or nothing tells which image has which.
    """
    keys = [re.fullmatch(r"world_mat_(\d{1,9})", key) for key in matrices]
    cameras = sorted(int(key[1]) for key in keys if key is not None)
    if not cameras:
        found = ", ".join(sorted(matrices)[:6]) or "nothing"
        raise CaptureError(f"{source} lacks `world_mat_0`, `world_mat_1`, …; it has {found}: not IDR's form")
    numbers = _numbers(paths)
    counted = f"{source.name} has {len(cameras)} cameras for {len(paths)} images"
    if numbers is None or not (set(numbers) <= set(cameras) or min(numbers) == cameras[0]):
        if len(paths) == len(cameras):
            return dict(zip(cameras, paths, strict=True))
        named = "their names are no numbers" if numbers is None else f"they are numbered {_range(numbers)}"
        raise CaptureError(
            f"{source}: {counted}, and {named}, the cameras {_range(cameras)}: nothing tells which belong together; "
            "name image i like world_mat_i, or bring the missing ones back"
        )
    if len(paths) != len(cameras):
        example = next((number for number in numbers if number in cameras), cameras[0])
        report.notes.append(f"{counted}: they are paired by number, {example} with world_mat_{example}")
    for number, path in zip(numbers, paths, strict=True):
        if number not in cameras:
            report.lost[path.name] = f"{source.name} has no world_mat_{number}"
    return {number: path for number, path in zip(numbers, paths, strict=True) if number in cameras}


def _numbers(paths: Sequence[Path]) -> list[int] | None:
    """The numbers at the end of the stems, if that is all that the images' names differ in."""
    stems = [re.fullmatch(r"(.*?)(\d{1,9})", path.stem) for path in paths]
    found = [stem for stem in stems if stem is not None]
    numbers = [int(stem[2]) for stem in found]
    distinct = len(found) == len(set(numbers)) == len(paths)
    return numbers if distinct and len({stem[1] for stem in found}) == 1 else None


def _range(numbers: Sequence[int]) -> str:
    return f"{min(numbers)} to {max(numbers)}"


def _cameras(matrices: Mapping[str, np.ndarray], sizes: dict[int, tuple[int, int]], source: Path) -> Cameras:
    poses, intrinsics = [], []
    for number, size in sizes.items():
        key = f"world_mat_{number}"
        calibration, c2w = _camera(_projection(matrices, number, size, source), key, source)
        poses.append(c2w)
        (fx, skew, cx), (_, fy, cy) = calibration[0], calibration[1]
        if abs(skew) > 1e-2 * fx:
            raise CaptureError(
                f"{source}: {key} has skewed pixels ({skew / fx:.2g}); rectify the images first"
            )
        intrinsics.append([fx, fy, cx + 0.5, cy + 0.5])
    n_images = len(poses)
    return Cameras(
        c2w=torch.from_numpy(np.stack(poses)),
        intrinsics=torch.tensor(np.array(intrinsics), dtype=torch.float64),
        distortion=torch.zeros(n_images, N_DISTORTION, dtype=torch.float64),
        fisheye=torch.zeros(n_images, dtype=torch.bool),
        sizes=torch.tensor(list(sizes.values())),
    )


def _projection(
    matrices: Mapping[str, np.ndarray], number: int, size: tuple[int, int], source: Path
) -> Float[np.ndarray, "3 4"]:
    """To pixels of an image of this size, by whichever form the file has.

    Raises:
        CaptureError: if a matrix is none, or world_mat is a motion without a lens.
    """
    key, lens = f"world_mat_{number}", f"camera_mat_{number}"
    world = _matrix(matrices, key, source)[:3]
    gram = world[:, :3].T @ world[:, :3]
    if np.abs(gram - np.eye(3)).max() > _RIGID:
        return world
    if lens not in matrices:
        raise CaptureError(
            f"{source}: {key} is a pose without a lens, as UNISURF and DVR have it, and `{lens}` is missing; "
            "add it, or give the projection to pixels as world_mat"
        )
    width, height = size
    to_pixels = np.array([[width / 2, 0, width / 2], [0, height / 2, height / 2], [0, 0, 1.0]])
    return to_pixels @ _matrix(matrices, lens, source)[:3, :3] @ world


def _camera(projection: np.ndarray, key: str, source: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        calibration, c2w = decompose(projection)
    except np.linalg.LinAlgError:
        calibration = c2w = np.full((3, 4), np.nan)
    if not (np.isfinite(calibration).all() and np.isfinite(c2w).all()):
        raise CaptureError(f"{source}: {key} is singular, so it is no camera")
    return calibration, c2w


def _matrix(matrices: Mapping[str, np.ndarray], key: str, source: Path) -> Float64[np.ndarray, "_ _"]:
    shapes = ((4, 4), (3, 4), (3, 3)) if key.startswith("camera_mat_") else ((4, 4), (3, 4))
    return matrix(matrices[key], shapes, f"{source}: {key}")


def _roi(matrices: Mapping[str, np.ndarray], numbers: Sequence[int], source: Path) -> Roi | None:
    """The image of the unit ball under scale_mat, which is the same for all images of a capture."""
    key = f"scale_mat_{numbers[0]}"
    if key not in matrices:
        return None
    scale = _matrix(matrices, key, source)
    radius = float(np.abs(np.linalg.det(scale[:3, :3]))) ** (1 / 3)
    x, y, z = scale[:3, 3].tolist()
    return Roi((x, y, z), radius)
