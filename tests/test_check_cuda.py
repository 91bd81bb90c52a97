"""The proof on a GPU: what of it a CPU can check."""

import json
import sys
from pathlib import Path

import back_ends
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "tools"))
import check_cuda

from quicksurf.config import load_config

pytestmark = pytest.mark.slow

CONFIG = load_config(Path(__file__).with_name("tiny.toml"), {})
TINY = check_cuda.Size(n_points=600, n_samples=2048, n_steps=4, n_warm_up=2, n_bytes=1 << 16, gemm=32)


def test_without_a_gpu_it_says_so_and_claims_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    output = tmp_path / "result.json"
    assert check_cuda.main(["--output", str(output)]) == check_cuda.NO_GPU
    assert "no CUDA device" in capsys.readouterr().err
    result = json.loads(output.read_text())
    assert result["run"] is False and "step" not in result and "targets" not in result


def test_everything_but_the_fits_is_measured_and_held_against_targets():
    result = check_cuda.measure(back_ends.present("double"), TINY, CONFIG) | {"fits": []}
    json.dumps(result)
    for name, bound in check_cuda.HALF.items():
        assert result["parity"][name] < bound
    assert result["step"]["samples_per_second"] > 0 and result["step"]["kernel_fraction"] == 0
    assert result["networks"]["forward"]["fraction_of_copy"] > 0
    met = {target["name"]: target["met"] for target in check_cuda.targets(result)}
    assert met["parity of colors"] and not met["fraction of kernels"]
    assert not met["waits for the device a step"]
    assert not met["dev-a, 60 s"]  # not run is not met


@pytest.mark.parametrize(("chamfer", "met"), [(0.19, True), (0.21, False)])
def test_a_fit_is_held_against_its_chamfer(chamfer, met):
    step = {"samples_per_second": 61e6, "kernel_fraction": 0.95, "host_waits": 1.1}
    fits = [{"seconds": 60, "chamfer": chamfer}, {"seconds": 150, "chamfer": 0.1}]
    result = {"parity": dict.fromkeys(check_cuda.HALF, 0.0), "step": step, "fits": fits}
    assert all(target["met"] for target in check_cuda.targets(result)) is met


def test_an_absent_capture_gives_no_fits(tmp_path, capsys):
    assert check_cuda.fits(tmp_path / "none", "cpu", (60,)) == []
    assert "not run" in capsys.readouterr().err
