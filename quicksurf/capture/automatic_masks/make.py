"""Make masks of photos with cameras: compute saliencies, vote, test whether there is an object, mark what is certain.

A made mask holds 255 on the object and 0 beside it. In a band along its outline it holds the network's saliency, as
coverage between the two: colours there do not count, and the outline lies where the network sees it. In a photo that
differs from the volume, regions that it alone shows or lacks have one of the two values for unknown pixels
(quicksurf.capture.masks): colours do not count there, no outline is drawn, the object may reach into them.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8

from quicksurf.capture.automatic_masks.network import SIZE, Saliency
from quicksurf.capture.automatic_masks.votes import SOLID, Votes, iou, vote
from quicksurf.capture.masks import PERHAPS_INSIDE, PERHAPS_OUTSIDE, as_given
from quicksurf.geometry.cameras import Cameras
from quicksurf.geometry.region import Roi, cameras_in_roi

Mask = UInt8[np.ndarray, "_ _"]

LEAST_PHOTOS = 8
# Fraction of the photos that must agree with the volume, with this IoU: objects before any background have 0.88 and
# more, a wrongly posed one 0.57, model houses, walls, rooms and facades 0.39 and less.
LEAST_AGREEMENT, ALIKE = 0.75, 0.7
# Degrees between the two cameras farthest apart, seen from the volume: facades, which are salient as a whole and look
# like one thing, were photographed from 61°, objects from 146° and more.
LEAST_ANGLE = 100.0
_INSIDE, _OUTSIDE = 0.9, 0.8  # scores that make the object, and the background, certain
_MISSED = 0.93  # score from which a photo may have missed what it shows as background
_BAND = 1.3  # pixels of the network on both sides of an outline: nine in ten outlines are nearer
_SOFT = 0.9  # coverage in the band is at most this, and at least 1 less this
# Fraction of the volume that may lie at the region's rim; more means that it was cut off there (0.03 to 0.35 where it
# was, 0.001 and less elsewhere).
MOST_AT_RIM = 0.01
_RIM = 0.93  # of the region's radius


class Made(NamedTuple):
    """Masks for some photos, or none."""

    masks: list[Mask | None]
    """None for a photo that has one already, or if there is no object."""
    verdict: str
    """Whether masks were made, and why not."""
    agreement: float
    """Fraction of the photos that agree with the volume."""
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
    """Make masks of the photos that have none `given`; those that have take part in the votes.

    Args:
        seconds: none are made if it would take longer, as the first photos show.
    """
    nothing: list[Mask | None] = [None] * len(images)
    if len(images) < LEAST_PHOTOS:
        verdict = f"no masks made: {len(images)} photos, {LEAST_PHOTOS} are needed"
        return Made(nothing, verdict, 0.0, 0.0)
    saliencies = _saliencies(images, given, look, seconds)
    if saliencies is None:
        return Made(
            nothing, f"no masks made: they would take more than the {seconds:.0f} s available", 0.0, 0.0
        )
    moved = cameras_in_roi(cameras, roi)
    found = vote(moved, saliencies)
    agreement, angle = float((found.agreement > ALIKE).mean()), _widest_angle(moved, found)
    verdict = _verdict(agreement, angle, found)
    if verdict:
        return Made(nothing, f"no masks made: {verdict}", agreement, angle)
    masks = [
        None if mask is not None else certain(saliency, score, image.shape[:2])
        for image, mask, saliency, score in zip(images, given, saliencies, found.silhouettes, strict=True)
    ]
    n_made = sum(mask is not None for mask in masks)
    verdict = f"masks made for {n_made} photos: {agreement:.0%} of them agree on one object"
    return Made(masks, verdict, agreement, angle)


def certain(
    saliency: Float32[np.ndarray, "s s"], score: Float32[np.ndarray, "s s"], shape: tuple[int, int]
) -> Mask:
    """Combine a photo's own saliency and the score of the others into its mask of `shape`."""
    own, others = (cv2.resize(item, shape[::-1], interpolation=cv2.INTER_CUBIC) for item in (saliency, score))
    reach = max(1, round(_BAND * max(shape) / SIZE))
    inside = (own > 0.5) & (others >= _OUTSIDE)
    band = _widened(inside, reach) & _widened(~inside, reach)
    soft = as_given(np.rint(255 * own.clip(1 - _SOFT, _SOFT)).astype(np.uint8))
    mask = np.where(band, soft, np.where(inside, np.uint8(255), np.uint8(0)))
    if iou(own > 0.5, others >= SOLID) <= ALIKE:
        extra = (own > 0.5) & (others < _INSIDE) & (band | inside)
        mask[extra] = PERHAPS_OUTSIDE
        missed = (own <= 0.5) & (others >= _MISSED)
        # without parts thinner than twice `reach`, such as rims
        thick = _widened(~_widened(~missed, reach), reach + 2)
        mask[thick] = PERHAPS_INSIDE
    return mask


def _saliencies(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    given: Sequence[Mask | None],
    look: Saliency,
    seconds: float,
) -> list[Float32[np.ndarray, "s s"]] | None:
    """The saliency of each photo, or its given mask; None as soon as the time will not suffice."""
    began, n_to_do = time.monotonic(), sum(mask is None for mask in given)
    found, n_done = [], 0
    for image, mask in zip(images, given, strict=True):
        if mask is not None:
            small = cv2.resize(mask.astype(np.float32) / 255, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
            found.append(small)
            continue
        found.append(look(image))
        n_done += 1
        if n_done >= 3 and (time.monotonic() - began) * n_to_do > seconds * n_done:
            return None
    return found


def _verdict(agreement: float, angle: float, votes: Votes) -> str:
    """Why there is no object that masks could bound; empty if there is one."""
    solid = votes.volume.centers[votes.volume.scores >= SOLID]
    at_rim = float((solid.norm(dim=1) > _RIM).float().mean()) if len(solid) else 0.0
    if agreement < LEAST_AGREEMENT:
        return f"{agreement:.0%} of the photos agree on one object, {LEAST_AGREEMENT:.0%} are needed"
    if angle < LEAST_ANGLE:
        return (
            f"the cameras stand within {angle:.0f} degrees, {LEAST_ANGLE:.0f} are needed to bound an object"
        )
    if at_rim > MOST_AT_RIM:
        return f"{at_rim:.0%} of what they agree on lies at the rim of the region of interest: enlarge it with --roi"
    return ""


def _widest_angle(cameras: Cameras, votes: Votes) -> float:
    """Degrees between the two cameras farthest apart, seen from the middle of the volume; 0 without one."""
    if not len(votes.volume.centers):
        return 0.0
    towards = torch.nn.functional.normalize(cameras.centers() - votes.volume.centers.mean(0), dim=1)
    return float(torch.rad2deg((towards @ towards.T).min().clamp(-1, 1).arccos()))


def _widened(area: Bool[np.ndarray, "h w"], reach: int) -> Bool[np.ndarray, "h w"]:
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return cv2.dilate(area.astype(np.uint8), disc) > 0
