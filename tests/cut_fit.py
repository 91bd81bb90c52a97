"""The real fit, cut short: for tests of what comes after it."""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from quicksurf.reconstruction import Reconstruction
from quicksurf.train.loop import fit_scene


def cut_to(limit: float) -> Callable[..., Reconstruction]:
    """The real fit, cut to `limit` processor seconds: a busy machine gives the same surface."""

    def fit(
        *args: Any, seconds_left: Callable[[], float], now: Callable[[], float], **rest: Any
    ) -> Reconstruction:
        assert seconds_left() > 0 and now() > 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("quicksurf.train.loop.time", SimpleNamespace(monotonic=time.process_time))
            return fit_scene(*args, seconds=limit, **rest)

    return fit
