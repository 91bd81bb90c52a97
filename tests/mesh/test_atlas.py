"""The atlas: every face has its own place, texels know theirs."""

import numpy as np
import pytest
import trimesh

from quicksurf.mesh.texture.atlas import find_texels, unwrap

SIZE = 256


@pytest.fixture(scope="module")
def ball():
    """A ball of 1280 faces."""
    mesh = trimesh.creation.icosphere(3)
    return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)


@pytest.fixture(scope="module")
def atlas(ball):
    return unwrap(*ball, SIZE)


def test_faces_keep_their_corners(ball, atlas):
    assert (atlas.origins[atlas.faces] == ball[1]).all()
    assert atlas.uvs.min() >= 0 and atlas.uvs.max() <= 1


def test_faces_do_not_overlap(atlas):
    """Areas of the triangles add up to the area that is covered, counted in texels of a finer grid."""
    a, b, c = (atlas.uvs[atlas.faces[:, k]].astype(np.float64) for k in range(3))
    ab, ac = b - a, c - a
    areas = 0.5 * np.abs(ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0])
    covered = len(find_texels(atlas, 1024).cells) / 1024**2
    assert covered == pytest.approx(areas.sum(), rel=0.02)  # half a texel along the charts' borders
    assert covered > 0.4


def test_texels_lie_where_their_face_does(ball, atlas):
    """A texel's weights give back its own centre in the atlas, and a point of the ball in space."""
    texels = find_texels(atlas, SIZE)
    centers = np.stack([texels.cells % SIZE, texels.cells // SIZE], 1) + 0.5
    found = texels.interpolate(atlas.uvs, atlas.faces) * SIZE
    assert np.abs(found - centers).max() < 0.01
    points = texels.interpolate(ball[0].astype(np.float32), ball[1])
    assert np.linalg.norm(points, axis=1).min() > 0.98  # sagitta of the faces
    assert (np.diff(texels.faces) >= 0).all()


def test_pieces_come_back_in_the_mesh_s_order():
    """A mesh large enough to be cut into pieces: corners still belong to their faces."""
    ball = trimesh.creation.icosphere(5)
    faces = np.asarray(ball.faces, np.int64)
    atlas = unwrap(np.asarray(ball.vertices, np.float64), faces, SIZE)
    assert (atlas.origins[atlas.faces] == faces).all()
