"""Codes of photos: seen by colours and never by geometry, found again on half a view, rendered by name."""

import dataclasses
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from tiny_capture import write_capture
from tolerances import relative

from quicksurf import kernels
from quicksurf.app.render import RenderRequest, render_run
from quicksurf.app.run.checkpoint import load_checkpoint, save_checkpoint
from quicksurf.capture.load import ReadOptions, read_scene
from quicksurf.config import load_config
from quicksurf.errors import ConfigError
from quicksurf.fields.appearance import N_CODES, Appearance, Light
from quicksurf.train.codes import codes_of_groups
from quicksurf.train.loop import Trainer

TINY = Path(__file__).with_name("tiny.toml")
ONE_STEP = 1e-3  # relative L2: a search's depth differs by a rounding, and a sample moves with it
FOUND = 0.05  # relative L2 of a code: the pull to the mean remains, a fortieth where slopes are a fifth


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    return write_capture(tmp_path_factory.mktemp("capture"))


def scene_of(capture, masks=True):
    return read_scene(capture, ReadOptions(max_pixels=10_000, use_masks=masks, say=lambda line: None))


def trainer_of(scene, backend="cpu", **settings):
    config = load_config(TINY, {name.replace("__", "."): value for name, value in settings.items()})
    return Trainer(scene, config, kernels.load(backend), None)


def test_codes_are_relative_to_their_mean_and_join_with_their_photo():
    held_out = torch.arange(5) == 2
    appearance = Appearance(held_out, has_codes=True)
    with torch.no_grad():
        appearance.codes += torch.rand(5, N_CODES, generator=torch.Generator().manual_seed(0))
    before = appearance.codes_of(torch.arange(5)).detach()
    assert torch.equal(before[2], torch.zeros(N_CODES)) and before.mean(0).abs().max() < 1e-6
    assert not appearance.has_light(2) and appearance.has_light(1)
    wanted = torch.rand(5, N_CODES, generator=torch.Generator().manual_seed(1))
    appearance.join(torch.zeros(5, 3, 4), wanted)
    after = appearance.codes_of(torch.arange(5)).detach()
    assert torch.equal(after[~held_out], before[~held_out]) and relative(after[2], wanted[2]) < 1e-6
    assert Appearance(held_out).codes_of(torch.arange(5)) is None


def test_lights_blend_from_one_to_the_other():
    first, last = Light(torch.zeros(3, 4), torch.zeros(8)), Light(torch.ones(3, 4), torch.full((8,), 2.0))
    assert torch.equal(first.towards(last, 0.0).code, first.code)
    assert torch.equal(first.towards(last, 1.0).map, last.map)
    assert torch.equal(first.towards(last, 0.25).code, torch.full((8,), 0.5))


def test_a_code_is_found_from_the_colours_of_each_group():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(600, 3, N_CODES, generator=generator)
    groups = torch.arange(600) % 4
    wanted = 0.5 * torch.randn(4, N_CODES, generator=generator)

    def render(codes):
        return torch.sigmoid((mixing * codes[:, None]).sum(-1))

    assert relative(codes_of_groups(render, render(wanted[groups]), groups, wanted), wanted) < FOUND
    short = 0.1 * wanted
    bounded = codes_of_groups(render, render(wanted[groups]), groups, short)
    assert bounded.norm(dim=1).max() <= short.norm(dim=1).max() * 1.001, "no longer than what was fitted"


