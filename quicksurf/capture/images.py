"""Read one image file: header and pixels; nothing about cameras or scenes.

Files may be hostile: the size in the header is bounded before memory is allocated, only the formats named here are
tried, and any exception of a decoder becomes an `ImageError` that names the file. "Stored" is the pixel order in the
file, "upright" the order after EXIF's orientation tag; they differ for a turned phone.
"""

import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pillow_heif
from jaxtyping import Float64, Integer, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base

from quicksurf.capture.exif import Focal, focal_of, lens_of, up_of
from quicksurf.errors import ImageError
from quicksurf.kernels.host import usable_cpus

# Above the largest phone sensor (108 MP); 8-bit RGB is then at most 360 MB while decoding.
MAX_MEGAPIXELS = 120
MIN_IMAGES = 3  # two views carve no surface

_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "HEIF", "BMP")
_TURNED = (5, 6, 7, 8)  # orientations in which width and height are exchanged

T = TypeVar("T")
R = TypeVar("R")

pillow_heif.register_heif_opener()
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MAX_MEGAPIXELS is the bound here


class ImageFile(NamedTuple):
    """The header of an image file."""

    path: Path
    width: int
    """Upright width in pixels."""
    height: int
    """Upright height in pixels."""
    focal: Focal | None
    """Focal length from EXIF, in pixels of this file."""
    stored_size: tuple[int, int]
    """Width and height before EXIF's orientation is applied."""
    lens: str = ""
    """Camera, lens and zoom from EXIF: files that differ in it have different intrinsics."""


class Pixels(NamedTuple):
    """A decoded image, no larger than asked for."""

    rgb: UInt8[np.ndarray, "h w 3"]
    alpha: UInt8[np.ndarray, "h w"] | None
    size: tuple[int, int]
    """Width and height before downsampling, in the same orientation as `rgb`."""


def read_header(path: Path) -> ImageFile:
    """Read size, orientation and focal length without decoding pixels.

    Raises:
        ImageError: if the file is not an image, is empty, or is larger than `MAX_MEGAPIXELS`.
    """
    with _opened(path) as image:
        exif = image.getexif()
        width, height = image.size
        turned = exif.get(Base.Orientation) in _TURNED
        upright = (height, width) if turned else (width, height)
        return ImageFile(path, *upright, focal_of(exif, width, height), (width, height), lens_of(exif))


def up_in_photo(path: Path, upright: bool) -> Float64[np.ndarray, "3"] | None:
    """Read the upward direction as `up_of`; None if the file does not tell or cannot be read."""
    try:
        with _opened(path) as image:
            return up_of(image.getexif(), upright)
    except ImageError:
        return None


def read_pixels(path: Path, max_pixels: int, upright: bool = True) -> Pixels:
    """Decode one image to 8-bit RGB, area-filtered down to at most `max_pixels`.

    16-bit values are scaled by 255/65535, grey becomes three equal channels, and transparent pixels are laid
    over white (what lies under them is left from some editor and differs from view to view).

    Args:
        max_pixels: upper bound of width · height of the result.
        upright: apply EXIF's orientation; False keeps the stored order, which cameras from a file refer to.

    Raises:
        ImageError: as `read_header`, or if the pixels are truncated, corrupt or of 32 bits.
    """
    with _opened(path) as image:
        size = image.size
        image.draft(None, fit_size(*size, max_pixels))  # JPEG decodes to 1/2, 1/4, 1/8 for free
        if upright:
            turned = image.getexif().get(Base.Orientation) in _TURNED
            size = (size[1], size[0]) if turned else size
            image = ImageOps.exif_transpose(image)
        image = _eight_bit(image, path)
        target = fit_size(*size, max_pixels)
        if image.size != target:
            image = image.resize(target, Image.Resampling.BOX)
        return _split_alpha(image, size)


def read_values(path: Path, upright: bool = False) -> Integer[np.ndarray, "h w c"]:
    """Decode a mask at full size, its numbers unscaled: 1 channel, or 3 of a colour.

    Alpha is the mask where it is 0 somewhere. A palette gives its colours, or its indices where two that are used have
    the same colour: then it was not made to be looked at.

    Raises:
        ImageError: as `read_header`, or if the pixels are truncated, corrupt or floating point numbers.
    """
    with _opened(path) as image:
        if upright:
            image = ImageOps.exif_transpose(image)
        if "transparency" in image.info or image.mode in ("LA", "PA", "La", "RGBA", "RGBa"):
            image = image.convert("RGBA")
            alpha = np.array(image.getchannel("A"))
            if alpha.min() == 0 < alpha.max():
                return alpha[..., None]
            image = image.convert("RGB")
        if image.mode == "F":
            raise ImageError(f"{path}: floating point numbers; save it with 8 or 16 bits")
        if image.mode == "P":
            return _of_palette(image)
        if image.mode == "1" or image.mode == "I" or image.mode.startswith("I;16"):
            values = np.asarray(image).astype(np.int64).clip(0)
            return (255 * values if image.mode == "1" else values)[..., None]
        return np.array(image if image.mode == "L" else image.convert("RGB")).reshape(*image.size[::-1], -1)


