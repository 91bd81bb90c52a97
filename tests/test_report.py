"""The report: its figures against plain twins, its advice on captures whose gap is known, and its page as text."""

import base64
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
import trimesh
from playwright.sync_api import Browser
from scipy.ndimage import gaussian_filter

from quicksurf.camera_paths import look_at
from quicksurf.cameras import Cameras
from quicksurf.evaluation import evaluate
from quicksurf.mesh.export import read_mesh, write_mesh
from quicksurf.mesh.types import Mesh
from quicksurf.mesh.visibility import count_views
from quicksurf.photo_figures import exposures, fitted_stops, flag, measure
from quicksurf.report import charts, solid
from quicksurf.report.advice import advise, frame_of, needs_of, next_places
from quicksurf.report.gather import Clock, Findings, gather, shown, surface_seconds
from quicksurf.report.page import report_run
from quicksurf.report.sphere import Sphere, covered_share, step_in_words, widest_gap
from quicksurf.report.topology import close_holes, examine, find_holes
from quicksurf.report.words import advice_on_lost

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
    needs = needs_of(mesh.vertices, mesh.faces, n_views, frame.center, 1.5)
    places, left = next_places(needs, cameras, frame)
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
    assert covered_share(frame, one) == pytest.approx(cap, abs=0.005)
    azimuths, elevations = np.meshgrid(np.arange(0, 360, 15.0), np.arange(0, 91, 15.0))
    assert covered_share(frame, Sphere(azimuths.ravel(), elevations.ravel())) == 1


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
    open_share = needs_of(mesh.vertices, kept, n_views, np.array(CENTER), 1.5).missing().sum()
    cut_share = needs_of(mesh.vertices, kept, n_views, np.array(CENTER), 1.01).missing().sum()
    assert open_share == pytest.approx(
        0.047, abs=0.015
    )  # a disc of radius √(1 − 0.9²) over the area of the ball
    assert cut_share == 0


def test_topology_of_known_solids() -> None:
    solid_ball = ball()
    whole = examine(solid_ball.vertices, solid_ball.faces)
    assert (whole.components, whole.holes, whole.watertight) == (1, 0, True)
    assert np.allclose(whole.size, 2, atol=0.01)
    opened = examine(solid_ball.vertices, solid_ball.faces[1:])
    assert (opened.components, opened.holes, opened.watertight) == (1, 1, False)
    twice = np.concatenate([solid_ball.faces, solid_ball.faces + len(solid_ball.vertices)])
    both = examine(np.concatenate([solid_ball.vertices, solid_ball.vertices + 5]), twice)
    assert (both.components, both.watertight) == (2, True)
    flipped = solid_ball.faces.copy()
    flipped[0] = flipped[0, ::-1]
    assert not examine(solid_ball.vertices, flipped).watertight


def test_fans_close_a_mesh() -> None:
    mesh = ball(2)
    wide = mesh.vertices[mesh.faces].mean(1)[:, 2] > CENTER[2] + 0.7  # a cap, and one triangle far from it
    wide[int((~wide).argmax())] = True
    kept = mesh.faces[~wide]
    assert find_holes(kept).count == 2
    middles, fans = close_holes(mesh.vertices, find_holes(kept))
    closed = examine(np.concatenate([mesh.vertices, middles]), np.concatenate([kept, fans]))
    assert closed.watertight
    assert find_holes(mesh.faces).count == 0


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
    blob = base64.b64decode(solid.pack(mesh, np.arange(len(mesh.vertices)), frame))
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
    reduced = solid.reduce(mesh._replace(colors=colors))
    assert 0.8 * solid.MAX_FACES < len(reduced.faces) <= solid.MAX_FACES
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
    clock = Clock(5.0, lambda: next(times))
    assert clock.left() == 4
    assert clock.left() == -4
    assert Clock(None).left() == float("inf")


class Page(HTMLParser):
    """What a browser would make of the page: tags, and the text outside of style and script."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


FIGURE = 0.1  # dB: the page rounds to a tenth and compares with 8-bit photos


@pytest.fixture(scope="module")
def masked_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny capture with masks before a red wall, whose cameras were moved after they were read."""
    from cut_fit import cut_to
    from tiny_capture import write_capture

    from quicksurf import backends
    from quicksurf.fit_request import FitRequest
    from quicksurf.pipeline import run_fit
    from quicksurf.session.runs import open_run

    folder = write_capture(tmp_path_factory.mktemp("masked") / "capture")
    for path in (folder / "images").iterdir():
        photo, mask = imageio.imread(path), imageio.imread(folder / "masks" / path.name)
        imageio.imwrite(path, np.where(mask[..., None] > 0, photo, np.array([200, 30, 30], np.uint8)))
    path, preset = folder.parent / "run", str(Path(__file__).parent / "tiny.toml")
    run_fit(FitRequest(folder, 20.0, path, preset=preset), fit=cut_to(3.0))
    run = open_run(path)
    reconstruction = run.load_checkpoint(backends.load("cpu"))
    assert reconstruction.masked
    reconstruction.cameras.c2w[:, :, 3] += 0.3 * reconstruction.cameras.c2w[:, :, 0]  # three pixels
    run.save_checkpoint(reconstruction)
    return path


