"""What is benchmarked: captures, their options, their minutes, and the figures they should reach."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

OTHER_MESH, OTHER_CAMERAS = "openmvs.ply", "openmvs_cameras.json"
NO_MASKS, MAKE = ("--masks", "none"), ("--masks", "make")
ALL_MINUTES, SCENE_MINUTES = (1.0, 3.0, 10.0), (3.0, 10.0)
ALONE, GIVEN = "photos only, scene", "OpenMVS cameras, scene"
CHAMFER, FSCORE, PSNR, IOU, SECONDS = "chamfer", "fscore", "psnr", "iou", "seconds"
AGREEMENT, MISSED, EVALUATIONS = "agreement", "missed", "evaluations"
_LATE_FRACTION, _LATE_SECONDS = (
    0.05,
    5.0,
)  # a command may be back this much after its minutes, whichever is more


class Target(NamedTuple):
    """A bound on one figure."""

    figure: str
    limit: float
    at_most: bool
    source: str = ""
    """What the limit was taken from, where it is not a number of the table below."""

    def met(self, value: float | None) -> bool:
        """Whether `value` keeps the bound; a figure that could not be measured does not."""
        if value is None:
            return False
        return value <= self.limit if self.at_most else value >= self.limit


def at_most(figure: str, limit: float, source: str = "") -> Target:
    """`figure` ≤ `limit`."""
    return Target(figure, limit, True, source)


def at_least(figure: str, limit: float) -> Target:
    """`figure` ≥ `limit`."""
    return Target(figure, limit, False)


def in_time(minutes: float) -> Target:
    """The command is back within its minutes and 5 %, or 5 s where that is more."""
    return at_most(SECONDS, 60 * minutes + max(_LATE_SECONDS, _LATE_FRACTION * 60 * minutes))


class Against(NamedTuple):
    """How a mesh is compared with another program's of the same photos (quality_bench.against)."""

    given: bool
    """The fit is given the other program's cameras, so that both meshes are in one frame."""
    inside_masks: bool = False
    """Only what lies inside the capture's masks counts, which the fit does not use."""


@dataclass(frozen=True)
class Case:
    """One capture, used in one way."""

    scene: str
    inputs: str
    """What of the capture is used, in words."""
    source: str
    """What `quicksurf fit` is given, relative to the folder of captures; its photos, where cameras are added."""
    options: tuple[str, ...] = ()
    minutes: tuple[float, ...] = ALL_MINUTES
    targets: dict[float, tuple[Target, ...]] = field(default_factory=dict)
    """By minutes."""
    has_truth: bool = False
    """The folder holds roi.json, gt_mesh.ply and gt_points.npz."""
    silhouettes: bool = False
    """Held-out silhouettes are compared with the capture's masks, which the fit does not use."""
    bounded_by_hull: bool = False
    """Masks are used, so the surface must not be worse than what they alone give."""
    against: Against | None = None
    """The folder holds openmvs.ply and openmvs_cameras.json, which the mesh is compared with."""

    @property
    def name(self) -> str:
        """Unique, and fit for a folder's name."""
        return re.sub(r"\W+", "-", f"{self.scene} {self.inputs}")

    def is_in(self, folder: Path) -> bool:
        """Whether the folder of captures has what the case needs."""
        needed = [folder / self.source]
        if self.against is not None:
            needed += [folder / self.scene / name for name in (OTHER_MESH, OTHER_CAMERAS)]
        return all(path.exists() for path in needed)

    def targets_at(self, minutes: float, hull_chamfer: float | None = None) -> tuple[Target, ...]:
        """What a run of so many minutes should reach; minutes that the table lacks only have to be kept."""
        bounds = (*self.targets.get(minutes, ()), in_time(minutes))
        if self.bounded_by_hull and hull_chamfer is not None:
            return (*bounds, at_most(CHAMFER, hull_chamfer, "visual hull"))
        return bounds


