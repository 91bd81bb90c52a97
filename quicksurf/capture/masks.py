"""Masks: find the file of each image and read it as coverage, 255 on the object and 0 beside it.

Black is beside the object, everything else is object: white, a grey, a label's colour, one of several classes, a rim
that annotators leave undecided. Values between are coverage where they lie along outlines (antialiasing, feathers,
JPEG), and labels where they fill areas. With x the darkest label, coverage = min(1, value / x), which is the value
itself for white labels. A colour counts by its brightest channel. A mask without black, or shaded all over as a photo
is, is refused.

Masks made by the network (quicksurf.capture.automatic_masks) mark unknown pixels by two values in the middle, which
also say which side is likelier. Given masks never have them.
"""

import functools
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from PIL import Image

from quicksurf.capture.images import MIN_IMAGES, Pixels, read_values
from quicksurf.capture.listing import (
    MASK,
    MASK_FOLDERS,
    SUFFIXES,
    companions,
    files_below,
    names_of_mask,
    natural_key,
)
from quicksurf.errors import CaptureError, ImageError

PERHAPS_OUTSIDE, PERHAPS_INSIDE = 127, 128

_SAMPLES = 400_000  # pixels that the values are judged by
_FEW_VALUES = 32  # at most so many are labels and antialiasing; more come from JPEG or a soft brush
_NOISE = 0.08  # of the brightest value: how far JPEG lifts black, and moves a label
_AREA = 2e-4  # of the pixels makes an area
_PLAIN = 0.5  # of the pixels between black and white fill areas: then these are labels
_SHADED = 0.5  # of the pixels may be between black and a label: a soft brush has fewer, a photo more


class _Values(NamedTuple):
    """Sampled pixels of a mask."""

    values: Integer[np.ndarray, "n"]
    colors: Integer[np.ndarray, "n"]
    """One number for each colour."""
    flat: Bool[np.ndarray, "n"]
    """All four neighbours have the same colour."""


def find_masks(root: Path, paths: Sequence[Path]) -> tuple[list[Path | None], list[str]]:
    """Find the mask of each image in `paths`: in `masks/` or `mask/` beside their folder or in `root`, or beside them.

    Namings known: the image's name with any suffix, its whole file name (`a.jpg.png`), `a_mask.png`,
    `mask_a.png`, the same number written otherwise (`007.png` for `000007.jpg`), and plain order where all
    names are numbers and there are as many masks as images. Of masks that lie beside their images the name must say
    that they are masks.

    Returns:
        The mask of each image, None where it has none; and warnings.

    Raises:
        CaptureError: if there is a folder of masks and no image has one in it.
    """
    folder = _mask_folder(root, paths)
    if folder is None:
        return _without_shared(_by_name(_beside(paths), paths)), []
    return masks_in(folder, paths)


def masks_in(folder: Path, paths: Sequence[Path]) -> tuple[list[Path | None], list[str]]:
    """Find the mask of each image in one folder; returns as `find_masks`.

    Raises:
        CaptureError: if it holds masks and no image has one in it.
    """
    photos = {path.resolve() for path in paths}  # they may lie below a folder of masks that is a link
    names = {path.name for path in photos}
    files = [
        path
        for path in files_below(folder)
        if path.suffix.lower() in SUFFIXES and not (path.name in names and path.resolve() in photos)
    ]
    if not files:
        return [None] * len(paths), [f"{folder} holds no image files: masks are ignored"]
    ways = [_by_name(files, paths)]
    if all(item.stem.isdecimal() for item in (*files, *paths)):
        numbered = {int(file.stem): file for file in files}
        ways.append([numbered.get(int(path.stem)) for path in paths])
        if len(files) == len(paths):
            photos_in_order, masks_in_order = (
                sorted(items, key=lambda path: natural_key(path.name)) for items in (paths, files)
            )
            ordered = dict(zip(photos_in_order, masks_in_order, strict=True))
            ways.append([ordered[path] for path in paths])
    found = max(ways, key=lambda way: sum(mask is not None for mask in way))  # the first of the best
    if not any(found):
        raise CaptureError(
            f"{folder.name}/ has {len(files)} files, {paths[0].parent.name}/ has {len(paths)} images in use, and no "
            f"mask is named like an image: {_listed([path.name for path in paths])}; name each mask like its image, "
            f"or rename {folder} to fit without masks"
        )
    return _without_shared(found), []


