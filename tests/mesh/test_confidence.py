"""Confidence: more, more frontal and more agreeing views give more of it."""

import numpy as np
import pytest
import trimesh

from quicksurf.errors import ConfigError, SurfaceError
from quicksurf.mesh.confidence import confidence_of, confidence_picture, scale_colors, trim
from quicksurf.mesh.export import write_mesh
from quicksurf.mesh.observe import Observations
from quicksurf.mesh.types import Mesh


def observed(evidence):
    n = len(evidence)
    zeros = np.zeros(n, np.float32)
    return Observations(np.zeros(n, np.int64), zeros, zeros, np.array(evidence, np.float32))


@pytest.fixture
def ball():
    """A ball whose confidence is its height, from 0 to 1."""
    shape = trimesh.creation.icosphere(3)
    vertices = np.asarray(shape.vertices, np.float64)
    confidence = ((vertices[:, 2] + 1) / 2).astype(np.float32)
    colors = np.zeros((len(vertices), 3), np.uint8)
    return Mesh(vertices, np.asarray(shape.faces, np.int64), colors, vertices, confidence)


def test_two_good_views_give_a_half():
    assert confidence_of(observed([0, 2, 6])).tolist() == [0, 0.5, 0.75]


def test_trim_keeps_the_certain(ball):
    kept = trim(ball, 0.5)
    assert kept.vertices[:, 2].min() >= 0
    assert kept.confidence is not None and kept.confidence.min() >= 0.5
    assert 0.4 < len(kept.faces) / len(ball.faces) < 0.5
    assert len(kept.colors) == len(kept.normals) == len(kept.confidence) == len(kept.vertices)


def test_nothing_certain_is_an_error(ball):
    with pytest.raises(SurfaceError, match=r"the best vertex has 0\.20"):
        trim(ball._replace(confidence=0.2 * ball.confidence), 0.5)


@pytest.mark.parametrize("least", [0.0, 1.0, -1.0, float("nan")])
def test_thresholds_that_keep_all_or_nothing_are_refused(ball, least):
    with pytest.raises(ConfigError, match="--trim"):
        trim(ball, least)


def test_ply_holds_the_confidence(ball, tmp_path):
    (path,) = write_mesh(ball, tmp_path, "mesh", ("ply",))
    loaded = trimesh.load(path, process=False)
    stored = loaded.metadata["_ply_raw"]["vertex"]["data"]["confidence"]
    assert np.allclose(np.ravel(stored), ball.confidence)


def test_picture_shows_the_scale(ball, ring):
    """Above, the ball is yellow (red over blue), below violet; the background is white."""
    picture = confidence_picture(ball, ring, side=64).astype(int)
    assert (picture[0, 0] == 255).all()
    view = picture[:64, :64]
    shown = np.argwhere((view != 255).any(-1))
    top, bottom = shown[shown[:, 0].argmin()], shown[shown[:, 0].argmax()]
    assert view[tuple(top)][0] > view[tuple(top)][2] and view[tuple(bottom)][2] > view[tuple(bottom)][1]


def test_lightness_grows_with_confidence():
    lightness = scale_colors(np.linspace(0, 1, 50)) @ np.array([0.3, 0.59, 0.11])
    assert (np.diff(lightness) > 0).all()