def findings(path: Path, clock: Clock, max_pixels: int = 48 * 48) -> Findings:
    """What the page of a run says, its photos kept with `max_pixels`."""
    from quicksurf import backends
    from quicksurf.data.assemble import ReadOptions
    from quicksurf.session.resume import read_capture
    from quicksurf.session.runs import open_run

    run = open_run(path)
    reconstruction = run.load_checkpoint(backends.load("cpu"))
    options = ReadOptions(max_pixels=max_pixels, roi=reconstruction.roi, say=lambda line: None)
    scene = read_capture(run, options)
    return gather(run, {}, reconstruction, scene, read_mesh(path / "mesh.ply"), clock)


@pytest.mark.slow
def test_photos_are_not_read_again_for_the_page(masked_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_again(path: Path, *rest: object) -> None:
        pytest.fail(f"{path} is read again")

    monkeypatch.setattr("quicksurf.takeaway.products.read_pixels", read_again)
    found = findings(masked_run, Clock(None), max_pixels=20 * 20)
    assert found.surface is not None and found.surface.n_views.max() >= 2


@pytest.mark.slow
def test_the_mesh_is_left_out_where_its_photos_take_longer(masked_run: Path) -> None:
    n_faces = len(read_mesh(masked_run / "mesh.ply").faces)
    for spare in (-0.01, 0.01):
        clock = Clock(surface_seconds(n_faces, 12) + spare, now=lambda: 0.0)
        found = findings(masked_run, clock)
        assert (found.surface is not None) == (spare > 0) == (not any("the mesh" in n for n in found.notes))
    assert surface_seconds(n_faces, 312) > surface_seconds(n_faces, 12) + 5  # a photo takes 23 to 40 ms


@pytest.mark.slow
def test_curves_of_a_run_that_went_on_run_forward(masked_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(masked_run, path)
    with open(path / "metrics.jsonl", "a") as file:
        for seconds in (0.5, 2.0, 4.0):
            file.write(
                json.dumps({"seconds": seconds, "psnr": 20.0, "psnr_held_out": 19.0, "loss": 0.1}) + "\n"
            )
    drawn = re.findall(r'<polyline class="line s\d" points="([^"]+)"', report_run(path, "cpu").read_text())
    assert len(drawn) == 3, "two kinds of photos, and the loss"
    for line in drawn:
        across = [float(point.split(",")[0]) for point in line.split()]
        assert len(across) >= 4 and across == sorted(across)


@pytest.mark.slow
def test_figures_of_a_masked_run_are_those_of_eval(masked_run: Path) -> None:
    measured = "\n".join(evaluate(masked_run, None, None, 3, "cpu"))
    known = [float(value) for value in re.findall(r"PSNR ([\d.]+) dB, SSIM .*\n", measured)]
    on_page = re.findall(r"kept from the fit; ([\d.]+) dB", report_run(masked_run, "cpu").read_text())
    assert len(known) == len(on_page) == 2
    assert [float(value) for value in on_page] == pytest.approx(known, abs=FIGURE)


HOSTILE = "<img src=x onerror=alert(1)>&\"'.png"


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a capture whose files are named to break a page, fitted for a moment."""
    from tiny_capture import write_capture

    from quicksurf.fit_request import FitRequest
    from quicksurf.pipeline import run_fit

    folder = write_capture(tmp_path_factory.mktemp("page") / "<script>alert(2)<")
    images = folder / "images"
    (images / "00.png").rename(images / HOSTILE.replace("/", ""))
    cameras = folder / "transforms.json"
    escaped = HOSTILE.replace('"', '\\"')
    cameras.write_text(cameras.read_text().replace("images/00.png", f"images/{escaped}"))
    (folder / "masks").rename(folder / "unused")
    preset = str(Path(__file__).parent / "tiny.toml")
    run = folder.parent / "run"
    run_fit(FitRequest(folder, minutes=0.5, output=run, preset=preset, masks=False))
    return run


@pytest.mark.slow
def test_report_of_a_run_with_hostile_names(hostile_run: Path) -> None:
    text = report_run(hostile_run, "cpu").read_text()
    assert len(text) < 10_000_000
    page = Page()
    page.feed(text)
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert [tag for tag, _ in page.tags].count("script") == 2, "the mesh and the viewer"
    assert any(HOSTILE in piece for piece in page.text), "the name is shown as it is"
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:"), "nothing is loaded"
    assert "default-src 'none'" in text
    captions = {"photo", "render", "normals"}
    assert captions <= {piece.strip() for piece in page.text}


@pytest.mark.slow
def test_report_in_a_browser_asks_for_nothing_and_fits_a_phone(hostile_run: Path, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(300_000)  # milliseconds: a machine with much other work
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(report_run(hostile_run, "cpu").resolve().as_uri())
    page.locator("#viewer.live").wait_for()
    page.get_by_role("button", name="Confidence").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
    assert asked and all(url.startswith(("file:", "data:", "blob:")) for url in asked)
    assert not wrong


@pytest.mark.slow
def test_report_without_photos_and_with_another_mesh(hostile_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(hostile_run, run)
    record = (run / "run.json").read_text().replace("alert(2)", "gone")
    (run / "run.json").write_text(record)
    (run / "summary.json").unlink()
    for path in run.glob("mesh.*"):
        path.unlink()
    text = report_run(run, "cpu").read_text()
    assert "the photos are not shown" in text
    assert "the mesh is not shown" in text
    write_mesh(ball(2), run, "mesh", ("obj",))
    assert 'id="mesh"' in report_run(run, "cpu").read_text()