def test_a_group_without_pixels_has_the_mean_code():
    groups, fitted = torch.zeros(6, dtype=torch.long), torch.ones(3, N_CODES)
    found = codes_of_groups(lambda codes: codes[:, :3], torch.ones(6, 3), groups, fitted)
    assert found.shape == (2, N_CODES) and torch.equal(found[1], torch.zeros(N_CODES))
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("masks", [True, False])
def test_gradients_of_codes_agree_on_both_back_ends_and_never_reach_geometry(capture, masks):
    scene, found = scene_of(capture, masks), []
    if not masks:  # a border of one colour has no background field
        images = [image.copy() for image in scene.images]
        for image in images:
            image[: len(image) // 2, :4] = 40
        scene = dataclasses.replace(scene, images=images)
    for backend in ("cpu", "torch"):
        trainer = trainer_of(scene, backend, train__appearance="code")
        trainer._n_rays = 64
        batch, rays = trainer._draw()
        renderer, method = trainer.result.renderer, trainer._method
        codes = torch.randn(len(batch.colors), N_CODES, generator=torch.Generator().manual_seed(3))
        codes.requires_grad_()
        behind = torch.ones_like(batch.colors) if masks else None
        seen = renderer.render(rays, method.schedule(0.3), trainer._generator, behind, codes=codes)
        assert bool(renderer.background.networks) != masks
        (seen.colors - batch.colors).square().sum().backward()
        found.append((seen.colors.detach(), codes.grad, renderer.field.color.network.params.grad))
        other = renderer.render(rays, method.schedule(0.3), behind=behind, codes=-codes.detach())
        same = renderer.render(rays, method.schedule(0.3), behind=behind, codes=codes.detach())
        assert torch.equal(other.logits, same.logits) and torch.equal(other.opacities, same.opacities)
        assert not torch.equal(other.colors, same.colors)
    assert found[0][1].abs().max() > 0
    for native, twin in zip(*found, strict=True):
        assert relative(native, twin) < ONE_STEP


def relit(scene):
    """The scene with a shadow over half the object in every second photo: no map of colours can say so."""
    images = []
    for index, image in enumerate(scene.images):
        image = image.copy()
        if index % 2:
            image[:, :, 0] = np.where(image[:, :, 2] > 128, image[:, :, 0] // 3, image[:, :, 0])
        images.append(image)
    return dataclasses.replace(scene, images=images)


@pytest.fixture(scope="module")
def fitted(capture):
    """Fits of the relit scene with codes, with maps and without any."""
    fits = {}
    for appearance in ("code", "affine", "none"):
        trainer = trainer_of(relit(scene_of(capture)), train__appearance=appearance, train__hold_out="keep")
        for step in range(150):
            trainer.step(step / 150)
        trainer.finish(4000)
        fits[appearance] = trainer.snapshot()
    return fits


def test_a_fit_has_the_appearance_that_was_asked_for(fitted):
    assert not fitted["none"].appearance.from_identity().any() and fitted["none"].appearance.codes is None
    assert fitted["code"].appearance.codes.abs().max() > 0.01


@pytest.fixture
def runs(fitted, tmp_path):
    """A folder of their checkpoints."""
    for name, model in fitted.items():
        (tmp_path / name).mkdir()
        save_checkpoint(model, tmp_path / name)
    return tmp_path


def test_a_checkpoint_keeps_codes(fitted, runs):
    loaded = load_checkpoint(runs / "code", kernels.load("cpu"))
    assert torch.equal(loaded.appearance.codes, fitted["code"].appearance.codes)
    assert loaded.config.train.appearance == "code"


def render_in(model, light_of, monkeypatch, folder, **options):
    """The first and the last colour image of three frames."""

    class Opened:
        path = folder

        def model(self, device):
            return model

    monkeypatch.setattr("quicksurf.app.render.open_run", lambda path: Opened())
    request = RenderRequest("orbit", 3, 24, 25, folder / "out", tuple(light_of), **options)
    list(render_run(folder, request, "cpu"))
    return [imageio.imread(folder / "out" / "color" / f"000{k}.png").astype(int) for k in (0, 2)]


def test_a_film_goes_from_one_photos_light_to_anothers(fitted, monkeypatch, tmp_path):
    model = fitted["code"]
    first, last = (render_in(model, [name], monkeypatch, tmp_path) for name in ("02.png", "03.png"))
    film = render_in(model, ["02.png", "03.png"], monkeypatch, tmp_path)
    assert np.array_equal(film[0], first[0]) and np.array_equal(film[1], last[1])
    assert np.abs(first[0] - last[0]).max() > 8


@pytest.mark.parametrize(
    ("appearance", "name", "message"),
    [
        ("none", "02.png", "appearance none"),
        ("code", "2.png", "nearest are 02.png"),
        ("code", "00.png", "was held out"),
    ],
)
def test_a_light_that_is_not_there_is_refused(fitted, monkeypatch, tmp_path, appearance, name, message):
    with pytest.raises(ConfigError, match=message):
        render_in(fitted[appearance], [name], monkeypatch, tmp_path)


def test_a_renderer_of_another_layout_is_refused_and_one_alike_draws_other_colours(fitted, capture):
    with pytest.raises(ConfigError, match="colour networks differ"):
        fitted["affine"].with_renderer_of(fitted["code"])
    exchanged = fitted["affine"].with_renderer_of(fitted["none"])
    own, drawn = (model.render(model.cameras, 1) for model in (fitted["affine"], exchanged))
    assert torch.equal(own.depth, drawn.depth) and torch.equal(own.normal, drawn.normal)
    assert not torch.equal(own.color, drawn.color)
    same = fitted["affine"].with_renderer_of(fitted["affine"]).render(fitted["affine"].cameras, 1)
    assert torch.equal(own.color, same.color)


def test_light_and_renderer_exclude_each_other(tmp_path):
    request = RenderRequest("orbit", 2, 24, 25, None, ("02.png",), tmp_path)
    with pytest.raises(ConfigError, match="exclude each other"):
        list(render_run(tmp_path, request, "cpu"))


@pytest.mark.parametrize("method", ["unisurf", "idr"])
@pytest.mark.parametrize("inputs", ["xvz", "xnz", "xnv"])
def test_the_colour_network_does_not_see_what_its_inputs_leave_out(capture, method, inputs):
    trainer = trainer_of(scene_of(capture), renderer__inputs=inputs, train__method=method)
    field, generator = trainer.result.field, torch.Generator().manual_seed(0)
    points, normals, directions, features = (torch.randn(50, n, generator=generator) for n in (3, 3, 3, 15))
    normals, directions = (torch.nn.functional.normalize(part, dim=1) for part in (normals, directions))
    if inputs == "xvz":
        assert not field.reads_normals and not field.shading_normals(points).any()
        return
    base = field.color(points, features, directions, normals)
    view = field.color(points, features, -directions, normals)
    feature = field.color(points, -features, directions, normals)
    assert torch.equal(base, view) == (inputs == "xnz") and torch.equal(base, feature) == (inputs == "xnv")
    rendering, loss, _ = trainer.step(0.2)
    assert torch.isfinite(loss) and len(rendering.colors)
