"""How to look for camera poses: a pure function of how many photos there are, how large, and of the time.

Estimates rest on single runs on two cores of an AMD EPYC (Zen 4), other work beside, with COLMAP 4.2's SIFT
on the CPU. Features: 0.46 s per megapixel of a textured facade, 1.46 s with the image doubled first (0.32 s on
a plainer object). A pair: 0.4 ms for the coarse look; 7.8 ms to match and 3 ms to verify at 1500 features.
Mapping: 0.2 s per photo. They choose and refuse; what keeps the time is the clock of
`quicksurf.data.sfm_worker`.
"""

from typing import NamedTuple

from quicksurf.errors import BudgetError

_START_SECONDS = 2.0  # a Python process with numpy and pycolmap
_COPY_SECONDS = 0.06  # decoding and writing one photo at feature size
_FEATURE_SECONDS, _UPSAMPLED_SECONDS = 0.46, 1.46  # per megapixel
_COARSE_SECONDS, _VERIFY_SECONDS = 0.0004, 0.003  # per pair
_MATCH_SECONDS = 0.0078  # per pair at 1500 features; grows with their square
_MAP_SECONDS = 0.2  # per photo at 1500 features; about linear in them
_COMFORT = 0.7  # a plan is taken if this fraction of the time suffices: machines and photos differ
_SMALL_MEGAPIXELS = 0.35  # smaller photos give too few features unless doubled first
_GLOBAL_IMAGES = 400  # a guess: at 69 photos global takes 48 s against 13 s; it scales better
_ALL_PAIRS = 40  # photos up to which matching all pairs costs no more than choosing among them


class Effort(NamedTuple):
    """How hard to look."""

    megapixels: float
    n_features: int
    upsample: bool
    n_partners: int


QUICK = Effort(0.4, 800, False, 12)
NORMAL = Effort(0.8, 1500, False, 20)
THOROUGH = Effort(1.5, 3000, False, 30)
EXHAUSTING = Effort(2.0, 4096, True, 40)


class Plan(NamedTuple):
    """What the worker is asked to do."""

    feature_pixels: int
    """Photos are shrunk to this many pixels before features are sought."""
    n_features: int
    upsample: bool
    """Double the image before seeking features: more of them, at three times the cost."""
    n_partners: int
    """Photos each one is matched with; n_images - 1 is all."""
    n_neighbors: int
    """Photos next in order that are matched in any case."""
    use_global: bool
    seconds: float
    """Estimate of the whole."""

    def describe(self, n_images: int) -> str:
        """One line for the user."""
        pairs = (
            "all pairs" if self.n_partners >= n_images - 1 else f"the {self.n_partners} most alike of each"
        )
        mapper = "global" if self.use_global else "incremental"
        return (
            f"finding poses of {n_images} photos: {self.n_features} features at "
            f"{self.feature_pixels / 1e6:.1f} MP, {pairs} matched, {mapper} mapping, "
            f"about {self.seconds:.0f} s"
        )


def plan_poses(n_images: int, megapixels: float, seconds: float, n_threads: int, ordered: bool) -> Plan:
    """Choose the effort that fits into `seconds` with some room.

    Args:
        n_images: photos.
        megapixels: size of a typical one.
        seconds: time there is for poses.
        n_threads: CPUs.
        ordered: neighbours in order overlap, as frames of a video do.

    Raises:
        BudgetError: if even the least effort takes longer than that.
    """
    plans = [_plan(effort, n_images, megapixels, n_threads, ordered) for effort in (NORMAL, QUICK)]
    for plan in plans:
        if plan.seconds <= _COMFORT * seconds:
            return plan
    if plans[-1].seconds <= seconds:
        return plans[-1]
    raise BudgetError(
        f"about {plans[-1].seconds:.0f} s are needed to find the poses of {n_images} photos, "
        f"{max(seconds, 0):.0f} s are left: give more --minutes or fewer photos"
    )


def plan_retry(
    n_images: int, megapixels: float, seconds: float, n_threads: int, ordered: bool
) -> Plan | None:
    """The largest effort that fits into what is left, or None."""
    for effort in (EXHAUSTING, THOROUGH):
        plan = _plan(effort, n_images, megapixels, n_threads, ordered)
        if plan.seconds <= seconds:
            return plan
    return None


def _plan(effort: Effort, n_images: int, megapixels: float, n_threads: int, ordered: bool) -> Plan:
    used = min(effort.megapixels, megapixels)
    upsample = effort.upsample or used < _SMALL_MEGAPIXELS
    n_all = n_images * (n_images - 1) // 2
    exhaustive = n_images <= _ALL_PAIRS
    n_pairs = n_all if exhaustive else min(n_all, int(0.65 * n_images * effort.n_partners))  # most are mutual
    richness = effort.n_features / 1500
    parallel = (
        n_images * used * (_UPSAMPLED_SECONDS if upsample else _FEATURE_SECONDS)
        + n_images * _COPY_SECONDS
        + (0 if exhaustive else n_all * _COARSE_SECONDS)
        + n_pairs * (_MATCH_SECONDS * richness**2 + _VERIFY_SECONDS)
    )
    seconds = _START_SECONDS + parallel * 2 / n_threads + n_images * _MAP_SECONDS * richness
    return Plan(
        feature_pixels=int(effort.megapixels * 1e6),
        n_features=effort.n_features,
        upsample=upsample,
        n_partners=n_images - 1 if exhaustive else effort.n_partners,
        n_neighbors=10 if ordered else 3,
        use_global=n_images > _GLOBAL_IMAGES,
        seconds=seconds,
    )
