"""Choose the effort of structure from motion: a pure function of the photos' number and size, and of the time.

Estimates are wall-clock on two cores (2026-11-30): SIFT of the doubled image 0.37 s a photo of 1.4 megapixels, 12 ms to
match a pair of 8192 features by tiles of AMX (twice that by VNNI, seven times without either), 8 ms to verify it;
mapping and the last bundle adjustment 0.25 s a photo. They choose the effort or refuse; the worker's clock enforces the
time.
"""

from typing import NamedTuple

from quicksurf.errors import BudgetError

_START_SECONDS = 2.5  # a Python process with numpy, OpenCV and pycolmap
_DECODE_SECONDS = 0.01  # per megapixel of the file
_FEATURE_SECONDS = 0.25  # per megapixel of the shrunk photo
# Per pair of 8192 features, by instruction set; grows with their square.
_MATCH_SECONDS = {"amx": 0.012, "vnni": 0.022, "avxvnni": 0.035, "v4": 0.06, "v3": 0.085}
_SLOW_MATCH_SECONDS = 0.17
# Per pair of the coarse pass: a fraction of a pair's matching time, and everything else.
_COARSE_FRACTION, _COARSE_SECONDS = 0.009, 0.0003
_VERIFY_SECONDS = 0.008  # per pair of 8192 features; about linear in them
_MAP_SECONDS = 0.25  # per photo
_JOIN_SECONDS = 0.02  # per photo, of joining matches to points with given cameras
_COMFORT = 0.85  # a plan is taken if this fraction of the time suffices: machines and photos differ
_ALL_PAIRS = 40  # photos up to which matching all pairs costs no more than choosing among them


class Effort(NamedTuple):
    """Size of the search: where time is short, first fewer features of large scale, last smaller photos."""

    megapixels: float
    n_features: int
    n_partners: int


FULL = Effort(1.7, 8192, 24)
LESS = Effort(1.7, 4096, 20)
QUICK = Effort(0.8, 2048, 14)
LEAST = Effort(0.4, 1024, 10)
# For points of given cameras, between full and least.
GIVEN, LESS_GIVEN = Effort(1.0, 4096, 10), Effort(0.6, 3072, 10)


class Plan(NamedTuple):
    """The worker's task."""

    max_pixels: int
    """Photos are shrunk to this many pixels before feature extraction."""
    n_features: int
    n_partners: int
    """Photos each one is matched with; n_images - 1 is all."""
    n_neighbors: int
    """Photos next in order that are matched in any case."""
    seconds: float
    """Estimate of the whole."""

    def describe(self, n_images: int) -> str:
        """Describe the plan in one line for the user."""
        pairs = (
            "all pairs" if self.n_partners >= n_images - 1 else f"the {self.n_partners} most alike of each"
        )
        return (
            f"finding poses of {n_images} photos: up to {self.n_features} features at "
            f"{self.max_pixels / 1e6:.1f} MP, {pairs} matched, about {self.seconds:.0f} s"
        )


def plan_poses(
    n_images: int, megapixels: float, seconds: float, n_threads: int, ordered: bool, instruction_set: str
) -> Plan:
    """Choose the effort that fits into `seconds` with some room.

    Args:
        n_images: photos.
        megapixels: size of a typical one.
        seconds: time there is for poses.
        n_threads: CPUs.
        ordered: neighbours in order overlap, as frames of a video do.
        instruction_set: what the kernels run on.

    Raises:
        BudgetError: if even the least effort takes longer than that.
    """
    match_seconds = _MATCH_SECONDS.get(instruction_set, _SLOW_MATCH_SECONDS)
    plans = [
        _plan(effort, n_images, megapixels, n_threads, ordered, match_seconds)
        for effort in (FULL, LESS, QUICK, LEAST)
    ]
    for plan in plans:
        if plan.seconds <= _COMFORT * seconds:
            return plan
    if plans[-1].seconds <= seconds:
        return plans[-1]
    raise BudgetError(
        f"about {plans[-1].seconds:.0f} s are needed to find the poses of {n_images} photos, "
        f"{max(seconds, 0):.0f} s are left: give more --minutes or fewer photos"
    )


def plan_points(
    n_images: int, megapixels: float, seconds: float, n_threads: int, instruction_set: str
) -> Plan | None:
    """Choose the effort for points where cameras are given: the same features, fewer pairs, nothing to map.

    Args: as for `plan_poses`.

    Returns:
        None if even the least effort takes longer than `seconds`.
    """
    match_seconds = _MATCH_SECONDS.get(instruction_set, _SLOW_MATCH_SECONDS)
    for effort in (FULL, GIVEN, LESS_GIVEN, LEAST):
        n_pairs = min(n_images * (n_images - 1) // 2, n_images * GIVEN.n_partners)
        parallel = _features_seconds(effort, n_images, megapixels)
        parallel += n_pairs * _pair_seconds(effort, match_seconds)
        estimate = parallel * 2 / n_threads + n_images * _JOIN_SECONDS
        if estimate <= _COMFORT * seconds:
            n_pixels = int(effort.megapixels * 1e6)
            return Plan(n_pixels, effort.n_features, GIVEN.n_partners, 0, estimate)
    return None


def _features_seconds(effort: Effort, n_images: int, megapixels: float) -> float:
    used = min(effort.megapixels, megapixels)
    return n_images * (megapixels * _DECODE_SECONDS + used * _FEATURE_SECONDS)


def _pair_seconds(effort: Effort, match_seconds: float) -> float:
    richness = effort.n_features / 8192
    return match_seconds * richness**2 + _VERIFY_SECONDS * richness


def _plan(
    effort: Effort, n_images: int, megapixels: float, n_threads: int, ordered: bool, match_seconds: float
) -> Plan:
    n_all = n_images * (n_images - 1) // 2
    exhaustive = n_images <= _ALL_PAIRS
    n_pairs = n_all if exhaustive else min(n_all, int(0.65 * n_images * effort.n_partners))  # most are mutual
    parallel = (
        _features_seconds(effort, n_images, megapixels)
        + (0 if exhaustive else n_all * (_COARSE_FRACTION * match_seconds + _COARSE_SECONDS))
        + n_pairs * _pair_seconds(effort, match_seconds)
    )
    return Plan(
        max_pixels=int(effort.megapixels * 1e6),
        n_features=effort.n_features,
        n_partners=n_images - 1 if exhaustive else effort.n_partners,
        n_neighbors=10 if ordered else 3,
        seconds=_START_SECONDS + parallel * 2 / n_threads + n_images * _MAP_SECONDS,
    )
