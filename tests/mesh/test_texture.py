"""Textures and observations on balls whose photos are traced exactly."""

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import KDTree

from quicksurf.errors import ConfigError
from quicksurf.geometry.cameras import pixel_rays
from quicksurf.mesh.observe import observe
from quicksurf.mesh.photos import Photos, bilinear
from quicksurf.mesh.texture.bake import LARGEST_CHOSEN, bake, fill_gaps, resolved_size
from quicksurf.mesh.texture.views import choose_views
from quicksurf.mesh.types import Mesh

SIZE = 128
PAINT = 0.02  # a pixel is 0.02 wide and colours change by half of that; bytes add 0.002
SMALL = torch.tensor([0.0, 0.0, 1.6])  # a red ball of radius 0.2 above the painted one of radius 1


def paint(points):
    return 0.5 + 0.4 * points


def ball(center=(0.0, 0.0, 0.0), radius=1.0):
    mesh = trimesh.creation.icosphere(3)
    normals = np.asarray(mesh.vertices, np.float64)
    vertices = radius * normals + np.array(center)
    colors = np.rint(255 * paint(vertices)).clip(0, 255).astype(np.uint8)
    return Mesh(vertices, np.asarray(mesh.faces, np.int64), colors, normals)


def joined(first, second):
    parts = [np.concatenate(pair) for pair in zip(first[:4], second[:4], strict=True)]
    parts[1][len(first.faces) :] += len(first.vertices)
    return Mesh(*parts)


def sphere_hits(origins, directions, center, radius):
    """Distance along each ray to a ball; infinite where it misses."""
    offset = origins - center
    b, c = (offset * directions).sum(1), (offset * offset).sum(1) - radius**2
    inside = b * b - c
    return torch.where(inside > 0, -b - inside.clamp_min(0).sqrt(), torch.inf)


def trace(cameras, index, with_small=False):
    """The painted ball on grey, in [0, 1]."""
    width, height = cameras.sizes[index].tolist()
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([columns, rows], -1).reshape(-1, 2) + 0.5
    origins, directions = pixel_rays(cameras, torch.full((len(pixels),), index), pixels)
    t = sphere_hits(origins, directions, torch.zeros(3), 1.0)
    points = origins + t.clamp_max(100)[:, None] * directions
    colors = torch.where((t < 100)[:, None], paint(points), torch.full((3,), 0.5))
    if with_small:
        nearer = sphere_hits(origins, directions, SMALL, 0.2) < t
        colors[nearer] = torch.tensor([1.0, 0.0, 0.0])
    return colors.view(height, width, 3)


def photos_of(cameras, exposures=None, change=None, **kwargs):
    """Photos with the given exposures (A | b); `change(index, colors)` may spoil them before."""
    neutral = torch.eye(3, 4).repeat(len(cameras), 1, 1)
    exposures = neutral if exposures is None else exposures

    def read(index, max_pixels):
        colors = trace(cameras, index, **kwargs)
        colors = colors if change is None else change(index, colors)
        shown = colors @ exposures[index, :, :3].T + exposures[index, :, 3]
        return (shown.clamp(0, 1) * 255).round().to(torch.uint8).numpy(), None

    return Photos(cameras, exposures, read)


def field_blue(points):
    return np.tile(np.array([0, 0, 255], np.uint8), (len(points), 1))


def texel_points(textured, size=SIZE):
    """Points and colours of the texture at the faces' centres."""
    uvs = textured.uvs[textured.faces].mean(1) * size
    columns, rows = uvs.astype(np.int64).T
    return textured.vertices[textured.faces].mean(1), textured.texture[rows, columns] / 255


def test_texture_shows_the_paint_whatever_the_exposures(all_around):
    gains = torch.linspace(0.8, 1.1, len(all_around))
    exposures = torch.cat([gains[:, None, None] * torch.eye(3), 0.02 * torch.ones(len(gains), 3, 1)], -1)
    textured = bake(ball(), photos_of(all_around, exposures), field_blue, SIZE)
    assert textured.photo_fraction > 0.99
    points, colors = texel_points(textured)
    error = np.abs(colors - paint(points))
    assert error.mean() < PAINT
    assert np.quantile(error, 0.99) < 3 * PAINT  # the nearest texel's centre is up to one texel off


def test_the_field_fills_what_no_photo_saw(ring):
    """The cameras stand above: the south pole is the field's, the north the photos'."""
    textured = bake(ball(), photos_of(ring), field_blue, SIZE)
    points, colors = texel_points(textured)
    assert (colors[points[:, 2] < -0.9] == [0, 0, 1]).all()
    assert np.abs(colors - paint(points))[points[:, 2] > 0.2].mean() < PAINT
    assert 0.5 < textured.photo_fraction < 0.95


def test_what_stands_in_front_is_not_painted_on(all_around):
    mesh = joined(ball(), ball(SMALL.tolist(), 0.2))
    textured = bake(mesh, photos_of(all_around, with_small=True), field_blue, SIZE)
    points, colors = texel_points(textured)
    large = np.linalg.norm(points, axis=1) < 1.01
    assert np.abs(colors - paint(points))[large & (points[:, 2] > 0.8)].max() < 5 * PAINT


def test_a_photo_that_disagrees_is_left_out(all_around):
    """A highlight in one photo: its residuals say so, and the texture does not show it."""
    spoilt = photos_of(all_around, change=lambda i, colors: colors if i else torch.ones_like(colors))
    assert choose_views(ball(), spoilt).weights[0].max() < 0.01
    facing = ball().vertices @ all_around.centers()[0].numpy() / 3 > 0.9
    observed = observe(ball(), spoilt)
    assert observed.residuals[facing].min() > 0.05
    assert observed.residuals.min() < PAINT