def read_mask(path: Path, pixels: Pixels, upright: bool) -> UInt8[np.ndarray, "h w"]:
    """Read the mask of an image at the size of its pixels in memory: the fraction of each that the object covers.

    A mask of more pixels than the image in memory is averaged, so that its outline stays known below the pixel.

    Raises:
        CaptureError: if it cannot be read, its values mean nothing, or its aspect is not the image's.
    """
    values = read_coverage(path, upright)
    height, width = values.shape
    scale = width / pixels.size[0]
    if abs(pixels.size[1] * scale - height) > 1.5 * max(1.0, scale):
        raise CaptureError(
            f"mask {path} is {width} x {height} pixels, its image {pixels.size[0]} x {pixels.size[1]}: "
            "masks must have the size or at least the aspect of their images"
        )
    target = pixels.rgb.shape[1], pixels.rgb.shape[0]
    resized = Image.fromarray(values).resize(target, Image.Resampling.BOX)  # nearest when enlarging
    return as_given(np.array(resized))


def read_coverage(path: Path, upright: bool) -> UInt8[np.ndarray, "h w"]:
    """Read a mask file at its own size: 255 where the object is (quicksurf.capture.masks).

    Raises:
        CaptureError: if it cannot be read, or its values mean nothing.
    """
    try:
        return coverage_of(read_values(path, upright))
    except ImageError as error:
        raise CaptureError(f"mask {error}") from error
    except ValueError as error:
        raise CaptureError(
            f"mask {path} {error}; black (0) must be what is beside the object, and what is not black the object: "
            "make it so, or fit without masks by --masks none"
        ) from error


