"""Advice on what to photograph next: where few photos support the surface, and from where it can be seen.

Candidate places lie on a lattice around the object, at the photos' median distance. The gain of a place is the area of
the surface that it sees and that lacks photos: each vertex stands for a third of the faces around it and lacks
max(0, 1 − n / WANTED) of it for its n photos; a hole lacks the whole fan that closes it. The best place is chosen
greedily, counted as photographed, and the others are scored again. Obstacles beside the object are not known here.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from quicksurf.app.report.sphere import HorizonFrame, Sphere, angles_between, step_in_words, widest_gap
from quicksurf.geometry.cameras import Cameras, pinholes
from quicksurf.geometry.paths import FULL_TURN_GAP, horizontal_basis, look_at, mean_up
from quicksurf.mesh.clean import face_areas
from quicksurf.mesh.extract import vertex_normals
from quicksurf.mesh.holes import boundary_loops
from quicksurf.mesh.types import Faces, Vertices
from quicksurf.mesh.visibility import count_views

WANTED = 4  # photos of every place: two give a depth, the others confirm it
MAX_PLACES = 3
MIN_GAIN = 0.015  # of the whole surface: less is not worth going back for
# Degrees from the nearest photo: nearer shows nothing new, farther does not match.
MIN_STEP, MAX_STEP = 15.0, 60.0
MAX_ELEVATION = 75.0  # degrees
_FRONTAL = 0.35  # cosine: 70° off the normal; flatter views do not locate the surface
_PLACE_PHOTOS = 3  # taken at each place
_VIEW_SIZE, _ROI_CUT, _UNDERSIDE = 256, 0.93, -0.5
_MAX_GAP = 45.0  # degrees in azimuth between neighbours, beyond which their photos overlap too little


class Coverage(NamedTuple):
    """A surface whose holes are closed by fans, with weight and number of photos of each vertex."""

    vertices: Vertices
    faces: Faces
    normals: Vertices
    weights: Float64[np.ndarray, "v"]
    """Fraction of the whole surface; they sum to 1."""
    n_views: Float64[np.ndarray, "v"]

    def missing(self) -> Float64[np.ndarray, "v"]:
        """Compute the fraction of the surface at each vertex that lacks photos."""
        return self.weights * np.clip(1 - self.n_views / WANTED, 0, 1)


class Place(NamedTuple):
    """A place to take photos from."""

    azimuth: float
    elevation: float
    nearest: int
    """The photo taken closest to it."""
    gain: float
    """Fraction of the surface that it would add."""


def frame_of(cameras: Cameras, center: tuple[float, float, float]) -> HorizonFrame:
    """Find the frame in which directions around the center of a capture are measured."""
    target = torch.tensor(center, dtype=torch.float64)
    up = mean_up(cameras)
    ahead = horizontal_basis(up, cameras.centers().double() - target)[0]
    return HorizonFrame(target.numpy(), up.numpy(), ahead.numpy())


def measure_coverage(
    vertices: Vertices,
    faces: Faces,
    n_views: Int64[np.ndarray, "v"],
    center: Float64[np.ndarray, "3"],
    radius: float,
) -> Coverage:
    """Close each hole by a fan around its mean vertex; fans of holes cut by the ROI's border have no weight."""
    loops = boundary_loops(faces)
    closed = np.concatenate([vertices, *(vertices[loop].mean(0, keepdims=True) for loop in loops)])
    weights = np.zeros(len(closed))
    np.add.at(weights, faces.ravel(), np.repeat(face_areas(vertices, faces) / 3, 3))
    distances = np.linalg.norm(vertices - center, axis=1) / radius
    fans = []
    for middle, loop in enumerate(loops, len(vertices)):
        fans.append(np.column_stack([np.roll(loop, -1), loop, np.full(len(loop), middle)]))
        weights[middle] = face_areas(closed, fans[-1]).sum() * (distances[loop].max() < _ROI_CUT)
    all_faces = np.concatenate([faces, *fans])
    return Coverage(
        closed,
        all_faces,
        vertex_normals(closed, all_faces),
        weights / max(weights.sum(), 1e-30),
        np.concatenate([n_views, np.zeros(len(loops))]).astype(np.float64),
    )


