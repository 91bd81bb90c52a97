"""What every method has to do: learn a tiny capture, find its surface, be saved by name, and be chosen by it."""

import json
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_capture import AXES, CENTER, write_capture
from tolerances import relative

import quicksurf
from quicksurf import kernels
from quicksurf.app.cli import main
from quicksurf.app.run.checkpoint import load_checkpoint, save_checkpoint
from quicksurf.capture.load import ReadOptions, read_scene
from quicksurf.config import OF_METHOD, load_config
from quicksurf.errors import ConfigError
from quicksurf.mesh.build import MeshOptions
from quicksurf.methods import load
from quicksurf.train.trainer import Trainer

METHODS = tuple(OF_METHOD)
NEAR = {
    "unisurf": 0.06,
    "paper": 0.1,
    "nerf": 0.1,
    "idr": 0.1,
}  # of the ellipsoid's axes, after a hundred steps
LEVELS = {"nerf": 1.0}  # a density of 50 takes longer than a hundred steps
N_STEPS = 100
FALLEN = 0.75  # of the loss at the start; silhouettes keep theirs for longer than colours
ONE_STEP = 1e-3  # relative L2: a search's depth differs by a rounding, and a sample moves with it
GAINED = 0.5  # dB on held-out views
TINY = str(Path(__file__).parents[1] / "tiny.toml")


def config_of(name):
    return load_config(TINY, {"train.method": name})


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    return write_capture(tmp_path_factory.mktemp("capture"))


@pytest.fixture(scope="module")
def fitted(capture):
    """A fit of N_STEPS by the name of its method, its losses, and the PSNR before."""

    @lru_cache
    def fit(name):
        scene = read_scene(capture, ReadOptions(max_pixels=10_000, use_masks=True, say=lambda line: None))
        trainer = Trainer(scene, config_of(name), kernels.load("cpu"), None)
        trainer.measure_held_out(2000)
        before = trainer.result.psnr_held_out
        losses = [float(trainer.step(i / N_STEPS)[1]) for i in range(N_STEPS)]
        trainer.finish(2000)
        return trainer.snapshot(), losses, before

    return fit


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_hundred_steps_lower_the_loss_and_find_the_surface(fitted, name):
    model, losses, psnr = fitted(name)
    assert np.mean(losses[-10:]) < FALLEN * np.mean(losses[:10])
    assert model.psnr_held_out > psnr + GAINED
    mesh, _ = model.mesh(MeshOptions(resolution=96, keep="scene", level=LEVELS.get(name, 0.0)))
    radii = np.linalg.norm((mesh.vertices - CENTER.numpy()) / AXES.numpy(), axis=1)
    assert np.abs(radii - 1).mean() < NEAR[name]


@pytest.mark.parametrize("name", METHODS)
def test_depths_are_those_of_the_surface(fitted, name):
    """In the middle of a photo the ray meets the ellipsoid squarely."""
    model, *_ = fitted(name)
    camera = model.cameras.select(torch.tensor([1]))
    depth = float(model.render(camera).depth[24, 24])
    center, place = CENTER.to(camera.c2w), camera.c2w[0, :, 3]
    direction = torch.nn.functional.normalize(center - place, dim=0)
    expected = (center - place).norm() - 1 / (direction / AXES.to(direction)).norm()
    assert depth == pytest.approx(float(expected), rel=0.05)


@pytest.mark.parametrize("name", METHODS)
def test_a_checkpoint_knows_its_method(fitted, tmp_path, name):
    model, *_ = fitted(name)
    save_checkpoint(model, tmp_path)
    loaded = load_checkpoint(tmp_path, kernels.load("cpu"))
    assert loaded.renderer.method.name == loaded.config.train.method == name
    camera = model.cameras.select(torch.tensor([0]))
    assert torch.equal(loaded.render(camera).color, model.render(camera).color)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_the_same_on_both_back_ends(capture, name):
    """Same rays, same jitter: colours and gradients agree as far as float32 sums do."""
    scene = read_scene(capture, ReadOptions(max_pixels=10_000, use_masks=True, say=lambda line: None))
    found = []
    for backend in ("cpu", "torch"):
        trainer = Trainer(scene, config_of(name), kernels.load(backend), None)
        trainer._n_rays = 64
        batch, rays = trainer._draw()
        renderer, method = trainer.result.renderer, trainer._method
        schedule = method.schedule(0.3)
        seen = renderer.render(
            rays, schedule, trainer._generator, torch.ones(1, 3), partial(trainer._probe, 64)
        )
        parts = method.losses(renderer.field.geometry, seen.probed, 0.0, True)
        inside = (batch.masks > 0.5).float()
        parts |= method.ray_losses(seen.logits, seen.samples, inside, schedule, seen.weights)
        ((seen.colors - batch.colors).abs().sum() + sum(parts.values())).backward()
        networks = renderer.field.geometry.network, renderer.field.color.network
        found.append((seen.colors.detach(), *(network.params.grad for network in networks)))
    for native, twin in zip(*found, strict=True):
        assert relative(native, twin) < ONE_STEP


def test_presets_and_options_win_over_the_defaults_of_a_method(tmp_path):
    preset = tmp_path / "mine.toml"
    preset.write_text('[train]\nmethod = "paper"\npoints_weight = 2.0\n')
    config = load_config(preset, {"train.seed": 3})
    assert load(config).name == "paper"
    assert (config.train.points_weight, config.train.consistency_weight, config.train.seed) == (2.0, 0.0, 3)
    assert load(load_config(preset, {"train.method": "unisurf"})).name == "unisurf"


def test_only_density_has_levels():
    assert load(config_of("nerf")).surface_logit(500.0) > load(config_of("nerf")).surface_logit(1.0)
    with pytest.raises(ConfigError, match="method unisurf has no level"):
        load(config_of("unisurf")).surface_logit(50.0)


@pytest.fixture(scope="module")
def run(capture, tmp_path_factory):
    """A run of nerf by the command line."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = ["--minutes", "0.35", "--preset", TINY, "--masks", "auto", "--quiet"]
    assert main(["fit", str(capture), "--output", str(folder), "--method", "nerf", *options]) == 0
    return folder


@pytest.mark.slow
def test_a_run_names_its_method_and_goes_on_with_it(run, capsys):
    assert json.loads((run / "summary.json").read_text())["method"] == "nerf"
    assert quicksurf.load(run).config.train.method == "nerf"
    assert main(["fit", str(run), "--minutes", "0.1", "--method", "paper", "--quiet"]) == 10
    assert "leave out --method" in capsys.readouterr().err


def test_levels_of_a_density_are_different_meshes(run, tmp_path):
    sizes = []
    for level in ("0.5", "2"):  # a few seconds reach no more
        assert main(["mesh", str(run), "--level", level, "--output", str(tmp_path / level)]) == 0
        sizes.append(mesh_size(tmp_path / level / "mesh.ply"))
    assert sizes[0] > sizes[1]


def mesh_size(path):
    """Mean distance of the vertices from the centre."""
    import trimesh

    return float(np.linalg.norm(trimesh.load(path).vertices - CENTER.numpy(), axis=1).mean())


def test_what_fails_without_masks_says_so():
    assert "without masks" in str(load(config_of("idr")).without_masks)
    assert load(config_of("unisurf")).without_masks is None


def test_an_unknown_method_is_refused(capture, capsys):
    assert main(["fit", str(capture), "--method", "neus"]) == 2
    assert "choose from unisurf" in capsys.readouterr().err
