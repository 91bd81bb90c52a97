"""The proof of the cuda back end in one command, on a machine with an NVIDIA GPU, in under eight minutes.

    QUICKSURF_DATA=captures python tools/check_cuda.py [--output check_cuda.json] [--no-fits]

Parity with `cpu` on one step, speeds of networks and of a step with their fraction of limits measured beside them (copy
bandwidth, half-precision matrix rate), and fits of dev-a for 60 and 150 s. It uses the tinycudann that can be imported,
else what the back end falls back to, and says which; it installs and builds nothing. Leaves with 0 if all targets are
met, 1 if not, 3 where there is no GPU, and writes one JSON with everything in each case.
"""

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from kernel_bench.scene import painted_ellipsoid
from quality_bench.truth import load_truth, score

from quicksurf import kernels
from quicksurf.app.evaluate import mesh_of
from quicksurf.app.run.folder import open_run
from quicksurf.config import Config, with_settings
from quicksurf.fields.surface import SurfaceField
from quicksurf.kernels import Backend
from quicksurf.mesh.export import read_mesh
from quicksurf.train.loop import Trainer

MET, MISSED, NO_GPU = 0, 1, 3
HALF = {"logits": 5e-3, "colors": 1e-2, "gradients": 5e-2}  # relative L2: half precision through three layers
SAMPLES_PER_SECOND, KERNEL_FRACTION = 60e6, 0.9
HOST_WAITS = 1.2  # a step: one, and three more each 32nd step (tests/test_device.py)
CHAMFER = {60: 0.20, 150: 0.12}  # percent of the diagonal, by seconds
_MIDDLE = 0.5  # of a fit: all levels are active, the query noise is gone
_DATA = Path(os.environ.get("QUICKSURF_DATA", Path(__file__).parents[2] / "shared" / "data"))


class Size(NamedTuple):
    """How much is measured."""

    n_points: int = 1 << 18
    n_samples: int = 1 << 18
    n_steps: int = 64
    n_warm_up: int = 128
    """Steps before; the occupancy grid probes every cell in the first 96."""
    n_bytes: int = 1 << 30
    gemm: int = 8192


def main(arguments: list[str]) -> int:
    """Measure, write the JSON, and say which targets are met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("check_cuda.json"))
    parser.add_argument("--no-fits", action="store_true", help="leave out the fits: under a minute")
    options = parser.parse_args(arguments)
    result: dict[str, Any] = {"run": False, "machine": machine()}
    code = NO_GPU
    if torch.cuda.is_available():
        result |= {"run": True} | measure(kernels.load("cuda"), Size(), Config())
        result["fits"] = [] if options.no_fits else fits(_DATA / "dev-a", "cuda", tuple(CHAMFER))
        result["targets"] = targets(result)
        code = MET if all(target["met"] for target in result["targets"]) else MISSED
    else:
        print("no CUDA device: nothing was measured", file=sys.stderr)
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for target in result.get("targets", []):
        print(
            f"{'met   ' if target['met'] else 'MISSED'} {target['name']}: {target['found']:.4g} ({target['wanted']})"
        )
    return code


def machine() -> dict[str, Any]:
    """What it runs on, and which of the optional parts can be imported here."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    found = {name: importlib.util.find_spec(name) is not None for name in ("tinycudann", "nerfacc", "triton")}
    return {
        "gpu": gpu,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
    } | found


def measure(backend: Backend, size: Size, config: Config) -> dict[str, Any]:
    """Everything but the fits, on any back end."""
    limits = measure_limits(backend.device, size)
    return {
        "engine": backend.reason,
        "limits": limits,
        "parity": parity(backend, config, size.n_points),
        "networks": network_speeds(backend, config, size.n_points, limits),
        "step": step_speed(backend, config, size),
    }