def _chamfers(**limits: float) -> dict[float, tuple[Target, ...]]:
    """Limits in percent by minutes: `_chamfers(at_1=0.25)`."""
    return {float(name.removeprefix("at_")): (at_most(CHAMFER, limit),) for name, limit in limits.items()}


def _known(scene: str, **limits: float) -> Case:
    return Case(scene, "no masks", scene, NO_MASKS, targets=_chamfers(**limits), has_truth=True)


def _masked(scene: str, **limits: float) -> Case:
    return Case(scene, "masks", scene, targets=_chamfers(**limits), has_truth=True, bounded_by_hull=True)


def _compared(scene: str, *options: str, psnr: float | None = None, inside_masks: bool = False) -> list[Case]:
    """Photos alone, and with the other program's cameras given; `psnr` is asked for where all targets are."""
    alone, given = {}, {}
    if psnr is not None:
        few = at_most(MISSED, 8)
        alone[10.0] = (at_least(AGREEMENT, 0.85), few, at_least(PSNR, psnr), at_most(EVALUATIONS, 25))
        given[10.0] = (at_least(AGREEMENT, 0.88), few)
    return [
        Case(
            scene,
            inputs,
            f"{scene}/images",
            (*options, "--keep", "scene"),
            SCENE_MINUTES,
            targets,
            against=Against(inputs == GIVEN, inside_masks),
        )
        for inputs, targets in ((ALONE, alone), (GIVEN, given))
    ]


def _made(scene: str, **limits: float) -> Case:
    return Case(scene, "made masks", scene, MAKE, targets=_chamfers(**limits), has_truth=True)


_DEV_A = _known("dev-a", at_1=0.25, at_3=0.10, at_10=0.04)
_DEV_A.targets[10.0] = (*_DEV_A.targets[10.0], at_least(FSCORE, 0.995))

CASES: tuple[Case, ...] = (
    _DEV_A,
    _masked("dev-a", at_3=0.10, at_10=0.03),
    _made("dev-a", at_3=0.10, at_10=0.03),
    _known("dev-b", at_1=0.80, at_3=0.30, at_10=0.12),
    _masked("dev-b", at_3=0.25, at_10=0.10),
    _made("dev-b", at_3=0.09, at_10=0.08),
    _known("dev-c", at_3=0.80, at_10=0.30),
    _masked("dev-c", at_3=0.20, at_10=0.08),
    _made("dev-c", at_3=0.08, at_10=0.06),
    Case(
        "dtu_scan24",
        "no masks",
        "dtu_scan24",
        NO_MASKS,
        targets={10.0: (at_least(PSNR, 27), at_least(IOU, 0.97))},
        silhouettes=True,
    ),
    Case("fox", "poses", "fox", targets={3.0: (at_least(PSNR, 23),), 10.0: (at_least(PSNR, 25),)}),
    Case("temple", "poses", "temple", minutes=(10.0,)),
    # Poses are found within the minutes: fewer would be spent on them alone.
    Case("tankard", "photos only", "tankard/images", NO_MASKS, minutes=(10.0,)),
    Case("herzjesu", "photos only", "herzjesu/images", minutes=(10.0,)),
    *_compared("herzjesu", psnr=24),
    *_compared("castle_p30", psnr=23),
    *_compared("sceaux", psnr=20),
    *_compared("kitchen"),
    *_compared("flowerpot"),
    *_compared("tankard", *NO_MASKS, inside_masks=True),
)


class Selection(NamedTuple):
    """The cases that are asked for."""

    present: list[Case]
    absent: list[Case]
    """Their captures are not in the folder."""


def select(pattern: str, folder: Path, cases: Sequence[Case] = CASES) -> Selection:
    """The cases whose name matches `pattern`, by whether their capture lies in `folder`."""
    wanted = [case for case in cases if re.search(pattern, case.name)]
    present = [case for case in wanted if case.is_in(folder)]
    return Selection(present, [case for case in wanted if case not in present])
