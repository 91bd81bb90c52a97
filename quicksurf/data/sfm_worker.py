"""Structure from motion in a process of its own: `python -m quicksurf.data.sfm_worker`, a JSON job as input.

Its own process, because COLMAP's calls cannot all be stopped from inside, its log belongs into a file,
and its OpenMP runtime must not share a process with torch's. One JSON line leaves per stage; everything
else that anyone prints goes to the error stream. It ends when its input closes, so it never outlives the
one who started it.

Stages: features (SIFT), pairs (the most alike by a few coarse features), matches (verified two-view
geometry), mapping (incremental or global), `poses.npz`. Each stage but the last gives way when its share
of the time is used up, so that late is poorer, not empty-handed. This module plans nothing: see
`quicksurf.data.sfm_plan`.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pycolmap
from jaxtyping import Float, Int
from PIL import Image

# When each stage must give way, as a fraction of the job's seconds: what is left suffices for those after it.
_FEATURES_END, _MATCHES_END, _MAPPING_END = 0.55, 0.8, 0.95
_COARSE_FEATURES = 300  # of the largest scale: 20 partners by these keep 97 % of all inliers
_COARSE_FEATURES_MANY = 150
_MANY_IMAGES = 400  # above it the coarse pass would take longer than the features
_RATIO = 0.8  # Lowe's test, on angles
_PAIR_BLOCK = 100  # pairs between two looks at the clock, about 1 s
_SECOND_TRY = 0.8  # a model of fewer of the photos may have begun at a bad pair: begin elsewhere


class Job(TypedDict):
    """What `quicksurf.data.sfm` asks for. Photos are named by their place in `names`."""

    folder: str
    """Holds `images/`; the database and `poses.npz` are written there."""
    names: list[str]
    groups: list[tuple[list[int], float | None]]
    """Photos of one camera, and its focal length in pixels where EXIF has it."""
    n_features: int
    upsample: bool
    n_partners: int
    """Photos each one is matched with; as many as there are means all."""
    n_neighbors: int
    """Photos after each in order of name that it is matched with in any case."""
    use_global: bool
    seconds: float
    n_threads: int


class Clock:
    """Seconds since the job came in."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def stop_at(self, seconds: float, call: Callable[[pycolmap.CancellationToken], None]) -> bool:
        """Run `call`, cancelled once `seconds` have passed since the start; False if it was."""
        token = pycolmap.CancellationToken()
        timer = threading.Timer(max(0.0, seconds - self.elapsed()), token.cancel)
        timer.daemon = True
        timer.start()
        try:
            call(token)
        except InterruptedError:
            return False
        finally:
            timer.cancel()
        return True


def main() -> None:
    """Read the job from the input, do it, report each stage on the output."""
    report = _protocol()
    clock = Clock()
    job: Job = json.loads(sys.stdin.readline())
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    pycolmap.set_random_seed(0)
    folder = Path(job["folder"])
    database = folder / "database.db"
    pycolmap.Database.open(database).close()
    complete = extract(job, database, clock)
    counts = feature_counts(job, database)
    report({"stage": "features", "seconds": clock.elapsed(), "complete": complete, "counts": counts.tolist()})
    pairs = choose_pairs(job, database, counts)
    report({"stage": "pairs", "seconds": clock.elapsed(), "pairs": len(pairs)})
    complete = match(job, database, pairs, clock)
    inliers = pair_inliers(job, database)
    report({"stage": "matches", "seconds": clock.elapsed(), "complete": complete, "inliers": inliers})
    model = reconstruct(job, database, clock)
    if model is not None:
        np.savez(folder / "poses.npz", allow_pickle=False, **model_arrays(model, job["names"]))
    report({"stage": "mapping", "seconds": clock.elapsed(), "found": model is not None})


def extract(job: Job, database: Path, clock: Clock) -> bool:
    """Put cameras, images and SIFT features into the database, by name; False if time ran out on the way."""
    images = Path(job["folder"]) / "images"
    names = job["names"]
    for members, focal in job["groups"]:
        reader = pycolmap.ImageReaderOptions(camera_model="SIMPLE_RADIAL")
        if focal is not None:  # given parameters count as a prior, none as a guess (1.2 x the longer side)
            with Image.open(images / names[members[0]]) as image:
                reader.camera_params = f"{focal},{image.width / 2},{image.height / 2},0"
        group = [names[index] for index in members]
        pycolmap.import_images(database, images, pycolmap.CameraMode.SINGLE, group, reader)
    options = pycolmap.FeatureExtractionOptions(num_threads=job["n_threads"], use_gpu=False)
    options.sift.max_num_features = job["n_features"]
    options.sift.first_octave = -1 if job["upsample"] else 0
    return clock.stop_at(
        _FEATURES_END * job["seconds"],
        lambda token: pycolmap.extract_features(
            database, images, names, extraction_options=options, cancellation_token=token
        ),
    )


