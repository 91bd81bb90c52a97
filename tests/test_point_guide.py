"""Verified points empty what lies before them and fill what lies behind; sky empties its rays."""

from pathlib import Path

import numpy as np
import pytest
import torch
from capture.synthetic_capture import ring

from quicksurf import kernels
from quicksurf.capture.scene import ReadReport, Scene, SparsePoints
from quicksurf.config import ModelConfig
from quicksurf.fields.surface import SurfaceField
from quicksurf.geometry.region import Roi
from quicksurf.train.guide import points_suffice
from quicksurf.train.points import PointGuide, SeenDepths, on_object

MODEL = ModelConfig(n_levels=6, log2_hashmap_size=12, finest_resolution=128)
HEIGHT = 0.3


@pytest.fixture
def cameras():
    return ring((0.0, 0.0, 0.0)).to(torch.float32)


def floor(cameras, height: float = HEIGHT) -> tuple[SparsePoints, torch.Tensor]:
    """Points of a floor at z = `height`, seen by the cameras above it."""
    positions = torch.rand(300, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    positions[:, 2] = height
    above = torch.nonzero(cameras.centers()[:, 2] > height + 0.3)[:, 0]
    observations = torch.cartesian_prod(torch.arange(len(positions)), above)
    return SparsePoints(positions, torch.zeros(300, 3, dtype=torch.uint8), observations), positions


def trained(guide: PointGuide, steps: int = 150) -> SurfaceField:
    field = SurfaceField(MODEL, kernels.load("cpu"), seed=0)
    optimizer = torch.optim.Adam(field.geometry.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        guide.loss(field, 256, generator).backward()
        optimizer.step()
    return field


def test_the_surface_comes_to_the_points(cameras):
    points, positions = floor(cameras)
    everything = torch.ones(len(points.observations), dtype=torch.bool)
    field = trained(PointGuide(points, positions, cameras, list(range(len(cameras))), everything))
    inner = positions[positions[:, :2].abs().amax(1) < 0.4]
    above, below = inner + torch.tensor([0, 0, 0.12]), inner - torch.tensor([0, 0, 0.03])
    with torch.no_grad():
        assert (field.logits(above) < 0).float().mean() > 0.95
        assert (field.logits(below) > 0).float().mean() > 0.9
        assert field.logits(inner).abs().median() < 0.02


def test_the_surface_comes_to_dense_points(cameras):
    points, positions = floor(cameras)
    none = torch.zeros(len(points.observations), dtype=torch.bool)
    origins = torch.tensor([0.0, 0.0, 3.0]).expand_as(positions)
    depths = (positions - origins).norm(dim=1)
    directions = (positions - origins) / depths[:, None]
    small = torch.full_like(depths, 0.001)
    dense = SeenDepths(origins, directions, depths, small, small)
    views = list(range(len(cameras)))
    field = trained(PointGuide(points, positions, cameras, views, none, False, dense=dense))
    inner = positions[positions[:, :2].abs().amax(1) < 0.4]
    with torch.no_grad():
        assert field.logits(inner).abs().median() < 0.01
        assert (field.logits(inner + torch.tensor([0, 0, 0.05])) < 0).float().mean() > 0.95
        assert (field.logits(inner - torch.tensor([0, 0, 0.02])) > 0).float().mean() > 0.9
    silent = PointGuide(points, positions, cameras, views, none, False, dense=dense, dense_weight=0.0)
    assert silent.loss(field, 64, torch.Generator().manual_seed(0)) == 0


def test_rays_through_the_sky_are_emptied(cameras):
    origins = torch.tensor([[-3.0, 0.0, 0.0]]).expand(50, 3).contiguous()
    directions = torch.nn.functional.normalize(
        torch.tensor([[3.0, y, 0.0] for y in np.linspace(-0.3, 0.3, 50)]), dim=1
    )
    points, positions = floor(cameras)
    none = torch.zeros(len(points.observations), dtype=torch.bool)
    guide = PointGuide(
        points, positions, cameras, list(range(len(cameras))), none, True, (origins, directions)
    )
    field = trained(guide)
    with torch.no_grad():
        assert (field.logits(torch.linspace(-0.4, 0.4, 30)[:, None] * torch.tensor([[1.0, 0, 0]])) < 0).all()


def test_without_an_observation_nothing_is_said(cameras):
    points, positions = floor(cameras)
    none = torch.zeros(len(points.observations), dtype=torch.bool)
    guide = PointGuide(points, positions, cameras, list(range(len(cameras))), none)
    field = SurfaceField(MODEL, kernels.load("cpu"), seed=0)
    assert guide.loss(field, 64, torch.Generator().manual_seed(0)) == 0


def test_only_observations_inside_a_mask_speak(cameras):
    points, _ = floor(cameras, 0.0)
    width, height = cameras.sizes[0].tolist()
    masks = [np.zeros((height, width), np.uint8) for _ in range(len(cameras))]
    masks[0] = None
    masks[1][:] = 255

    observations = torch.cartesian_prod(torch.arange(300), torch.arange(3))
    usable = on_object(points._replace(observations=observations), cameras, masks)
    views = observations[:, 1]
    assert usable[views == 0].all()
    assert usable[views == 1].all()
    assert not usable[views == 2].any()


def test_a_masked_object_without_texture_is_fitted_without_points(cameras):
    """It shows a few points, of reflections; the table around it shows many."""
    n, side = len(cameras), int(cameras.sizes[0, 0])
    mask = np.zeros((side, side), np.uint8)
    mask[side // 2 - 2 : side // 2 + 2, side // 2 - 2 : side // 2 + 2] = 255
    points, _ = floor(cameras, 0.0)
    roi = Roi((0.0, 0.0, 0.0), 1.0)

    def suffices(masks):
        images = [np.zeros((side, side, 3), np.uint8)] * n
        names, held_out = [str(i) for i in range(n)], np.zeros(n, bool)
        return points_suffice(
            Scene("s", Path(), cameras, images, masks, names, held_out, roi, points, ReadReport())
        )

    assert suffices([None] * n)
    assert not suffices([mask] * n)
    assert suffices([np.full_like(mask, 255)] * n)
    assert not suffices([np.full_like(mask, 255), *[np.zeros_like(mask)] * (n - 1)])
