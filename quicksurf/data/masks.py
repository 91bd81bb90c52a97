"""Masks: finding the file that belongs to each image, and reading it as coverage: 255 on the object, 0 beside it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from quicksurf.data.images import SUFFIXES, Pixels, natural_key, read_grey
from quicksurf.errors import CaptureError, ImageError

FOLDERS = ("masks", "mask")
_AFFIXES = ("{}", "{}_mask", "{}-mask", "{}.mask", "mask_{}")  # the name of the mask for an image named {}


def find_masks(root: Path, paths: Sequence[Path]) -> tuple[list[Path | None], list[str]]:
    """The mask of every image in `paths`, from `masks/` or `mask/` beside the images' folder or in `root`.

    Namings known: the image's name with any suffix, its whole file name (`a.jpg.png`), `a_mask.png`,
    `mask_a.png`, the same number written otherwise (`007.png` for `000007.jpg`), and plain order where all
    names are numbers and there are as many masks as images. Images without a mask are an error unless none
    has one.

    Returns:
        The masks, or None for each image if there is no folder of masks; and warnings.

    Raises:
        CaptureError: if some images have no mask, naming them.
    """
    folder = _mask_folder(root, paths)
    if folder is None:
        return [None] * len(paths), []
    files = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    files = [path for path in files if not path.name.startswith(".")]
    if not files:
        return [None] * len(paths), [f"{folder} holds no image files: masks are ignored"]
    named = _by_name(files, paths)
    for found in (named, _by_number(files, paths), _by_order(files, paths)):
        if found and all(found):
            return found, []
    raise _missing(folder, len(files), paths, named)


def read_mask(path: Path, pixels: Pixels, upright: bool) -> UInt8[np.ndarray, "h w"]:
    """Read the mask of an image at the size of its pixels in memory: the share of each that the object covers.

    A mask of more pixels than the image in memory is averaged, so that its outline stays known below the pixel.

    Raises:
        CaptureError: if it cannot be read or its aspect is not the image's.
    """
    try:
        values = read_grey(path, upright)
    except ImageError as error:
        raise CaptureError(f"mask {error}") from error
    height, width = values.shape
    scale = width / pixels.size[0]
    if abs(pixels.size[1] * scale - height) > 1.5 * max(1.0, scale):
        raise CaptureError(
            f"mask {path} is {width} x {height} pixels, its image {pixels.size[0]} x {pixels.size[1]}: "
            "masks must have the size or at least the aspect of their images"
        )
    target = pixels.rgb.shape[1], pixels.rgb.shape[0]
    resized = Image.fromarray(coverage(values)).resize(target, Image.Resampling.BOX)  # nearest when enlarging
    return np.array(resized)


def coverage(values: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Coverage, 255 where the object is. Two-valued masks (0 and 1, or a label's colour) need not reach 128."""
    top = int(values.max(initial=0))
    dim_label = 0 < top < 128 and bool(((values == 0) | (values == top)).all())
    return np.where(values > 0, np.uint8(255), np.uint8(0)) if dim_label else values


def require_all(masks: Sequence[UInt8[np.ndarray, "_ _"] | None], names: Sequence[str]) -> None:
    """Refuse captures where some photos have a mask and others none: half of a silhouette tells nothing.

    Raises:
        CaptureError: naming the first photos without.
    """
    without = [name for mask, name in zip(masks, names, strict=True) if mask is None]
    if 0 < len(without) < len(masks):
        raise CaptureError(
            f"{len(without)} of {len(masks)} photos have no mask, the first {', '.join(without[:3])}: "
            "give every photo one, or leave them out with --no-masks"
        )


def over_white(
    image: UInt8[np.ndarray, "h w 3"], mask: UInt8[np.ndarray, "h w"] | None
) -> Float[np.ndarray, "h w 3"]:
    """The image in [0, 1] as a masked fit sees it: before white, c = m c + 1 − m; as it is without a mask."""
    if mask is None:
        return image / 255.0
    share = mask[..., None] / 255.0
    return share * (image / 255.0) + (1 - share)


