"""Patches across views, against a textured plane drawn through real lenses and a twin that loops over pixels."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from quicksurf.geometry import cameras as lens
from quicksurf.geometry.cameras import Cameras
from quicksurf.train import patches as consistency
from quicksurf.train.patches import GreyImages, Patches, PatchMatches

CORRELATION = 0.01  # affine map instead of the plane's own, grey levels in half precision
SLOPE = 0.06  # relative: the same, and the affine map held fixed while the depth changes
NORMAL = (0.2, 0.1, -1.0)  # of the plane through the origin, towards the cameras
SIZES = ((120, 90), (100, 110), (90, 90), (140, 100))
LENSES = (
    ((0.0,) * 6, False),
    ((0.06, -0.08, 0.0, 0.0, -1e-3, 2e-4), False),
    ((-0.02, 0.01, 0.0, 0.0, 0.0, 0.0), True),
    ((-0.1, 0.02, 0.0, 0.0, 3e-4, -2e-4), False),
)


def looking_at_the_plane() -> Cameras:
    """Four cameras at distance 3 to 3.4 with lenses of their own, looking at the origin."""
    c2w = []
    for angle, height, distance in ((0.0, 0.0, 3.0), (0.25, 0.1, 3.2), (-0.2, 0.25, 3.0), (0.1, -0.3, 3.4)):
        center = distance * torch.tensor([math.sin(angle), math.sin(height), -math.cos(angle)])
        z = torch.nn.functional.normalize(-center, dim=0)
        x = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 1, 0]), z), dim=0)
        c2w.append(torch.stack([x, torch.linalg.cross(z, x), z, center], 1))
    sizes = torch.tensor(SIZES)
    focal = torch.tensor([150.0, 160, 140, 155])
    return Cameras(
        torch.stack(c2w),
        torch.cat([focal[:, None], focal[:, None], sizes / 2.0 + 1.5], 1),
        torch.tensor([distortion for distortion, _ in LENSES]),
        torch.tensor([fisheye for _, fisheye in LENSES]),
        sizes,
    )


def normal() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(NORMAL), dim=0)


def depths_to_plane(origins, directions):
    return -(origins @ normal()) / (directions @ normal())


def texture(points: torch.Tensor) -> torch.Tensor:
    """Grey levels of plane points: waves of 8 to 20 pixels in all directions."""
    waves = torch.tensor([[16.0, 5, 2], [-7, 19, 0], [11, 12, -4], [25, -8, 1], [-15, -26, 3]])
    return 128 + 22 * torch.sin(points @ waves.T + torch.arange(5.0)).sum(-1)


def photo(cameras: Cameras, index: int) -> np.ndarray:
    width, height = cameras.sizes[index].tolist()
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([columns, rows], -1).reshape(-1, 2) + 0.5
    origins, directions = lens.pixel_rays(cameras, torch.full((len(pixels),), index), pixels)
    grey = texture(origins + directions * depths_to_plane(origins, directions)[:, None])
    return grey.clamp(0, 255).round().byte().view(height, width, 1).expand(-1, -1, 3).numpy()


@pytest.fixture(scope="module")
def cameras():
    return looking_at_the_plane()


@pytest.fixture(scope="module")
def photos(cameras):
    return [photo(cameras, index) for index in range(len(cameras))]


def patches_at(cameras, depth_error=0.0, tilt=0.0, n=40):
    """Patches of the plane as pixels of all four cameras see it, their points behind it by `depth_error`."""
    generator = torch.Generator().manual_seed(0)
    indices = torch.arange(n) % len(cameras)
    pixels = (cameras.sizes[indices] * (0.3 + 0.4 * torch.rand(n, 2, generator=generator))).floor() + 0.5
    origins, directions = lens.pixel_rays(cameras, indices, pixels)
    points = origins + directions * (depths_to_plane(origins, directions) + depth_error)[:, None]
    tilted = torch.nn.functional.normalize(normal() + tilt * torch.tensor([1.0, -1.0, 0.0]), dim=0)
    return Patches(indices, pixels, points, tilted.expand(n, 3)), directions


def others(cameras, patches):
    views = torch.arange(len(cameras)).expand(len(patches.pixels), -1)
    return views[views != patches.image_indices[:, None]].view(-1, len(cameras) - 1)


def match(cameras, photos, patches, n_across=7):
    offsets = consistency.offsets_of(n_across, 1.0)
    images = GreyImages.of(photos, torch.device("cpu"))
    return consistency.match_patches(images, cameras, patches, others(cameras, patches), offsets)


def twin(cameras, photos, patches, row, view, n_across=7) -> float:
    """NCC pixel by pixel: ray, plane, `cameras.project`, scipy's bilinear interpolation, and the formula."""
    index = int(patches.image_indices[row])
    pixels = patches.pixels[row] + consistency.offsets_of(n_across, 1.0)
    origins, directions = lens.pixel_rays(cameras, torch.full((len(pixels),), index), pixels)
    ts = ((patches.points[row] - origins) @ patches.normals[row]) / (directions @ patches.normals[row])
    seen, _ = lens.project(cameras, view, origins + directions * ts[:, None])
    grey = [
        map_coordinates(
            photos[which][..., 0].astype(float), (at.numpy() - 0.5).T[::-1], order=1, mode="nearest"
        )
        for which, at in ((index, pixels), (view, seen))
    ]
    a, b = (levels - levels.mean() for levels in grey)
    noise = len(a) * 1.0  # grey levels squared
    return float((a @ b) / np.sqrt((a @ a + noise) * (b @ b + noise)))


