"""What a texture costs: seconds by its faces, texels and photos, and what can be had for the seconds that are left.

A look at the machine just before (the time that some lookups of colours take) was tried and tells less than it costs:
it said 0.4 to 2.4 where whole textures took 0.6 to 0.8 of what is expected at 1.
"""

import math

# An object on a table, 60 photos of 512², processor time, the files written: 5000 faces and 512² texels 2.8 to
# 4.3 s, 13,700 and 1024² 7.1, 24,400 and 1408² 11 to 14.5, 50,000 and 2048² at most 36; larger photos are read again.
_SECONDS_A_FACE, _SECONDS_A_TEXEL, SECONDS_A_PHOTO = 2e-4, 4.2e-6, 0.025
USUAL_SIZE = 2048  # texels a side that a fit keeps time for unless it is told
_LEAST_FACES, _LEAST_SIZE = 5_000, 512  # what a texture in a hurry is still worth
_SIZE_STEP = 64  # texels: graphics cards like round sizes


def texture_seconds(n_faces: int, size: int, n_photos: int) -> float:
    """Tell what a texture takes on two slow cores, roughly: unwrapping, texels, photos."""
    return _SECONDS_A_FACE * n_faces + _SECONDS_A_TEXEL * size * size + SECONDS_A_PHOTO * n_photos


def affordable_texture(
    seconds: float, most: float, n_faces: int, size: int, n_photos: int
) -> tuple[int, int] | None:
    """Choose faces and texels a side that are expected to take `seconds`, at most those asked for.

    Faces and texels are cut by the same fraction q ≤ 1, so that a face keeps its number of texels:
    q (a · faces + b · size²) + c · photos = seconds. The least that is worth it may take up to `most`; None if it is
    expected to take more.
    """
    whole, fixed = texture_seconds(n_faces, size, 0), SECONDS_A_PHOTO * n_photos
    fraction = min(max((seconds - fixed) / whole, 0.0), 1.0)
    if fraction == 1:
        return n_faces, size
    side = int(size * math.sqrt(fraction)) // _SIZE_STEP * _SIZE_STEP
    cut = max(int(n_faces * fraction), min(n_faces, _LEAST_FACES)), max(side, min(size, _LEAST_SIZE))
    return cut if texture_seconds(*cut, n_photos) <= max(seconds, most) else None
