"""The report: its figures against plain twins, its advice on captures whose gap is known."""

import base64
import math
import re

import numpy as np
import pytest
import torch
import trimesh
from scipy.ndimage import gaussian_filter

from quicksurf.app.report import charts
from quicksurf.app.report.advice import advise, frame_of, measure_coverage, next_places
from quicksurf.app.report.collect import TimeLimit, measure_topology, shown
from quicksurf.app.report.context import advice_on_lost
from quicksurf.app.report.pictures import MAX_FACES, pack_mesh, reduce_mesh
from quicksurf.app.report.sphere import Sphere, covered_fraction, step_in_words, widest_gap
from quicksurf.capture.photo_figures import exposures, fitted_stops, flag, measure
from quicksurf.geometry.cameras import Cameras
from quicksurf.geometry.paths import look_at
from quicksurf.mesh.holes import boundary_loops, is_closed
from quicksurf.mesh.types import Mesh
from quicksurf.mesh.visibility import count_views

DEGREES = 1e-9  # float64, a few operations
CENTER = (1.0, -2.0, 0.5)


def placed(azimuths: list[float], elevations: list[float], distance: float = 4.0) -> Cameras:
    """Cameras at angles in degrees around CENTER, z up; azimuth 0 is the x axis, 90 the y axis."""
    a, e = (torch.tensor(values, dtype=torch.float64).deg2rad() for values in (azimuths, elevations))
    center = torch.tensor(CENTER, dtype=torch.float64)
    offsets = torch.stack([e.cos() * a.cos(), e.cos() * a.sin(), e.sin()], -1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    count = len(azimuths)
    return Cameras(
        c2w=look_at(center + distance * offsets, center, up),
        intrinsics=torch.tensor([200.0, 200, 64, 64], dtype=torch.float64).repeat(count, 1),
        distortion=torch.zeros(count, 6, dtype=torch.float64),
        fisheye=torch.zeros(count, dtype=torch.bool),
        sizes=torch.full((count, 2), 128),
    )


def ball(subdivisions: int = 3) -> Mesh:
    sphere = trimesh.creation.icosphere(subdivisions)
    vertices = np.asarray(sphere.vertices, np.float64)
    colors = np.full((len(vertices), 3), 180, np.uint8)
    return Mesh(vertices + np.array(CENTER), np.asarray(sphere.faces, np.int64), colors, vertices.copy())


def rings(azimuths: list[float]) -> Cameras:
    """Three rings of cameras, at 10, 40 and 70 degrees."""
    return placed([a for a in azimuths for _ in range(3)], [e for _ in azimuths for e in (10.0, 40.0, 70.0)])


def advice_for(cameras: Cameras, mesh: Mesh) -> tuple[list, list[str]]:
    frame = frame_of(cameras, CENTER)
    n_views = count_views(mesh.vertices, mesh.faces, mesh.normals, cameras.to(torch.float32)).n_views
    coverage = measure_coverage(mesh.vertices, mesh.faces, n_views, frame.center, 1.5)
    places, left = next_places(coverage, cameras, frame)
    sphere = frame.sphere(cameras.centers().numpy())
    return places, advise(places, left, frame, sphere, [f"p{i}" for i in range(len(cameras))])


def test_places_on_the_sphere_are_where_the_cameras_were_put() -> None:
    azimuths, elevations = [30.0, 120.0, 250.0, 10.0], [5.0, 60.0, -20.0, 10.0]
    cameras = placed(azimuths, elevations)
    frame = frame_of(rings([30.0, 150.0, 270.0]), CENTER)
    sphere = frame.sphere(cameras.centers().numpy())
    assert np.allclose(sphere.azimuths, [0, 90, 220, 340], atol=DEGREES)
    assert np.allclose(sphere.elevations, elevations, atol=DEGREES)
    offsets = cameras.centers().numpy() - np.array(CENTER)
    assert np.allclose(4 * frame.directions(sphere), offsets, atol=DEGREES)


def test_right_is_right_for_somebody_who_faces_the_object() -> None:
    cameras = placed([0.0, 90.0, 180.0, 270.0], [0.0] * 4)
    frame = frame_of(cameras, CENTER)
    (azimuth,) = frame.sphere((cameras.centers()[:1] + cameras.c2w[0, :, 0]).numpy()).azimuths
    assert 0 < azimuth < 90
    assert step_in_words((350.0, 10.0), (20.0, 32.0)) == "30° to the right around the object and 20° higher"
    assert step_in_words((20.0, 32.0), (350.0, 30.0)) == "30° to the left around the object"


def test_widest_gap_names_its_photos() -> None:
    gap, left, right = widest_gap(Sphere(np.array([10.0, 200.0, 80.0, 300.0]), np.zeros(4)))
    assert (gap, left, right) == (pytest.approx(120.0), 2, 1)


def test_one_photo_covers_a_cap_and_many_the_sphere() -> None:
    frame = frame_of(rings([0.0, 90.0, 180.0, 270.0]), CENTER)
    one = Sphere(np.array([0.0]), np.array([89.0]))
    cap = 1 - math.cos(math.radians(20))  # of a half sphere
    assert covered_fraction(frame, one) == pytest.approx(cap, abs=0.005)
    azimuths, elevations = np.meshgrid(np.arange(0, 360, 15.0), np.arange(0, 91, 15.0))
    assert covered_fraction(frame, Sphere(azimuths.ravel(), elevations.ravel())) == 1


def test_the_side_that_no_photo_saw_is_the_place_to_go() -> None:
    places, sentences = advice_for(rings([float(a) for a in range(0, 240, 20)]), ball())
    assert places, "a third of the ball was not photographed"
    assert 240 < places[0].azimuth < 340, "the gap lies between 220 and 360 degrees"
    assert re.search(r"to the (right|left) around the object", sentences[0])
    assert any("140°" in sentence for sentence in sentences), "the gap is named"


def test_a_capture_all_around_asks_for_nothing_but_the_underside() -> None:
    places, sentences = advice_for(rings([float(a) for a in range(0, 360, 20)]), ball())
    assert not places
    assert len(sentences) == 1
    assert "faces down" in sentences[0]


def test_a_hole_is_worth_seeing_unless_the_region_cut_it() -> None:
    mesh = ball()
    kept = mesh.faces[~(mesh.vertices[mesh.faces].mean(1)[:, 0] > CENTER[0] + 0.9)]
    n_views = np.full(len(mesh.vertices), 10)
    open_fraction = measure_coverage(mesh.vertices, kept, n_views, np.array(CENTER), 1.5).missing().sum()
    cut_fraction = measure_coverage(mesh.vertices, kept, n_views, np.array(CENTER), 1.01).missing().sum()
    assert open_fraction == pytest.approx(
        0.047, abs=0.015
    )  # a disc of radius √(1 − 0.9²) over the area of the ball
    assert cut_fraction == 0


def test_topology_of_known_solids() -> None:
    solid_ball = ball()
    whole = measure_topology(solid_ball.vertices, solid_ball.faces)
    assert (whole.components, whole.holes, whole.watertight) == (1, 0, True)
    assert np.allclose(whole.size, 2, atol=0.01)
    opened = measure_topology(solid_ball.vertices, solid_ball.faces[1:])
    assert (opened.components, opened.holes, opened.watertight) == (1, 1, False)
    twice = np.concatenate([solid_ball.faces, solid_ball.faces + len(solid_ball.vertices)])
    both = measure_topology(np.concatenate([solid_ball.vertices, solid_ball.vertices + 5]), twice)
    assert (both.components, both.watertight) == (2, True)
    flipped = solid_ball.faces.copy()
    flipped[0] = flipped[0, ::-1]
    assert not measure_topology(solid_ball.vertices, flipped).watertight


def test_fans_close_a_mesh() -> None:
    mesh = ball(2)
    wide = mesh.vertices[mesh.faces].mean(1)[:, 2] > CENTER[2] + 0.7  # a cap, and one triangle far from it
    wide[int((~wide).argmax())] = True
    kept = mesh.faces[~wide]
    assert len(boundary_loops(kept)) == 2
    closed = measure_coverage(
        mesh.vertices, kept, np.zeros(len(mesh.vertices), np.int64), np.array(CENTER), 1.5
    )
    assert len(closed.vertices) == len(mesh.vertices) + 2
    assert is_closed(closed.faces)
    assert closed.weights.sum() == pytest.approx(1)


def test_blur_and_exposure_stand_out_and_content_does_not() -> None:
    rng = np.random.default_rng(0)
    images = []
    for index in range(7):
        grain = gaussian_filter(rng.normal(size=(90, 120)), 0.7 + 0.02 * index)
        images.append(np.repeat((128 + 90 * grain)[..., None].clip(2, 250), 3, -1).astype(np.uint8))
    images[3] = gaussian_filter(images[3].astype(float), (2, 2, 0)).astype(np.uint8)
    images[5][:40] = 255
    flags = flag([measure(image) for image in images], [0, 0, 0, 0, 0.9, 0, 0])
    assert [i for i, f in enumerate(flags) if f.blurred] == [3]
    assert [i for i, f in enumerate(flags) if f.exposure] == [4]
    assert [i for i, f in enumerate(flags) if f.clipped] == [5]
    assert flag([], []) == []
    assert measure(np.full((8, 8, 3), 7, np.uint8)).sharpness == 1


def test_stops_are_counted_from_the_mean_photo() -> None:
    offsets = np.zeros((2, 3, 4))
    offsets[0, :, 3], offsets[1, :, 3] = 0.25, -0.25
    assert fitted_stops(offsets) == pytest.approx([2.2 * math.log2(1.5), -2.2])


def test_a_photo_far_too_dark_stands_out_whatever_the_fit_made_of_it() -> None:
    texture = np.random.default_rng(0).random((64, 64, 3))
    photos = [(255 * texture * gain ** (1 / 2.2)).astype(np.uint8) for gain in (1, 1, 0.5, 1 / 32)]
    figures = [measure(photo) for photo in photos]
    stops = exposures(figures, [0.0, 0.1, -0.2, -0.3])
    assert stops[:3] == [0.0, 0.1, -0.2], "the dark side of an object may be a stop darker"
    assert stops[3] == pytest.approx(-5, abs=0.6)  # the median lies between two of them, values are rounded
    assert [flags.exposure for flags in flag(figures, stops)] == [False, False, False, True]


def test_lost_photos_are_told_what_to_do_about() -> None:
    lost = {
        "a.jpg": "blurred, 40 % as sharp as the others: not placed: it shares points with one photo",
        "b.jpg": "blurred, 50 % as sharp as the others: too few matches: it overlaps with no other photo",
        "c.jpg": "too few matches: it overlaps with no other photo",
        "d.jpg": "the same photo as c.jpg",
    }
    assert advice_on_lost(lost) == [
        "a.jpg, b.jpg are not used, too blurred: take them again with the camera held still.",
        "c.jpg is not used, it shows nothing that another photo shows: if it belongs here, take photos between.",
    ]


def test_packed_mesh_reads_back() -> None:
    mesh = ball()
    cameras = rings([0.0, 90.0, 180.0, 270.0])
    frame = frame_of(cameras, CENTER)
    blob = base64.b64decode(pack_mesh(mesh, np.arange(len(mesh.vertices)), frame))
    n_vertices, n_faces = np.frombuffer(blob, "<u4", 2)
    assert (n_vertices, n_faces) == (len(mesh.vertices), len(mesh.faces))
    positions = np.frombuffer(blob, "<u2", 4 * n_vertices, 8).reshape(-1, 4)[:, :3] / 65535 * 2 - 1
    faces = np.frombuffer(blob, "<u2", 3 * n_faces, 8 + 16 * n_vertices).reshape(-1, 3)
    assert np.array_equal(faces, mesh.faces)
    assert 8 + 16 * n_vertices + 6 * n_faces == len(blob)
    local = mesh.vertices - np.array(CENTER)
    expected = np.stack(
        [local[:, 1], local[:, 2], local[:, 0]], -1
    )  # right of x is y; z is up; x comes nearer
    assert np.abs(positions - expected).max() < 1 / 65535  # the ball of radius 1 fills the frame


def test_a_large_mesh_is_reduced_and_keeps_its_colours() -> None:
    mesh = ball(6)
    colors = np.where(mesh.vertices[:, :1] > CENTER[0], [250, 10, 10], [10, 10, 250]).astype(np.uint8)
    reduced = reduce_mesh(mesh._replace(colors=colors))
    assert 0.8 * MAX_FACES < len(reduced.faces) <= MAX_FACES
    sides = reduced.vertices[:, 0] - CENTER[0]
    clear = np.abs(sides) > 0.1
    assert np.array_equal(reduced.colors[clear, 0] == 250, sides[clear] > 0)


def test_drawings_escape_their_text_and_bear_any_figures() -> None:
    drawn = charts.curves("<b>", "dB", {"<i>": [(0.0, 1.0), (1.0, 1.0)], "x": [(0.0, -5.0)]})
    assert "<b>" not in drawn
    assert "<i>" not in drawn
    assert charts.curves("a", "b", {"c": []}) == ""
    for low, high in ((0, 0), (1e-9, 2e-9), (-1e12, 1e12)):
        assert "nan" not in charts.curves("a", "b", {"c": [(0.0, float(low)), (3.0, float(high))]})


def test_names_for_a_page_are_short_and_plain() -> None:
    assert shown("a\u202eb\x00c\udcffd") == "a\ufffdb\ufffdc\ufffdd"
    assert len(shown("x" * 500)) < 80


def test_the_clock_runs_out() -> None:
    times = iter([0.0, 1.0, 9.0])
    clock = TimeLimit(5.0, lambda: next(times))
    assert clock.left() == 4
    assert clock.left() == -4
    assert TimeLimit(None).left() == float("inf")
