"""Captures, runs and meshes damaged at random: every one is used, or refused by a QuicksurfError, within seconds.

    python tools/fuzz.py --captures 2000 --runs 500 --meshes 200 --seed 0 --seconds 900

A case is known by its kind and number, and made again from the seed alone. What ends in another error, takes longer
than CASE_SECONDS or more memory than MAX_BYTES is printed, and the tool leaves with 1.
"""

import argparse
import io
import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
import safetensors
import safetensors.torch
import torch
from cut_fit import cut_to
from scipy.spatial.transform import Rotation
from tiny_capture import CENTER, write_capture

from quicksurf import backends, views
from quicksurf.data.load import ReadOptions, read_scene
from quicksurf.data.transforms import read_cameras
from quicksurf.errors import QuicksurfError
from quicksurf.evaluation import score
from quicksurf.fit_request import FitRequest
from quicksurf.pipeline import run_fit
from quicksurf.report.page import report_run
from quicksurf.session.course import read_course
from quicksurf.session.runs import open_run

CASE_SECONDS = 30
MAX_BYTES = 6 << 30  # more than the process has after its imports: of the whole process
DOCUMENTS = (".json", ".jsonl", ".safetensors", ".toml", ".txt", ".npz")
REPORT_EVERY = 10  # runs: a page takes a second
VALUES: list[Any] = [
    *(None, True, [], {}, "", "x" * 5000, "../../x", "/etc/passwd", "a\0b", "\x1b[31m", "\ud800"),
    *(0, -1, 5, 2**31, 2**63, 2**70, 10**30, 10**400, 0.5, -0.0, 1e-308, 1e30, 1e308, -1e308),
    *(float("nan"), float("inf"), [[[[]]]], [1e308] * 4, {"a": {"b": [10**400]}}, ["x"] * 1000),
]
TOKENS = (
    "nan",
    "inf",
    "-1",
    "0",
    "1e308",
    "9" * 400,
    "2147483648",
    "PINHOLE",
    "FISHEYE",
    "../../x",
    "x" * 5000,
    "\0",
)
TINY = str(Path(__file__).parents[1] / "tests" / "tiny.toml")


class Slow(BaseException):
    """A case that does not end; no `except Exception` holds it."""


def damage_json(text: str, chance: random.Random) -> str:
    """One to three values of a document replaced, removed or repeated; now and then its text itself."""
    if chance.random() < 0.1:
        return chance.choice(
            [text[: chance.randrange(len(text))], "[" * 100_000, "1" * 5000, "", text * 2, "null"]
        )
    document = json.loads(text)
    for _ in range(chance.randint(1, 3)):
        places = list(_places(document))
        if not places:
            break
        holder, key = chance.choice(places)
        if chance.random() < 0.2:
            del holder[key]
        else:
            holder[key] = chance.choice(VALUES)
    return json.dumps(document)


def _places(value: Any) -> Any:
    """Every place of a document, the shallow ones as often as the deep ones together."""
    items = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value))
        if isinstance(value, list)
        else []
    )
    for key, inner in items[:40]:
        yield value, key
        yield from _places(inner)


def damage_bytes(content: bytes, chance: random.Random) -> bytes:
    """Bytes changed, cut off, doubled or filled."""
    kind, at = chance.randrange(4), chance.randrange(max(len(content), 1))
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content + content[at:]
    changed = bytearray(content)
    first = chance.choice([0, at])  # headers are worth more than the rest
    for _ in range(chance.randint(1, 8)):
        place = min(first + chance.randrange(200), len(changed) - 1)
        if place >= 0:
            changed[place] = chance.choice([0, 255, 127, chance.randrange(256)])
    return bytes(changed)


