"""nerfacc's occupancy estimator and rendering on CPU tensors, unchanged; how quicksurf steps in for `_C`."""

import subprocess
import sys
from pathlib import Path

import nerfacc
import pytest
import scans_twin
import torch
from nerfacc_rays import rays
from tolerances import SCAN32, relative
from torch import Tensor

import quicksurf
from quicksurf.errors import BackendError
from quicksurf.kernels import nerfacc as nerfacc_cpu


@pytest.fixture(autouse=True)
def installed():
    nerfacc_cpu.install()


def sphere_estimator(levels: int) -> nerfacc.OccGridEstimator:
    """Trained by nerfacc's own rule on the unit ball's shell of radius 0.8."""
    torch.manual_seed(0)
    estimator = nerfacc.OccGridEstimator([-1.0, -1, -1, 1, 1, 1], resolution=24, levels=levels)
    estimator.train()
    for step in range(0, 320, 16):
        estimator.update_every_n_steps(
            step, lambda x: ((x.norm(dim=-1, keepdim=True) - 0.8).abs() < 0.1).float(), occ_thre=0.01
        )
    return estimator


def occupied_at(estimator: nerfacc.OccGridEstimator, points: Tensor) -> Tensor:
    """Whether points lie in an occupied cell of the smallest grid that holds them."""
    result, decided = torch.zeros(2, len(points), dtype=torch.bool)
    for aabb, binaries in zip(estimator.aabbs, estimator.binaries, strict=True):
        unit = (points - aabb[:3]) / (aabb[3:] - aabb[:3])
        inside = ((unit > 0) & (unit < 1)).all(-1) & ~decided
        cells = (unit[inside] * estimator.resolution).long()
        result[inside], decided = binaries[tuple(cells.T)], decided | inside
    return result


@pytest.mark.parametrize("levels", [1, 3])
def test_an_estimator_trained_on_a_sphere_samples_its_shell(levels):
    estimator, (origins, directions) = sphere_estimator(levels), rays(200)
    ray_indices, t_starts, t_ends = estimator.sampling(
        origins, directions, render_step_size=0.02, far_plane=12.0
    )
    points = origins[ray_indices] + ((t_starts + t_ends) / 2)[:, None] * directions[ray_indices]
    radius = points.norm(dim=-1)
    assert len(points) > 1000 and occupied_at(estimator, points).float().mean() > 0.999
    assert bool(((radius - 0.8).abs() < 0.1 + 2 * 3**0.5 / 24).all())
    # Brute force: every step of the lattice from t = 0, kept where its middle is occupied.
    lattice = (torch.arange(600) + 0.5) * 0.02
    everywhere = (origins[:, None] + lattice[:, None] * directions[:, None]).reshape(-1, 3)
    expected = occupied_at(estimator, everywhere).reshape(200, 600)
    found = torch.zeros_like(expected)
    found[ray_indices, (t_starts / 0.02).round().long()] = True
    assert (found != expected).sum() <= 0.005 * expected.sum()


@pytest.mark.parametrize("levels", [1, 3])
def test_sampling_leaves_out_what_is_hidden_or_transparent(levels):
    estimator, (origins, directions) = sphere_estimator(levels), rays(50)

    def alpha_fn(t_starts: Tensor, t_ends: Tensor, ray_indices: Tensor) -> Tensor:
        points = origins[ray_indices] + ((t_starts + t_ends) / 2)[:, None] * directions[ray_indices]
        return torch.where(points.norm(dim=-1) < 0.8, 1.0, 0.0)

    def sigma_fn(t_starts: Tensor, t_ends: Tensor, ray_indices: Tensor) -> Tensor:
        return alpha_fn(t_starts, t_ends, ray_indices) * 1e4

    options = {"render_step_size": 0.02, "far_plane": 12.0}
    everything = estimator.sampling(origins, directions, **options)
    alphas = alpha_fn(*everything[1:], everything[0])
    hit_before = torch.zeros(50, dtype=torch.bool)
    kept = []
    for ray, alpha in zip(everything[0].tolist(), alphas.tolist(), strict=True):
        kept.append(not hit_before[ray])
        hit_before[ray] |= alpha == 1
    kept = torch.tensor(kept)
    for functions in ({"alpha_fn": alpha_fn}, {"sigma_fn": sigma_fn}):
        found = estimator.sampling(origins, directions, **options, **functions)
        assert all(torch.equal(a, b[kept]) for a, b in zip(found, everything, strict=True))
        opaque = estimator.sampling(origins, directions, **options, **functions, alpha_thre=0.02)
        assert 0 < len(opaque[0]) < len(found[0]) and bool((alpha_fn(*opaque[1:], opaque[0]) == 1).all())