def measure_limits(device: torch.device, size: Size) -> dict[str, float]:
    """Bytes read and written a second by a copy, and operations a second of a product in half precision."""
    source = torch.zeros(size.n_bytes // 4, device=device)
    target = torch.empty_like(source)
    copy = timed(device, lambda: target.copy_(source))
    a = torch.ones(size.gemm, size.gemm, device=device, dtype=torch.bfloat16)
    product = timed(device, lambda: a @ a)
    return {
        "copy_bytes_per_second": 2 * size.n_bytes / copy,
        "matrix_flops_per_second": 2 * size.gemm**3 / product,
    }


def parity(backend: Backend, config: Config, n_points: int) -> dict[str, float]:
    """Relative L2 between `backend` and `cpu`: logits, colours and gradients of the parameters of one field."""
    generator = torch.Generator().manual_seed(0)
    points, *others = 2 * torch.rand(3, n_points, 3, generator=generator) - 1
    directions, normals = (torch.nn.functional.normalize(other, dim=-1) for other in others)
    results = []
    for engine in (kernels.load("cpu"), backend):
        field = SurfaceField(config.model, engine, seed=0)
        field.geometry.network.params.data[field.geometry.network.layout.n_network_params :] *= (
            1000  # tables that count
        )
        here, *along = (x.to(engine.device) for x in (points, directions, normals))
        logits, features = field.geometry.query(here)
        colors = field.color(here, features, *along)
        (logits.mean() + colors.square().mean()).backward()
        grads = [network.params.grad for network in (field.geometry.network, field.color.network)]
        gradients = torch.cat([grad.cpu() for grad in grads if grad is not None])
        results.append((logits.detach().cpu(), colors.detach().cpu(), gradients))
    names = ("logits", "colors", "gradients")
    return {
        name: float((found - expected).norm() / expected.norm())
        for name, expected, found in zip(names, *results, strict=True)
    }


def network_speeds(
    backend: Backend, config: Config, n_points: int, limits: dict[str, float]
) -> dict[str, Any]:
    """Points a second of the geometry network, and the fractions of the limits that its work would need.

    Bytes: 8 entries of each level, in half precision, written once more as gradients. Operations: 2 a weight and point,
    three times with gradients.
    """
    field = SurfaceField(config.model, backend, seed=0)
    layout = field.geometry.network.layout
    x = torch.rand(n_points, layout.n_input, device=backend.device)
    n_entries = sum(8 * len(part.levels) * part.n_features for part in layout.parts)

    def forward() -> None:
        with torch.no_grad():
            field.geometry.network(x)

    def both() -> None:
        field.geometry.network.params.grad = None
        field.geometry.network(x).sum().backward()

    result = {}
    for name, call, passes in (("forward", forward, 1), ("forward_backward", both, 3)):
        rate = n_points / timed(backend.device, call)
        result[name] = {
            "points_per_second": rate,
            "fraction_of_copy": rate * 2 * n_entries * passes / limits["copy_bytes_per_second"],
            "fraction_of_matrix_rate": rate
            * 2
            * layout.n_network_params
            * passes
            / limits["matrix_flops_per_second"],
        }
    return result


def step_speed(backend: Backend, config: Config, size: Size) -> dict[str, float]:
    """Samples and rays a second of training steps in the middle of a fit, and the fraction of kernels in their time."""
    config = with_settings(config, {"train.n_samples": size.n_samples})
    trainer = Trainer(painted_ellipsoid(), config, replace(backend, batch_multiplier=1), None)
    for step in range(size.n_warm_up):
        trainer.step(_MIDDLE * step / size.n_warm_up)
    synchronize(backend.device)
    began = time.perf_counter()
    renderings = [trainer.step(_MIDDLE)[0] for _ in range(size.n_steps)]
    synchronize(backend.device)
    seconds = time.perf_counter() - began
    n_samples = sum(rendering.n_samples for rendering in renderings)
    return {
        "samples": n_samples / size.n_steps,
        "samples_per_second": n_samples / seconds,
        "rays_per_second": sum(len(rendering.colors) for rendering in renderings) / seconds,
        "milliseconds": 1e3 * seconds / size.n_steps,
        "host_waits": host_waits(backend.device, lambda: trainer.step(_MIDDLE), size.n_steps),
        "kernel_fraction": kernel_fraction(backend.device, lambda: trainer.step(_MIDDLE), size.n_steps // 4),
    }


def kernel_fraction(device: torch.device, call: Callable[[], object], n: int) -> float:
    """Seconds of kernels over seconds of the clock, by torch's profiler; 0 where the device has none."""
    if device.type != "cuda":
        return 0.0
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        began = time.perf_counter()
        for _ in range(n):
            call()
        synchronize(device)
        seconds = time.perf_counter() - began
    return sum(event.self_device_time_total for event in profile.key_averages()) * 1e-6 / seconds


def host_waits(device: torch.device, call: Callable[[], object], n: int) -> float:
    """Operations of a call, on the mean of `n`, that make the host wait, by torch's own count; unknown without CUDA."""
    if device.type != "cuda":
        return float("inf")
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(n):
                call()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in caught) / n


def fits(source: Path, device: str, seconds: tuple[int, ...]) -> list[dict[str, Any]]:
    """Fits by the public command, without masks, scored against the true surface; none where the capture is absent."""
    if not source.is_dir():
        print(f"no capture in {source}: set QUICKSURF_DATA; the fits are not run", file=sys.stderr)
        return []
    return [_fit(source, device, budget) for budget in seconds]


def _fit(source: Path, device: str, seconds: int) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        words = ["fit", str(source), "--masks", "none", "--minutes", str(seconds / 60), "--device", device]
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "quicksurf", *words, "--output", str(run), "--quiet"])
        row: dict[str, Any] = {"seconds": seconds, "back_after": time.perf_counter() - began}
        if done.returncode:
            return row | {"exit_code": done.returncode}
        mesh = read_mesh(mesh_of(open_run(run)))
        return row | {"exit_code": 0} | score(mesh.vertices, mesh.faces, load_truth(source))


def targets(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures that are asked for beside those found; what was not measured is not met."""
    parity_, step = result["parity"], result["step"]
    rows = [_at_most(f"parity of {name}", parity_[name], bound) for name, bound in HALF.items()]
    rows.append(_at_least("samples a second", step["samples_per_second"], SAMPLES_PER_SECOND))
    rows.append(_at_most("waits for the device a step", step["host_waits"], HOST_WAITS))
    rows.append(_at_least("fraction of kernels", step["kernel_fraction"], KERNEL_FRACTION))
    chamfers = {fit["seconds"]: fit.get("chamfer", float("inf")) for fit in result["fits"]}
    return rows + [
        _at_most(f"dev-a, {s} s", chamfers.get(s, float("inf")), bound) for s, bound in CHAMFER.items()
    ]


def _at_most(name: str, found: float, bound: float) -> dict[str, Any]:
    return {"name": name, "found": found, "wanted": f"at most {bound:g}", "met": found <= bound}


def _at_least(name: str, found: float, bound: float) -> dict[str, Any]:
    return {"name": name, "found": found, "wanted": f"at least {bound:g}", "met": found >= bound}


def timed(device: torch.device, call: Callable[[], object], repeats: int = 7) -> float:
    """Seconds of a call: the median, after two that pay for set-up."""
    times = []
    for index in range(repeats + 2):
        synchronize(device)
        began = time.perf_counter()
        call()
        synchronize(device)
        times += [time.perf_counter() - began] if index >= 2 else []
    return sorted(times)[len(times) // 2]


def synchronize(device: torch.device) -> None:
    """Wait for what the device was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
