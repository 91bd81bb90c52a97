"""Cameras that parse but cannot be used: no parallax, or a lens model that cannot be inverted."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quicksurf.capture.roi import look
from quicksurf.capture.scene import SparsePoints
from quicksurf.errors import CaptureError
from quicksurf.geometry.cameras import Cameras, distort, fold_radius, undistort

_NO_PARALLAX = 1e-6  # of the distance to the object: at 1000 pixels of focal length a thousandth of a pixel
_SAME_PLACE = 1e-9  # scene units, and of the distance to the origin: rounding of what a file holds
_PROBES = 9  # per axis of the frame
_INVERTIBLE = 1 / 3  # of the frame at least: a fisheye of 220° has half of it beyond 90°
_STRETCH = 10.0  # of angles by a lens; the worst action cameras reach 2 in their corners
_ROUND_TRIP_PIXELS = 0.1
_SHORTEST, _LONGEST = 0.1, 50.0  # focal length by the frame's longer side: a fisheye of 220° has 0.25


def check_parallax(cameras: Cameras, points: SparsePoints | None) -> None:
    """Refuse cameras that all stand at one place: depth cannot be told from them.

    Raises:
        CaptureError: if their centres spread less than a millionth of the distance to what they show.
    """
    cameras = cameras.to(torch.float64)
    centers = cameras.centers()
    middle = centers.median(0).values
    targets = look(cameras).center[None]
    if points is not None and len(points.positions):
        targets = torch.cat([targets, points.positions.to(torch.float64).median(0).values[None]])
    distance = float((targets - middle).norm(dim=1).max())
    spread = float((centers - middle).norm(dim=1).max())
    if spread <= max(_SAME_PLACE, _SAME_PLACE * float(middle.norm()), _NO_PARALLAX * distance):
        raise CaptureError(
            f"no parallax: all {len(cameras)} cameras stand at one place ({_coordinates(middle)}, within "
            f"{spread:.2g}), so depth is unknown; check the translations in the camera file, or walk around the "
            "object instead of turning on the spot"
        )


def check_lenses(cameras: Cameras, names: Sequence[str]) -> None:
    """Refuse lens coefficients that map most of a frame to no direction, or to an absurd one.

    Probes all over the frame are undistorted and distorted again. Where the model is sound they come back from
    within its fold, and their angle off the axis (perspective: its tangent) changes by less than ten times.

    Raises:
        CaptureError: naming the first such camera and its coefficients.
    """
    sound = _invertible(cameras.to(torch.float64)).double().mean(1) >= _INVERTIBLE
    if bool(sound.all()):
        return
    index = int(torch.nonzero(~sound)[0, 0])
    numbers = [*cameras.intrinsics[index].tolist(), *cameras.distortion[index].tolist()]
    names_of = ("fx", "fy", "cx", "cy", "k1", "k2", "k3", "k4", "p1", "p2")
    found = ", ".join(f"{key} = {value:.4g}" for key, value in zip(names_of, numbers, strict=True) if value)
    raise CaptureError(
        f"the lens of {names[index]} cannot be undistorted over most of its frame ({found}): "
        f"{int((~sound).sum())} of {len(cameras)} cameras are like that; calibrate again, or undistort the "
        "images and leave the coefficients out"
    )


def lens_warnings(cameras: Cameras, names: Sequence[str]) -> list[str]:
    """Warn of what no lens is like: a focal length far from the size of the frame, a principal point outside it."""
    sides = cameras.sizes.double()
    focal = cameras.intrinsics[:, :2].double() / sides.amax(1, keepdim=True)
    points = cameras.intrinsics[:, 2:].double()
    odd = {
        "a focal length under a tenth or over 50 times the frame": (
            (focal < _SHORTEST) | (focal > _LONGEST)
        ).any(1),
        "a principal point outside the frame": ((points < 0) | (points > sides)).any(1),
    }
    warnings = []
    for what, which in odd.items():
        for index in torch.nonzero(which)[:1, 0].tolist():
            fx, fy, cx, cy = cameras.intrinsics[index].tolist()
            width, height = cameras.sizes[index].tolist()
            warnings.append(
                f"{int(which.sum())} of {len(cameras)} cameras have {what}, the first {names[index]} (focal lengths "
                f"{fx:.4g} and {fy:.4g}, point {cx:.4g}, {cy:.4g} of {width} x {height} pixels): check the camera file"
            )
    return warnings


def _invertible(cameras: Cameras) -> Bool[Tensor, "n p"]:
    """For each camera, which of its probes survive; see `check_lenses`."""
    line = torch.linspace(0, 1, _PROBES, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    pixels = grid * cameras.sizes[:, None].double()
    bent = (pixels - cameras.intrinsics[:, None, 2:]) / cameras.intrinsics[:, None, :2]
    distortion = cameras.distortion[:, None].expand(-1, len(grid), -1)
    fisheye = cameras.fisheye[:, None].expand(-1, len(grid))
    ideal = undistort(bent, distortion, fisheye)
    errors = (distort(ideal, distortion, fisheye) - bent).norm(dim=-1) * cameras.intrinsics[:, :1]
    before, after = bent.norm(dim=-1), _off_axis(ideal, fisheye)
    similar = (after <= _STRETCH * before) & (before <= _STRETCH * after)
    lenses = zip(cameras.distortion, cameras.fisheye.tolist(), strict=True)
    bound = 1e12  # absurd as it is, and its multiples are finite
    folds = torch.tensor(
        [fold_radius(k.clamp(-bound, bound), fish) for k, fish in lenses], dtype=torch.float64
    )
    return (errors < _ROUND_TRIP_PIXELS) & similar & (ideal.norm(dim=-1) <= folds[:, None])  # NaN is false


def _off_axis(ideal: Float[Tensor, "n p 2"], fisheye: Bool[Tensor, "n p"]) -> Float[Tensor, "n p"]:
    radius = ideal.norm(dim=-1)
    return torch.where(fisheye, torch.atan(radius), radius)


def _coordinates(point: Float[Tensor, "3"]) -> str:
    return ", ".join(f"{value:.4g}" for value in point.tolist())
