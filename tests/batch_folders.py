"""Folders of captures, and a fit that does what a test says instead of fitting."""

from pathlib import Path

import pytest

from quicksurf.app.batch.task import Task


def never() -> bool:
    return False


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
    return folder


def task_in(folder: Path, minutes: float = 1.0) -> Task:
    return Task("one", folder / "one", folder / "runs" / "one", folder / "logs" / "one.log", minutes)


def replaced_fit(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """Let children run `code` instead of quicksurf: a package of that name before it on their path."""
    (folder / "fake" / "quicksurf").mkdir(parents=True)
    (folder / "fake" / "quicksurf" / "__init__.py").write_text("")
    (folder / "fake" / "quicksurf" / "__main__.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder / "fake"))
