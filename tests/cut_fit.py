"""The real fit, cut short: for tests of what comes after it."""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from quicksurf.model import TrainedModel
from quicksurf.train.loop import fit_scene


def cut_to(limit: float) -> Callable[..., TrainedModel]:
    """The real fit, cut to `limit` processor seconds: a busy machine gives the same surface."""

    def fit(
        *args: Any, seconds_left: Callable[[], float], now: Callable[[], float], **rest: Any
    ) -> TrainedModel:
        assert seconds_left() > 0 and now() > 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("quicksurf.train.loop.time", SimpleNamespace(monotonic=time.process_time))
            return fit_scene(*args, seconds=limit, **rest)

    return fit
