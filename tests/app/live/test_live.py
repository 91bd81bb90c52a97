"""A fit with its page open: what is shown, what clicks do, and what they do to the clock."""

import _thread
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from cut_fit import cut_to
from page_client import PATIENCE, PageClient, page_client
from tiny_capture import AXES, CENTER, write_capture

from quicksurf import kernels
from quicksurf.app.budget import Budget, StopRequest
from quicksurf.app.cli import main
from quicksurf.app.fit import FitResult, run_fit
from quicksurf.app.live.preview import preview_mesh
from quicksurf.app.live.replay import view_run
from quicksurf.app.live.server import Address
from quicksurf.app.live.session import PAGE_FRACTION, ROI_SECONDS, LiveView, live_view
from quicksurf.app.requests import FitRequest
from quicksurf.capture.load import ReadOptions, read_scene
from quicksurf.config import load_config
from quicksurf.errors import QuicksurfError
from quicksurf.geometry.region import Roi
from quicksurf.train.loop import Trainer

pytestmark = pytest.mark.slow

TINY = str(Path(__file__).parents[2] / "tiny.toml")


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_capture(tmp_path_factory.mktemp("capture"))


class Person:
    """Does something with the page in a thread of its own, while the fit has the main one."""

    def __init__(self, url: str, acts: Callable[[PageClient], None]) -> None:
        self._url, self._acts = url, acts
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with page_client(self._url) as page:
                self._acts(page)
        except BaseException as error:
            self._error = error
            _thread.interrupt_main()  # or the fit goes on for its 30 minutes, with nobody to end it

    def leave(self) -> None:
        """Wait for the thread; fail as it did."""
        self._thread.join(PATIENCE)
        if self._error is not None:
            raise self._error


def url_of(view: LiveView) -> str:
    assert view.greeting is not None
    return view.greeting.split()[-1]


def watched_fit(
    capture: Path, output: Path, acts: Callable[[PageClient], None], minutes: float = 30.0
) -> FitResult:
    """A fit that `acts` ends: its minutes are more than anybody waits for."""
    with live_view(Address()) as view:
        person = Person(url_of(view), acts)
        try:
            result = run_fit(FitRequest(capture, minutes, output, preset=TINY), listener=view)
        finally:
            person.leave()
    return result


