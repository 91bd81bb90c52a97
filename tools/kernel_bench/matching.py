"""The row of the matcher of SIFT descriptors, beside a product of float32 matrices with as many multiplications."""

import numpy as np
from match_twin import match_twin

from kernel_bench import limits
from kernel_bench.check import Mismatch
from kernel_bench.kernel import Kernel
from quicksurf.kernels import _native

_N = 8192  # descriptors of an image, as fits extract them
_TWIN_N = 2048
_LIMITS = 0.8, 0.7  # COLMAP's ratio and angle
_PAIR = np.array([(0, 1)], np.int32)


def kernel() -> Kernel:
    """One pair of images whose descriptors agree in a quarter, with noise."""
    images = _images(_N)
    few = [image[:_TWIN_N] for image in images]
    return Kernel(
        "match SIFT descriptors",
        lambda: _native.match_descriptors(images, _PAIR, *_LIMITS),
        1e-9 * _N**2 * 128,
        "G products/s",
        1.0,
        lambda: _check(few),
        limits=((limits.sgemm(), 2.0 * _N**2 * 128),),
        twin=lambda: match_twin(few, _PAIR, *_LIMITS),
        twin_part=(_TWIN_N / _N) ** 2,
    )


def _images(n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    first, second = rng.gamma(0.3, size=(2, n, 128)) + 1e-6
    second[: n // 4] = first[: n // 4][::-1] * rng.uniform(0.3, 1.7, (n // 4, 128))
    return [_root_sift(values) for values in (first, second)]


def _root_sift(values: np.ndarray) -> np.ndarray:
    """As COLMAP stores them: norm 512, rounded, at most 255."""
    scaled = 512 * np.sqrt(values / values.sum(1, keepdims=True))
    return np.minimum(np.round(scaled), 255).astype(np.uint8)


def _check(images: list[np.ndarray]) -> None:
    (found,) = _native.match_descriptors(images, _PAIR, *_LIMITS)
    (expected,) = match_twin(images, _PAIR, *_LIMITS)
    if not np.array_equal(found, expected):
        raise Mismatch(f"matcher: {len(found)} matches, the twin has {len(expected)}, or others")