def test_rendering_and_its_gradient_equal_a_loop_over_rays():
    estimator, (origins, directions) = sphere_estimator(1), rays(12)
    ray_indices, t_starts, t_ends = estimator.sampling(
        origins, directions, render_step_size=0.05, stratified=True
    )
    generator = torch.Generator().manual_seed(0)
    rgbs = torch.rand(len(t_starts), 3, generator=generator, requires_grad=True)
    alphas = torch.rand(len(t_starts), generator=generator)
    alphas[::5], alphas[1::5] = 1.0, 0.0
    alphas.requires_grad_()
    colors, opacities, depths, _ = nerfacc.rendering(
        t_starts, t_ends, ray_indices, 12, rgb_alpha_fn=lambda *_: (rgbs, alphas), render_bkgd=torch.ones(3)
    )
    expected = []
    for ray in range(12):
        mine = ray_indices == ray
        weights = alphas[mine] * scans_twin.exclusive_prod(1 - alphas[mine]) if mine.any() else alphas[mine]
        expected.append(weights @ rgbs[mine] + 1 - weights.sum())
    assert relative(colors, torch.stack(expected)) < SCAN32 and depths.shape == opacities.shape == (12, 1)
    for found, twin in zip(
        torch.autograd.grad((colors**2).sum(), (alphas, rgbs)),
        torch.autograd.grad((torch.stack(expected) ** 2).sum(), (alphas, rgbs)),
        strict=True,
    ):
        assert bool(found.isfinite().all()) and relative(found, twin) < SCAN32


def test_an_empty_grid_gives_no_samples_and_still_renders():
    estimator, (origins, directions) = nerfacc.OccGridEstimator([-1.0, -1, -1, 1, 1, 1], 8), rays(7)
    ray_indices, t_starts, t_ends = estimator.sampling(
        origins, directions, sigma_fn=lambda *_: torch.zeros(0), render_step_size=0.1
    )
    colors, *_ = nerfacc.rendering(
        t_starts, t_ends, ray_indices, 7, rgb_alpha_fn=lambda *_: None, render_bkgd=torch.ones(3)
    )
    assert len(t_starts) == 0 and torch.equal(colors, torch.ones(7, 3))


def run(code: str) -> str:
    """Output of a fresh interpreter."""
    beside = Path(quicksurf.__file__).parents[1]  # the package that is tested
    command = [sys.executable, "-c", code]
    child = subprocess.run(command, cwd=beside, capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr[-2000:]
    return child.stdout.strip()


@pytest.mark.slow
def test_install_serves_a_fresh_process_without_nerfaccs_loader():
    found = run(
        "import sys, torch, nerfacc; from quicksurf import kernels; import quicksurf.kernels.nerfacc as nerfacc_cpu\n"
        "kernels.load('cpu'); assert 'nerfacc.cuda._backend' not in sys.modules\n"
        "nerfacc_cpu.install()\n"
        "assert 'torch.utils.cpp_extension' not in sys.modules\n"
        "packed = nerfacc.pack_info(torch.tensor([0, 0, 1]))\n"
        "print(nerfacc.inclusive_prod(torch.tensor([2., 3., 4.]), packed).tolist())"
    )
    assert found == "[2.0, 6.0, 4.0]"


@pytest.mark.slow
def test_an_extension_that_is_loaded_is_left_alone():
    found = run(
        "import sys, types, nerfacc\n"
        "other = types.ModuleType('nerfacc.cuda._backend'); other._C = object()\n"
        "sys.modules['nerfacc.cuda._backend'], before = other, (other._C, nerfacc.pack_info)\n"
        "from quicksurf.kernels import nerfacc as nerfacc_cpu\n"
        "nerfacc_cpu.install(); print((other._C, nerfacc.pack_info) == before)\n"
        "other._C = None; nerfacc_cpu.install(); print(other._C is nerfacc_cpu)\n"
        "nerfacc_cpu.install(); print(other._C is nerfacc_cpu, nerfacc.pack_info is nerfacc_cpu.pack_info)"
    )
    assert found.split() == ["True"] * 4


def test_tensors_on_the_cpu_are_taken_beside_a_gpu(monkeypatch):
    backend = sys.modules["nerfacc.cuda._backend"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(backend, "_C", None)
    nerfacc_cpu.make_ready(torch.device("cpu"))
    assert backend._C is nerfacc_cpu


def test_tensors_on_a_gpu_need_the_extension():
    with pytest.raises(BackendError, match="use --device cpu"):
        nerfacc_cpu.make_ready(torch.device("cuda"))
