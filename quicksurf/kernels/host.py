"""Native functions on arrays of the host: drawing a mesh, matching photos, and what the processor offers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from quicksurf.kernels import _native


def usable_cpus() -> int:
    """Count the processors that this process may use: affinity and control groups are obeyed."""
    return _native.usable_cpus()


def num_threads() -> int:
    """Count the threads of the native kernels."""
    return _native.num_threads()


def instruction_set() -> str:
    """Name the instruction set that the kernels were built for and that was chosen on this machine.

    Raises:
        ValueError: if QUICKSURF_ISA names one that this machine lacks.
    """
    return _native.instruction_set()


def rasterize(
    corners: Float32[np.ndarray, "v 3"], faces: np.ndarray, width: int, height: int
) -> tuple[Float32[np.ndarray, "h w"], Int32[np.ndarray, "h w"]]:
    """Draw triangles into a z-buffer.

    Args:
        corners: column and row in pixels (centres at +0.5), and depth; faces with a depth of 0 or less are not drawn.
        faces: [f, 3] of any integer type.

    Returns:
        Depth of each pixel, infinite where nothing is, and the index of its face, -1 where nothing is.
    """
    faces = np.ascontiguousarray(faces, np.int32)
    return _native.rasterize(np.ascontiguousarray(corners, np.float32), faces, width, height)


def match_descriptors(
    descriptors: Sequence[UInt8[np.ndarray, "_ 128"]],
    pairs: Int32[np.ndarray, "p 2"],
    max_ratio: float,
    max_angle: float,
) -> list[Int32[np.ndarray, "_ 2"]]:
    """Match the descriptors of each pair of photos: mutually nearest, with Lowe's ratio test.

    Args:
        max_ratio: of the distance to the nearest by that to the second nearest.
        max_angle: between matched descriptors, radians.
    """
    return _native.match_descriptors(descriptors, pairs, max_ratio, max_angle)


def match_patches(
    reference: UInt8[np.ndarray, "h w"],
    sources: Sequence[UInt8[np.ndarray, "_ _"]],
    transforms: Float32[np.ndarray, "s 3 4"],
    planes: Float32[np.ndarray, "3 h w"],
    costs: Float32[np.ndarray, "h w"],
    **search: Any,
) -> None:
    """Improve the plane of each pixel of a photo in place by PatchMatch (Bleyer et al. 2011); see csrc/stereo.h.

    Args:
        transforms: [A | b] of each source, which sees pixel (u, v) of inverse depth w at A (u, v, 1) + b w.
        planes: inverse depth, and its derivatives by column and row.
        costs: written: 1 − NCC of each pixel's window, the mean over the best sources; 2 where nothing compares.
        search: the fields of `StereoSpec`.
    """
    _native.match_patches(reference, list(sources), transforms, planes, costs, **search)


def verify_depths(*arrays: Any, **limits: Any) -> None:
    """Keep the depths of one photo that the maps of other photos confirm, as their mean; see csrc/stereo.h.

    Args:
        arrays: planes and costs of the photo, planes and costs of each other, transforms to the others and back,
            intrinsics; written: inverse depths (0 where they are not confirmed) and spreads, both [h, w].
        limits: the fields of `AgreementSpec`.
    """
    _native.verify_depths(*arrays, **limits)
