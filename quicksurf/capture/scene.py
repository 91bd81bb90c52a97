"""What every loader returns, whatever the capture looked like on disk."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from quicksurf.geometry.cameras import Cameras
from quicksurf.geometry.region import Roi

Kind = Literal["around", "facade", "inside"]
"""Of a capture: photos around an object, of one side of something, or outward from within what they show."""


class SparsePoints(NamedTuple):
    """Triangulated points, of structure from motion or of given cameras, in the frame of the cameras."""

    positions: Float[Tensor, "n 3"]
    colors: UInt8[Tensor, "n 3"]
    observations: Int[Tensor, "m 2"]
    """Pairs (point index, image index): image indices are those of `Scene.images`."""


class DensePoints(NamedTuple):
    """Points that stereo found and other photos confirm, each as one photo sees it, in the frame of the cameras."""

    positions: Float[Tensor, "n 3"]
    views: Int[Tensor, "n"]
    pixels: Float[Tensor, "n"]
    """Size of a pixel of the stereo at the point."""
    spreads: Float[Tensor, "n"]
    """Change of its depth that moves it by a pixel in the photo that confirms it best."""


class PhotoFile(NamedTuple):
    """Where a photo lies, to be read again at another size."""

    path: Path
    upright: bool
    """Its camera refers to pixels after EXIF's orientation."""


class MadeMasks(NamedTuple):
    """What became of making masks for the photos that have none."""

    verdict: str = ""
    """Whether they were made, and why not; empty where none were to be made."""
    photos: Sequence[str] = ()
    """File names of the photos whose masks were made."""
    agreement: float = 0.0
    """Part of the photos that agree on one object."""
    angle: float = 0.0
    """Degrees between the two cameras farthest apart, as the object sees them."""

    def record(self) -> dict[str, int | float | str]:
        """Return what goes into run.json and summary.json."""
        agreement, angle = round(self.agreement, 3), round(self.angle, 1)
        return {"made": len(self.photos), "verdict": self.verdict, "agreement": agreement, "angle": angle}


@dataclass
class ReadReport:
    """What reading the capture found: shown to the user and kept in summary.json."""

    photos: int = 0
    """Images found on disk."""
    lost: dict[str, str] = field(default_factory=dict)
    """File name of each image that is not used → why."""
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Those warnings that say the poses may be wrong or are of too few photos."""
    apart: list[list[str]] = field(default_factory=list)
    """Photos of each group that could not be joined to the placed ones."""
    contradicting: list[str] = field(default_factory=list)
    """Placed photos that share with the others hardly anything of what their poses say they should."""
    notes: list[str] = field(default_factory=list)
    """What was taken for what, where that is not plain: which model, which folder."""
    made_masks: MadeMasks = field(default_factory=MadeMasks)
    found: str = ""
    """What lies in the capture's folder, and what it was taken for."""
    used: str = ""
    """How many photos are used, and what was left out and why."""
    reprojection_error: float | None = None
    """Pixels, on the mean, of the photos as structure from motion looked at them."""
    seconds_read: float = 0.0
    seconds_poses: float = 0.0
    seconds_points: float = 0.0
    """Seconds of reading in which points were found for given cameras."""

    def poses(self) -> dict[str, list | float | None]:
        """Tell what speaks against poses that were found from the photos, for run.json and summary.json."""
        return {
            "problems": self.problems,
            "apart": self.apart,
            "contradicting": self.contradicting,
            "reprojection_error": self.reprojection_error,
        }


@dataclass(frozen=True)
class Scene:
    """A capture ready to fit. Images are 8-bit sRGB, upright as their camera says, of any mix of sizes.

    `images[i]`, `masks[i]`, `names[i]`, `held_out[i]` and camera i belong together. A mask is 255 on the
    object, 0 beside it, and between them where its outline crosses the pixel.
    """

    name: str
    source: Path
    cameras: Cameras
    images: list[UInt8[np.ndarray, "_ _ 3"]]
    masks: list[UInt8[np.ndarray, "_ _"] | None]
    names: list[str]
    """Path of each image relative to the capture's folder, with forward slashes."""
    held_out: Bool[np.ndarray, "n"]
    """Views kept from the fit and used to measure it."""
    roi: Roi
    points: SparsePoints | None
    report: ReadReport
    files: list[PhotoFile] = field(default_factory=list)
    """The file of each image."""
    kind: Kind = "around"
    dense: DensePoints | None = None
