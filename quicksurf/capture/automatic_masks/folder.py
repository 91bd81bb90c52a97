"""Masks as PNG files: for a person to check and correct, with a manifest and a contact sheet; and as a run keeps them.

The manifest holds the SHA-256 of every file as it was written. A file that still has it is automatic, and a fit
computes that mask again. One that differs was corrected, and counts as given.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from quicksurf.capture.images import read_values
from quicksurf.capture.masks import unknown
from quicksurf.errors import CaptureError, ImageError
from quicksurf.files import write_atomic, write_json
from quicksurf.untrusted import read_json

MANIFEST, SHEET = "automatic.json", "contact_sheet.pdf"  # no picture: it would pass for a mask
_MAX_BYTES = 16 << 20  # ten thousand masks are a megabyte
_TILE, _COLUMNS = 192, 8  # pixels of a photo on the contact sheet, and photos in a row
_OBJECT, _UNSURE = (0, 255, 0), (255, 160, 0)


def write_masks(
    folder: Path,
    names: Sequence[str],
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    masks: Sequence[UInt8[np.ndarray, "_ _"] | None],
) -> list[Path]:
    """Write the masks that are not None as NAME.png, the manifest and the contact sheet; return the files of masks.

    Unknown pixels get the likelier value: 255 on the object, 0 beside it.

    Raises:
        OutputError: if a file cannot be written.
    """
    # else in folders like those of the photos
    unique = len({Path(name).stem for name in names}) == len(names)
    files = []
    for photo, mask in zip(map(Path, names), masks, strict=True):
        if mask is not None:
            files.append(folder / ("" if unique else photo.parent.name) / f"{photo.stem}.png")
            plain = Image.fromarray(np.where(mask > 127, np.uint8(255), np.uint8(0)))
            write_atomic(files[-1], lambda file, plain=plain: plain.save(file, "PNG"))
    for parent in {path.parent for path in files}:
        new = {path.name: _hash(path) for path in files if path.parent == parent}
        write_json(parent / MANIFEST, {"sha256": _hashes(parent) | new})
    sheet = contact_sheet(images, masks)
    write_atomic(folder / SHEET, lambda file: sheet.save(file, "PDF"))
    return files


def corrected(paths: Sequence[Path | None]) -> list[Path | None]:
    """Keep those of the mask files that a person made: all but the ones that are as `write_masks` wrote them."""
    known = {folder: _hashes(folder) for folder in {path.parent for path in paths if path is not None}}

    def unchanged(path: Path) -> bool:
        written = known[path.parent].get(path.name)
        return written is not None and _hash(path) == written

    return [None if path is not None and unchanged(path) else path for path in paths]


def contact_sheet(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]], masks: Sequence[UInt8[np.ndarray, "_ _"] | None]
) -> Image.Image:
    """Draw all photos small, the background darkened, outlines green, unknown pixels orange."""
    n_rows = -(-len(images) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * _TILE, n_rows * _TILE))
    for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
        shown = Image.fromarray(image if mask is None else _shown(image, mask))
        shown.thumbnail((_TILE, _TILE))
        sheet.paste(shown, ((index % _COLUMNS) * _TILE, (index // _COLUMNS) * _TILE))
    return sheet


def _shown(image: UInt8[np.ndarray, "h w 3"], mask: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    inside = (mask > 127)[..., None]
    marked = np.where(inside, image, image // 4)
    colors = np.where(inside, np.array(_OBJECT, np.uint8), np.array(_UNSURE, np.uint8))
    return np.where(unknown(mask)[..., None], colors, marked).astype(np.uint8)


def _hashes(folder: Path) -> dict[str, str]:
    """Read the manifest; nothing of one that is absent or damaged, so that its masks count as given."""
    with suppress(OSError, ValueError):
        content = read_json(folder / MANIFEST, _MAX_BYTES)
        stated = content.get("sha256") if isinstance(content, dict) else None
        if isinstance(stated, dict):
            return {name: value for name, value in stated.items() if isinstance(value, str)}
    return {}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kept_file(folder: Path, index: int) -> Path:
    """Name the file that a run keeps the mask of photo `index` in."""
    return folder / f"{index:05d}.png"


def read_kept(folder: Path, index: int, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"] | None:
    """Read a mask as a run has kept it, at the size of its image; None where it had none.

    Raises:
        CaptureError: if the file is damaged.
    """
    path = kept_file(folder, index)
    if not path.is_file():
        return None
    try:
        values = read_values(path)
    except ImageError as error:
        raise CaptureError(f"mask {error}") from error
    if values.shape[2] != 1 or values.dtype != np.uint8:
        raise CaptureError(f"mask {path} is damaged: 8-bit grey is expected; fit anew with another --output")
    target = image.shape[1], image.shape[0]
    return np.array(Image.fromarray(values[..., 0]).resize(target, Image.Resampling.NEAREST))