def next_places(coverage: Coverage, cameras: Cameras, frame: HorizonFrame) -> tuple[list[Place], Coverage]:
    """Choose at most MAX_PLACES places, best first; also return the coverage after photographing from them."""
    centers = cameras.centers().double().numpy()
    candidates, nearest = _candidates(frame, frame.sphere(centers))
    distance = float(np.median(np.linalg.norm(centers - frame.center, axis=1)))
    seen = _seen_from(coverage, frame.center + distance * frame.directions(candidates), frame)
    places: list[Place] = []
    while len(places) < MAX_PLACES and len(seen):
        gains = seen @ coverage.missing()
        best = int(gains.argmax())
        if gains[best] < MIN_GAIN:
            break
        azimuth, elevation = float(candidates.azimuths[best]), float(candidates.elevations[best])
        places.append(Place(azimuth, elevation, int(nearest[best]), float(gains[best])))
        coverage = coverage._replace(n_views=coverage.n_views + _PLACE_PHOTOS * seen[best])
    return places, coverage


def advise(
    places: Sequence[Place], left: Coverage, frame: HorizonFrame, photos: Sphere, names: Sequence[str]
) -> list[str]:
    """Write the sentences, most useful first; none where enough photos see every part."""
    sentences = []
    for place in places:
        start = float(photos.azimuths[place.nearest]), float(photos.elevations[place.nearest])
        sentences.append(
            f"Stand where {names[place.nearest]} was taken, facing the object; go "
            f"{step_in_words(start, (place.azimuth, place.elevation))} "
            f"(azimuth {place.azimuth:.0f}°, {abs(place.elevation):.0f}° "
            f"{'above' if place.elevation >= 0 else 'below'} the horizon) and take {_PLACE_PHOTOS} to 5 photos on the "
            f"way: fewer than {WANTED} photos support about {max(1, round(100 * place.gain))} % of the surface there."
        )
    underside = float(left.missing()[left.normals @ frame.up < _UNDERSIDE].sum())
    if underside >= 2 * MIN_GAIN:
        sentences.append(
            f"About {100 * underside:.0f} % of the surface faces down and was not seen: turn the object over for a "
            "second capture if the underside matters."
        )
    gap, left_photo, right_photo = widest_gap(photos)
    between = f"between {names[left_photo]} and {names[right_photo]}"
    if np.radians(gap) >= FULL_TURN_GAP:
        sentences.append(
            f"The photos cover an arc of {360 - gap:.0f}°: nothing was taken in the {gap:.0f}° {between}. Take photos "
            "from that side if it can be reached; before a wall it cannot."
        )
    elif gap > _MAX_GAP:
        sentences.append(
            f"The widest gap around the object is {gap:.0f}°, {between}: fill it with a photo every 15°."
        )
    return sentences


def _candidates(frame: HorizonFrame, photos: Sphere) -> tuple[Sphere, Int64[np.ndarray, "c"]]:
    """Lattice points MIN_STEP to MAX_STEP degrees from the nearest photo, and which photo that is."""
    lowest = max(-MAX_ELEVATION, min(0.0, float(photos.elevations.min()) - 15))
    rows = np.arange(lowest, MAX_ELEVATION + 1, 20.0)
    azimuths, elevations = (values.ravel() for values in np.meshgrid(np.arange(0.0, 360, 20), rows))
    angles = angles_between(frame.directions(Sphere(azimuths, elevations)), frame.directions(photos))
    keep = (angles.min(1) >= MIN_STEP) & (angles.min(1) <= MAX_STEP)
    return Sphere(azimuths[keep], elevations[keep]), angles[keep].argmin(1)


def _seen_from(
    coverage: Coverage, centers: Float64[np.ndarray, "c 3"], frame: HorizonFrame
) -> Bool[np.ndarray, "c v"]:
    """Which vertices are seen, and not too obliquely, from each place."""
    cameras = _looking_in(centers, coverage.vertices, frame)
    seen = np.zeros((len(centers), len(coverage.vertices)), bool)
    for index, center in enumerate(centers):
        one = cameras.select(torch.tensor([index]))
        visible = count_views(coverage.vertices, coverage.faces, coverage.normals, one).n_views > 0
        sight = center - coverage.vertices
        cosines = (coverage.normals * sight).sum(1) / np.maximum(np.linalg.norm(sight, axis=1), 1e-30)
        seen[index] = visible & (cosines > _FRONTAL)
    return seen


def _looking_in(centers: Float64[np.ndarray, "c 3"], vertices: Vertices, frame: HorizonFrame) -> Cameras:
    """Small cameras at `centers` that face the object and frame every vertex from the nearest of them."""
    reach = float(np.linalg.norm(vertices - frame.center, axis=1).max())
    distance = float(np.linalg.norm(centers - frame.center, axis=1).min()) if len(centers) else 1.0
    half = min(0.9 * distance, reach) / distance
    focal = _VIEW_SIZE / 2 * np.sqrt(1 - half**2) / max(half, 1e-6)
    c2w = look_at(torch.from_numpy(centers), torch.from_numpy(frame.center), torch.from_numpy(frame.up))
    return pinholes(c2w, focal, (_VIEW_SIZE, _VIEW_SIZE))
