"""Photos without cameras: bad input, what is lost and doubted, camera groups, and the whole road on a rendered box."""

import contextlib
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rendered_box
import torch
from PIL import Image

from quicksurf.capture import photos
from quicksurf.capture.assemble import ReadOptions
from quicksurf.capture.exif import Focal
from quicksurf.capture.images import ImageFile
from quicksurf.capture.photos import group_cameras, read_photos
from quicksurf.capture.scene import ReadReport, SparsePoints
from quicksurf.capture.sfm.poses import Photos, Poses
from quicksurf.errors import BudgetError, ImageError, PosesError

POSE_DEGREES = 0.5  # a third of a pixel at the features' size is 0.04 degrees; few views, so some more
FOCAL_FRACTION = 0.03  # focal length and distance trade against each other on a short arc


def test_empty_folder_is_refused(tmp_path: Path, options: ReadOptions) -> None:
    with pytest.raises(ImageError, match="no images in"):
        read_photos(tmp_path, options)


@pytest.mark.parametrize("n_images", [1, 2])
def test_one_or_two_photos_are_refused(tmp_path: Path, options: ReadOptions, n_images: int) -> None:
    _save_flat(tmp_path, n_images)
    with pytest.raises(ImageError, match=f"{n_images} usable image.*at least 3"):
        read_photos(tmp_path, options)


