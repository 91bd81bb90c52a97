"""Numbers of any file are bounded in one place: what JSON and npz allow never reaches the arithmetic."""

import numpy as np
import pytest

from quicksurf import untrusted
from quicksurf.errors import CaptureError

HOSTILE = [10**401, -(10**401), 2**70, 1e308, -1e200, float("nan"), float("inf"), True, "7", None, [1]]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: str(value)[:9])
def test_what_is_no_plain_number_is_refused_in_short(value):
    for read in (untrusted.number, untrusted.side):
        with pytest.raises(CaptureError, match=r"frame 3: fl_x must be a finite number") as caught:
            read(value, "frame 3: fl_x")
        assert len(str(caught.value)) < 200
    row = [1.0, 2.0, value]
    with pytest.raises(CaptureError, match=r"pose: an entry must be a finite number|pose must be 3 x 3"):
        untrusted.matrix([row, row, row], ((3, 3),), "pose")


@pytest.mark.parametrize("value", [0, 1, -3, 4600000.25, 1e11, np.float32(0.5), np.int64(7), 10**12])
def test_plain_numbers_pass(value):
    assert untrusted.number(value, "x") == float(value)


@pytest.mark.parametrize("value", [0, -5, 0.4, 10**30, 1e9])
def test_sizes_are_those_of_images(value):
    with pytest.raises(CaptureError, match="w must be"):
        untrusted.side(value, "w")
    assert untrusted.side(47.6, "w") == 48


@pytest.mark.parametrize(
    "value", [[[1, 2], [3]], [[1, 2, 3]], "identity", 7, None, np.array([["a", "b"]] * 2)]
)
def test_a_matrix_of_another_shape_is_refused(value):
    with pytest.raises(CaptureError, match="pose must be 2 x 2 numbers"):
        untrusted.matrix(value, ((2, 2),), "pose")
