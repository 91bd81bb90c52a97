"""A video: its sharpest frames, evenly spaced, become photos in order of time.

The film is decoded once. Its duration is cut into as many equal slices as frames are wanted, and the
sharpest frame of each slice is kept: the slices bound the motion between neighbours, sharpness avoids the
blur of a moving hand. Sharpness is the variance of the Laplacian of the luminance, compared within a
slice alone, for it depends on what is shown as well.
"""

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import UInt8
from PIL import Image

from quicksurf.capture.assemble import ReadOptions
from quicksurf.capture.images import MAX_MEGAPIXELS, MIN_IMAGES
from quicksurf.capture.photos import pose_and_read
from quicksurf.capture.scene import Scene
from quicksurf.errors import BudgetError, ImageError
from quicksurf.files import write_atomic

MAX_FRAMES = 80
MAX_MINUTES = 30  # longer ones are cut films or surveillance, not a walk around an object
_MIN_FRAMES = 20  # fewer overlap too little to be posed
_SECONDS_PER_FRAME = 1.0  # of the time for poses: 69 photos take 0.8 s each
_DECODE_FRACTION = 0.3  # of the time for poses that decoding may take
# Per megapixel, a guess: only chooses key frames alone for long films; the deadline holds.
_DECODE_SECONDS = 0.006
_SHARPNESS_WIDTH = 480  # pixels: averages sensor noise away, keeps motion blur
_QUALITY = 95
_SQUARE = 0.005  # from 1: a pixel's width to its height; rounded metadata, below a pixel in 200
_MAX_SHAPE = 4.0  # lenses squeeze by up to 2, films for television by up to 1.5

# What a film may use of FFmpeg: playlists and the like could open other files and addresses.
_OPEN_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": "mov,matroska,avi,mpeg,mpegts"}


class Candidate(NamedTuple):
    """One decoded frame."""

    seconds: float
    """Since the film's first frame."""
    sharpness: float
    frame: VideoFrame


def read_video(path: Path, options: ReadOptions) -> Scene:
    """Choose frames of the film at `path`, find their cameras and read them.

    The frames are written to `frames/` in the work folder, which `source` and the names refer to.

    Raises:
        ImageError: if the file is no video, is damaged from its start, too long, or under three frames.
        PosesError: if no three frames could be posed.
        BudgetError: if the time for poses is too short.
    """
    started = time.monotonic()
    with _frames_folder(options.work_folder) as folder:
        deadline = started + _DECODE_FRACTION * options.pose_seconds
        paths = extract_frames(path, folder, wanted_frames(options.pose_seconds), deadline, options.say)
        if len(paths) < MIN_IMAGES:
            raise ImageError(
                f"{path} has {len(paths)} frames that can be decoded, at least {MIN_IMAGES} are needed: "
                "film once around the object, 20 s or more"
            )
        spent = time.monotonic() - started
        options.say(f"{len(paths)} frames chosen by sharpness and spacing in {spent:.0f} s")
        left = dataclasses.replace(options, pose_seconds=options.pose_seconds - spent)
        scene = pose_and_read(paths, folder, left, ordered=True)
    return dataclasses.replace(scene, name=path.stem)


def wanted_frames(seconds: float) -> int:
    """Return frames to take from a film when there are `seconds` for their poses."""
    return max(_MIN_FRAMES, min(MAX_FRAMES, int(seconds / _SECONDS_PER_FRAME)))


def extract_frames(
    path: Path,
    folder: Path,
    n_frames: int,
    deadline: float,
    say: Callable[[str], object] = lambda line: None,
) -> list[Path]:
    """Write about `n_frames` of the film to `folder`, upright and with square pixels, in order of time.

    Args:
        folder: exists and is empty.
        n_frames: as many as are wanted; a shorter film gives fewer.
        deadline: of `time.monotonic`.
        say: told that pixels are made square, if they are.

    Raises:
        ImageError: as `read_video`.
        BudgetError: if decoding passes the deadline.
    """
    with _opened(path) as (container, stream):
        size = _square_size(path, stream)
        if size is not None:
            shape = stream.sample_aspect_ratio
            say(f"its pixels are {shape} times as wide as high: frames are made {size[0]} x {size[1]}")
        duration = _duration(path, container, stream)
        if _decode_seconds(stream, duration) > deadline - time.monotonic():
            stream.codec_context.skip_frame = "NONKEY"
        chosen = choose(_candidates(path, container, stream, deadline), duration, n_frames)
        return [
            _write(candidate, size, folder / f"frame_{index:04d}.jpg")
            for index, candidate in enumerate(chosen)
        ]


def choose(candidates: Iterable[Candidate], duration: float, n_frames: int) -> Iterator[Candidate]:
    """Return the sharpest candidate of each of `n_frames` equal slices of `duration`; an empty slice gives none.

    Candidates come in order of time and leave as soon as their slice is over, so that one at a time is held.
    """
    best: Candidate | None = None
    current = 0
    for candidate in candidates:
        index = min(n_frames - 1, int(candidate.seconds / duration * n_frames))
        if best is not None and index != current:
            yield best
            best = None
        if best is None or candidate.sharpness > best.sharpness:
            best = candidate
        current = index
    if best is not None:
        yield best


