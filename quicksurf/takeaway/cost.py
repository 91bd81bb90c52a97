"""What a texture costs: seconds on one machine by its faces, texels and photos, and how much slower this one is.

Seconds were measured on one thread of a shared core while others worked. Quiet cores were found twice as fast, busier
ones half, so that a guess without a look at this machine is off by as much: `slowness` measures it, in the state
that it is in.
"""

import math
import statistics
import time
from collections.abc import Callable

import numpy as np

from quicksurf.mesh.photos import bilinear

# dev-b, 60 photos of 512²: 5000 faces and 512² texels took 4.3 s of processor time, 12,500 and 512² 6.3, 25,000 and
# 1024² 13.0, 12,500 and 2048² 27, 50,000 and 2048² 36, the files written; larger photos are read from disk again.
_SECONDS_A_FACE, _SECONDS_A_TEXEL, SECONDS_A_PHOTO = 2.5e-4, 5.3e-6, 0.03
_PROBE_SECONDS = 0.0034  # of one probe on that machine
_PROBE_POINTS, _N_PROBES, _PROBE_SIDE = 1 << 14, 15, 512
# Of whole textures: 0.6 where the probe said 0.4, 0.6 where larger probes said 2.4, for one moment tells only so much.
_SLOWNESS = 0.5, 2.0
_LEAST_FACES, _LEAST_SIZE = 5_000, 512  # what a texture in a hurry is still worth
_SIZE_STEP = 64  # texels: graphics cards like round sizes


def texture_seconds(n_faces: int, size: int, n_photos: int) -> float:
    """What a texture takes on that machine, roughly: unwrapping, texels, photos."""
    return _SECONDS_A_FACE * n_faces + _SECONDS_A_TEXEL * size * size + SECONDS_A_PHOTO * n_photos


def affordable_texture(
    seconds: float, most: float, n_faces: int, size: int, n_photos: int
) -> tuple[int, int] | None:
    """Faces and texels a side that are expected to take `seconds` of that machine, at most those asked for.

    Faces and texels are cut by the same share q ≤ 1, so that a face keeps its number of texels:
    q (a · faces + b · size²) + c · photos = seconds. The least that is worth it may take up to `most`; None if it is
    expected to take more.
    """
    whole, fixed = texture_seconds(n_faces, size, 0), SECONDS_A_PHOTO * n_photos
    share = min(max((seconds - fixed) / whole, 0.0), 1.0)
    if share == 1:
        return n_faces, size
    side = int(size * math.sqrt(share)) // _SIZE_STEP * _SIZE_STEP
    cut = max(int(n_faces * share), min(n_faces, _LEAST_FACES)), max(side, min(size, _LEAST_SIZE))
    return cut if texture_seconds(*cut, n_photos) <= max(seconds, most) else None


def slowness(now: Callable[[], float] = time.perf_counter) -> float:
    """How many times slower this machine is now: the median of some lookups of colours, 50 ms in all.

    The median, because one of them may be set aside for another program; wall-clock, because that is what runs out.
    """
    points = np.random.default_rng(0).random((_PROBE_POINTS, 2)).astype(np.float32) * _PROBE_SIDE
    photo = np.zeros((_PROBE_SIDE, _PROBE_SIDE, 3), np.uint8)
    took = []
    for _ in range(_N_PROBES):
        start = now()
        bilinear(photo, points)
        took.append(now() - start)
    return min(max(statistics.median(took) / _PROBE_SECONDS, _SLOWNESS[0]), _SLOWNESS[1])
