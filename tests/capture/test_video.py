"""Frames of a film: which are chosen, how they are turned, and films that cannot be used."""

import struct
import time
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import rendered_box
from PIL import Image
from scipy import ndimage

from quicksurf.capture import video
from quicksurf.capture.assemble import ReadOptions
from quicksurf.capture.video import (
    Candidate,
    choose,
    extract_frames,
    frame_sharpness,
    read_video,
    wanted_frames,
)
from quicksurf.errors import BudgetError, ImageError

FPS = 10
LOSSY = 12.0  # grey levels of 255: H.264 and JPEG on flat colours


def test_sharpness_falls_with_blur_and_is_zero_on_flat_images() -> None:
    sharp = rendered_box.noise(0, (60, 80)).clip(0, 255)
    blurred = [ndimage.gaussian_filter(sharp, sigma).astype(np.uint8) for sigma in (0, 1, 2, 4)]
    values = [frame_sharpness(image) for image in blurred]
    assert values == sorted(values, reverse=True) and values[0] > 10 * values[2]
    assert frame_sharpness(np.full((20, 20), 77, np.uint8)) == 0
    assert frame_sharpness(np.zeros((2, 50), np.uint8)) == 0


def test_sharpest_of_each_slice_is_chosen() -> None:
    generator = np.random.default_rng(0)
    values = generator.random(100)
    chosen = list(choose(_candidates(values), duration=10.0, n_frames=20))
    assert [c.sharpness for c in chosen] == [values[i : i + 5].max() for i in range(0, 100, 5)]


def test_short_film_gives_all_its_frames() -> None:
    assert len(list(choose(_candidates(np.ones(7)), duration=0.7, n_frames=50))) == 7
    assert list(choose([], duration=1.0, n_frames=5)) == []


def test_frames_past_the_stated_duration_fall_into_the_last_slice() -> None:
    assert len(list(choose(_candidates(np.ones(30)), duration=1.0, n_frames=10))) == 10


def test_wanted_frames_grow_with_time_within_bounds() -> None:
    assert [wanted_frames(seconds) for seconds in (0, 30, 60, 1e6)] == [20, 30, 60, 80]


def test_sharp_frames_of_a_film_are_written(tmp_path: Path) -> None:
    """Every fifth frame is sharp, the others are blurred: exactly the sharp ones come out, in order."""
    texture = rendered_box.noise(1, (96, 128)).clip(0, 255)
    images = []
    for index in range(30):
        shifted = np.roll(texture, 3 * index, axis=1)
        seen = shifted if index % 5 == 2 else ndimage.gaussian_filter(shifted, 2.5)
        images.append(np.repeat(seen.astype(np.uint8)[..., None], 3, axis=2))
    film = _write_film(tmp_path / "film.mp4", images)
    paths = extract_frames(film, _folder(tmp_path), 6, time.monotonic() + 60)
    assert len(paths) == 6 and paths == sorted(paths)
    for path, index in zip(paths, range(2, 30, 5), strict=True):
        written = np.asarray(Image.open(path)).astype(float)
        errors = [np.abs(written - image).mean() for image in images]
        assert int(np.argmin(errors)) == index


@pytest.mark.parametrize(("degrees", "turns"), [(90, 3), (180, 2), (270, 1)])
def test_display_matrix_is_honoured(tmp_path: Path, degrees: int, turns: int) -> None:
    """A phone's portrait film is stored on its side with a matrix that turns it clockwise by 90 degrees."""
    image = np.zeros((48, 96, 3), np.uint8)
    image[:24, :48] = (250, 250, 250)
    film = _write_film(tmp_path / "film.mp4", [image] * 4)
    film.write_bytes(_turned(film.read_bytes(), degrees))
    paths = extract_frames(film, _folder(tmp_path), 4, time.monotonic() + 60)
    written = np.asarray(Image.open(paths[0])).astype(float)
    upright = np.rot90(image, turns)  # counter-clockwise: three turns are 90 degrees clockwise
    assert written.shape == upright.shape
    assert np.abs(written - upright).mean() < LOSSY