def frame_sharpness(luminance: UInt8[np.ndarray, "h w"]) -> float:
    """Compute the variance of the 4-neighbour Laplacian; 0 for an image under 3 x 3."""
    if min(luminance.shape) < 3:
        return 0.0
    grey = luminance.astype(np.float32)
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * grey[1:-1, 1:-1]).var())


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: the file is empty (0 bytes); copy it again")
    try:
        container = av.open(str(path.resolve()), options=_OPEN_OPTIONS)
    except (FFmpegError, UnicodeDecodeError) as error:
        raise ImageError(
            f"{path}: not a video, or damaged ({error}); expected MP4, MOV, MKV, WebM, AVI or MPEG: "
            "copy it again or convert it"
        ) from error
    with container:
        if not container.streams.video:
            raise ImageError(f"{path} has no picture, only sound or data: give a film of the object")
        stream = container.streams.video[0]
        _check_size(path, stream)
        stream.thread_type = "AUTO"
        yield container, stream


def _check_size(path: Path, stream: VideoStream) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if min(width, height) < 8 or width * height > MAX_MEGAPIXELS * 1_000_000:
        raise ImageError(
            f"{path}: frames of {width} x {height} pixels cannot be used; convert it to 4K or less"
        )


def _square_size(path: Path, stream: VideoStream) -> tuple[int, int] | None:
    """Width and height of the stored frames with square pixels, none made smaller; None where they are square.

    Old camcorders and anamorphic lenses have others, which no lens model here knows.
    """
    shape = float(stream.sample_aspect_ratio or 1)
    if abs(shape - 1) < _SQUARE or shape == 0:  # 0: the film does not say
        return None
    if not 1 / _MAX_SHAPE <= shape <= _MAX_SHAPE:
        raise ImageError(
            f"{path}: it states pixels {shape:g} times as wide as high, which no camera makes: convert it to "
            "square pixels"
        )
    width, height = stream.codec_context.width, stream.codec_context.height
    return (round(width * shape), height) if shape > 1 else (width, round(height / shape))


def _duration(path: Path, container: InputContainer, stream: VideoStream) -> float:
    """Seconds, from the header or else from the packets' times."""
    if container.duration:
        seconds = container.duration / av.time_base
    else:
        times = [p.pts * p.time_base for p in container.demux(stream) if p.pts is not None and p.time_base]
        seconds = float(max(times) - min(times)) if times else 0.0
        container.seek(0)
    if seconds > 60 * MAX_MINUTES:
        raise ImageError(
            f"{path} lasts {seconds / 60:.0f} minutes, at most {MAX_MINUTES} are read: "
            "trim the video to the part that circles the object"
        )
    return max(seconds, 1e-3)


def _decode_seconds(stream: VideoStream, duration: float) -> float:
    context = stream.codec_context
    return (
        duration * float(stream.average_rate or 30) * context.width * context.height / 1e6 * _DECODE_SECONDS
    )


def _candidates(
    path: Path, container: InputContainer, stream: VideoStream, deadline: float
) -> Iterator[Candidate]:
    """Decode the film; what lies beyond a damaged place is given up."""
    start: float | None = None
    try:
        for frame in container.decode(stream):
            if time.monotonic() > deadline:
                raise BudgetError(
                    f"no time to decode {path}: give more --minutes, or a shorter or smaller film"
                )
            if frame.time is None or frame.is_corrupt:
                continue
            start = frame.time if start is None else start
            height = max(3, round(_SHARPNESS_WIDTH * frame.height / frame.width))
            grey = frame.reformat(width=_SHARPNESS_WIDTH, height=height, format="gray").to_ndarray()
            yield Candidate(max(0.0, frame.time - start), frame_sharpness(grey), frame)
    except FFmpegError as error:
        if start is None:
            raise ImageError(
                f"{path}: no frame can be decoded ({error}); copy it again or convert it"
            ) from error


def _write(candidate: Candidate, size: tuple[int, int] | None, path: Path) -> Path:
    """Write the frame, enlarged to `size` if given, as its display matrix turns it (degrees as for rot90)."""
    rgb = candidate.frame.to_ndarray(format="rgb24")
    if size is not None:
        rgb = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))
    image = Image.fromarray(np.ascontiguousarray(np.rot90(rgb, round(candidate.frame.rotation / 90))))
    write_atomic(path, lambda file: image.save(file, "JPEG", quality=_QUALITY, subsampling=0))
    return path


@contextmanager
def _frames_folder(parent: Path | None) -> Iterator[Path]:
    """`frames/` in the work folder, emptied, to stay; without one a temporary folder that goes."""
    if parent is None:
        with tempfile.TemporaryDirectory(prefix="frames-") as name:
            yield Path(name)
        return
    folder = parent / "frames"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder
