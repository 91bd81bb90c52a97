"""Fixtures of every loader's test."""

import pytest
from synthetic_capture import Capture, made_capture

from quicksurf.capture.assemble import ReadOptions


@pytest.fixture
def capture() -> Capture:
    return made_capture()


@pytest.fixture
def options() -> ReadOptions:
    return ReadOptions(max_pixels=10**6, say=lambda line: None)