def require_object(masks: Sequence[UInt8[np.ndarray, "_ _"] | None], where: str) -> None:
    """Refuse masks of which none holds anything: every photo would be background.

    Raises:
        CaptureError: if there are masks and all are empty, naming `where` they come from.
    """
    given = [mask for mask in masks if mask is not None]
    if given and not any(mask.any() for mask in given):
        raise CaptureError(
            f"all {len(given)} masks in {where} are black: white (255) must be the object; make them again, "
            "or fit without them by --no-masks"
        )


def mask_warnings(masks: Sequence[UInt8[np.ndarray, "_ _"] | None], names: Sequence[str]) -> list[str]:
    """What looks wrong with a set of masks: empty ones, and ones whose white is the surroundings."""
    given = [(name, mask) for name, mask in zip(names, masks, strict=True) if mask is not None]
    if not given:
        return []
    warnings = []
    empty = [name for name, mask in given if not mask.any()]
    if empty:
        warnings.append(f"masks without any object: {_listed(empty)}; white (255) must be the object")
    n_inverted = sum(_looks_inverted(mask) for _, mask in given)
    if n_inverted > len(given) / 2:
        warnings.append(
            f"{n_inverted} of {len(given)} masks look inverted (white all along the border, black inside): "
            "white (255) must be the object; invert them if the mesh is empty or hollow"
        )
    return warnings


def _looks_inverted(mask: UInt8[np.ndarray, "h w"]) -> bool:
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return bool(border.mean() > 0.9 * 255 and 0 < mask.mean() < 0.95 * 255)


def _mask_folder(root: Path, paths: Sequence[Path]) -> Path | None:
    beside = [paths[0].parent.parent] if paths else []
    candidates = [base / name for base in [root, *beside] for name in FOLDERS]
    return next((folder for folder in candidates if folder.is_dir()), None)


def _by_name(files: Sequence[Path], paths: Sequence[Path]) -> list[Path | None]:
    """For each image the mask whose stem is one of the names it may have, or None."""
    stems: dict[str, list[Path]] = {}
    for file in files:
        stems.setdefault(file.stem.casefold(), []).append(file)
    return [_named(stems, path) for path in paths]


def _named(stems: dict[str, list[Path]], path: Path) -> Path | None:
    names = (affix.format(base).casefold() for affix in _AFFIXES for base in (path.stem, path.name))
    matches = [file for name in names for file in stems.get(name, [])]
    same_folder = [file for file in matches if file.parent.name == path.parent.name]  # a/0.jpg, b/0.jpg
    return next(iter(same_folder + matches), None)


def _by_number(files: Sequence[Path], paths: Sequence[Path]) -> list[Path | None] | None:
    if not all(item.stem.isdecimal() for item in (*files, *paths)):
        return None
    numbered = {int(file.stem): file for file in files}
    return [numbered.get(int(path.stem)) for path in paths]


def _by_order(files: Sequence[Path], paths: Sequence[Path]) -> list[Path | None] | None:
    if len(files) != len(paths) or not all(item.stem.isdecimal() for item in (*files, *paths)):
        return None
    ordered = dict(zip(_sorted(paths), _sorted(files), strict=True))
    return [ordered[path] for path in paths]


def _sorted(paths: Sequence[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: natural_key(path.name))


def _missing(folder: Path, n_files: int, paths: Sequence[Path], named: Sequence[Path | None]) -> CaptureError:
    missing = [path.name for path, mask in zip(paths, named, strict=True) if mask is None]
    have = "has none" if len(missing) == 1 else "have none"
    images = paths[0].parent.name
    return CaptureError(
        f"{folder.name}/ has {n_files} files, {images}/ has {len(paths)} images in use: {_listed(missing)} "
        f"{have}; name each mask like its image, or rename {folder} to fit without masks"
    )


def _listed(names: Sequence[str]) -> str:
    """Up to five names, then a count of the rest."""
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + rest