def feature_counts(job: Job, database: Path) -> Int[np.ndarray, "n"]:
    """Features of each photo; -1 for one that the time did not reach."""
    with _opened(database) as opened:
        ids = _image_ids(opened)
        reached = [opened.exists_keypoints(ids[name]) for name in job["names"]]
        return np.array(
            [
                opened.num_keypoints_for_image(ids[name]) if done else -1
                for name, done in zip(job["names"], reached, strict=True)
            ]
        )


def choose_pairs(job: Job, database: Path, counts: Int[np.ndarray, "n"]) -> list[tuple[int, int]]:
    """Pairs to match: neighbours in order first, then those most alike; if all are wanted, nearest first."""
    n_images = len(counts)
    rows, columns = np.triu_indices(n_images, 1)
    near = columns - rows <= job["n_neighbors"]
    if job["n_partners"] < n_images - 1:
        likeness = coarse_matches(job, database)
        alike = best_partners(likeness, job["n_partners"])[rows, columns]
        priority = np.where(near, np.inf, likeness[rows, columns])
    else:
        alike = np.ones(len(rows), bool)
        priority = rows.astype(float) - columns
    chosen = (near | alike) & (counts[rows] > 0) & (counts[columns] > 0)
    order = np.argsort(-priority[chosen], kind="stable")
    return list(zip(rows[chosen][order].tolist(), columns[chosen][order].tolist(), strict=True))


def best_partners(likeness: Float[np.ndarray, "n n"], n_partners: int) -> np.ndarray:
    """Symmetric boolean matrix: j is among the `n_partners` most like i, or i among those of j."""
    ranked = np.argsort(-likeness, axis=1, kind="stable")[:, :n_partners]
    chosen = np.zeros(likeness.shape, bool)
    np.put_along_axis(chosen, ranked, True, axis=1)
    chosen |= chosen.T
    np.fill_diagonal(chosen, False)
    return chosen


def coarse_matches(job: Job, database: Path) -> Float[np.ndarray, "n n"]:
    """How many of each photo's largest features find a distinct partner in each other photo (symmetric)."""
    names = job["names"]
    n_features = _COARSE_FEATURES if len(names) <= _MANY_IMAGES else _COARSE_FEATURES_MANY
    with _opened(database) as opened:
        ids = _image_ids(opened)
        features = np.stack([_largest(opened, ids[name], n_features) for name in names])
    counts = np.zeros((len(names), len(names)))
    for index in range(len(names) - 1):
        for begin in range(index + 1, len(names), 64):  # blocks of 64 photos: about 25 MB
            block = slice(begin, begin + 64)
            counts[index, block] = _distinct(features[index], features[block])
    return counts + counts.T


def _largest(opened: pycolmap.Database, image_id: int, n_features: int) -> Float[np.ndarray, "f 128"]:
    """Unit descriptors of the features of largest scale, padded with zeros, which match nothing."""
    descriptors = np.zeros((n_features, 128), np.float32)
    if opened.num_keypoints_for_image(image_id) == 0:
        return descriptors
    affine = opened.read_keypoints(image_id)[:, 2:]
    order = np.argsort(-np.hypot(affine[:, 0], affine[:, 2]), kind="stable")[:n_features]
    found = np.asarray(opened.read_descriptors(image_id).data)[order].astype(np.float32)
    descriptors[: len(found)] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)
    return descriptors


def _distinct(one: Float[np.ndarray, "f 128"], others: Float[np.ndarray, "b g 128"]) -> Int[np.ndarray, "b"]:
    """Features of `one` whose best partner in each other is nearer than 0.8 of the second best's angle."""
    cosines = (one @ others.reshape(-1, 128).T).reshape(len(one), len(others), -1)
    best = cosines.argmax(2)[..., None]
    first = np.take_along_axis(cosines, best, 2)[..., 0]
    np.put_along_axis(cosines, best, -1.0, 2)
    second = cosines.max(2)
    near = np.arccos(np.clip(first, 0, 1)) < _RATIO * np.arccos(np.clip(second, 0, 1))
    return (near & (first > 0.7)).sum(0)


def match(job: Job, database: Path, pairs: list[tuple[int, int]], clock: Clock) -> bool:
    """Match and verify `pairs` in their order; False if time ran out on the way."""
    names = job["names"]
    if not pairs:
        return True
    listed = Path(job["folder"]) / "pairs.txt"
    listed.write_text("".join(f"{names[i]} {names[j]}\n" for i, j in pairs), encoding="utf-8")
    matching = pycolmap.FeatureMatchingOptions(num_threads=job["n_threads"], use_gpu=False)
    pairing = pycolmap.ImportedPairingOptions(match_list_path=listed, block_size=_PAIR_BLOCK)
    verification = pycolmap.TwoViewGeometryOptions()
    # The default 10,000 trials go to pairs that share nothing: 1,000 keep 99.8 % of the inliers in a third of
    # the time.
    verification.ransac.max_num_trials = 1000
    verification.ransac.min_num_trials = 30
    verification.ransac.confidence = 0.99
    verification.ransac.random_seed = 0
    return clock.stop_at(
        _MATCHES_END * job["seconds"],
        lambda token: pycolmap.match_image_pairs(
            database, matching, pairing, verification, cancellation_token=token
        ),
    )


