"""Outlines of masks are known below the pixel."""

import numpy as np
import pytest
import torch

from quicksurf.capture.masks import as_given
from quicksurf.train.silhouettes import Outlines, along_outline, interpolate

N_POINTS = 4_000
UNBIASED = 0.005  # of the points; the band is 2 to 4 pixels wide, so this is 0.02 pixels at most


def half_plane(normal, offset, size=16, fine=32):
    """Coverage of the pixels by x · normal < offset, by counting fine² points in each."""
    ticks = (np.arange(size * fine) + 0.5) / fine
    inside = ticks[None] * normal[0] + ticks[:, None] * normal[1] < offset
    share = inside.reshape(size, fine, size, fine).mean((1, 3))
    return np.rint(255 * share).astype(np.uint8)


def draw(masks, indices, n=N_POINTS):
    masks = [as_given(mask) for mask in masks]
    return Outlines.of(masks, indices, torch.device("cpu")).draw(n, torch.Generator().manual_seed(0))


def test_interpolation_is_exact_for_linear_values():
    patch = torch.tensor([[[0.0, 1, 2], [10, 11, 12], [20, 21, 22]]]).expand(100, 3, 3)
    within = torch.rand(100, 2, generator=torch.Generator().manual_seed(0))
    expected = 11 + (within[:, 0] - 0.5) + 10 * (within[:, 1] - 0.5)
    torch.testing.assert_close(interpolate(patch, within), expected)


@pytest.mark.parametrize("normal", [(1.0, 0.0), (0.0, -1.0), (0.6, 0.8), (-0.28, 0.96)])
def test_a_straight_outline_divides_the_points_where_it_runs(normal):
    differences = []
    for offset in 8 * sum(normal) + np.linspace(-0.5, 0.5, 11):
        batch = draw([half_plane(normal, offset)], [0])
        distance = batch.pixels.numpy() @ np.array(normal) - offset
        inside = batch.inside.numpy() > 0.5
        assert np.abs(distance[(distance < 0) != inside]).max(initial=0) < 0.3, "so far from it is certain"
        differences.append(inside.mean() - (distance < 0).mean())
    assert abs(np.mean(differences)) < UNBIASED


def test_points_lie_within_a_pixel_or_two_of_the_outline_and_on_both_sides():
    batch = draw([half_plane((1.0, 0.0), 8.0)], [0])
    assert batch.pixels[:, 0].min() > 6 and batch.pixels[:, 0].max() < 10
    assert 0.4 < batch.inside.mean() < 0.6


def test_images_keep_their_numbers_and_masks_of_one_value_have_no_outline():
    full, disc = np.full((16, 16), 255, np.uint8), half_plane((1.0, 0.0), 8.0)
    batch = draw([disc, full, disc, disc], [0, 1, 3])
    assert sorted(batch.image_indices.unique().tolist()) == [0, 3]
    nothing = draw([full, np.zeros_like(full)], [0, 1])
    assert len(nothing.pixels) == len(nothing.inside) == 0


def test_an_object_cut_by_the_frame_has_no_outline_there():
    mask = np.zeros((9, 9), np.uint8)
    mask[:, :5] = 255
    rows, columns = np.nonzero(along_outline(mask))
    assert set(columns.tolist()) == {4, 5} and set(rows.tolist()) == set(range(9))
