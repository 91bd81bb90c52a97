"""What to photograph next, in sentences: where too few photos support the surface, and from where it would be seen.

Places to stand are tried on a lattice around the object, at the photos' median distance. Each is worth the surface
that it sees and that needs to be seen: every vertex stands for a third of the faces around it and needs
max(0, 1 − n / WANTED) for its n photos, and a hole needs all of the fan that closes it. The best place is taken, as if
photographed, and the rest weighed again. What holds for places holds for nothing else: this module does not know
whether a wall is in the way.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from quicksurf.app.report.sphere import Frame, Sphere, angles_between, step_in_words, widest_gap
from quicksurf.app.report.topology import close_holes, find_holes
from quicksurf.geometry.cameras import N_DISTORTION, Cameras
from quicksurf.geometry.paths import FULL_TURN_GAP, horizontal_basis, look_at, mean_up
from quicksurf.mesh.clean import face_areas
from quicksurf.mesh.extract import vertex_normals
from quicksurf.mesh.visibility import count_views

WANTED = 4  # photos of every place: two give a depth, the others confirm it
MAX_PLACES = 3
WORTH = 0.015  # of the whole surface: less is not worth going back for
MIN_STEP, MAX_STEP = (
    15.0,
    60.0,
)  # degrees from the nearest photo: nearer is nothing new, farther does not match
STEEPEST = 75.0  # degrees above the horizon
_FRONTAL = 0.35  # cosine: 70° off the normal; flatter views place no surface
_PLACE_PHOTOS = 3  # taken at each place
_VIEW_SIZE, _ROI_CUT, _UNDERSIDE = 256, 0.93, -0.5
_MAX_GAP = 45.0  # degrees in azimuth between neighbours, beyond which their photos share too little


class Coverage(NamedTuple):
    """A surface closed by fans over its holes, and how much each vertex is worth seeing."""

    vertices: Float64[np.ndarray, "v 3"]
    faces: Int64[np.ndarray, "f 3"]
    normals: Float64[np.ndarray, "v 3"]
    weights: Float64[np.ndarray, "v"]
    """Fraction of the whole surface; they sum to 1."""
    n_views: Float64[np.ndarray, "v"]

    def missing(self) -> Float64[np.ndarray, "v"]:
        """Return the fraction of the surface that each vertex still wants to be seen of."""
        return self.weights * np.clip(1 - self.n_views / WANTED, 0, 1)


class Place(NamedTuple):
    """A place to take photos from."""

    azimuth: float
    elevation: float
    nearest: int
    """The photo taken closest to it."""
    worth: float
    """Fraction of the surface that it would add."""


def frame_of(cameras: Cameras, center: tuple[float, float, float]) -> Frame:
    """Tell how directions are counted around the middle of a capture."""
    target = torch.tensor(center, dtype=torch.float64)
    up = mean_up(cameras)
    ahead = horizontal_basis(up, cameras.centers().double() - target)[0]
    return Frame(target.numpy(), up.numpy(), ahead.numpy())


def needs_of(
    vertices: Float64[np.ndarray, "v 3"],
    faces: Int64[np.ndarray, "f 3"],
    n_views: Int64[np.ndarray, "v"],
    center: Float64[np.ndarray, "3"],
    radius: float,
) -> Coverage:
    """Return the surface with its holes closed; those that the ROI's border cut are as they should be and need
    nothing.
    """
    holes = find_holes(faces)
    middles, fans = close_holes(vertices, holes)
    closed = np.concatenate([vertices, middles])
    distances = np.linalg.norm(vertices - center, axis=1) / radius
    rim = np.zeros(holes.count)
    np.maximum.at(rim, holes.labels, distances[holes.edges[:, 0]])
    weights = np.zeros(len(closed))
    np.add.at(weights, faces.ravel(), np.repeat(face_areas(vertices, faces) / 3, 3))
    np.add.at(weights, fans[:, 2], face_areas(closed, fans) * (rim[holes.labels] < _ROI_CUT))
    all_faces = np.concatenate([faces, fans])
    return Coverage(
        closed,
        all_faces,
        vertex_normals(closed, all_faces),
        weights / max(weights.sum(), 1e-30),
        np.concatenate([n_views, np.zeros(holes.count)]).astype(np.float64),
    )


def next_places(needs: Coverage, cameras: Cameras, frame: Frame) -> tuple[list[Place], Coverage]:
    """Return at most MAX_PLACES places worth going to, best first, and the needs that are left after them."""
    photos = frame.sphere(cameras.centers().double().numpy())
    candidates, nearest = _candidates(frame, photos)
    distance = float(np.median(np.linalg.norm(cameras.centers().double().numpy() - frame.center, axis=1)))
    seen = _seen_from(needs, frame.center + distance * frame.directions(candidates), frame)
    places: list[Place] = []
    while len(places) < MAX_PLACES and len(seen):
        gains = seen @ needs.missing()
        best = int(gains.argmax())
        if gains[best] < WORTH:
            break
        azimuth, elevation = float(candidates.azimuths[best]), float(candidates.elevations[best])
        places.append(Place(azimuth, elevation, int(nearest[best]), float(gains[best])))
        needs = needs._replace(n_views=needs.n_views + _PLACE_PHOTOS * seen[best])
    return places, needs


def advise(
    places: Sequence[Place], left: Coverage, frame: Frame, photos: Sphere, names: Sequence[str]
) -> list[str]:
    """Return the sentences, most useful first; none where every place was seen often enough."""
    sentences = [_place_in_words(place, photos, names) for place in places]
    below = left.normals @ frame.up < _UNDERSIDE
    underside = float(left.missing()[below].sum())
    if underside >= 2 * WORTH:
        sentences.append(
            f"About {100 * underside:.0f} % of the surface faces down and was not seen: turn the object over for a "
            "second capture if the underside matters."
        )
    return sentences + _gap_in_words(photos, names)


def _place_in_words(place: Place, photos: Sphere, names: Sequence[str]) -> str:
    start = float(photos.azimuths[place.nearest]), float(photos.elevations[place.nearest])
    step = step_in_words(start, (place.azimuth, place.elevation))
    return (
        f"Stand where {names[place.nearest]} was taken, facing the object; go {step} "
        f"(azimuth {place.azimuth:.0f}°, {abs(place.elevation):.0f}° "
        f"{'above' if place.elevation >= 0 else 'below'} the horizon) and take {_PLACE_PHOTOS} to 5 photos on the "
        f"way: about {max(1, round(100 * place.worth))} % of the surface there was seen by fewer than "
        f"{WANTED} photos that agree."
    )


def _gap_in_words(photos: Sphere, names: Sequence[str]) -> list[str]:
    gap, left, right = widest_gap(photos)
    between = f"between {names[left]} and {names[right]}"
    if np.radians(gap) >= FULL_TURN_GAP:
        return [
            f"The photos cover an arc of {360 - gap:.0f}°: nothing was taken in the {gap:.0f}° {between}. If the "
            "object can be seen from there, photos from that side will close it; before a wall this is all there is."
        ]
    if gap > _MAX_GAP:
        return [f"The widest gap around the object is {gap:.0f}°, {between}: fill it with a photo every 15°."]
    return []


def _candidates(frame: Frame, photos: Sphere) -> tuple[Sphere, Int64[np.ndarray, "c"]]:
    """Lattice points that can be reached and are neither beside a photo nor too far from all; the nearest photos."""
    lowest = max(-STEEPEST, min(0.0, float(photos.elevations.min()) - 15))
    rows = np.arange(lowest, STEEPEST + 1, 20.0)
    azimuths, elevations = (values.ravel() for values in np.meshgrid(np.arange(0.0, 360, 20), rows))
    lattice = Sphere(azimuths, elevations)
    angles = angles_between(frame.directions(lattice), frame.directions(photos))
    keep = (angles.min(1) >= MIN_STEP) & (angles.min(1) <= MAX_STEP)
    return Sphere(azimuths[keep], elevations[keep]), angles[keep].argmin(1)


def _seen_from(needs: Coverage, centers: Float64[np.ndarray, "c 3"], frame: Frame) -> Bool[np.ndarray, "c v"]:
    """Which vertices are seen, and not too obliquely, from each place."""
    cameras = _looking_in(centers, needs.vertices, frame)
    seen = np.zeros((len(centers), len(needs.vertices)), bool)
    for index in range(len(centers)):
        one = cameras.select(torch.tensor([index]))
        visible = count_views(needs.vertices, needs.faces, needs.normals, one).n_views > 0
        sight = centers[index] - needs.vertices
        cosines = (needs.normals * sight).sum(1) / np.maximum(np.linalg.norm(sight, axis=1), 1e-30)
        seen[index] = visible & (cosines > _FRONTAL)
    return seen


def _looking_in(
    centers: Float64[np.ndarray, "c 3"], vertices: Float64[np.ndarray, "v 3"], frame: Frame
) -> Cameras:
    """Small cameras at `centers` that face the middle and show every vertex at the distance of the first."""
    reach = float(np.linalg.norm(vertices - frame.center, axis=1).max())
    distance = (
        float(np.linalg.norm(centers - frame.center, axis=1).min(initial=np.inf)) if len(centers) else 1.0
    )
    half = min(0.9 * distance, reach) / distance
    focal = _VIEW_SIZE / 2 * np.sqrt(1 - half**2) / max(half, 1e-6)
    count = len(centers)
    c2w = look_at(torch.from_numpy(centers), torch.from_numpy(frame.center), torch.from_numpy(frame.up))
    lens = torch.tensor([focal, focal, _VIEW_SIZE / 2, _VIEW_SIZE / 2], dtype=torch.float64)
    return Cameras(
        c2w=c2w,
        intrinsics=lens.repeat(count, 1),
        distortion=torch.zeros(count, N_DISTORTION, dtype=torch.float64),
        fisheye=torch.zeros(count, dtype=torch.bool),
        sizes=torch.full((count, 2), _VIEW_SIZE),
    )