@pytest.mark.parametrize(
    ("pixel", "turns", "expected"),
    [
        (Fraction(4, 3), 0, (128, 48)),
        (Fraction(8, 9), 0, (96, 54)),
        (Fraction(2), 3, (48, 192)),
        (Fraction(1), 0, (96, 48)),
        (Fraction(500, 501), 0, (96, 48)),
    ],
)
def test_pixels_that_are_not_square_are_made_square(
    tmp_path: Path, pixel: Fraction, turns: int, expected: tuple[int, int]
) -> None:
    """The dot keeps its place in the picture."""
    image = np.zeros((48, 96, 3), np.uint8)
    image[6:18, 12:36] = 250
    film = _write_film(tmp_path / "film.mp4", [image] * 4, pixel)
    if turns:
        film.write_bytes(_turned(film.read_bytes(), 90))
    lines: list[str] = []
    path = extract_frames(film, _folder(tmp_path), 4, time.monotonic() + 60, lines.append)[0]
    with Image.open(path) as written:
        assert written.size == expected
        bright = np.rot90(np.asarray(written.convert("L")), -turns) > 125
    rows, columns = np.nonzero(bright)
    height, width = bright.shape
    assert columns.mean() / width == pytest.approx(0.25, abs=0.02)
    assert rows.mean() / height == pytest.approx(0.25, abs=0.02)
    assert ("times as wide" in "".join(lines)) == (abs(float(pixel) - 1) > 0.01)


def test_pixels_of_no_camera_are_refused(tmp_path: Path) -> None:
    film = _write_film(tmp_path / "film.mp4", [np.zeros((48, 64, 3), np.uint8)] * 4, Fraction(9))
    with pytest.raises(ImageError, match=r"9 times as wide as high.*convert it"):
        extract_frames(film, _folder(tmp_path), 4, time.monotonic() + 60)


@pytest.mark.parametrize(
    "content", [b"", b"not a film", bytes(5000), b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n"]
)
def test_files_that_are_no_film_are_refused(tmp_path: Path, options: ReadOptions, content: bytes) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"film\.mp4.*(empty|not a video)"):
        read_video(path, options)


def test_truncated_film_is_refused(tmp_path: Path, options: ReadOptions) -> None:
    film = _write_film(tmp_path / "film.mp4", [np.zeros((48, 64, 3), np.uint8)] * 30)
    film.write_bytes(film.read_bytes()[:400])
    with pytest.raises(ImageError, match=r"film\.mp4.*(not a video, or damaged|no frame can be decoded)"):
        read_video(film, options)


def test_film_without_picture_is_refused(tmp_path: Path, options: ReadOptions) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    with pytest.raises(ImageError, match="has no picture, only sound"):
        read_video(path, options)


def test_film_of_two_frames_is_refused(tmp_path: Path, options: ReadOptions) -> None:
    film = _write_film(tmp_path / "film.mp4", [np.zeros((48, 64, 3), np.uint8)] * 2)
    with pytest.raises(ImageError, match="has 2 frames that can be decoded, at least 3 are needed"):
        read_video(film, options)


def test_film_that_is_too_long_is_refused(
    tmp_path: Path, options: ReadOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "MAX_MINUTES", 0.01)
    film = _write_film(tmp_path / "film.mp4", [np.zeros((48, 64, 3), np.uint8)] * 20)
    with pytest.raises(ImageError, match=r"lasts .* minutes"):
        read_video(film, options)


def test_decoding_past_the_deadline_is_said(tmp_path: Path) -> None:
    film = _write_film(tmp_path / "film.mp4", [np.zeros((48, 64, 3), np.uint8)] * 5)
    with pytest.raises(BudgetError, match="no time to decode"):
        extract_frames(film, _folder(tmp_path), 5, time.monotonic() - 1)


@pytest.mark.slow
def test_film_of_the_rendered_box_is_posed(tmp_path: Path) -> None:
    cameras = rendered_box.arc(8)
    images = [rendered_box.render(cameras, index) for index in range(8)]
    film = _write_film(tmp_path / "walk.mp4", images)
    work = tmp_path / "work"
    lines: list[str] = []
    scene = read_video(
        film, ReadOptions(max_pixels=50_000, pose_seconds=40, work_folder=work, say=lines.append)
    )
    assert scene.name == "walk"
    assert len(scene.names) == 8
    assert all((scene.source / name).is_file() for name in scene.names)
    assert any("frames chosen by sharpness" in line for line in lines)


def _candidates(values: Iterable[float]) -> list[Candidate]:
    frame = av.VideoFrame(16, 16, "gray")
    return [Candidate(index / FPS, float(value), frame) for index, value in enumerate(values)]


def _folder(parent: Path) -> Path:
    folder = parent / "frames"
    folder.mkdir()
    return folder


def _write_film(path: Path, images: list[np.ndarray], pixel: Fraction | None = None) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "12"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if pixel is not None:
            stream.codec_context.sample_aspect_ratio = pixel
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def _turned(content: bytes, degrees: int) -> bytes:
    """The film with the matrix of its track header (ISO 14496-12, 8.3.2) set to a clockwise rotation."""
    at = content.index(b"tkhd") + 4 + 40
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    one, unit = 1 << 16, 1 << 30
    matrix = (cosine * one, sine * one, 0, -sine * one, cosine * one, 0, 0, 0, unit)
    return content[:at] + struct.pack(">9i", *matrix) + content[at + 36 :]
