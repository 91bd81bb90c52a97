"""The Python API: points and options of any kind, and a sentence for what cannot be used."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cut_fit import cut_to
from tiny_capture import CENTER, write_capture

import quicksurf
from quicksurf.app.fit import run_fit
from quicksurf.app.requests import FitRequest
from quicksurf.errors import ConfigError, QuicksurfError
from quicksurf.geometry.paths import flight, orbit
from quicksurf.kernels import load as load_backend
from quicksurf.mesh.build import MeshOptions
from quicksurf.model import TrainedModel

TINY = str(Path(__file__).with_name("tiny.toml"))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    folder = tmp_path_factory.mktemp("fitted")
    request = FitRequest(write_capture(folder / "capture"), 20.0, folder / "run", preset=TINY)
    return run_fit(request, fit=cut_to(2.0)).reconstruction


CENTERS: list[Any] = [
    CENTER[None],
    CENTER[None].float(),
    CENTER[None].half(),
    CENTER[None].long(),
    CENTER[None].numpy(),
    CENTER[None].numpy().astype(np.float32),
    CENTER[None].numpy().astype(np.float16),
    CENTER[None].numpy().astype(">f8"),
    CENTER[None].numpy().astype(np.int32),
    [CENTER.tolist()],
    [tuple(CENTER.tolist())],
]


@pytest.mark.parametrize("points", CENTERS, ids=range(len(CENTERS)))
def test_points_may_be_of_any_kind(fitted: TrainedModel, points: Any) -> None:
    found = fitted.occupancy(points)
    assert isinstance(found, torch.Tensor) == isinstance(points, torch.Tensor)
    assert tuple(found.shape) == (1,) and float(found[0]) > 0.5


@pytest.mark.parametrize(
    "points",
    [
        *(
            torch.zeros(3),
            torch.zeros(5, 2),
            torch.zeros(2, 5, 3),
            np.zeros((4, 4)),
            np.zeros(3),
            [[1.0, 2.0]],
        ),
        np.zeros((2, 3), complex),
        np.zeros((2, 3), bool),
        np.array([["a", "b", "c"]]),
        np.array([[None] * 3]),
    ],
    ids=range(10),
)
def test_what_is_no_points_is_said(fitted: TrainedModel, points: Any) -> None:
    with pytest.raises(ConfigError, match="is expected"):
        fitted.occupancy(points)


def test_no_points_and_points_that_are_none(fitted: TrainedModel) -> None:
    assert fitted.occupancy(np.zeros((0, 3))).shape == (0,)
    nan, inf, far = fitted.occupancy(np.array([[np.nan, 0, 0], [np.inf, 0, 0], [1e300, 0, 0]]))
    assert np.isnan(nan) and np.isnan(inf) and not far > 0.5


FITS: list[dict[str, Any]] = [
    *({"source": value} for value in (None, ["a"], 5, "", "a\0b", "x" * 5000, "x" * 300, b"photos")),
    *({"minutes": value} for value in ("5", [1], True, 1j, float("nan"), float("inf"), 0, -1, 10**400)),
    *(
        {"roi": value}
        for value in ("1,2,3,4", [1, 2, 3], [1, 2, 3, "4"], [0, 0, 0, 0], 5, [0, 0, 0, 10**400])
    ),
    *({"trim": value} for value in ("a", 2.0, True)),
    *({"texture": True, "texture_size": value} for value in ("x", 1.5, 3, True)),
    *({"formats": value} for value in (5, ["fbx"], [5], [], None)),
    *({"preset": value} for value in ({}, 5, "draf", b"draft")),
    *({"device": value} for value in (None, 5, "gpu", torch.device("meta"))),
    *({"seed": value} for value in ("1", 1.5, -1, True, 10**30)),
    *({"resolution": value} for value in ("a", 5, 1.5)),
    *({"keep": value} for value in ("all", 5)),
    *({"watertight": value} for value in ("yes", 1)),
    *(
        {"masks": "no such folder"},
        {"masks": False},
        {"resume": 1},
        {"quiet": "x"},
        {"confidence": 0.5},
        {"output": 5},
        {"output": "x" * 300},
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("wrong", FITS, ids=[f"{list(w)[-1]}-{k}" for k, w in enumerate(FITS)])
def test_arguments_that_cannot_be_used_are_said(wrong: dict[str, Any], tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "capture", 6, 16)
    options: dict[str, Any] = {"source": capture, "output": tmp_path / "run", "minutes": 0.2, **wrong}
    with pytest.raises(QuicksurfError) as raised:
        quicksurf.fit(**options)
    assert len(str(raised.value)) < 500


def test_wrong_types_are_python_errors_too() -> None:
    for kind in (TypeError, ValueError):
        with pytest.raises(kind, match="minutes is '5': a number or None is expected"):
            quicksurf.fit("photos", minutes="5")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        quicksurf.fit()  # type: ignore[call-arg]


def test_numpys_numbers_and_torchs_devices_are_taken(fitted: TrainedModel, tmp_path: Path) -> None:
    with pytest.raises(QuicksurfError, match="leave no time"):
        quicksurf.fit(
            write_capture(tmp_path / "capture", 6, 16),
            minutes=np.float32(0.05),  # type: ignore[arg-type]
            roi=np.array([10.0, -20.0, 5.0, 2.5]),  # type: ignore[arg-type]
            seed=np.int64(3),  # type: ignore[arg-type]
            masks="none",
            device=torch.device("cpu"),
            output=tmp_path / "run",
        )


EXPORTS: list[dict[str, Any]] = [
    *({"run": value} for value in (None, 5, "", "x" * 5000)),
    *(
        {"scale_from": value}
        for value in (("a", "b"), ("a", "b", "c"), 5, "markers", ("markers", "x"), ("a", "b", -1))
    ),
    *({"up": value} for value in (5, "down")),
    *({"formats": 5}, {"faces": "x"}, {"faces": 1}, {"device": 3}, {"trim": "a"}, {"texture_size": "x"}),
]


@pytest.mark.parametrize("wrong", EXPORTS, ids=[f"{list(w)[-1]}-{k}" for k, w in enumerate(EXPORTS)])
def test_exports_that_cannot_be_made_are_said(
    wrong: dict[str, Any], fitted: TrainedModel, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"run": tmp_path, "output": tmp_path / "out", **wrong}
    with pytest.raises(QuicksurfError):
        quicksurf.export(**options)
    with pytest.raises(QuicksurfError):
        quicksurf.load(wrong.get("run", 5))


@pytest.mark.parametrize("count", [True, 0, -1, 1.5, "2", None, 10**30])
def test_a_number_of_threads_is_a_whole_number(count: Any) -> None:
    with pytest.raises(ConfigError):
        quicksurf.set_num_threads(count)


def test_paths_of_cameras_need_frames(fitted: TrainedModel) -> None:
    for path in (orbit, flight):
        for n_frames, size in ((0, (8, 8)), (-1, (8, 8)), (1, (0, 8))):
            with pytest.raises(ConfigError, match="1 or more"):
                path(fitted.cameras, *fitted.roi, n_frames, size)
    with pytest.raises(ConfigError, match="no cameras"):
        orbit(fitted.cameras.select(slice(0, 0)), *fitted.roi, 1, (8, 8))


@pytest.mark.parametrize("index", [12, -1])
def test_a_camera_that_is_not_there_is_said(fitted: TrainedModel, index: int) -> None:
    with pytest.raises(ConfigError, match="0 to 11"):
        fitted.render(fitted.cameras, index)


@pytest.mark.parametrize("wrong", [{"resolution": 5}, {"n_faces": 1}, {"resolution": 10**9}])
def test_mesh_options_are_checked(fitted: TrainedModel, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="mesh"):
        fitted.mesh(MeshOptions(**wrong))


def test_networks_take_double_precision_and_say_what_shape_they_want() -> None:
    network = load_backend("cpu").modules.Network(3, 2, {"otype": "FullyFusedMLP", "n_neurons": 16})
    x = torch.rand(5, 3, dtype=torch.float64)
    assert torch.equal(network(x), network(x.float()))
    for wrong in (torch.rand(3), torch.rand(5, 4), torch.rand(2, 5, 3)):
        with pytest.raises(ConfigError, match=r"\[n, 3\] is expected"):
            network(wrong)