def test_unreadable_photos_are_named_when_too_few_are_left(tmp_path: Path, options: ReadOptions) -> None:
    _save_flat(tmp_path, 2)
    (tmp_path / "text.jpg").write_text("not a photo")
    (tmp_path / "zero.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"(?s)text\.jpg.*not an image.*zero\.png.*0 bytes"):
        read_photos(tmp_path, options)


def test_copies_are_lost_and_the_others_go_to_the_worker_with_their_cameras(
    tmp_path: Path, options: ReadOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save_flat(tmp_path, 4)
    shutil.copy(tmp_path / "01.png", tmp_path / "copy of 01.png")
    seen: list[Photos] = []

    def find(found: Photos, *_: object) -> Poses:
        seen.append(found)
        raise PosesError("stop here")

    monkeypatch.setattr(photos, "find_poses", find)
    with pytest.raises(PosesError, match="stop here"):
        read_photos(tmp_path, options)
    assert [path.name for path in seen[0].paths] == ["00.png", "01.png", "02.png", "03.png"]
    assert seen[0].groups == [([0, 1, 2, 3], None, False)]
    assert (
        len(seen) == 1
    )  # how hard to look is the plan's, and lost photos are the worker's: nothing is tried twice


def test_focal_lengths_go_to_the_worker_as_parts_of_the_width(
    tmp_path: Path, options: ReadOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a crop is a lower bound, thus a start and no more."""
    seen: list[Photos] = []

    def find(found: Photos, *_: object) -> Poses:
        seen.append(found)
        raise PosesError("stop here")

    monkeypatch.setattr(photos, "find_poses", find)
    files = [_file(0, 4000, 3000, 3000.0), _file(1, 2000, 1000, 3000.0, "a lens", cropped=True)]
    with pytest.raises(PosesError, match="stop here"):
        photos._pose(files, tmp_path, options, False, time.monotonic() + 100)
    assert seen[0].groups == [([0], 0.75, True), ([1], 1.5, False)]


def test_no_time_for_poses_is_said_before_anything_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save_flat(tmp_path, 30)
    monkeypatch.setattr(photos, "find_poses", lambda *_: pytest.fail("began to look"))
    with pytest.raises(BudgetError, match=r"about \d+ s are needed to find the poses of 30 photos"):
        read_photos(tmp_path, ReadOptions(max_pixels=10_000, pose_seconds=2, say=lambda _: None))


def test_what_the_worker_found_out_is_reported(
    tmp_path: Path, options: ReadOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve photos: seven placed, one of them in problem; one torn, one alone, three of another group."""
    generator = np.random.default_rng(0)
    for index in range(12):
        pixels = generator.integers(0, 255, (rendered_box.HEIGHT, rendered_box.WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"view_{index:02d}.jpg")
    cameras = rendered_box.arc(7)
    points = SparsePoints(
        torch.zeros(1, 3).double(), torch.zeros(1, 3).byte(), torch.zeros(0, 2, dtype=torch.long)
    )
    apart = [8, 9, 10]
    reasons = {11: "too few matches"} | dict.fromkeys(apart, "not in the largest model")
    poses = Poses(list(range(7)), cameras, points, reasons, {7: "view_07.jpg is torn"}, [apart], [2], 0.75)
    monkeypatch.setattr(photos, "find_poses", lambda *_: poses)
    report = read_photos(tmp_path, options).report
    assert report.photos == 12
    assert report.lost.keys() == {f"view_{index:02d}.jpg" for index in range(7, 12)}
    assert report.lost["view_07.jpg"] == "view_07.jpg is torn"
    assert report.lost["view_11.jpg"].endswith("too few matches")
    assert report.apart == [["view_08.jpg", "view_09.jpg", "view_10.jpg"]]
    assert report.contradicting == ["view_02.jpg"] and report.reprojection_error == 0.75
    assert any("2 groups" in problem for problem in report.problems)
    assert set(report.problems) <= set(report.warnings)


@pytest.mark.parametrize(
    ("n_placed", "groups", "doubtful", "problems"),
    [
        (40, [], [], []),
        (40, [], [3, 4], []),  # the luck of single photos
        (40, [], [3, 4, 5], ["3 photos contradict the others (3.jpg, 4.jpg, 5.jpg)"]),
        (
            40,
            [],
            list(range(6)),
            ["6 photos contradict the others (0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg ...)"],
        ),
        (20, [], [], []),
        (19, [], [], ["only 19 of 40 photos could be placed"]),
        (
            25,
            [[30, 31, 32], [37, 38, 39]],
            [],
            ["3 groups", "3 like 30.jpg; 3 like 37.jpg", "25 photos are used"],
        ),
        (10, [[30, 31, 32]], [1], ["only 10 of 40", "2 groups", "1 photos contradict"]),
    ],
)
def test_doubts_are_of_few_photos_groups_apart_and_contradictions(
    options: ReadOptions, n_placed: int, groups: list, doubtful: list, problems: list[str]
) -> None:
    lines: list[str] = []
    report = ReadReport(photos=40)
    reasons = dict.fromkeys(range(n_placed, 40), "too few matches")
    points = SparsePoints(
        torch.zeros(0, 3).double(), torch.zeros(0, 3).byte(), torch.zeros(0, 2, dtype=torch.long)
    )
    poses = Poses(
        list(range(n_placed)), rendered_box.arc(n_placed), points, reasons, {}, groups, doubtful, 0.75
    )
    files = [_file(index, 40, 30, None) for index in range(40)]
    photos._note_lost(poses, files, report, replace(options, say=lines.append))
    assert lines[0] == f"{n_placed} of 40 photos placed, mean reprojection error 0.75 pixels"
    assert len(lines) == 1 + len(report.lost) == 41 - n_placed
    said = " ".join(report.problems)
    assert bool(report.problems) == bool(problems) and all(problem in said for problem in problems)
    assert report.warnings == report.problems


def test_cameras_are_shared_by_size_and_focal_length() -> None:
    files = [
        _file(0, 4000, 3000, 3100.2),
        _file(1, 3000, 4000, 3100.2),
        _file(2, 4000, 3000, 3100.4),
        _file(3, 4000, 3000, 1500.0),
        _file(4, 4000, 3000, None),
        _file(5, 4000, 3000, None, "Canon EOS 600D 46.0"),
        _file(6, 4000, 3000, None, "Canon EOS 600D 24.0"),
        _file(7, 4000, 3000, None, "Canon EOS 600D 46.0"),
    ]
    groups = [([0, 2], 3100.2), ([1], 3100.2), ([3], 1500.0), ([4], None), ([5, 7], None), ([6], None)]
    assert [(group.members, group.focal and group.focal.pixels) for group in group_cameras(files)] == groups
    assert [group.lens for group in group_cameras(files)][3:5] == ["", "Canon EOS 600D 46.0"]


@pytest.mark.parametrize(
    ("sizes", "focals", "expected"),
    [  # a camera of 6000 x 4000 pixels whose focal length is 8000, and the least that each crop of it needs
        ([(3000, 2500), (1500, 2000), (900, 800)], [5000, 4000, 1600], [5000, 5000, 5000]),
        (
            [(1200, 900), (1200, 1100), (1200, 1000)],
            [1800, 2200, 2000],
            [1800, 2200, 2000],
        ),  # each shrunk to 1200
        ([(900, 1200), (1200, 900)], [1800, 1800], [1800, 1800]),
    ],
)
def test_crops_of_different_sizes_are_of_one_scale(sizes, focals, expected) -> None:
    files = [
        _file(index, *size, focal, "Canon EOS 600D 46.0", cropped=True)
        for index, (size, focal) in enumerate(zip(sizes, focals, strict=True))
    ]
    shrunk = _file(len(files), 600, 400, 800.0, "Canon EOS 600D 46.0")
    groups = group_cameras([*files, shrunk])
    assert [group.focal and group.focal.pixels for group in groups] == [*expected, 800.0]


@pytest.mark.slow
def test_rendered_box_is_posed_and_the_lost_are_named(tmp_path: Path) -> None:
    """Poses agree with those rendered from; a blank photo, a torn one, a stranger, a copy and a text are lost."""
    truth = rendered_box.save(tmp_path, 8)
    Image.new("RGB", (512, 384), (90, 90, 90)).save(tmp_path / "blank.jpg")
    stranger = rendered_box.noise(99, (384, 512)).clip(0, 255).astype(np.uint8)
    Image.fromarray(stranger).save(tmp_path / "stranger.png")
    (tmp_path / "text.jpg").write_text("not a photo")
    shutil.copy(tmp_path / "view_03.jpg", tmp_path / "1 copy of view_03.jpg")
    Image.fromarray(stranger).rotate(90).save(tmp_path / "torn.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "torn.png").read_bytes()[:9000])
    lines: list[str] = []
    work = tmp_path / "work"
    scene = read_photos(tmp_path, ReadOptions(max_pixels=50_000, work_folder=work, say=lines.append))
    assert scene.names == [f"view_{index:02d}.jpg" for index in range(8)]
    assert (
        any(line.startswith("8 of 13 photos placed, ") for line in lines) and "all pairs matched" in lines[0]
    )
    assert scene.report.photos == 13
    assert scene.report.lost["1 copy of view_03.jpg"] == "the same photo as view_03.jpg"
    assert "no features" in scene.report.lost["blank.jpg"]
    assert "overlaps with no other" in scene.report.lost["stranger.png"]
    assert "not an image" in scene.report.lost["text.jpg"]
    assert "torn.png" in scene.report.lost["torn.png"]  # its header is fine: the worker finds out
    assert scene.report.contradicting == scene.report.problems == scene.report.apart == []
    assert [path.name for path in work.iterdir()] == ["sfm.log"]
    assert scene.points is not None and len(scene.points.positions) > 200
    assert int(scene.points.observations[:, 1].max()) < 8
    assert scene.images[0].shape[0] * scene.images[0].shape[1] <= 50_000
    scale = scene.cameras.sizes[0, 0] / rendered_box.WIDTH
    focal = float(scene.cameras.intrinsics[0, 0] / scale)
    assert abs(focal / rendered_box.FOCAL - 1) < FOCAL_FRACTION
    ours, theirs = (
        cameras.c2w[1:, :, :3].transpose(1, 2) @ cameras.c2w[:1, :, :3] for cameras in (scene.cameras, truth)
    )
    cosines = ((ours * theirs).sum((1, 2)) - 1) / 2
    assert float(torch.rad2deg(torch.acos(cosines.clamp(-1, 1))).max()) < POSE_DEGREES


@pytest.mark.slow
def test_photos_without_overlap_are_an_error_with_advice(tmp_path: Path) -> None:
    for seed in range(4):
        texture = rendered_box.noise(seed, (200, 260)).clip(0, 255).astype(np.uint8)
        Image.fromarray(texture).save(tmp_path / f"{seed}.png")
    with pytest.raises(PosesError, match="no two overlap; neighbouring photos should have"):
        read_photos(tmp_path, ReadOptions(max_pixels=50_000, say=lambda _: None))


@pytest.mark.slow
def test_blank_photos_are_an_error_with_advice(tmp_path: Path) -> None:
    _save_flat(tmp_path, 3)
    with pytest.raises(PosesError, match="3 show no texture"):
        read_photos(tmp_path, ReadOptions(max_pixels=50_000, say=lambda _: None))


@pytest.mark.slow
def test_deadline_holds_with_the_real_worker(tmp_path: Path) -> None:
    """However little is left after planning, the answer comes in time: poses, or an error that says why not."""
    rendered_box.save(tmp_path, 8)
    started = time.monotonic()
    with contextlib.suppress(BudgetError, PosesError):
        read_photos(tmp_path, ReadOptions(max_pixels=50_000, pose_seconds=6.5, say=lambda _: None))
    assert time.monotonic() - started < 9


def _save_flat(folder: Path, n_images: int) -> None:
    for index in range(n_images):
        Image.new("RGB", (64, 48), (20 * index % 255, 90, 90)).save(folder / f"{index:02d}.png")


def _file(
    index: int, width: int, height: int, pixels: float | None, lens: str = "", cropped: bool = False
) -> ImageFile:
    focal = None if pixels is None else Focal(pixels, "focal plane", cropped)
    return ImageFile(Path(f"{index}.jpg"), width, height, focal, (width, height), lens)