def test_a_fit_from_start_to_stop(capture: Path, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def acts(page: PageClient) -> None:
        page.click("Start the fit")
        page.wait(lambda: "/mesh" in page.nodes, "a mesh")
        page.wait(lambda: "held out" in page.texts(), "figures")
        for suffix in ("obj", "ply"):
            page.set("Format", suffix)
            page.click("Export the mesh shown")
            page.wait(lambda suffix=suffix: f"mesh.{suffix}" in page.files, "the exported file")
        page.set("Surface", "normals")
        page.click("Stop and keep")
        page.wait(
            lambda: f"Done: quicksurf view {tmp_path / 'run'} shows it again" in page.texts(), "the end"
        )
        seen["page"] = page

    result = watched_fit(capture, tmp_path / "run", acts)
    page = seen["page"]
    assert result.summary["stopped_early"] and (tmp_path / "run" / "mesh.ply").exists()
    assert sum(name.startswith("/photos/") for name in page.nodes) == 12
    grown = trimesh.load(
        trimesh.util.wrap_as_stream(page.nodes["/mesh"][0]["props"]["glb_data"]), file_type="glb"
    )
    assert len(grown.to_geometry().faces) > 100
    exported = trimesh.load(trimesh.util.wrap_as_stream(page.files["mesh.ply"]), file_type="ply")
    middle = exported.bounds.mean(0)
    assert np.linalg.norm(middle - CENTER.numpy()) < 0.5 * float(
        AXES.max()
    )  # in the world, not in the page's frame
    assert page.files["mesh.obj"].startswith(b"#") or b"\nv " in page.files["mesh.obj"]


def test_the_dragged_ball_is_where_the_fit_happens(capture: Path, tmp_path: Path) -> None:
    def acts(page: PageClient) -> None:
        page.wait(lambda: page.labelled("Radius"), "the slider")
        page.wait(lambda: "/region/ball" in page.nodes, "the ball")  # or only the smaller one is ever sent
        page.drag("/region", (0.1, -0.2, 0.0))
        page.set("Radius", 0.8)
        page.wait(lambda: len(page.nodes["/region/ball"]) == 2, "the smaller ball")
        page.click("Start the fit")
        page.wait(lambda: "/mesh" in page.nodes, "a mesh")
        page.click("Stop and keep")

    found = read_scene(capture, ReadOptions(max_pixels=48 * 48)).roi
    result = watched_fit(capture, tmp_path / "run", acts)
    dragged = result.reconstruction.roi
    assert dragged.radius == pytest.approx(0.8 * found.radius, rel=1e-6)
    shift = np.array(dragged.center) - np.array(found.center)
    assert shift == pytest.approx(found.radius * np.array([0.1, -0.2, 0.0]), abs=1e-5 * found.radius)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["roi"] == [*dragged.center, dragged.radius]


def test_pauses_do_not_count_and_minutes_can_be_added(capture: Path, tmp_path: Path) -> None:
    held = 3.0

    def acts(page: PageClient) -> None:
        page.click("Start the fit")
        page.wait(lambda: "/mesh" in page.nodes, "a mesh")
        n_meshes = len(page.nodes["/mesh"])
        page.click("Pause")
        page.wait(lambda: len(page.nodes["/mesh"]) > n_meshes, "the finer mesh")
        page.wait(lambda: page.labelled("Go on"), "the pause")
        time.sleep(held)
        assert "Paused" in page.texts()
        page.click("Go on")
        page.click("Add 5 minutes")
        page.wait(lambda: "5 minutes added" in page.texts(), "the minutes")
        page.click("Stop and keep")

    result = watched_fit(capture, tmp_path / "run", acts)
    assert result.summary["seconds_held"] >= held
    assert result.summary["minutes"] == pytest.approx(35.0)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    progress = [json.loads(line)["progress"] for line in lines]
    assert progress == sorted(progress)


def test_without_a_page_nobody_is_waited_for(capture: Path) -> None:
    """The few seconds in which somebody might come are the command's own."""
    scene = read_scene(capture, ReadOptions(max_pixels=48 * 48))
    with live_view(Address()) as view:
        budget = Budget(20.0)
        view.begin(budget, StopRequest())
        assert view.choose_roi(scene) == scene.roi
        waited = budget.elapsed()
        assert view.choose_roi(scene) == scene.roi
    assert budget.seconds_held == 0
    assert PAGE_FRACTION * budget.seconds <= waited < ROI_SECONDS
    assert budget.elapsed() - waited < PAGE_FRACTION * budget.seconds, (
        "whoever had the time is not waited for again"
    )


def test_nobody_is_asked_for_a_region_that_was_given(capture: Path, tmp_path: Path) -> None:
    roi = Roi((CENTER[0].item(), CENTER[1].item(), CENTER[2].item()), 2.5)
    with live_view(Address()) as view, pytest.MonkeyPatch.context() as patch:
        patch.setattr(view, "choose_roi", lambda scene: pytest.fail("the page is waited for"))
        request = FitRequest(capture, 20.0, tmp_path / "run", roi=roi, preset=TINY)
        result = run_fit(request, listener=view, fit=cut_to(2.0))
    assert result.reconstruction.roi == roi


@pytest.mark.parametrize("quiet", [True, False])
def test_the_address_is_said_and_how_to_see_the_run_again(
    capture: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, quiet: bool
) -> None:
    monkeypatch.setattr("quicksurf.app.fit.run_fit", partial(run_fit, fit=cut_to(2.0)))
    monkeypatch.setattr("quicksurf.app.live.session.PAGE_SECONDS", 0.0)
    run = tmp_path / "run"
    command = ["fit", str(capture), "--view", "--preset", TINY, "--output", str(run)]
    assert main([*command, *(["--quiet"] if quiet else [])]) == 0
    out, err = capsys.readouterr()
    assert "live view at http://127.0.0.1:" in (err if quiet else out)
    assert (out == "") == quiet
    if not quiet:
        assert out.splitlines()[-1] == f"quicksurf view {run} shows it again"


def test_the_page_leaves_the_fit_as_it_is(capture: Path) -> None:
    """A mesh between two steps changes neither the field, nor the grid, nor what is drawn next."""
    config = load_config(TINY, {})
    scene = read_scene(capture, ReadOptions(max_pixels=48 * 48))
    states = []
    for looked_at in (False, True):
        trainer = Trainer(scene, config, kernels.load("cpu"), None)
        for step in range(12):
            trainer.step(step / 200)
            if looked_at:
                preview_mesh(trainer.result, 48)
        states.append(torch.cat([p.detach().flatten() for p in trainer.result.field.parameters()]))
    assert torch.equal(*states)


@pytest.fixture
def finished(capture: Path, tmp_path: Path) -> Iterator[Path]:
    def acts(page: PageClient) -> None:
        page.click("Start the fit")
        page.wait(lambda: len(page.nodes.get("/mesh", [])) >= 1, "a mesh")
        page.click("Stop and keep")

    yield watched_fit(capture, tmp_path / "run", acts).run.path


@contextmanager
def viewed(run: Path, said: list[str]) -> Iterator[PageClient]:
    """The page of `quicksurf view RUN` once its mesh is there; what the command says goes into `said`."""
    done = threading.Event()
    viewer = threading.Thread(target=view_run, args=(run, Address(), done.is_set, said.append))
    viewer.start()
    try:
        while not said:
            assert viewer.is_alive()
            time.sleep(0.05)
        with page_client(said[0].split()[0]) as page:
            page.wait(lambda: "/mesh" in page.nodes or not viewer.is_alive(), "the mesh")
            yield page
    finally:
        done.set()
        viewer.join(30)
    assert not viewer.is_alive()


def test_view_shows_a_run_until_it_is_told_to_stop(finished: Path) -> None:
    with viewed(finished, []) as page:
        page.click("Export the mesh shown")
        page.wait(lambda: "mesh.ply" in page.files, "the exported file")
        assert not page.labelled("Pause")
    exported = trimesh.load(trimesh.util.wrap_as_stream(page.files["mesh.ply"]), file_type="ply")
    assert len(exported.faces) == len(trimesh.load(finished / "mesh.ply", process=False).faces)


@pytest.fixture(scope="module")
def moved(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose fit has moved the last camera of cameras.json by a radius of the region."""
    path = tmp_path_factory.mktemp("moved") / "run"
    result = run_fit(FitRequest(capture, 20.0, path, preset=TINY), fit=cut_to(2.0))
    file = json.loads((path / "cameras.json").read_text())
    file["frames"][-1]["transform_matrix"][2][3] += result.reconstruction.roi.radius
    (path / "cameras.json").write_text(json.dumps(file))
    return path


def last_camera(page: PageClient) -> np.ndarray:
    page.wait(lambda: any(name.startswith("/photos/0011") for name in page.positions), "the cameras")
    return np.array(next(v for name, v in page.positions.items() if name.startswith("/photos/0011")))


def n_pictures(page: PageClient) -> int:
    photos = [versions[-1] for name, versions in page.nodes.items() if name.startswith("/photos/")]
    assert len(photos) == 12
    return sum(photo["props"]["_image_data"] is not None for photo in photos)


def test_view_shows_the_cameras_that_the_fit_ended_with(capture: Path, moved: Path) -> None:
    scene = read_scene(capture, ReadOptions(max_pixels=48 * 48))
    run = json.loads((moved / "run.json").read_text())
    given = (scene.cameras.centers()[-1].numpy() - run["roi"][:3]) / run["roi"][3]
    with viewed(moved, []) as page:
        assert last_camera(page) - given == pytest.approx(np.array([0.0, 0.0, 1.0]), abs=1e-4)
        assert n_pictures(page) == 12


def test_view_of_a_run_whose_photos_are_gone_shows_its_cameras(moved: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(moved, run)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "source": str(tmp_path / "gone")}))
    said: list[str] = []
    with viewed(run, said) as page:
        assert n_pictures(page) == 0 and np.isfinite(last_camera(page)).all()
        assert "The photos are not shown" in page.texts()
    assert any(line.startswith("the photos are not shown") and "gone" in line for line in said)
    (run / "cameras.json").unlink()
    with pytest.raises(QuicksurfError, match="gone"):
        view_run(run, Address(), lambda: True, said.append)


def test_view_of_something_else_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(tmp_path)]) == 8
    assert "is not a run folder" in capsys.readouterr().err


def test_a_taken_port_is_one_line_and_leaves_no_run(capture: Path, tmp_path: Path, capsys: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code = main(["fit", str(capture), "--view-at", port, "--output", str(tmp_path / "run")])
    assert code == 12 and not (tmp_path / "run").exists()
    assert capsys.readouterr().err.count("\n") == 1
