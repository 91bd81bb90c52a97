"""A mesh beside that of another program of the same photos, which is no truth: where is ours missing, where is it off?

Beside a capture lie openmvs.ply, the other mesh, and openmvs_cameras.json, the cameras it stands on. Of it counts what
a quarter of the photos, three at least, have in their frame; where masks are asked for, only what lies inside them in
nine of ten photos that have it in their frame. Lengths are in percent of the diagonal of the axis-aligned box between
the 2nd and the 98th percentile of what counts. Both surfaces are points, uniform in area.

    missed      fraction of theirs that is farther than 1 % from ours, in percent
    elsewhere   fraction of ours that is farther than 1 % from theirs, in percent: theirs may have gaps there
    recall      fraction of theirs closer than 0.2 % to ours
    precision   fraction of ours, but what is elsewhere, closer than 0.2 % to the tangent plane at the nearest of theirs
    agreement   harmonic mean of recall and precision
    median      median distance to those planes, in percent

A run that found its poses has a frame of its own: it is brought into theirs by the similarity of least squares between
the cameras' centres, then by the one between the surfaces, from point to plane.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from quality_bench.captures import OTHER_CAMERAS, OTHER_MESH
from quicksurf.app.metrics import MeshSurface, Points, SurfaceSamples
from quicksurf.capture.masks import find_masks, read_coverage
from quicksurf.capture.sfm.joining import umeyama
from quicksurf.capture.transforms import CameraFile, read_cameras
from quicksurf.errors import CaptureError, OutputError, SurfaceError
from quicksurf.geometry.cameras import Cameras, project
from quicksurf.mesh.export import read_points

N_SAMPLES = 400_000  # their distance on a facade is then about the 0.2 % that is told apart
_COVERED, _CLOSE = 0.01, 0.002  # of the diagonal
_OUTLYING = 0.02  # fraction of points beyond either side of the box
_PHOTO_FRACTION, _MIN_PHOTOS = 4, 3
_MASK_FRACTION = 0.9
_STRIDE = 8  # of the points that align: 50,000 are enough for seven numbers
_REACHES = (0.02,) * 10 + (0.006,) * 20  # of the diagonal, by iteration: what is farther says nothing
_N_SPACED = 20_000


@dataclass(frozen=True, eq=False)
class Reference:
    """The other program's surface."""

    samples: SurfaceSamples
    """What counts of it."""
    tree: KDTree
    """Of the samples' points."""
    diagonal: float
    cameras: CameraFile


