"""Rendered views as files: PNG for stills, MP4 for a path.

Colour is 8-bit sRGB. Depth is a 16-bit PNG, `depth = value × unit` with the unit in views.json beside it (0 where
nothing was hit). Normals are in the world, n = 2 value / 255 − 1.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import imageio.v3 as imageio
import numpy as np
from av.container import OutputContainer
from jaxtyping import Float, UInt8, UInt16

from quicksurf.io import atomic_path

FULL_16_BIT = 65535
SEEN = 0.5  # opacity above which a pixel shows the surface and has a depth and a normal


def color_image(color: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Colour in [0, 1] as 8-bit."""
    return (np.clip(color, 0, 1) * 255 + 0.5).astype(np.uint8)


def depth_image(
    depth: Float[np.ndarray, "h w"], opacity: Float[np.ndarray, "h w"], unit: float
) -> UInt16[np.ndarray, "h w"]:
    """Depth in multiples of `unit`, 0 where it is infinite or the opacity is below SEEN."""
    seen = (opacity > SEEN) & np.isfinite(depth)
    scaled = np.clip(np.where(seen, depth, 0) / unit + 0.5, 1, FULL_16_BIT)
    return np.where(seen, scaled, 0).astype(np.uint16)


def normal_image(
    normal: Float[np.ndarray, "h w 3"], opacity: Float[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Unit normals as colours, mid-grey where the opacity is below SEEN."""
    shown = np.where(opacity[..., None] > SEEN, normal, 0.0)
    return color_image(0.5 * (shown + 1))


def write_png(path: Path, image: UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w"]) -> None:
    """Write one image, atomically."""
    with atomic_path(path) as temporary:
        imageio.imwrite(temporary, image, extension=".png")


class Film:
    """An MP4 that frames are added to; the first one decides its size."""

    def __init__(self, container: OutputContainer, frames_per_second: int) -> None:
        self._container, self._rate = container, frames_per_second
        self._stream: av.VideoStream | None = None

    def add(self, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Append a frame; an odd last row or column is cut, since the codec halves the colour planes."""
        even = np.ascontiguousarray(image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2])
        stream = self._stream or self._open(even.shape[1], even.shape[0])
        self._container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))

    def finish(self) -> None:
        """Flush what the codec holds back."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())

    def _open(self, width: int, height: int) -> av.VideoStream:
        stream = self._container.add_stream("libx264", Fraction(self._rate), {"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        self._stream = stream
        return stream


@contextmanager
def film(path: Path, frames_per_second: int) -> Iterator[Film]:
    """A film that becomes `path` when the block ends well."""
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        reel = Film(container, frames_per_second)
        yield reel
        reel.finish()
