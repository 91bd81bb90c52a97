"""Shared by all tests: shapes are checked, every back end that is present is tested, captures are found."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jaxtyping import install_import_hook

install_import_hook("quicksurf", "type_checks.checked")

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BACKENDS = ("cpu", "torch", "triton", "double", "cuda")
DATA = Path(os.environ.get("QUICKSURF_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", choices=("all", *BACKENDS), default="all", help="back ends to test")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that takes `backend` once per back end asked for."""
    if "backend" in metafunc.fixturenames:
        wanted = metafunc.config.getoption("--backend")
        names = BACKENDS if wanted == "all" else (wanted,)
        metafunc.parametrize("backend", names, indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Any:
    """A loaded back end. `cuda` alone may be absent, and is then reported as not run; the others come with every
    installation, so that a missing one is a failure."""
    import back_ends  # not before the import hook

    return back_ends.present(request.param)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium, or playwright's own; WebGL is drawn in software."""
    from playwright.sync_api import Error, sync_playwright

    found = next((path for name in CHROMIUMS if (path := shutil.which(name))), None)
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(
                executable_path=found,
                args=["--no-sandbox", "--enable-unsafe-swiftshader", "--use-angle=swiftshader"],
            )
        except Error as error:
            pytest.skip(f"no Chromium here: apt install chromium ({str(error)[:100]})")
        yield started
        started.close()


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The captures that do not belong to the repository; tests that need them are reported as not run without."""
    if not DATA.is_dir():
        pytest.skip(f"no captures in {DATA}: set QUICKSURF_DATA to their folder")
    return DATA
