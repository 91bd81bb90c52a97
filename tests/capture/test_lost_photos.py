"""What is said of photos that are lost: second copies, blur and darkness, each made here on purpose."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import rendered_box
from jaxtyping import UInt8
from scipy.ndimage import gaussian_filter

from quicksurf.capture.photo_figures import explain, find_copies

REASON = "too few matches: it overlaps with no other photo"


def test_copies_are_found_by_what_they_hold_not_by_name_or_size(tmp_path: Path) -> None:
    for name, content in (("a", b"one"), ("b", b"two"), ("c", b"longer"), ("empty", b""), ("void", b"")):
        (tmp_path / name).write_bytes(content)
    shutil.copy(tmp_path / "b", tmp_path / "a copy")
    shutil.copy(tmp_path / "b", tmp_path / "e")
    paths = sorted(tmp_path.iterdir())
    expected = {tmp_path / "a copy": tmp_path / "b", tmp_path / "e": tmp_path / "b"}
    assert find_copies([*paths, tmp_path / "gone"]) == expected


@pytest.fixture(scope="module")
def photos() -> list[UInt8[np.ndarray, "h w 3"]]:
    """Six good ones, one out of focus, one four stops dark, one four stops bright."""
    cameras = rendered_box.arc(9)
    views = [rendered_box.render(cameras, i) for i in range(9)]
    views[6] = gaussian_filter(views[6], (4, 4, 0))
    linear = [(views[index] / 255.0) ** 2.2 for index in (7, 8)]
    views[7], views[8] = (
        255 * (gain * light).clip(0, 1) ** (1 / 2.2) for gain, light in zip((1 / 16, 16), linear, strict=True)
    )
    return [view.clip(0, 255).astype(np.uint8) for view in views]


@pytest.mark.parametrize(
    ("index", "fault"), [(5, ""), (6, "blurred, "), (7, "too dark, 4 stops"), (8, "too bright, ")]
)
def test_a_fault_of_the_photo_is_said_before_what_followed_from_it(
    photos: list[UInt8[np.ndarray, "h w 3"]], index: int, fault: str
) -> None:
    said = explain({index: REASON}, range(5), lambda i: photos[i])[index]
    assert said.startswith(fault) and said.endswith(REASON)
    assert (said == REASON) == (not fault)


def test_nothing_to_measure_against_says_nothing_more() -> None:
    assert explain({0: REASON}, [], lambda i: pytest.fail("looked")) == {0: REASON}
    assert explain({}, [1, 2], lambda i: pytest.fail("looked")) == {}