def _of_palette(image: Image.Image) -> UInt8[np.ndarray, "h w c"]:
    indices, colors = np.asarray(image), np.array(image.convert("RGB"))
    _, first = np.unique(indices, return_index=True)
    distinct = len(np.unique(colors.reshape(-1, 3)[first], axis=0)) == len(first)
    return colors if distinct else indices[..., None]


def shrink(image: UInt8[np.ndarray, "h w 3"], max_pixels: int) -> UInt8[np.ndarray, "i j 3"]:
    """Reduce the image by area filtering to at most `max_pixels`; return it as it is where it has no more."""
    height, width = image.shape[:2]
    target = fit_size(width, height, max_pixels)
    if target == (width, height):
        return image
    return np.asarray(Image.fromarray(image).resize(target, Image.Resampling.BOX))


def fit_size(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """Compute the largest size of the same aspect (to a pixel) with at most `max_pixels`; never larger than given."""
    if width * height <= max_pixels:
        return width, height
    scale = math.sqrt(max_pixels / (width * height))
    return max(1, math.floor(width * scale)), max(1, math.floor(height * scale))


def each_or_error(items: Sequence[T], read: Callable[[T], R]) -> list[R | ImageError]:
    """Call `read` on every item in a few threads; one that fails gives its `ImageError` in its place."""

    def attempt(item: T) -> R | ImageError:
        try:
            return read(item)
        except ImageError as error:
            return error

    # Decoders release the GIL; more than four would only raise the peak of memory.
    with ThreadPoolExecutor(max_workers=min(4, usable_cpus())) as pool:
        return list(pool.map(attempt, items))


def require_images(n_left: int, lost: dict[str, str], where: Path) -> None:
    """Refuse a capture in which fewer than `MIN_IMAGES` images are left, naming what was lost and why.

    Raises:
        ImageError: if `n_left` is too small.
    """
    if n_left >= MIN_IMAGES:
        return
    reasons = "".join(f"\n  {name}: {reason}" for name, reason in list(lost.items())[:5])
    found = f"{n_left} usable image{'s' * (n_left != 1)} in {where}"
    raise ImageError(f"{found}: at least {MIN_IMAGES} are needed, 20 or more are better{reasons}")


def lost_warnings(lost: Mapping[str, str]) -> list[str]:
    """Name up to five files that are not used in one line, each with its reason in short; no line if all are used."""
    if not lost:
        return []
    named = [f"{name} ({in_short(name, reason)})" for name, reason in list(lost.items())[:5]]
    rest = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
    files = "1 file was" if len(lost) == 1 else f"{len(lost)} files were"
    return [f"{files} not used: {', '.join(named)}{rest}"]


def in_short(name: str, reason: str) -> str:
    """Shorten `reason`: without the path before it, the details and the advice after it."""
    return re.split(r"; | \(|, ", reason.split(f"{name}: ")[-1])[0]


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open lazily with the size bounded; turn whatever the decoder raises into an `ImageError`."""
    if not path.is_file():
        raise ImageError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: the file is empty (0 bytes); copy it again or remove it")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            _check_size(path, *image.size)
            yield image
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{path}: larger than the {MAX_MEGAPIXELS} megapixels that are read: shrink it"
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{path}: not an image (JPEG, PNG, TIFF, WebP, HEIC or BMP); remove or convert it"
        ) from error
    except Exception as error:  # decoders of damaged files raise anything: OSError, SyntaxError, struct.error
        raise ImageError(f"{path}: truncated or corrupt ({error}); copy it again or remove it") from error


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_MEGAPIXELS * 1_000_000:
        raise ImageError(
            f"{path}: {width} x {height} is {width * height / 1e6:.0f} megapixels, "
            f"at most {MAX_MEGAPIXELS} are read: shrink it"
        )
    if width < 8 or height < 8:
        raise ImageError(f"{path}: {width} x {height} pixels is too small to be a photo; remove it")


def _eight_bit(image: Image.Image, path: Path) -> Image.Image:
    """Any mode to L, LA, RGB or RGBA of 8 bits per channel."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ImageError(f"{path}: 32 bits per channel; save it with 8 or 16")
    if "transparency" in image.info or image.mode in ("PA", "La", "RGBa"):
        return image.convert("RGBA")
    return image if image.mode in ("L", "LA", "RGB", "RGBA") else image.convert("RGB")


def _split_alpha(image: Image.Image, size: tuple[int, int]) -> Pixels:
    if image.mode not in ("LA", "RGBA"):
        return Pixels(np.array(image.convert("RGB")), None, size)
    rgba = np.array(image.convert("RGBA"))
    alpha = rgba[..., 3].copy()
    if alpha.min() == 255:
        return Pixels(rgba[..., :3].copy(), None, size)
    opacity = alpha[..., None].astype(np.float32) / 255
    rgb = rgba[..., :3] * opacity + 255 * (1 - opacity)
    return Pixels(np.rint(rgb).astype(np.uint8), alpha, size)
