"""`--masks` from the command to the run folder, with a network that knows the tiny capture by heart."""

import shutil
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
from cut_fit import cut_to
from PIL import Image
from tiny_capture import write_capture

from quicksurf.app import masks as masks_command
from quicksurf.app import requests
from quicksurf.app.cli import main
from quicksurf.app.fit import run_fit
from quicksurf.app.requests import FitRequest, mask_use
from quicksurf.capture.automatic_masks.network import SIZE
from quicksurf.errors import CaptureError, ConfigError

TINY = str(Path(__file__).with_name("tiny.toml"))
N_PHOTOS, SECONDS = 12, 1.5


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """The tiny capture without its masks, which lie beside it in `true/`."""
    folder = write_capture(tmp_path / "capture")
    shutil.move(folder / "masks", tmp_path / "true")
    return folder


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, capture: Path) -> None:
    """A network that shows each photo of the tiny capture its own mask."""
    photos = [np.asarray(Image.open(path).convert("RGB")) for path in sorted((capture / "images").iterdir())]
    masks = [Image.open(path) for path in sorted((capture.parent / "true").iterdir())]
    maps = [np.asarray(mask.convert("L").resize((SIZE, SIZE)), np.float32) / 255 for mask in masks]

    def look(photo: np.ndarray) -> np.ndarray:
        return maps[min(range(len(photos)), key=lambda i: int(np.abs(photos[i].astype(int) - photo).sum()))]

    for module in (requests, masks_command):
        monkeypatch.setattr(module, "find_network", lambda: Path("model.onnx"))
        monkeypatch.setattr(module, "load_saliency", lambda: look)


def request(capture: Path, **more: Any) -> FitRequest:
    return FitRequest(capture, 1.0, capture.parent / "run", preset=TINY, **more)


@pytest.mark.slow
def test_made_masks_are_kept_and_used_again(network: None, capture: Path) -> None:
    first = run_fit(request(capture, masks="make"), fit=cut_to(SECONDS))
    stated = first.summary["masks"]
    assert (stated["option"], stated["used"], stated["made"]) == ("make", N_PHOTOS, N_PHOTOS)
    assert stated["verdict"].startswith("masks made for 12 photos")
    assert first.reconstruction.masked
    kept = [imageio.imread(path) for path in sorted((first.run.path / "masks").iterdir())]
    assert len(kept) == N_PHOTOS and all(len(np.unique(mask)) > 2 for mask in kept)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(requests, "load_saliency", None)  # would fail if it were called
        again = run_fit(FitRequest(first.run.path, 1.0), fit=cut_to(SECONDS))
    assert again.reconstruction.masked and again.summary["masks"] == stated
    with pytest.raises(ConfigError, match=r"leave out --masks$"):
        run_fit(FitRequest(first.run.path, 1.0, masks="none"), fit=cut_to(SECONDS))


@pytest.mark.slow
def test_a_folder_of_masks_is_used_wherever_it_lies(capture: Path) -> None:
    result = run_fit(request(capture, masks=str(capture.parent / "true")), fit=cut_to(SECONDS))
    assert (result.summary["masks"]["used"], result.summary["masks"]["made"]) == (N_PHOTOS, 0)
    again = run_fit(FitRequest(result.run.path, 1.0), fit=cut_to(SECONDS))
    assert again.summary["masks"]["used"] == N_PHOTOS


@pytest.mark.parametrize(
    ("option", "given"), [(None, True), ("auto", True), ("none", False), ("make", False)]
)
def test_what_the_option_asks_for(network: None, capture: Path, option: str | None, given: bool) -> None:
    use = mask_use(request(capture, masks=option), 180.0)
    assert (use.option, use.use_given, use.folder) == (option or "auto", given, None)
    assert (use.saliency is not None) == (option != "none")
    assert (mask_use(request(capture, masks=option), 60.0).saliency is not None) == (option == "make")


def test_what_cannot_be_had_is_refused_before_the_fit(capture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSURF_SALIENCY_MODEL", str(capture / "no.onnx"))
    with pytest.raises(ConfigError, match="masks cannot be made"):
        run_fit(request(capture, masks="make"), fit=cut_to(SECONDS))
    with pytest.raises(CaptureError, match=r"--masks .*elsewhere: no such folder"):
        run_fit(request(capture, masks=str(capture / "elsewhere")), fit=cut_to(SECONDS))


@pytest.mark.slow
def test_the_command_writes_masks_beside_the_photos_once(network: None, capture: Path, capsys: Any) -> None:
    assert main(["masks", str(capture)]) == 0
    assert "12 masks in" in capsys.readouterr().out
    written = sorted((capture / "masks").glob("*.png"))
    assert [path.stem for path in written] == [f"{index:02d}" for index in range(N_PHOTOS)]
    assert all(set(np.unique(imageio.imread(path))) == {0, 255} for path in written)
    corrected = 255 - imageio.imread(written[0])
    imageio.imwrite(written[0], corrected)
    assert main(["masks", str(capture), "--output", str(capture.parent / "others")]) == 0
    assert len(list((capture.parent / "others").glob("*.png"))) == N_PHOTOS - 1
    assert np.array_equal(imageio.imread(written[0]), corrected)
