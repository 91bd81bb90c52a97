"""From photos with cameras to masks: look at each photo, vote, decide whether there is an object, say what is sure.

A made mask holds 255 on the object and 0 beside it. In a band along its outline it holds what the network says, as
coverage between the two: colours there do not count, and the outline lies where the network sees it. In a photo that
looks unlike the volume, what it alone shows, and what it alone lacks, are one of the two values that say that nobody
knows (quicksurf.capture.masks): colours do not count there, no outline is drawn, the object may reach into it.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8

from quicksurf.capture.automatic_masks.network import SIZE, Saliency
from quicksurf.capture.automatic_masks.votes import SOLID, Votes, iou, vote
from quicksurf.capture.masks import PERHAPS_INSIDE, PERHAPS_OUTSIDE, as_given
from quicksurf.geometry.cameras import Cameras, similarity
from quicksurf.geometry.region import Roi

Mask = UInt8[np.ndarray, "_ _"]

LEAST_PHOTOS = 8
LEAST_AGREEMENT, ALIKE = (
    0.75,
    0.7,
)  # of the photos must look like the volume, with this IoU: objects before any
# background have 0.88 and more, a wrongly posed one 0.57, model houses, walls, rooms and facades 0.39 and less
LEAST_ANGLE = (
    100.0  # degrees between the two cameras farthest apart, seen from the volume: facades, which are salient
)
# as a whole and look like one thing, were photographed from 61°, objects from 146° and more
_INSIDE, _OUTSIDE = 0.9, 0.8  # shares that make the object, and what is beside it, certain
_MISSED = 0.93  # share from which a photo may have missed what it shows as background
_BAND = 1.3  # pixels of the network on both sides of an outline: nine in ten outlines are nearer
_SOFT = 0.9  # coverage in the band is at most this, and at least 1 less this
MOST_AT_RIM = (
    0.01  # of the volume may lie at the region's rim: more, and it was cut off there (0.03 to 0.35 where it
)
# was, 0.001 and less elsewhere)
_RIM = 0.93  # of the region's radius


class Made(NamedTuple):
    """Masks for some photos, or none."""

    masks: list[Mask | None]
    """None for a photo that has one already, or if there is no object."""
    verdict: str
    """Whether masks were made, and why not."""
    agreement: float
    """Part of the photos that look like the volume."""
    angle: float
    """Degrees between the cameras farthest apart."""


def make_masks(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    cameras: Cameras,
    roi: Roi,
    given: Sequence[Mask | None],
    look: Saliency,
    seconds: float = float("inf"),
) -> Made:
    """Masks of the photos that have none `given`; those that have take part in the votes.

    Args:
        seconds: that it may take, as the first photos show; longer, and none are made.
    """
    nothing: list[Mask | None] = [None] * len(images)
    if len(images) < LEAST_PHOTOS:
        verdict = f"no masks made: {len(images)} photos, {LEAST_PHOTOS} are needed"
        return Made(nothing, verdict, 0.0, 0.0)
    saliencies = _look_at_all(images, given, look, seconds)
    if saliencies is None:
        return Made(nothing, f"no masks made: more than the {seconds:.0f} s there are for it", 0.0, 0.0)
    found = vote(_in_unit_ball(cameras, roi), saliencies)
    agreement, angle = float((found.agreement > ALIKE).mean()), _widest_angle(cameras, roi, found)
    verdict = _verdict(agreement, angle, _at_rim(found))
    if verdict:
        return Made(nothing, f"no masks made: {verdict}", agreement, angle)
    masks = [
        None if mask is not None else certain(saliency, share, image.shape[:2])
        for image, mask, saliency, share in zip(images, given, saliencies, found.silhouettes, strict=True)
    ]
    n_made = sum(mask is not None for mask in masks)
    verdict = f"masks made for {n_made} photos: {agreement:.0%} of them agree on one object"
    return Made(masks, verdict, agreement, angle)


def certain(
    saliency: Float32[np.ndarray, "s s"], share: Float32[np.ndarray, "s s"], shape: tuple[int, int]
) -> Mask:
    """The mask of a photo of `shape` from its own saliency and the share of the others."""
    own, others = _enlarged(saliency, shape), _enlarged(share, shape)
    reach = max(1, round(_BAND * max(shape) / SIZE))
    inside = (own > 0.5) & (others >= _OUTSIDE)
    band = _widened(inside, reach) & _widened(~inside, reach)
    soft = as_given(np.rint(255 * own.clip(1 - _SOFT, _SOFT)).astype(np.uint8))
    mask = np.where(band, soft, np.where(inside, np.uint8(255), np.uint8(0)))
    if iou(own > 0.5, others >= SOLID) <= ALIKE:
        extra = (own > 0.5) & (others < _INSIDE) & (band | inside)
        mask[extra] = PERHAPS_OUTSIDE
        mask[_thick((own <= 0.5) & (others >= _MISSED), reach)] = PERHAPS_INSIDE
    return mask


def _look_at_all(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    given: Sequence[Mask | None],
    look: Callable[[UInt8[np.ndarray, "_ _ 3"]], Float32[np.ndarray, "s s"]],
    seconds: float,
) -> list[Float32[np.ndarray, "s s"]] | None:
    """The saliency of each photo, or its given mask; None as soon as the time is seen not to suffice."""
    began, n_to_do = time.monotonic(), sum(mask is None for mask in given)
    found, n_done = [], 0
    for image, mask in zip(images, given, strict=True):
        if mask is not None:
            found.append(_resized(mask.astype(np.float32) / 255, (SIZE, SIZE)))
            continue
        found.append(look(image))
        n_done += 1
        if n_done >= 3 and (time.monotonic() - began) * n_to_do > seconds * n_done:
            return None
    return found


def _verdict(agreement: float, angle: float, at_rim: float) -> str:
    """Why there is no object that masks could bound; empty if there is one."""
    if agreement < LEAST_AGREEMENT:
        return f"{agreement:.0%} of the photos agree on one object, {LEAST_AGREEMENT:.0%} are needed"
    if angle < LEAST_ANGLE:
        return (
            f"the cameras stand within {angle:.0f} degrees, {LEAST_ANGLE:.0f} are needed to bound an object"
        )
    if at_rim > MOST_AT_RIM:
        return f"{at_rim:.0%} of what they agree on lies at the rim of the region of interest: enlarge it with --roi"
    return ""


def _at_rim(votes: Votes) -> float:
    """Part of the volume that lies where the region ends."""
    solid = votes.volume.centers[votes.volume.shares >= SOLID]
    return float((solid.norm(dim=1) > _RIM).float().mean()) if len(solid) else 0.0


def _widest_angle(cameras: Cameras, roi: Roi, votes: Votes) -> float:
    """Degrees between the two cameras that are farthest apart as the volume's middle sees them; 0 without one."""
    if not len(votes.volume.centers):
        return 0.0
    centers = _in_unit_ball(cameras, roi).centers()
    towards = torch.nn.functional.normalize(centers - votes.volume.centers.mean(0), dim=1)
    return float(torch.rad2deg((towards @ towards.T).min().clamp(-1, 1).arccos()))


def _in_unit_ball(cameras: Cameras, roi: Roi) -> Cameras:
    center = torch.tensor(roi.center, dtype=torch.float64)
    unturned = torch.eye(3, dtype=torch.float64)
    moved = similarity(cameras.to(torch.float64), 1 / roi.radius, unturned, -center / roi.radius)
    return moved.to(torch.float32)


def _enlarged(values: Float32[np.ndarray, "s s"], shape: tuple[int, int]) -> Float32[np.ndarray, "h w"]:
    return cv2.resize(values, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


def _resized(values: Float32[np.ndarray, "h w"], shape: tuple[int, int]) -> Float32[np.ndarray, "s s"]:
    return cv2.resize(values, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)


def _thick(area: Bool[np.ndarray, "h w"], reach: int) -> Bool[np.ndarray, "h w"]:
    """The area without parts that are thinner than twice `reach`, such as rims; the rest with a rim of two pixels."""
    return _widened(~_widened(~area, reach), reach + 2)


def _widened(area: Bool[np.ndarray, "h w"], reach: int) -> Bool[np.ndarray, "h w"]:
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return cv2.dilate(area.astype(np.uint8), disc) > 0
