"""Triton's kernels where there is no GPU: their contract under the interpreter, and whether they compile for one."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton_double

from quicksurf import kernels
from quicksurf.kernels.gpu import choose as gpu

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="triton is not installed: it comes with the test extra on Linux",
)


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a fresh process: Triton reads its variables when it is first imported."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment | variables,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_the_contract_holds_under_the_interpreter() -> None:
    contract = str(FOLDER / "triton_contract.py")
    done = python("-m", "pytest", "-p", "no:cacheprovider", contract, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "passed" in done.stdout and "skipped" not in done.stdout


@pytest.mark.slow
def test_kernels_compile_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    done = python(str(FOLDER / "triton_builds.py"), "80", TRITON_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {row.pop("kernel"): row for row in map(json.loads, done.stdout.splitlines())}
    assert len(rows) == 11 and all(row["bytes"] > 0 for row in rows.values())
    assert {name for name, row in rows.items() if row["tensor_cores"]} == {
        "network_forward",
        "network_backward",
    }
    assert {name for name, row in rows.items() if row["atomics"]} == {
        "encode_grid_backward",
        "encode_grid_backward_input",
    }


def test_whatever_triton_raises_is_a_reason_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its errors have no base in common with others': a compiler that knows no such GPU must not end a fit."""
    from triton.errors import TritonError

    from quicksurf.kernels.gpu import networks as triton_networks
    from quicksurf.kernels.gpu import unisurf as triton_unisurf

    def refuse(*_: object) -> None:
        raise TritonError("no such GPU")

    monkeypatch.setattr(triton_networks, "run_network", refuse)
    monkeypatch.setattr(triton_unisurf, "sample_surface", refuse)
    for engine in (gpu.networks, gpu.rays):
        with pytest.raises(kernels.BackendError, match=r"Triton does not work .*no such GPU.*--device cpu"):
            engine(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(gpu, "networks", lambda device: (refuse, "networks by a double"))
    backend = kernels.load("auto")
    assert backend.name == "cpu" and "there is a GPU, but Triton does not work" in backend.reason
    with pytest.raises(kernels.BackendError, match="Triton does not work"):
        kernels.load("cuda")


def test_rays_that_end_elsewhere_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.try_out_rays(triton_double, triton_double, torch.device("cpu"))
    monkeypatch.setattr(triton_double, "adam_step", lambda *_, **__: None)
    with pytest.raises(RuntimeError, match="elsewhere"):
        gpu.try_out_rays(triton_double, triton_double, torch.device("cpu"))
