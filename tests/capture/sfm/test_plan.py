"""The plan fits into the time there is, or is refused; less time never means more work."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicksurf.capture.sfm.plan import FULL, LEAST, Plan, plan_points
from quicksurf.capture.sfm.plan import plan_poses as plan_poses_on
from quicksurf.errors import BudgetError


def plan_poses(
    n_images: int,
    megapixels: float,
    seconds: float,
    n_threads: int,
    ordered: bool,
    instruction_set: str = "vnni",
) -> Plan:
    return plan_poses_on(n_images, megapixels, seconds, n_threads, ordered, instruction_set)


@given(
    n_images=st.integers(3, 2000),
    megapixels=st.floats(0.01, 100),
    seconds=st.floats(0, 3600),
    n_threads=st.integers(1, 64),
    ordered=st.booleans(),
    instruction_set=st.sampled_from(["amx", "v3", "none of those"]),
)
def test_plan_fits_or_is_refused(
    n_images: int, megapixels: float, seconds: float, n_threads: int, ordered: bool, instruction_set: str
) -> None:
    try:
        plan = plan_poses(n_images, megapixels, seconds, n_threads, ordered, instruction_set)
    except BudgetError:
        more = plan_poses(n_images, megapixels, 1e9, n_threads, ordered, instruction_set)
        assert more.seconds > seconds
    else:
        assert plan.seconds <= seconds
        assert plan.n_partners <= n_images - 1


def test_less_time_never_plans_more_work() -> None:
    plans = [plan_poses(60, 2.0, seconds, 2, ordered=False) for seconds in (40, 60, 100, 300)]
    work = [(plan.seconds, plan.n_features, plan.max_pixels, plan.n_partners) for plan in plans]
    assert work == sorted(work)
    assert plans[0].n_features < plans[-1].n_features == FULL.n_features


def test_fewer_features_come_before_smaller_photos() -> None:
    """Of large scale, fewer features place nearly as many photos; what a smaller photo does not show is gone."""
    shrunk = [
        (plan.n_features < FULL.n_features, plan.max_pixels < 1e6 * FULL.megapixels)
        for plan in (plan_poses(60, 2.0, seconds, 2, ordered=False) for seconds in range(40, 300, 5))
    ]
    assert (True, False) in shrunk and (False, True) not in shrunk


def test_few_photos_match_all_pairs_many_choose() -> None:
    assert plan_poses(25, 1.0, 300, 2, ordered=False).n_partners == 24
    assert plan_poses(200, 1.0, 600, 2, ordered=False).n_partners < 40


def test_frames_in_order_get_more_neighbors() -> None:
    ordered, loose = (plan_poses(80, 1.0, 300, 2, ordered=flag) for flag in (True, False))
    assert ordered.n_neighbors > loose.n_neighbors


def test_the_least_effort_may_take_all_the_time() -> None:
    """The others leave room, since machines differ; a poor plan is still better than a refusal."""
    least = next(
        plan.seconds
        for plan in (plan_poses(60, 2.0, float(seconds), 2, ordered=False) for seconds in range(200, 5, -1))
        if plan.n_features == LEAST.n_features
    )
    assert plan_poses(60, 2.0, least, 2, ordered=False).n_features == LEAST.n_features
    with pytest.raises(BudgetError):
        plan_poses(60, 2.0, least - 0.1, 2, ordered=False)


def test_budget_error_names_both_times() -> None:
    with pytest.raises(BudgetError, match=r"about \d+ s .* 50 photos, 3 s are left: give more --minutes"):
        plan_poses(50, 2.0, 3.0, 2, ordered=False)


def test_description_names_what_is_planned() -> None:
    few, many = plan_poses(25, 2.0, 1e4, 2, ordered=False), plan_poses(99, 2.0, 1e4, 2, ordered=False)
    assert "25 photos: up to 8192 features at 1.7 MP, all pairs matched" in few.describe(25)
    assert "the 24 most alike of each matched" in many.describe(99)


def test_slower_kernels_take_longer() -> None:
    seconds = [plan_poses(40, 2.0, 1e4, 2, False, name).seconds for name in ("amx", "vnni", "v4", "v3", "")]
    assert seconds == sorted(set(seconds))


@pytest.mark.parametrize("n_images", [10, 50, 300])
def test_points_for_given_cameras_take_less_than_poses_and_fit_into_the_time(n_images: int) -> None:
    poses = plan_poses(n_images, 1.5, 1e4, 2, False, "vnni")
    whole = plan_points(n_images, 1.5, 1e4, 2, "vnni")
    assert whole is not None and whole.n_features == poses.n_features and whole.seconds < poses.seconds
    seconds = 0.3 * n_images
    plan = plan_points(n_images, 1.5, seconds, 2, "vnni")
    assert plan is not None and plan.seconds <= seconds and plan.max_pixels < whole.max_pixels
    assert plan_points(n_images, 1.5, 0.02 * n_images, 2, "vnni") is None
