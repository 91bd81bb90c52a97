"""Rendered views as files: PNG and EXR for stills, MP4 and GIF for a path.

Color is 8-bit sRGB. Depth along the ray, 0 where nothing was hit, is a 16-bit PNG, `depth = value × unit`, and an EXR
of 32-bit floats in the units of the cameras; the PNG's text chunk `depth_unit` and views.json hold the unit. Normals
are in the world's frame, n = 2 value / 255 − 1.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from jaxtyping import Float, UInt8, UInt16
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from quicksurf.files import atomic_path, write_atomic

FULL_16_BIT = 65535
GIF_SIDE = 480  # pixels: a GIF is for a message or a README, and takes ten times the bytes of an MP4
GIF_FRAMES = 150  # about 10 MB; more are thinned out
_HUNDREDTHS = 100  # of a second, the GIF's unit of time
_MIN_DELAY = 2  # hundredths: browsers slow shorter ones down
SEEN = 0.5  # opacity above which a pixel shows the surface and has a depth and a normal


def color_image(color: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Convert color in [0, 1] to 8 bits."""
    return (np.clip(color, 0, 1) * 255 + 0.5).astype(np.uint8)


def depth_image(
    depth: Float[np.ndarray, "h w"], opacity: Float[np.ndarray, "h w"], unit: float
) -> UInt16[np.ndarray, "h w"]:
    """Convert depth to multiples of `unit`, 0 where it is infinite or the opacity is below SEEN."""
    seen = (opacity > SEEN) & np.isfinite(depth)
    scaled = np.clip(np.where(seen, depth, 0) / unit + 0.5, 1, FULL_16_BIT)
    return np.where(seen, scaled, 0).astype(np.uint16)


def normal_image(
    normal: Float[np.ndarray, "h w 3"], opacity: Float[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Convert unit normals to colors, mid-grey where the opacity is below SEEN."""
    shown = np.where(opacity[..., None] > SEEN, normal, 0.0)
    return color_image(0.5 * (shown + 1))


def write_png(path: Path, image: UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w"]) -> None:
    """Write an image, atomically."""
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, "PNG")


def write_depth_png(path: Path, image: UInt16[np.ndarray, "h w"], unit: float) -> None:
    """Write a depth image with its unit in a text chunk, so that it can be read without views.json."""
    information = PngInfo()
    information.add_text("depth_unit", repr(unit))
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, "PNG", pnginfo=information)


def write_depth_exr(path: Path, depth: Float[np.ndarray, "h w"], opacity: Float[np.ndarray, "h w"]) -> None:
    """Write depths as 32-bit floats (channel Y, zip compression) with FFmpeg's encoder; 0 where nothing was hit."""
    seen = (opacity > SEEN) & np.isfinite(depth)
    height, width = depth.shape
    encoder = av.CodecContext.create("exr", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height = width, height
    encoder.pix_fmt, encoder.time_base = "grayf32le", Fraction(1)
    encoder.options = {"format": "float", "compression": "zip16"}
    frame = av.VideoFrame(width, height, "grayf32le")
    rows = np.zeros((height, frame.planes[0].line_size // 4), "<f4")
    rows[:, :width] = np.where(seen, depth, 0)
    frame.planes[0].update(rows.tobytes())
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    write_atomic(path, lambda file: file.write(b"".join(bytes(packet) for packet in packets)))


def write_gif(path: Path, stills: Sequence[Path], frames_per_second: int) -> None:
    """Write a looping GIF of at most GIF_FRAMES image files and GIF_SIDE pixels, one frame at a time in memory.

    All frames use the palette of the first, so that still parts do not flicker.
    """
    step = -(-len(stills) // GIF_FRAMES)
    delay = max(_MIN_DELAY, round(_HUNDREDTHS * step / frames_per_second))
    palette = _small(stills[0]).quantize(256, Image.Quantize.MEDIANCUT)
    frames = (_small(still).quantize(palette=palette) for still in stills[::step])
    with atomic_path(path) as temporary:
        next(frames).save(
            temporary, "GIF", save_all=True, append_images=frames, duration=10 * delay, loop=0, optimize=False
        )


def _small(still: Path) -> Image.Image:
    with Image.open(still, formats=["PNG"]) as image:
        picture = image.convert("RGB")
    picture.thumbnail((GIF_SIDE, GIF_SIDE), Image.Resampling.BOX)
    return picture


class Film:
    """An MP4 under construction; the first frame sets its size."""

    def __init__(self, container: OutputContainer, frames_per_second: int) -> None:
        self._container, self._rate = container, frames_per_second
        self._stream: av.VideoStream | None = None

    def add(self, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Append a frame, without an odd last row or column, since the codec halves the color planes."""
        even = np.ascontiguousarray(image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2])
        stream = self._stream or self._open(even.shape[1], even.shape[0])
        self._container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))

    def finish(self) -> None:
        """Flush the codec."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())

    def _open(self, width: int, height: int) -> av.VideoStream:
        stream = self._container.add_stream("libx264", Fraction(self._rate), {"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        self._stream = stream
        return stream


@contextmanager
def film(path: Path, frames_per_second: int) -> Iterator[Film]:
    """Open a film, written to `path` when the block ends without an error."""
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        reel = Film(container, frames_per_second)
        yield reel
        reel.finish()
