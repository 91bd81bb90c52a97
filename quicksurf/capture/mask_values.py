"""What the values of a mask file mean: coverage, 255 where the object is, 0 beside it.

Black is beside the object, everything else is object: white, a grey, a label's colour, one of several classes, a rim
that annotators leave undecided. Values between are coverage where they lie along outlines (antialiasing, feathers,
JPEG), and labels where they fill areas. With x the darkest label, coverage = min(1, value / x), which is the value
itself for white labels. A colour counts by its brightest channel. What has no black, or is shaded all over as a photo
is, is refused.

Two values in the middle are for masks that nobody drew (quicksurf.capture.automatic_masks): there nobody knows, and
the value says which side is likelier. A mask that was given never has them.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Integer, UInt8

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


def coverage_of(mask: Integer[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w"]:
    """The coverage that a mask of any depth and 1 or 3 channels states; all 255 for one of a single value above 0.

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
    """Where a made mask does not know."""
    return (mask == PERHAPS_OUTSIDE) | (mask == PERHAPS_INSIDE)


def as_given(mask: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """The coverage of a given mask without the two values that say that nobody knows, moved by one."""
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
    if _is_colored(labels) or min(value for value, _ in labels) < (1 - _NOISE) * top:
        raise ValueError(f"holds no black: {_listed(labels)}")


def _is_colored(labels: list[tuple[int, int]]) -> bool:
    """Whether areas of one brightness differ in colour."""
    return len({color for _, color in labels}) > len({value for value, _ in labels})


def _listed(labels: list[tuple[int, int]]) -> str:
    """Up to five values, colours as (r, g, b)."""
    names = []
    for value, color in labels[:5]:
        channels = tuple((color >> shift) & 0xFFFF for shift in (32, 16, 0))
        names.append(str(value) if color == value else str(channels))
    more = f" and {len(labels) - 5} more" if len(labels) > 5 else ""
    return ", ".join(names) + more