def coverage(values: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Read an alpha channel as coverage, 255 where the object is; one of two values need not reach 128."""
    top = int(values.max(initial=0))
    dim_label = 0 < top < 128 and bool(((values == 0) | (values == top)).all())
    return np.where(values > 0, np.uint8(255), np.uint8(0)) if dim_label else values


def use_some(
    masks: Sequence[UInt8[np.ndarray, "_ _"] | None], names: Sequence[str]
) -> tuple[list[UInt8[np.ndarray, "_ _"] | None], list[str]]:
    """Keep masks that only some photos have, none if they are too few; also warn of what that means."""
    without = [name for mask, name in zip(masks, names, strict=True) if mask is None]
    n_given = len(masks) - len(without)
    if not without or n_given == 0:
        return list(masks), []
    found = f"{n_given} of {len(masks)} photos have a mask"
    if n_given < MIN_IMAGES:
        return [None] * len(masks), [f"only {found}, at least {MIN_IMAGES} are needed: masks are not used"]
    return list(masks), [
        f"{found}; fitted without one, and never held out: {_listed(without)}; what surrounds the object there "
        "does not tell where the object ends"
    ]


def over_white(
    image: UInt8[np.ndarray, "h w 3"], mask: UInt8[np.ndarray, "h w"] | None
) -> Float[np.ndarray, "h w 3"]:
    """Scale the image to [0, 1] and put it before white, as a masked fit sees it: c = m c + 1 − m; with no mask as is.

    Where nobody knows, what is likelier counts.
    """
    if mask is None:
        return image / 255.0
    fraction = np.where(unknown(mask), np.where(mask > 127, 255, 0), mask)[..., None] / 255.0
    return fraction * (image / 255.0) + (1 - fraction)


def require_object(masks: Sequence[UInt8[np.ndarray, "_ _"] | None], where: str) -> None:
    """Refuse masks of which none holds anything: every photo would be background.

    Raises:
        CaptureError: if there are masks and all are empty, naming `where` they come from.
    """
    given = [mask for mask in masks if mask is not None]
    if given and not any(mask.any() for mask in given):
        raise CaptureError(
            f"all {len(given)} masks in {where} are black: white (255) must be the object; make them again, "
            "or fit without them by --masks none"
        )


def mask_warnings(masks: Sequence[UInt8[np.ndarray, "_ _"] | None], names: Sequence[str]) -> list[str]:
    """Tell what looks wrong with a set of masks: empty ones, and ones whose white is the background."""
    given = [(name, mask) for name, mask in zip(names, masks, strict=True) if mask is not None]
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
    for base in (root, *beside):
        below = {path.name.casefold(): path for path in sorted(base.glob("*/"))}
        if name := next((name for name in MASK_FOLDERS if name in below), None):
            return below[name]
    return None


def _beside(paths: Sequence[Path]) -> list[Path]:
    """Files in the folders of the images whose names say that they are masks of another."""
    found: list[Path] = []
    for folder in dict.fromkeys(path.parent for path in paths):
        files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]
        found += [file for file, kind in companions(files).items() if kind == MASK]
    return found


def _by_name(files: Sequence[Path], paths: Sequence[Path]) -> list[Path | None]:
    """For each image the mask whose stem is one of the names it may have, or None; of a/0.jpg and b/0.jpg its own."""
    stems: dict[str, list[Path]] = {}
    for file in files:
        stems.setdefault(file.stem.casefold(), []).append(file)
    found: list[Path | None] = []
    for path in paths:
        names = dict.fromkeys(name for base in (path.stem, path.name) for name in names_of_mask(base))
        matches = [file for name in names for file in stems.get(name, [])]
        matches.sort(key=lambda file: file.parent.name != path.parent.name)
        found.append(next(iter(matches), None))
    return found


def _without_shared(found: Sequence[Path | None]) -> list[Path | None]:
    """What two images would share is the mask of one of them, and nothing says of which."""
    times = Counter(found)
    return [mask if times[mask] == 1 else None for mask in found]


def _listed(names: Sequence[str]) -> str:
    """Up to five names, then a count of the rest."""
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + rest


def coverage_of(mask: Integer[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w"]:
    """Read a mask of any depth and 1 or 3 channels as coverage; all 255 for one of a single value above 0.

    Raises:
        ValueError: naming the values, if it has no black background or is no mask at all.
    """
    values = functools.reduce(np.maximum, np.moveaxis(mask, 2, 0))
    sampled = _sample(mask, values)
    top = int(values.max(initial=0))
    if top == 0:
        return values.astype(np.uint8)
    noise = _NOISE * top if len(np.unique(sampled.values)) > _FEW_VALUES else 0
    labels = _areas(sampled, noise)
    if not (sampled.values <= noise).any() and not (values <= noise).any():
        _require_one_label(sampled, labels, top)
        return np.full(values.shape, 255, np.uint8)
    between = (sampled.values > noise) & (sampled.values < (1 - _NOISE) * top)
    areas = bool(between.any()) and sampled.flat[between].mean() >= _PLAIN
    darkest = min(label for label, _ in labels[: None if areas else 1]) if labels else top
    if not areas and between.mean() > _SHADED:
        raise ValueError(f"is shaded all over, {int(values.min())} to {top}")
    if darkest == 255:
        return values.astype(np.uint8)
    return np.minimum(np.rint(values * (255.0 / darkest)), 255).astype(np.uint8)


def unknown(mask: UInt8[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Find where a made mask does not know."""
    return (mask == PERHAPS_OUTSIDE) | (mask == PERHAPS_INSIDE)


def as_given(mask: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Free the coverage of a given mask from the two values that say that nobody knows, moved by one."""
    moved = np.where(mask == PERHAPS_OUTSIDE, np.uint8(PERHAPS_OUTSIDE - 1), mask)
    return np.where(mask == PERHAPS_INSIDE, np.uint8(PERHAPS_INSIDE + 1), moved)


def _sample(mask: Integer[np.ndarray, "h w c"], values: Integer[np.ndarray, "h w"]) -> _Values:
    """Pixels spread over the mask, with whether they lie within an area of one colour."""
    height, width = values.shape
    step = max(1, math.ceil(math.sqrt(values.size / _SAMPLES)))
    rows, columns = np.arange(step // 2, height, step), np.arange(step // 2, width, step)

    def colors(down: int, right: int) -> Integer[np.ndarray, "i j"]:
        near = np.ix_((rows + down).clip(0, height - 1), (columns + right).clip(0, width - 1))
        channels = mask[near].astype(np.int64)
        return channels[..., 0] if mask.shape[2] == 1 else channels @ np.array([1 << 32, 1 << 16, 1])

    here = colors(0, 0)
    flat = np.logical_and.reduce([colors(*side) == here for side in ((-1, 0), (1, 0), (0, -1), (0, 1))])
    return _Values(values[np.ix_(rows, columns)].ravel(), here.ravel(), flat.ravel())


def _areas(sampled: _Values, noise: float) -> list[tuple[int, int]]:
    """Value and colour of every area brighter than `noise`, the largest first; of small objects the rim counts, too."""
    kept = sampled.flat & (sampled.values > noise)
    colors, first, counts = np.unique(sampled.colors[kept], return_index=True, return_counts=True)
    large = counts >= max(1, _AREA * len(sampled.values))
    order = np.argsort(-counts[large], kind="stable")
    found = sampled.values[kept][first[large]]
    return [(int(found[index]), int(colors[large][index])) for index in order]


def _require_one_label(sampled: _Values, labels: list[tuple[int, int]], top: int) -> None:
    """Refuse a mask without black that is not of one value all over."""
    if not labels or sampled.flat.mean() < _PLAIN:
        raise ValueError(f"is shaded all over, {int(sampled.values.min())} to {top}")
    # areas of one brightness may differ in colour
    colored = len({color for _, color in labels}) > len({value for value, _ in labels})
    if colored or min(value for value, _ in labels) < (1 - _NOISE) * top:
        rgb = [tuple((color >> shift) & 0xFFFF for shift in (32, 16, 0)) for _, color in labels]
        names = [
            str(value if color == value else channels)
            for (value, color), channels in zip(labels, rgb, strict=True)
        ]
        raise ValueError(f"holds no black: {_listed(names)}")