def load_reference(folder: Path, inside_masks: bool = False, n_samples: int = N_SAMPLES) -> Reference:
    """Read the other mesh of the capture in `folder`.

    Raises:
        SurfaceError: if it cannot be read, or nothing of it counts.
        CaptureError: if its cameras or the masks cannot be read.
    """
    cameras = read_cameras(folder / OTHER_CAMERAS)
    points, normals = MeshSurface(*read_points(folder / OTHER_MESH)).sample(n_samples)
    n_photos = len(cameras.names)
    keep = count_frames(points, cameras.cameras) >= max(_MIN_PHOTOS, n_photos // _PHOTO_FRACTION)
    if inside_masks:
        keep[keep] = inside_given_masks(points[keep], cameras, folder)
    if not keep.any():
        raise SurfaceError(f"nothing of {folder / OTHER_MESH} counts: it lies in the frame of too few photos")
    points, normals = points[keep], normals[keep]
    low, high = np.quantile(points, [_OUTLYING, 1 - _OUTLYING], axis=0)
    return Reference(
        SurfaceSamples(points, normals), KDTree(points), float(np.linalg.norm(high - low)), cameras
    )


def score_against(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int64[np.ndarray, "f 3"],
    reference: Reference,
    cameras: Path | None = None,
    n_samples: int = N_SAMPLES,
) -> dict[str, float]:
    """The figures of the module's text; no precision where nothing of ours is near.

    Args:
        cameras: cameras.json of a run in a frame of its own; None: the frames are the same.

    Raises:
        SurfaceError: if the mesh has no area.
        CaptureError: if the cameras cannot be read, or fewer than three are of the reference's photos.
    """
    surface = MeshSurface(vertices, faces)
    if not len(surface):
        raise SurfaceError("a mesh without area cannot be compared")
    ours = surface.sample(n_samples).points
    if cameras is not None:
        ours = align_by_surface(align_by_cameras(ours, read_cameras(cameras), reference.cameras), reference)
    return _figures(ours, reference)


def capture_with_cameras(folder: Path, place: Path) -> Path:
    """Make `place` a capture of the photos of `folder` with the other program's cameras as its transforms.json.

    Raises:
        OutputError: if the folder lacks photos or cameras, or the place cannot be written.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / OTHER_CAMERAS, place / "transforms.json")
        (place / "images").unlink(missing_ok=True)
        (place / "images").symlink_to((folder / "images").resolve(strict=True), target_is_directory=True)
    except OSError as error:
        raise OutputError(
            f"cannot make a capture of {folder} in {place} ({error}): expected images/ and {OTHER_CAMERAS}"
        ) from error
    return place


def count_frames(points: Points, cameras: Cameras) -> Int64[np.ndarray, "n"]:
    """How many photos have each point in their frame, whether or not something hides it."""
    counts = np.zeros(len(points), np.int64)
    for view in range(len(cameras)):
        counts += _in_frame(points, cameras, view)[0]
    return counts


def inside_given_masks(points: Points, cameras: CameraFile, folder: Path) -> Bool[np.ndarray, "n"]:
    """Which points the masks of nine tenths of the photos that have them in their frame count as the object."""
    masks, _ = find_masks(folder, [folder / name for name in cameras.names])
    n_seen, n_inside = np.zeros((2, len(points)), np.int64)
    for view, path in enumerate(masks):
        if path is None:
            continue
        mask = read_coverage(path, False) > 127
        visible, pixels = _in_frame(points, cameras.cameras, view)
        scale = np.array(mask.shape[::-1]) / cameras.cameras.sizes[view].numpy()
        columns, rows = (pixels * scale).astype(np.int64).T
        n_seen += visible
        n_inside[visible] += mask[rows, columns]
    return (n_seen > 0) & (n_inside >= _MASK_FRACTION * n_seen)


def align_by_cameras(points: Points, ours: CameraFile, theirs: CameraFile) -> Points:
    """Points of our frame in theirs, by the centres of the cameras of the same photos.

    Raises:
        CaptureError: if fewer than three photos have a camera in both.
    """
    centers, targets = _centers(ours), _centers(theirs)
    shared = sorted(centers.keys() & targets.keys())
    if len(shared) < 3:
        raise CaptureError(
            f"{len(shared)} photos of the run are among those of {OTHER_CAMERAS}, expected three or more: "
            "give a run of this capture"
        )
    pairs = (np.array([[places[name] for name in shared]]) for places in (centers, targets))
    scales, rotations, translations = umeyama(*pairs)
    return scales[0] * points @ rotations[0].T + translations[0]


def align_by_surface(points: Points, reference: Reference) -> Points:
    """The points after the similarity that brings those near the reference onto its tangent planes."""
    for reach in _REACHES:
        probes = points[::_STRIDE]
        distances, nearest = reference.tree.query(probes, distance_upper_bound=reach * reference.diagonal)
        near = np.isfinite(distances)
        targets = SurfaceSamples(*(values[nearest[near]] for values in reference.samples))
        points = _step_to_planes(points, probes[near], targets)
    return points


def _step_to_planes(points: Points, sources: Points, targets: SurfaceSamples) -> Points:
    """One step of Gauss and Newton on Σ (n · (s R (x − c) + c + t − y))²; as they are where `sources` are too few."""
    if len(sources) < 7:
        return points
    center, normals = sources.mean(0), targets.normals
    arms = sources - center
    along = np.einsum("ni,ni->n", arms, normals)
    slopes = np.column_stack([np.cross(arms, normals), normals, along])
    heights = np.einsum("ni,ni->n", sources - targets.points, normals)
    step = np.linalg.lstsq(slopes, -heights, rcond=None)[0]
    rotation = Rotation.from_rotvec(step[:3]).as_matrix()
    return (1 + step[6]) * (points - center) @ rotation.T + center + step[3:6]


def _figures(ours: Points, reference: Reference) -> dict[str, float]:
    theirs, normals = reference.samples
    reach, close = _COVERED * reference.diagonal, _CLOSE * reference.diagonal
    tree = KDTree(ours)
    # Without a bound a search from afar looks at all points, that are about as far. Beyond it distances are infinite.
    to_theirs, nearest = reference.tree.query(ours, distance_upper_bound=reach)
    to_ours = tree.query(theirs, distance_upper_bound=reach)[0]
    covered = np.isfinite(to_theirs)
    fractions = {"missed": 100 * _fraction(np.isinf(to_ours)), "elsewhere": 100 * _fraction(~covered)}
    if not covered.any():
        return {**fractions, "recall": 0.0, "agreement": 0.0}
    ours, nearest = ours[covered], nearest[covered]
    heights = np.abs(np.einsum("ni,ni->n", ours - theirs[nearest], normals[nearest]))
    recall = _fraction(to_ours < max(close, 2 * _spacing(tree, ours)))
    precision = _fraction(heights < close)
    return {
        **fractions,
        "recall": recall,
        "precision": precision,
        "agreement": 2 * precision * recall / max(precision + recall, 1e-12),
        "median": 100 * float(np.median(heights)) / reference.diagonal,
    }


def _spacing(tree: KDTree, points: Points) -> float:
    """The median distance of points to their neighbours: the surface between them is no nearer to any."""
    return float(np.median(tree.query(points[:_N_SPACED], k=2)[0][:, 1]))


def _fraction(which: Bool[np.ndarray, "n"]) -> float:
    return float(which.mean())


def _centers(file: CameraFile) -> dict[str, Float[np.ndarray, "3"]]:
    """By the photo's name without folder and suffix."""
    places = file.cameras.centers().numpy()
    return {Path(name).stem: place for name, place in zip(file.names, places, strict=True)}


def _in_frame(
    points: Points, cameras: Cameras, view: int
) -> tuple[Bool[np.ndarray, "n"], Float[np.ndarray, "m 2"]]:
    """Which points project into the photo, and the pixels of those."""
    projected, depths = project(cameras, view, torch.from_numpy(points))
    pixels, sizes = projected.numpy(), cameras.sizes[view].numpy()
    visible = (depths.numpy() > 0) & (pixels >= 0).all(1) & (pixels < sizes).all(1)
    return visible, pixels[visible]
