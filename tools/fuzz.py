"""Captures, runs and meshes damaged at random: every one is used, or refused by a QuicksurfError, within seconds.

    python tools/fuzz.py --captures 2000 --runs 500 --meshes 200 --seed 0 --seconds 900

A case is known by its kind and number, and made again from the seed alone. What ends in another error, takes longer
than CASE_SECONDS or more memory than MAX_BYTES is printed, and the tool leaves with 1.
"""

import argparse
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
import torch
from cut_fit import cut_to
from damage import damage_file
from scipy.spatial.transform import Rotation
from tiny_capture import CENTER, write_capture

from quicksurf.app import render as views
from quicksurf.app.evaluate import score
from quicksurf.app.export.request import MeshRequest
from quicksurf.app.fit import run_fit
from quicksurf.app.report.page import report_run
from quicksurf.app.requests import FitRequest
from quicksurf.app.run.folder import open_run
from quicksurf.app.run.metrics_log import read_metrics_log
from quicksurf.capture.load import ReadOptions, read_scene
from quicksurf.capture.transforms import read_cameras
from quicksurf.errors import QuicksurfError

CASE_SECONDS = 30
MAX_BYTES = 6 << 30  # more than the process has after its imports: of the whole process
DOCUMENTS = (".json", ".jsonl", ".safetensors", ".toml", ".txt", ".npz")
REPORT_EVERY = 10  # runs: a page takes a second
TINY = str(Path(__file__).parents[1] / "tests" / "tiny.toml")


class Slow(BaseException):
    """A case that does not end; no `except Exception` holds it."""


def use_capture(folder: Path, number: int) -> None:
    read_scene(folder, ReadOptions(max_pixels=32 * 32, say=lambda line: None))


def use_run(folder: Path, number: int) -> None:
    """What commands read of a run, as far as it goes."""
    for step in (
        lambda: read_metrics_log(open_run(folder).path),
        lambda: open_run(folder).read_summary(),
        lambda: list(views.render_run(folder, views.RenderRequest("input", 1, 8, 30, None), "cpu")),
        lambda: open_run(folder).model("cpu").occupancy(np.zeros((4, 3))),
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
    mesh = MeshRequest(formats, faces=2000)
    run_fit(FitRequest(capture, 20.0, run, preset=TINY, mesh=mesh), fit=cut_to(2.5))
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