def test_the_photos_outvote_a_fitted_color(all_around):
    """The fit is grey, one photo shows something black in front: what the others show is painted."""
    grey = ball()._replace(colors=np.full((642, 3), 128, np.uint8))
    spoilt = photos_of(all_around, change=lambda i, colors: colors if i else torch.zeros_like(colors))
    views = choose_views(grey, spoilt)
    many = observe(grey, spoilt).n_views >= 4  # of two photos that differ the fitted colour decides
    bright = paint(ball().vertices).min(1) > 0.3
    assert (many & bright).mean() > 0.2 and views.weights[0, many & bright].max() < 0.02
    points, colors = texel_points(bake(grey, spoilt, field_blue, SIZE))
    assert np.abs(colors - paint(points)).mean() < PAINT


def test_weights_of_the_seen_add_up_to_one(ring):
    views, observed = choose_views(ball(), photos_of(ring)), observe(ball(), photos_of(ring))
    seen = observed.n_views > 0
    assert np.allclose(views.weights[:, seen].sum(0), 1, atol=1e-5)  # float32 rounding
    assert (views.weights[:, ~seen] == 0).all()
    assert (observed.evidence <= observed.n_views + 1e-4).all()
    assert not seen.all()


def test_texels_are_as_fine_as_pixels(all_around):
    """A ball of radius 1 of which the nearest camera's pixel shows `width` has 4π / width² pixels."""
    views = choose_views(ball(), photos_of(all_around))
    nearest = np.linalg.norm(all_around.centers().numpy(), axis=1).min() - 1
    width = nearest / float(all_around.intrinsics[0, 0])
    assert width < np.median(views.widths) < 2 * width
    packed = resolved_size(ball(), views) ** 2 * 0.6
    wanted = 4 * np.pi / np.median(views.widths) ** 2
    assert 0.8 * wanted < packed < 2.5 * wanted  # sizes come in steps
    far = views._replace(widths=1e-9 * views.widths)
    assert resolved_size(ball(), far) == LARGEST_CHOSEN


def stripes(index, colors):
    """Stripes that lie elsewhere in each photo: their mean would be grey."""
    columns = torch.arange(colors.shape[1]) + index
    return colors + 0.2 * ((columns // 2 % 2) - 0.5)[None, :, None]


def test_detail_is_not_averaged_away(all_around):
    """Stripes are 0.1 from their mean; five photos mixed alike leave 0.04."""
    textured = bake(ball(), photos_of(all_around, change=stripes), field_blue, 4 * SIZE)
    points, colors = texel_points(textured, 4 * SIZE)
    assert (colors - paint(points)).std() > 0.06


def test_photos_are_brought_to_one_level(all_around):
    """Photos that are brighter by turns, which no exposure tells: neighbouring vertices stay alike."""
    uneven = photos_of(all_around, change=lambda i, colors: colors + 0.06 * (i % 2))
    textured = bake(ball(), uneven, field_blue, SIZE)
    points, colors = texel_points(textured)
    steps = (colors - paint(points)).mean(1)
    plain = bake(ball(), photos_of(all_around), field_blue, SIZE)
    even = texel_points(plain)
    smooth = (even[1] - paint(even[0])).mean(1)
    nearest = KDTree(points).query(points, k=4)[1][:, 1:]
    seams = np.abs(steps[nearest] - steps[:, None]).max(1) - np.abs(smooth[nearest] - smooth[:, None]).max(1)
    assert np.quantile(seams, 0.98) < 0.02  # of 0.06


def test_bands_of_rows_make_the_same_texture(all_around, monkeypatch):
    whole = bake(ball(), photos_of(all_around), field_blue, SIZE)
    monkeypatch.setattr("quicksurf.mesh.texture.bake._BAND", 24 * SIZE)
    banded = bake(ball(), photos_of(all_around), field_blue, SIZE)
    assert (
        np.abs(whole.texture.astype(int) - banded.texture).max() <= 2
    )  # photos are reduced a little otherwise


def test_masked_pixels_do_not_count(all_around):
    photos = photos_of(all_around)
    empty = Photos(
        photos.cameras,
        photos.exposures,
        lambda i, n: (photos.read(i, n)[0], np.zeros((120, 160), bool)),
    )
    textured = bake(ball(), empty, field_blue, SIZE)
    assert textured.photo_fraction == 0
    assert (textured.texture == [0, 0, 255]).all()


def test_bilinear_is_exact_on_a_ramp():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:] = (np.arange(8) * 10)[None, :, None] + np.arange(4)[:, None, None]
    pixels = np.array([[1.25, 1.75], [3.5, 0.5], [7.9, 3.9]], np.float32)
    expected = 10 * np.clip(pixels[:, 0] - 0.5, 0, 7) + np.clip(pixels[:, 1] - 0.5, 0, 3)
    assert np.allclose(bilinear(image, pixels), expected[:, None], atol=1e-4)  # float32 rounding


def test_gaps_take_the_nearest_color():
    texture, used = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), bool)
    texture[0, 0], texture[3, 3] = 9, [200, 0, 0]
    used[0, 0] = used[3, 3] = True
    filled = fill_gaps(texture, used)
    assert (filled[0, 1] == 9).all() and (filled[3, 2] == [200, 0, 0]).all()


@pytest.mark.parametrize("size", [0, 63, 8193])
def test_sizes_that_cannot_be_baked_are_refused(size, ring):
    with pytest.raises(ConfigError, match="choose 64 to 8192"):
        bake(ball(), photos_of(ring), field_blue, size)
