"""Masks as PNG files for a person to look at and correct, with a manifest and a contact sheet.

The manifest holds the SHA-256 of every file as it was written. A file that still has it is automatic: a fit makes that
mask anew. One that differs was corrected, and counts as given.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from quicksurf.capture.masks import unknown
from quicksurf.files import write_atomic, write_json

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
    """Write the masks that are there as NAME.png, the manifest, and the contact sheet; return the files of masks.

    Of what nobody knows, the likelier is written: 255 on the object, 0 beside it.

    Raises:
        OutputError: if a file cannot be written.
    """
    files = [
        _write_mask(path, mask)
        for path, mask in zip(_files(folder, names), masks, strict=True)
        if mask is not None
    ]
    for parent in {path.parent for path in files}:
        new = {path.name: _hash(path) for path in files if path.parent == parent}
        write_json(parent / MANIFEST, {"sha256": _hashes(parent) | new})
    sheet = contact_sheet(images, masks)
    write_atomic(folder / SHEET, lambda file: sheet.save(file, "PDF"))
    return files


def _files(folder: Path, names: Sequence[str]) -> list[Path]:
    """NAME.png for each photo, in folders like theirs where two have the same name."""
    unique = len({Path(name).stem for name in names}) == len(names)
    return [folder / ("" if unique else Path(name).parent.name) / f"{Path(name).stem}.png" for name in names]


def _write_mask(path: Path, mask: UInt8[np.ndarray, "_ _"]) -> Path:
    plain = Image.fromarray(np.where(mask > 127, np.uint8(255), np.uint8(0)))
    write_atomic(path, lambda file: plain.save(file, "PNG"))
    return path


def corrected(paths: Sequence[Path | None]) -> list[Path | None]:
    """Those of the mask files that a person made: all but the ones that are as they were written here."""
    known = {folder: _hashes(folder) for folder in {path.parent for path in paths if path is not None}}
    return [
        None
        if path is not None
        and path.name in known[path.parent]
        and _hash(path) == known[path.parent][path.name]
        else path
        for path in paths
    ]


def contact_sheet(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]], masks: Sequence[UInt8[np.ndarray, "_ _"] | None]
) -> Image.Image:
    """All photos small, what is beside the object darkened, outlines green, what nobody knows orange."""
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
    """What the manifest says; nothing of one that is absent or damaged, so that its masks count as given."""
    path = folder / MANIFEST
    with suppress(OSError, ValueError, RecursionError):
        if path.stat().st_size <= _MAX_BYTES:
            content = json.loads(path.read_bytes())
            stated = content.get("sha256") if isinstance(content, dict) else None
            if isinstance(stated, dict):
                return {name: value for name, value in stated.items() if isinstance(value, str)}
    return {}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