@pytest.mark.parametrize("depth_error, tilt", [(0.0, 0.0), (0.03, 0.0), (-0.02, 0.3)])
def test_correlations_are_those_of_the_twin(cameras, photos, depth_error, tilt):
    patches, _ = patches_at(cameras, depth_error, tilt)
    found = match(cameras, photos, patches).correlations
    views = others(cameras, patches)
    for row in range(0, len(views), 3):
        for column, view in enumerate(views[row].tolist()):
            expected = twin(cameras, photos, patches, row, view)
            assert abs(float(found[row, column]) - expected) < CORRELATION


@pytest.mark.slow
def test_slopes_are_differences_of_the_twin(cameras, photos):
    step = 2e-3
    patches, directions = patches_at(cameras, 0.02)
    found = match(cameras, photos, patches).slopes
    views = others(cameras, patches)
    expected = torch.zeros_like(found)
    for row, column in np.ndindex(*found.shape):
        for sign in (1, -1):
            moved = patches._replace(points=patches.points + sign * step * directions)
            ncc = twin(cameras, photos, moved, row, int(views[row, column]))
            expected[row, column] += sign * ncc / (2 * step)
    assert (found - expected).norm() < SLOPE * expected.norm()


def test_the_true_plane_matches_best(cameras, photos):
    best = match(cameras, photos, patches_at(cameras)[0]).correlations.mean()
    assert best > 0.98
    for depth_error, tilt in ((0.03, 0.0), (-0.03, 0.0), (0.0, 0.4), (0.0, -0.4)):
        assert match(cameras, photos, patches_at(cameras, depth_error, tilt)[0]).correlations.mean() < best


@pytest.mark.parametrize("depth_error", [0.02, -0.02])
def test_slopes_lead_back_to_the_plane(cameras, photos, depth_error):
    slopes = match(cameras, photos, patches_at(cameras, depth_error)[0]).slopes.sum(1)
    assert bool((torch.sign(slopes) == -math.copysign(1, depth_error)).all())


def test_brightness_and_contrast_do_not_matter(cameras, photos):
    patches, _ = patches_at(cameras, 0.01)
    dark = [np.rint(0.8 * photo + 20).astype(np.uint8) if i else photo for i, photo in enumerate(photos)]
    plain, changed = match(cameras, photos, patches), match(cameras, dark, patches)
    assert float((plain.correlations - changed.correlations).abs().mean()) < CORRELATION


def test_a_patch_without_texture_pulls_nowhere(cameras, photos):
    flat = [np.full_like(photo, 90) for photo in photos]
    matches = match(cameras, flat, patches_at(cameras, 0.02)[0])
    assert bool((matches.slopes == 0).all()) and bool((matches.correlations == 0).all())


