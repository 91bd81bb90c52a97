"""IDR's form (DTU, BlendedMVS, NeuS): `cameras_sphere.npz` or `cameras.npz` with `image/` and `mask/`.

world_mat_i is the projection P = K [R | t] to pixels, and scale_mat_i maps the unit ball to the ball that
holds the object, both in the frame of the world. Cameras are left in that frame, so the mesh comes out in its
units (mm for DTU). IDR counts pixels from 0 at the first pixel's centre; ours are at +0.5.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import rq

from quicksurf.cameras import N_DISTORTION, Cameras
from quicksurf.data.assemble import ReadOptions, Views, assemble, every_eighth
from quicksurf.data.images import list_images, read_header, require_images
from quicksurf.data.scene import ReadReport, Roi, Scene
from quicksurf.errors import CaptureError, ImageError

NAMES = ("cameras_sphere.npz", "cameras.npz")
_FOLDERS = ("image", "images", "rgb")
_MAX_ENTRY_BYTES = 1 << 16  # a 4 x 4 matrix has 128 bytes and a header


def read_idr(source: Path, options: ReadOptions) -> Scene:
    """Read the capture of the npz file `source`: image number i, in natural order, has world_mat_i.

    Raises:
        CaptureError: if keys are missing or matrices are not those of cameras.
        ImageError: if there are no images, or fewer than three can be read.
        RoiError: if no camera sees the region of interest.
    """
    folder = next((source.parent / name for name in _FOLDERS if (source.parent / name).is_dir()), None)
    if folder is None:
        raise ImageError(
            f"{source.parent} has no folder {' or '.join(_FOLDERS)} beside {source.name}; add the images"
        )
    paths = list_images(folder)
    matrices = _load(source)
    report = ReadReport(photos=len(paths))
    posed = _posed(matrices, paths, source, report)
    sizes = {}
    for index in posed:
        try:
            sizes[index] = read_header(paths[index]).stored_size
        except ImageError as error:
            report.lost[paths[index].name] = str(error)
    require_images(len(sizes), report.lost, folder)
    used = [paths[index] for index in sizes]
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
            return {
                key: content[key] for key in content.files if key.startswith(("world_mat_", "scale_mat_"))
            } or {key: np.empty(0) for key in content.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CaptureError(
            f"{source} cannot be read ({error}); an npz of plain 4 x 4 matrices is expected"
        ) from error


def _posed(
    matrices: dict[str, np.ndarray], paths: Sequence[Path], source: Path, report: ReadReport
) -> list[int]:
    """Indices of the images that have a camera; the rest is noted as lost."""
    posed = [index for index in range(len(paths)) if f"world_mat_{index}" in matrices]
    if not posed:
        keys = ", ".join(sorted(matrices)[:6]) or "nothing"
        raise CaptureError(f"{source} lacks `world_mat_0`, `world_mat_1`, …; it has {keys}: not IDR's form")
    n_cameras = sum(key.startswith("world_mat_") and "inv" not in key for key in matrices)
    if n_cameras > len(paths):
        report.warnings.append(
            f"{source.name} has {n_cameras} cameras for {len(paths)} images: the first are used"
        )
    for index in set(range(len(paths))) - set(posed):
        report.lost[paths[index].name] = f"{source.name} has no world_mat_{index}"
    return posed


def _cameras(matrices: dict[str, np.ndarray], sizes: dict[int, tuple[int, int]], source: Path) -> Cameras:
    poses, intrinsics = [], []
    for index in sizes:
        key = f"world_mat_{index}"
        calibration, c2w = _camera(_matrix(matrices[key], key, source), key, source)
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


def _camera(matrix: np.ndarray, key: str, source: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        calibration, c2w = decompose(matrix[:3])
    except np.linalg.LinAlgError:
        calibration = c2w = np.full((3, 4), np.nan)
    if not (np.isfinite(calibration).all() and np.isfinite(c2w).all()):
        raise CaptureError(f"{source}: {key} is singular, so it is no camera")
    return calibration, c2w


def _matrix(value: np.ndarray, key: str, source: Path) -> np.ndarray:
    if value.shape not in ((4, 4), (3, 4)) or not np.issubdtype(value.dtype, np.number):
        raise CaptureError(f"{source}: {key} is {value.dtype}{list(value.shape)}, 4 x 4 numbers are expected")
    if not np.isfinite(value).all():
        raise CaptureError(f"{source}: {key} holds NaN or infinity")
    return value.astype(np.float64)


def _roi(matrices: dict[str, np.ndarray], indices: Sequence[int], source: Path) -> Roi | None:
    """The image of the unit ball under scale_mat, which is the same for all images of a capture."""
    key = f"scale_mat_{indices[0]}"
    if key not in matrices:
        return None
    matrix = _matrix(matrices[key], key, source)
    radius = float(np.abs(np.linalg.det(matrix[:3, :3]))) ** (1 / 3)
    x, y, z = matrix[:3, 3].tolist()
    return Roi((x, y, z), radius)
