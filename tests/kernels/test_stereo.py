"""Patch match: costs equal the twin's, a slanted plane is found from nothing, threads change no bit; depths agree."""

import numpy as np
import pytest
from scipy import ndimage
from stereo_twin import UNSEEN, bilinear, costs_twin

from quicksurf.kernels import _native

HEIGHT, WIDTH, FOCAL = 60, 90, 80.0
CAMERA = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
NORMAL, DISTANCE = np.array([0.3, -0.2, 1.0]), 2.0  # the plane NORMAL · x = DISTANCE
SHIFTS = [np.array([0.3, 0.0, 0.0]), np.array([-0.3, 0.05, 0.1]), np.array([0.0, 0.3, 0.0])]
SPEC = {"range": (0.2, 1.5), "reach": 1.0, "tilt": 1.0, "shrink": 0.4, "focal": FOCAL, "similarity": 20.0}
SPEC |= {"least_contrast": 2.0, "n_best": 2, "seed": 0}
AGREEMENT = {"most_cost": 0.4, "most_other_cost": 0.8, "most_pixels": 1.0, "most_relative": 0.01}
AGREEMENT |= {"least_cosine": 0.15, "n_agreeing": 2}
SINGLE = 2e-3  # of a cost: variances are differences of squares of grey values, in float32
NEAR_THRESHOLD = 0.002  # of the pixels: at the frame's edge, or as flat as is just allowed, rounding decides


@pytest.fixture(params=_native.instruction_sets())
def instruction_set(request):
    before = _native.instruction_set()
    _native.set_instruction_set(request.param)
    yield request.param
    _native.set_instruction_set(before)


@pytest.fixture(autouse=True)
def number_of_threads():
    before = _native.num_threads()
    yield
    _native.set_num_threads(before)


def texture():
    rng = np.random.default_rng(0)
    layers = [ndimage.gaussian_filter(rng.standard_normal((400, 400)), s) * s for s in (1.5, 3)]
    return np.clip(128 + 130 * sum(layers), 0, 255)


def transform(shift):
    """From the camera at the origin to one at `shift` that looks the same way."""
    return np.concatenate([np.eye(3), (-CAMERA @ shift)[:, None]], 1).astype(np.float32)


def plane(shift=0.0):
    """Inverse depths of the plane and their derivatives, as the camera at `shift` sees them."""
    slopes = NORMAL / (DISTANCE - NORMAL @ (np.zeros(3) + shift)) / [FOCAL, FOCAL, 1]
    v, u = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    w = slopes[2] + slopes[0] * (u - WIDTH / 2) + slopes[1] * (v - HEIGHT / 2)
    return np.stack([w, np.full_like(w, slopes[0]), np.full_like(w, slopes[1])]).astype(np.float32)


def photo(shift):
    """What the camera at `shift` sees of the textured plane."""
    v, u = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    depth = 1 / plane(shift)[0]
    x, y = (u - WIDTH / 2) / FOCAL * depth + shift[0], (v - HEIGHT / 2) / FOCAL * depth + shift[1]
    return np.round(bilinear(texture(), 35 * x + 200, 35 * y + 200)).astype(np.uint8)


def photos():
    return photo(np.zeros(3)), [photo(s) for s in SHIFTS], np.stack([transform(s) for s in SHIFTS])


def matched(planes, n_sweeps, reference=None):
    own, sources, transforms = photos()
    costs = np.zeros((HEIGHT, WIDTH), np.float32)
    _native.match_patches(
        own if reference is None else reference, sources, transforms, planes, costs, n_sweeps=n_sweeps, **SPEC
    )
    return costs


def rough(seed):
    """Planes about the true one, some far from it."""
    factors = np.random.default_rng(seed).uniform(0.7, 1.3, (3, HEIGHT, WIDTH))
    return (plane() * factors).astype(np.float32)