def test_samples_are_bilinear_in_images_of_any_size(photos):
    images = GreyImages.of(photos, torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    which = torch.tensor([3, 0, 2])
    pixels = 200 * torch.rand(3, 50, 2, generator=generator) - 30
    levels, du, dv = images.sample(which, pixels)
    for row, image in enumerate(which.tolist()):
        at = (pixels[row].numpy().astype(float) - 0.5).T[::-1]
        expected = map_coordinates(photos[image][..., 0].astype(float), at, order=1, mode="nearest")
        assert np.abs(levels[row].numpy() - expected).max() < 0.2  # half precision: an eighth above 128
    assert float(du.abs().max()) > 1 and float(dv.abs().max()) > 1


def test_views_are_chosen_by_angle_and_from_the_front(cameras):
    patches, _ = patches_at(cameras, n=4)
    views = consistency.choose_views(cameras, torch.arange(4), patches, 3)
    sight = torch.nn.functional.normalize(cameras.c2w[:, :, 3] - patches.points[0], dim=-1)
    assert views[0].tolist() == sorted([1, 2, 3], key=lambda view: -float(sight[view] @ sight[0]))
    assert not bool((views == patches.image_indices[:, None]).any())
    assert consistency.choose_views(cameras, torch.tensor([0, 1]), patches, 3)[0].tolist() == [1, -1]
    behind = patches._replace(normals=-patches.normals)
    assert bool((consistency.choose_views(cameras, torch.arange(4), behind, 3) == -1).all())
    outside = patches._replace(points=patches.points + 5)
    assert bool((consistency.choose_views(cameras, torch.arange(4), outside, 3) == -1).all())


def test_a_lens_that_folds_back_shows_nothing_outside_its_frame(cameras):
    """k1 = -0.3 brings a point at radius 1.7 back to 0.23, inside a frame that ends at 0.6."""
    folding = replace(
        cameras, distortion=torch.tensor([[-0.3, 0, 0, 0, 0, 0]] * 4), fisheye=torch.zeros(4) > 0
    )
    far = folding.c2w[1, :, 3] + folding.c2w[1, :, :3] @ torch.tensor([1.7, 0.0, 1.0])
    pixels, depths = consistency.project_each(folding, torch.tensor([1]), far[None])
    assert bool((pixels > 0).all() and (pixels < folding.sizes[1]).all() and depths > 0)
    toward = torch.nn.functional.normalize(folding.c2w[:2, :, 3].mean(0) - far, dim=0)
    patch = Patches(torch.tensor([0]), torch.tensor([[60.0, 45.0]]), far[None], toward[None])
    assert consistency.choose_views(folding, torch.tensor([1]), patch, 1).tolist() == [[-1]]


def test_no_patches_and_no_views_are_legal(cameras, photos):
    patches, _ = patches_at(cameras)
    none = patches.select(torch.zeros(0, dtype=torch.long))
    assert match(cameras, photos, none).slopes.shape == (0, 3)
    alone = torch.full((len(patches.pixels), 2), -1)
    matches = consistency.match_patches(
        GreyImages.of(photos, torch.device("cpu")), cameras, patches, alone, consistency.offsets_of(5, 1.0)
    )
    assert bool((matches.slopes == 0).all()) and not bool(matches.differences.isfinite().any())


def test_the_loss_pulls_depths_along_the_slopes_of_views_that_show_the_same():
    nothing = torch.zeros(1, 3)
    matches = PatchMatches(nothing, torch.tensor([[2.0, 1.0, -9.0]]), torch.tensor([[0.1, 0.5, 1.5]]))
    depths = torch.zeros(1, requires_grad=True)
    consistency.consistency_loss(matches, depths).backward()
    assert depths.grad is not None and float(depths.grad) == -1.0  # deeper matches better: 1 - NCC falls


def test_where_few_views_show_the_same_none_is_believed():
    slopes = torch.ones(1, 10)
    for n_same, pull in ((2, 0.0), (5, 0.5), (10, 1.0)):
        differences = torch.where(torch.arange(10) < n_same, 0.1, 2.0)[None]
        depths = torch.zeros(1, requires_grad=True)
        consistency.consistency_loss(PatchMatches(slopes, slopes, differences), depths).backward()
        assert depths.grad is not None and float(depths.grad) == pytest.approx(-pull)


def test_what_is_not_believed_is_compared_now_and_then(cameras, photos):
    patches, _ = patches_at(cameras)
    believed = consistency.ViewConsistency(photos, [0, 1, 2, 3], torch.device("cpu"))
    assert believed.unconfirmed == 0
    believed.compare(cameras, patches)
    assert believed.unconfirmed == 0
    assert all(believed.due(step) for step in range(8))
    generator = np.random.default_rng(0)
    noise = [generator.integers(0, 255, photo.shape, dtype=np.uint8) for photo in photos]
    doubted = consistency.ViewConsistency(noise, [0, 1, 2, 3], torch.device("cpu"))
    doubted.compare(cameras, patches)
    assert [step for step in range(17) if doubted.due(step)] == [0, 8, 16] and doubted.unconfirmed == 1


def test_what_stands_in_front_and_what_is_brighter_shows_something_else(cameras, photos):
    """The differences that decide which views count, by their definition."""
    patches, _ = patches_at(cameras)
    agreeing = match(cameras, photos, patches).differences
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 255, photos[1].shape, dtype=np.uint8)
    hidden = match(cameras, [photos[0], noise, *photos[2:]], patches).differences
    brighter = match(cameras, [photos[0], *(photo // 2 + 120 for photo in photos[1:])], patches).differences
    from_first, onto_second = patches.image_indices == 0, others(cameras, patches) == 1
    assert float(agreeing.median()) < 0.2
    assert float(hidden[onto_second].min()) > 0.85
    assert float(brighter[from_first].median()) > 0.85


def test_depths_follow_the_logit_along_the_ray():
    """The sphere |x| = r: its depth at the near side falls by dr where l = r − |x| grows by dr."""
    origins, directions = torch.tensor([[0.1, 0.2, -3.0]]), torch.tensor([[0.0, 0.0, 1.0]])
    radius = torch.tensor(0.5, requires_grad=True)

    def depth(r):
        return 3 - torch.sqrt(r * r - 0.05)

    point = origins + depth(radius.detach()) * directions
    gradients = -point / point.norm()
    consistency.implicit_depths(radius - point.norm(dim=-1), gradients, directions).sum().backward()
    (expected,) = torch.autograd.grad(depth(other := radius.detach().clone().requires_grad_()), other)
    assert radius.grad is not None and abs(float(radius.grad / expected) - 1) < 1e-5
