"""The mesh shown during a fit: how it is extracted, how often and at which resolution.

Compared to the final mesh (mesh/build.py), few cameras with small frames see it, no part is dropped for its size, and
vertex colors are those seen along the normals. It is extracted in the fit's own thread, between two steps, since a
second thread would compete for the same cores and interpreter. After `seconds` of extraction the next one is due
seconds / fraction later, so that at most about `fraction` of the fit's time goes into meshes.
"""

import time
from collections.abc import Callable

import numpy as np

from quicksurf.geometry.cameras import Cameras, evenly_chosen, fit_within
from quicksurf.mesh.build import color_vertices
from quicksurf.mesh.clean import compact, inside_ball
from quicksurf.mesh.extract import extract_surface, vertex_normals
from quicksurf.mesh.types import Faces, Mesh, Triangles, Vertices
from quicksurf.mesh.visibility import count_views, faces_seen
from quicksurf.model import TrainedModel

FRACTION = 0.012  # of the fit's time; with the page's other work the fit stays within 3 %
FIRST = 3.0  # seconds of fitting before which the mesh is the initial ball
COARSEST, FINEST = 48, 160  # cells along the ROI
PAUSED = 224  # cells during a pause, where a finer mesh costs the fit nothing
SHORTEST, LONGEST = 4.0, 30.0  # seconds between two meshes to aim at
N_MESHES = 40  # over the whole fit, to aim at
POWER = 2.5  # of the resolution, by which the work grows: points in the shell by 3, triangles and views by 2
# Half of a mesh's time; they keep 99 % of the faces that 60 large ones do, 24 cost twice as much.
N_CAMERAS = 12
FRAME = 240  # pixels of the z-buffer's longer side: a triangle of a coarse mesh covers several
ROI_RADIUS = 0.99  # faces on the ball's border were made by the border
RIM_RINGS = 3  # rings of faces around a seen vertex that are kept: few cameras leave gaps


def preview_mesh(reconstruction: TrainedModel, resolution: int) -> Mesh:
    """Extract the current surface in the cameras' frame, at `resolution` cells along the ROI; may have no faces."""
    field, grid = reconstruction.surface(), reconstruction.renderer.grid
    vertices, faces = extract_surface(field.logits, grid.occupied, grid.aabb, resolution)
    vertices, faces, _ = compact(vertices, faces[inside_ball(vertices, faces, ROI_RADIUS)])
    vertices, faces = _seen(
        vertices, faces, fit_within(evenly_chosen(reconstruction.roi_cameras(), N_CAMERAS), FRAME)
    )
    normals = vertex_normals(vertices, faces)
    no_views = np.full((len(vertices), 3), -1)  # color along the normals
    colors = color_vertices(field, vertices, no_views, reconstruction.roi_cameras(), grid.aabb.device)
    return Mesh(vertices, faces, colors, normals).to_world(
        reconstruction.roi.center, reconstruction.roi.radius
    )


def _seen(vertices: Vertices, faces: Faces, cameras: Cameras) -> Triangles:
    """Drop faces that no camera sees: the far side of a table, shells inside the object."""
    if not len(faces):
        return vertices, faces
    views = count_views(vertices, faces, vertex_normals(vertices, faces), cameras)
    vertices, faces, _ = compact(vertices, faces[faces_seen(faces, views.n_views > 0, RIM_RINGS)])
    return vertices, faces


class WorkClock:
    """Seconds of work of this process: the lesser of wall-clock and processor time between two calls.

    Time taken by other programs does not count: by the wall clock alone, one mesh that the system suspended for
    seconds would delay the next one for minutes.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.monotonic,
        processor: Callable[[], float] = time.process_time,
    ) -> None:
        self._clocks = wall, processor
        self._seen = wall(), processor()
        self._seconds = 0.0

    def __call__(self) -> float:
        """Count the seconds of work since this clock was made; call it often."""
        now = self._clocks[0](), self._clocks[1]()
        self._seconds += min(now[0] - self._seen[0], now[1] - self._seen[1])
        self._seen = now
        return self._seconds


class Pacer:
    """Schedule of the meshes, from the time that the last one took. Times are seconds of one clock."""

    def __init__(self, fraction: float = FRACTION) -> None:
        self._fraction = fraction
        self._due_at = FIRST
        self.resolution = COARSEST
        """Cells along the ROI of the next mesh."""

    def due(self, now: float) -> bool:
        """Tell whether the next mesh is due."""
        return now >= self._due_at

    def made(self, now: float, seconds: float, fit_seconds: float) -> None:
        """Schedule the next mesh after one finished at `now` that took `seconds`, in a fit of `fit_seconds`."""
        self._due_at = now + seconds / self._fraction
        interval = min(max(fit_seconds / N_MESHES, SHORTEST), LONGEST)
        finer = (self._fraction * interval / max(seconds, 1e-6)) ** (1 / POWER)
        wanted = self.resolution * min(max(finer, 0.5), 1.5)  # a single slow mesh changes it by half at most
        self.resolution = int(min(max(wanted, COARSEST), FINEST)) // 8 * 8