def pair_inliers(job: Job, database: Path) -> list[tuple[int, int, int]]:
    """Verified pairs as (photo, photo, matches that fit one two-view geometry)."""
    with _opened(database) as opened:
        order = {name: index for index, name in enumerate(job["names"])}
        place = {image.image_id: order[image.name] for image in opened.read_all_images()}
        pair_ids, geometries = opened.read_two_view_geometries()
    found = []
    for pair_id, geometry in zip(pair_ids, geometries, strict=True):
        if len(geometry.inlier_matches):
            first, second = pycolmap.pair_id_to_image_pair(pair_id)
            found.append((place[first], place[second], len(geometry.inlier_matches)))
    return found


def reconstruct(job: Job, database: Path, clock: Clock) -> pycolmap.Reconstruction | None:
    """The largest model, or None. One that leaves many photos out is tried again from other beginnings."""
    if job["use_global"]:
        models = _map_globally(job, database)
    else:
        models = _map(job, database, clock, multiple=False)
    if _size(models) < _SECOND_TRY * len(job["names"]) and clock.elapsed() < _MATCHES_END * job["seconds"]:
        models += _map(job, database, clock, multiple=True)
    return max(models, key=lambda model: model.num_reg_images(), default=None)


def _size(models: list[pycolmap.Reconstruction]) -> int:
    return max((model.num_reg_images() for model in models), default=0)


def _map(job: Job, database: Path, clock: Clock, multiple: bool) -> list[pycolmap.Reconstruction]:
    options = pycolmap.IncrementalPipelineOptions(num_threads=job["n_threads"], random_seed=0)
    options.multiple_models = multiple
    options.max_num_models = 4
    options.min_model_size = 3
    options.max_runtime_seconds = max(1, int(_MAPPING_END * job["seconds"] - clock.elapsed()))
    # Bundle adjustment of everything only when a model has grown by 30 %, and twice at most: the default
    # (10 %, five times) takes 1.8 times longer and ends at the same error (0.59 pixels, 69 photos).
    options.ba_global_frames_ratio = options.ba_global_points_ratio = 1.3
    options.ba_global_max_refinements = 2
    options.ba_local_max_refinements = 1
    output = Path(job["folder"]) / "models"
    output.mkdir(exist_ok=True)
    images = Path(job["folder"]) / "images"
    return list(pycolmap.incremental_mapping(database, images, output, options).values())


def _map_globally(job: Job, database: Path) -> list[pycolmap.Reconstruction]:
    options = pycolmap.GlobalPipelineOptions(num_threads=job["n_threads"], random_seed=0)
    output = Path(job["folder"]) / "models"
    output.mkdir(exist_ok=True)
    images = Path(job["folder"]) / "images"
    return list(pycolmap.global_mapping(database, images, output, options).values())


def model_arrays(model: pycolmap.Reconstruction, names: list[str]) -> dict[str, np.ndarray]:
    """The model as `quicksurf.data.sfm` reads it back. Images are numbered by their place in `names`."""
    order = {name: index for index, name in enumerate(names)}
    place = {image_id: order[model.image(image_id).name] for image_id in model.reg_image_ids()}
    ids = sorted(place, key=lambda image_id: place[image_id])
    lenses = [model.camera(model.image(image_id).camera_id) for image_id in ids]
    row = {image_id: index for index, image_id in enumerate(ids)}
    points = list(model.points3D.values())
    observations = [
        (index, row[element.image_id])
        for index, point in enumerate(points)
        for element in point.track.elements
    ]
    return {
        "images": np.array([place[image_id] for image_id in ids], np.int64),
        "c2w": np.stack([model.image(image_id).cam_from_world().inverse().matrix() for image_id in ids]),
        "lenses": np.stack([lens.params for lens in lenses]),  # f, cx, cy, k
        "sizes": np.array([(lens.width, lens.height) for lens in lenses], np.int64),
        "positions": np.array([point.xyz for point in points], np.float64).reshape(-1, 3),
        "colors": np.array([point.color for point in points], np.uint8).reshape(-1, 3),
        "observations": np.unique(np.array(observations, np.int64).reshape(-1, 2), axis=0),
    }


def _image_ids(opened: pycolmap.Database) -> dict[str, int]:
    return {image.name: image.image_id for image in opened.read_all_images()}


def _opened(path: Path) -> closing[pycolmap.Database]:
    return closing(pycolmap.Database.open(path))


def _protocol() -> Callable[[dict[str, Any]], None]:
    """Keep the output for ourselves: whatever else is printed, from C++ too, goes to the error stream."""
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return lambda message: print(json.dumps(message), file=lines, flush=True)


def _exit_with_parent() -> None:
    sys.stdin.read()
    os._exit(3)


if __name__ == "__main__":
    main()