def damage_tensors(content: bytes, chance: random.Random) -> bytes:
    """One tensor with other values, another shape or type, or gone."""
    tensors = safetensors.torch.load(content)
    name = chance.choice(sorted(tensors))
    value = tensors[name]
    changes: list[Callable[[], torch.Tensor]] = [
        lambda: torch.full_like(value, chance.choice([0, 1, 255])),
        lambda: value.flatten()[: value.numel() // 2],
        lambda: value.double() * chance.choice([float("nan"), 1e30, -1.0, 1e308]),
        lambda: torch.zeros(()),
        lambda: value[None],
        lambda: value.to(torch.bool),
    ]
    if chance.random() < 0.15:
        del tensors[name]
    else:
        tensors[name] = chance.choice(changes)().contiguous()
    return safetensors.torch.save(tensors)


def damage_text(text: str, chance: random.Random) -> str:
    """One to three words of a text file replaced, or a line repeated, dropped or cut."""
    lines = text.splitlines()
    for _ in range(chance.randint(1, 3)):
        index, kind = chance.randrange(len(lines)), chance.random()
        words = lines[index].split()
        if kind < 0.7 and words:
            words[chance.randrange(len(words))] = chance.choice(TOKENS)
            lines[index] = " ".join(words)
        elif kind < 0.8:
            lines.insert(index, lines[index])
        else:
            lines[index] = lines[index][: len(lines[index]) // 2] if kind < 0.9 else ""
    return "\n".join(lines)


def damage_arrays(content: bytes, chance: random.Random) -> bytes:
    """One array of an npz with other values, another shape or type, or gone."""
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    name = chance.choice(sorted(arrays))
    value = arrays[name]
    changes: list[Callable[[], np.ndarray]] = [
        lambda: np.full_like(value, chance.choice([0, float("nan"), 1e300, -1.0])),
        lambda: value[:3],
        lambda: value.astype("U8"),
        lambda: np.array([["x"] * 4] * 4, dtype=object),
        lambda: -value,
        lambda: np.zeros((0, 4)),
        lambda: value[None].repeat(chance.choice([1, 100]), 0),
    ]
    if chance.random() < 0.2:
        del arrays[name]
    else:
        arrays[name] = chance.choice(changes)()
    saved = io.BytesIO()
    np.savez(saved, **arrays)
    return saved.getvalue()


def damage_file(path: Path, chance: random.Random) -> None:
    """Damage a file as its kind asks for; one that is damaged already byte by byte."""
    content, whole = path.read_bytes(), chance.random() < 0.85
    try:
        if whole and path.suffix == ".jsonl":
            lines = content.decode().splitlines()
            index = chance.randrange(len(lines))
            lines[index] = damage_json(lines[index], chance)
            damaged = "\n".join(lines).encode("utf-8", "surrogatepass")
        elif whole and path.suffix == ".json":
            damaged = damage_json(content.decode(), chance).encode("utf-8", "surrogatepass")
        elif whole and path.suffix == ".safetensors":
            damaged = damage_tensors(content, chance)
        elif whole and path.suffix == ".npz":
            damaged = damage_arrays(content, chance)
        elif whole and path.suffix == ".txt":
            damaged = damage_text(content.decode(), chance).encode()
        else:
            damaged = damage_bytes(content, chance)
    except (ValueError, RecursionError, OSError, EOFError, zipfile.BadZipFile, safetensors.SafetensorError):
        damaged = damage_bytes(content, chance)
    path.write_bytes(damaged)


def use_capture(folder: Path, number: int) -> None:
    read_scene(folder, ReadOptions(max_pixels=32 * 32, say=lambda line: None))


def use_run(folder: Path, number: int) -> None:
    """What commands read of a run, as far as it goes."""
    backend = backends.load("cpu")
    for step in (
        lambda: read_course(open_run(folder)),
        lambda: open_run(folder).read_summary(),
        lambda: list(views.render_run(folder, views.RenderRequest("input", 1, 8, 30, None), "cpu")),
        lambda: open_run(folder).load_checkpoint(backend).occupancy(np.zeros((4, 3))),
        lambda: report_run(folder, "cpu") if number % REPORT_EVERY == 0 else None,
    ):
        with suppress(QuicksurfError):
            step()


def use_mesh(folder: Path, number: int) -> None:
    mesh = next(path for path in folder.iterdir() if path.stem == "mesh")
    score(mesh, folder / "truth.ply", None, 2000)
    score(folder / "truth.ply", mesh, None, 2000)


def write_captures(folder: Path) -> list[Path]:
    """The same capture with a transforms.json, a COLMAP model and an npz."""
    nerf, colmap, idr = (folder / name for name in ("nerf", "colmap", "idr"))
    cameras = read_cameras(write_capture(nerf, 8, 32) / "transforms.json").cameras
    for place, names in ((colmap, ("images", "masks")), (idr, ("image", "mask"))):
        for own, name in zip(("images", "masks"), names, strict=True):
            shutil.copytree(nerf / own, place / name)
    model, matrices = colmap / "sparse" / "0", {}
    model.mkdir(parents=True)
    lenses, poses = [], []
    for index in range(len(cameras)):
        fx, fy, cx, cy = cameras.intrinsics[index].tolist()
        rotation, center = cameras.c2w[index, :, :3].numpy().T, cameras.c2w[index, :, 3].numpy()
        x, y, z, w = Rotation.from_matrix(rotation).as_quat()
        numbers = " ".join(map(str, (w, x, y, z, *(-rotation @ center))))
        lenses.append(f"{index + 1} PINHOLE 32 32 {fx} {fy} {cx} {cy}")
        poses.append(f"{index + 1} {numbers} {index + 1} {index:02d}.png\n16 16 1 8 8 -1")
        lens = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
        matrices[f"world_mat_{index}"] = np.eye(4)
        matrices[f"world_mat_{index}"][:3] = lens @ np.column_stack([rotation, -rotation @ center])
        matrices[f"scale_mat_{index}"] = np.diag([2.5, 2.5, 2.5, 1])
        matrices[f"scale_mat_{index}"][:3, 3] = CENTER.numpy()
    (model / "cameras.txt").write_text("\n".join(lenses))
    (model / "images.txt").write_text("\n".join(poses))
    track = " ".join(f"{index + 1} 0" for index in range(len(cameras)))
    points = CENTER + 0.5 * torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    lines = [f"{index + 1} {x} {y} {z} 9 9 9 0.5 {track}" for index, (x, y, z) in enumerate(points.tolist())]
    (model / "points3D.txt").write_text("\n".join(lines))
    np.savez(idr / "cameras_sphere.npz", **matrices)
    return [nerf, colmap, idr]


def write_bases(folder: Path) -> dict[str, tuple[list[Path], Callable[[Path, int], None]]]:
    """Captures, a run and meshes to damage; how each is used."""
    captures = write_captures(folder / "captures")
    capture = captures[0]
    formats = ("ply", "obj", "glb", "stl")
    run = folder / "run"
    run_fit(FitRequest(capture, 20.0, run, preset=TINY, formats=formats, faces=2000), fit=cut_to(2.5))
    meshes = folder / "meshes"
    meshes.mkdir()
    shutil.copy(run / "mesh.ply", meshes / "truth.ply")
    for suffix in formats:
        shutil.copy(run / f"mesh.{suffix}", meshes)
    return {"captures": (captures, use_capture), "runs": ([run], use_run), "meshes": ([meshes], use_mesh)}


def make_case(bases: list[Path], kind: str, seed: str, folder: Path) -> None:
    """A copy of one of `bases` in `folder` with one or two of its files damaged."""
    chance = random.Random(seed)
    shutil.copytree(chance.choice(bases), folder)
    if kind == "meshes":
        kept = chance.choice(sorted(folder.glob("mesh.*")))
        for path in folder.glob("mesh.*"):
            if path != kept:
                path.unlink()
        damage_file(kept, chance)
        return
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    documents = [path for path in files if path.suffix in DOCUMENTS]
    for _ in range(chance.randint(1, 2)):
        damage_file(chance.choice(documents if chance.random() < 0.7 else files), chance)


def run_case(use: Callable[[Path, int], None], folder: Path, number: int) -> str | None:
    """What went wrong, if something did."""

    def slow(signum: int, frame: FrameType | None) -> None:
        raise Slow

    before = signal.signal(signal.SIGALRM, slow)
    signal.alarm(CASE_SECONDS)
    try:
        use(folder, number)
    except QuicksurfError as error:
        return None if str(error) else "an error without a word"
    except Slow:
        return f"not done after {CASE_SECONDS} s"
    except Exception as error:
        return "".join(traceback.format_exception(error)[-3:])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return None


def fuzz(counts: dict[str, int], seed: int, seconds: float) -> tuple[dict[str, int], list[str]]:
    """Cases made of each kind, and what went wrong."""
    end, made, faults = time.monotonic() + seconds, dict.fromkeys(counts, 0), []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = Path(name)
        for kind, (bases, use) in write_bases(root).items():
            for number in range(counts.get(kind, 0)):
                if time.monotonic() > end:
                    break
                case = root / "case"
                make_case(bases, kind, f"{seed} {kind} {number}", case)
                fault = run_case(use, case, number)
                faults += [] if fault is None else [f"{kind} {number}: {fault}"]
                made[kind] += 1
                shutil.rmtree(case)
    return made, faults


def main() -> int:
    """Fuzz as the arguments say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for kind, count in (("captures", 2000), ("runs", 500), ("meshes", 200)):
        parser.add_argument(f"--{kind}", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=900.0)
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    counts = {"captures": given.captures, "runs": given.runs, "meshes": given.meshes}
    made, faults = fuzz(counts, given.seed, given.seconds)
    print("\n".join(faults))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{made}: {len(faults)} faults, at most {peak} MB")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
