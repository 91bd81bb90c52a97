"""The worker's own steps: which photos are searched first, and what is missing when time runs out."""

from pathlib import Path

import numpy as np
import pytest
import rendered_box
from PIL import Image
from synthetic_photos import HEIGHT, WIDTH, as_features

from quicksurf.capture.sfm import worker
from quicksurf.capture.sfm.matching import Features, no_features


def _job(paths: list[str], folder: Path, **changes) -> worker.Job:
    job = worker.Job(
        folder=str(folder),
        paths=paths,
        groups=[(list(range(len(paths))), None, False)],
        max_pixels=20_000,
        n_features=300,
        n_partners=len(paths) - 1,
        n_neighbors=3,
        seconds=60.0,
        n_threads=2,
    )
    job.update(changes)
    return job


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Eight photos of one picture; the fourth is torn."""
    grey = rendered_box.noise(0, (100, 130)).clip(0, 255).astype(np.uint8)
    paths = [tmp_path / f"{index}.png" for index in range(8)]
    for path in paths:
        Image.fromarray(np.repeat(grey[..., None], 3, axis=2)).save(path)
    paths[3].write_bytes(paths[3].read_bytes()[:3000])
    return [str(path) for path in paths]


def test_torn_photo_is_named_and_the_others_have_features(paths: list[str], tmp_path: Path) -> None:
    found, unreadable = worker.extract_features(_job(paths, tmp_path), worker.Clock())
    assert unreadable.keys() == {3} and "3.png" in unreadable[3]
    assert [item is None for item in found] == [index == 3 for index in range(8)]
    assert all(len(item.points) > 50 for item in found if item is not None)


def test_features_end_when_their_time_is_used(paths: list[str], tmp_path: Path) -> None:
    found, unreadable = worker.extract_features(_job(paths, tmp_path, seconds=0.0), worker.Clock())
    assert [index for index, item in enumerate(found) if item is not None] == [0] and not unreadable


def test_matching_ends_when_its_time_is_used(paths: list[str], tmp_path: Path) -> None:
    items: list[Features] = [as_features(np.ones((20, 2)))] * 8
    job = _job(paths, tmp_path, seconds=0.0)
    graph, matches, complete = worker.match_and_verify(job, items, [(0, 1), (1, 2)], worker.Clock())
    assert not graph.pairs and not matches and not complete


def test_call_past_its_time_is_cancelled() -> None:
    def work(token) -> None:
        if token.is_cancelled:
            raise InterruptedError

    def wait_for(token) -> None:
        while not token.is_cancelled:
            pass
        raise InterruptedError

    clock = worker.Clock()
    assert clock.stop_at(60.0, work)
    assert not clock.stop_at(clock.elapsed() + 0.05, wait_for)
    assert clock.elapsed() < 5


def test_focal_lengths_are_in_pixels_of_the_photos_as_they_were_searched(tmp_path: Path) -> None:
    """Given as parts of the width, guessed where nothing is given; a photo that was not searched has no size."""
    items = [
        no_features(),
        as_features(np.ones((1, 2))),
        as_features(np.ones((1, 2)), size=(HEIGHT, WIDTH)),
        no_features(),
    ]
    groups = [([0, 1], 0.8, True), ([2], None, False), ([3], 1.1, False)]
    found = worker.cameras(_job([""] * 4, tmp_path, groups=groups), items)
    assert [camera.members for camera in found] == [[0, 1], [2], [3]]
    assert [camera.size for camera in found[:2]] == [(WIDTH, HEIGHT), (HEIGHT, WIDTH)]
    assert found[0].focal == pytest.approx(0.8 * WIDTH) and found[0].has_prior_focal
    assert found[1].focal == pytest.approx(1.2 * WIDTH) and not found[1].has_prior_focal