@pytest.mark.slow
def test_costs_equal_the_twins(instruction_set):
    for planes in (plane(), rough(1)):
        expected = costs_twin(*photos(), planes, SPEC["similarity"], SPEC["least_contrast"], SPEC["n_best"])
        off = np.abs(matched(planes.copy(), 0) - expected)
        assert np.mean(off > SINGLE) <= NEAR_THRESHOLD


def test_a_slanted_plane_is_found_from_a_constant_depth(instruction_set):
    planes = np.zeros((3, HEIGHT, WIDTH), np.float32)
    planes[0] = 0.9
    costs = matched(planes, 8)
    inner = (slice(8, -8), slice(8, -8))
    disparities = 0.3 * FOCAL * np.abs(planes[0] - plane()[0])[inner]
    assert np.mean(costs[inner] < 0.1) > 0.95
    assert np.median(disparities) < 0.05
    assert np.mean(disparities < 0.5) > 0.97


def test_no_number_depends_on_the_number_of_threads():
    found = []
    for n in (1, 2, 5):
        _native.set_num_threads(n)
        planes = rough(2)
        found.append((planes, matched(planes, 3)))
    for planes, costs in found[1:]:
        assert np.array_equal(planes, found[0][0]) and np.array_equal(costs, found[0][1])


def test_what_has_no_texture_is_not_matched():
    assert (matched(plane(), 2, np.full((HEIGHT, WIDTH), 90, np.uint8)) == UNSEEN).all()


def seen_at(inverse_depths, shift):
    """Where the camera at `shift` sees the pixels of the first at these inverse depths."""
    v, u = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    h = np.tensordot(transform(shift), np.stack([u, v, np.ones_like(u), inverse_depths]), 1)
    return h[:2] / h[2]


def verified(planes, others, costs=None):
    inverse, spreads = (np.full((HEIGHT, WIDTH), -1, np.float32) for _ in range(2))
    certain = np.zeros((HEIGHT, WIDTH), np.float32)
    _native.verify_depths(
        planes,
        certain if costs is None else costs,
        others,
        [certain] * len(others),
        np.stack([transform(shift) for shift in SHIFTS]),
        np.stack([transform(-shift) for shift in SHIFTS]),
        np.array([FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2], np.float32),
        inverse,
        spreads,
        **AGREEMENT,
    )
    return inverse, spreads


def test_depths_that_agree_are_kept_with_what_a_pixel_is_worth():
    inverse, spreads = verified(plane(), [plane(shift) for shift in SHIFTS])
    inner = (slice(16, -16), slice(16, -16))
    assert np.allclose(inverse[inner], plane()[0][inner], rtol=1e-5)
    deeper = [seen_at(plane()[0] / 1.001, shift) - seen_at(plane()[0], shift) for shift in SHIFTS]
    most = np.max([np.hypot(*moved) for moved in deeper], 0)
    assert np.allclose(spreads[inner], (0.001 / most)[inner], rtol=0.01)


def test_depths_that_one_photo_alone_confirms_are_not_kept():
    wrong = [plane(shift) * np.float32(1.03) for shift in SHIFTS[1:]]
    inverse, _ = verified(plane(), [plane(SHIFTS[0]), *wrong])
    assert not inverse.any()


def test_neither_bad_matches_nor_flat_sight_are_kept():
    others = [plane(shift) for shift in SHIFTS]
    assert not verified(plane(), others, np.full((HEIGHT, WIDTH), 0.5, np.float32))[0].any()
    steep = plane()
    steep[1] = 20 * steep[0] / FOCAL
    assert not verified(steep, others)[0].any()


def test_wrong_sizes_are_named():
    own, sources, transforms = photos()
    with pytest.raises(ValueError, match="costs"):
        _native.match_patches(
            own, sources, transforms, plane(), np.zeros((3, 3), np.float32), n_sweeps=1, **SPEC
        )
    with pytest.raises(ValueError, match="n_best"):
        costs = np.zeros((HEIGHT, WIDTH), np.float32)
        _native.match_patches(own, sources, transforms, plane(), costs, n_sweeps=1, **SPEC | {"n_best": 4})
