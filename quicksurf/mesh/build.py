"""From a fitted field to the mesh that the user gets: extract, trim, cut off the table, decimate, close, colour.

Everything here is in the fit's frame: the ROI is the unit ball at the origin.
"""

import time
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from scipy.spatial import KDTree
from torch import Tensor

from quicksurf.config import Config, with_settings
from quicksurf.errors import SurfaceError
from quicksurf.geometry.cameras import Cameras, evenly_chosen
from quicksurf.mesh.clean import compact, decimate, inside_ball, select_parts
from quicksurf.mesh.cost import MeshCost, mesh_cost
from quicksurf.mesh.extract import extract_surface, vertex_normals
from quicksurf.mesh.holes import close_holes, find_holes, is_closed
from quicksurf.mesh.refine import SurfacePoints, refine_vertices
from quicksurf.mesh.support import cut_below, find_support
from quicksurf.mesh.types import Field, Mesh
from quicksurf.mesh.visibility import Views, count_views, faces_seen

_ROI_RADIUS = 0.995  # the ball is 1; faces on its border were made by the border, not by the images
_MIN_VIEWS = 2  # a point that one camera sees has no depth; fits to fewer than 8 photos keep such points
_GAP_RINGS = 4  # creases lie within 6° of grazing for all cameras over at most twice as many triangles
_MAX_CAMERAS = 96  # for visibility, evenly chosen: 0.1 s each for a mesh of 500k faces
_COLOR_BATCH = 1 << 17


@dataclass(frozen=True)
class MeshOptions:
    """What a user can ask of the mesh."""

    resolution: int = 384
    """Cells of the marching-cubes lattice along the box."""
    n_faces: int | None = None
    """Decimate to about this many faces."""
    keep: Literal["auto", "object", "scene"] = "auto"
    """Cut off the table that the object stands on, where one is recognised, or keep everything that was seen; "auto"
    cuts in captures around an object."""
    watertight: bool = False
    """Close every hole, with surface that no camera saw."""
    seconds: float | None = None
    """Lower the resolution until the work is expected to fit in this time."""
    level: float = 0.0
    """Density of the surface of nerf, per radius of the region; 0 is the method's own."""

    def check(self) -> None:
        """Refuse what the settings of a mesh would not take: options of Python callers are checked nowhere else.

        Raises:
            ConfigError: naming the option.
        """
        asked = {
            "mesh.resolution": self.resolution,
            "mesh.faces": self.n_faces or 0,
            "mesh.keep": self.keep,
            "mesh.watertight": self.watertight,
            "mesh.level": self.level,
        }
        with_settings(Config(), asked)


@dataclass
class MeshReport:
    """What was done, for the panel and summary.json."""

    resolution: int = 0
    faces_extracted: int = 0
    faces_beyond_roi: int = 0
    faces_unseen: int = 0
    parts_kept: int = 0
    parts_dropped: int = 0
    faces_dropped_with_parts: int = 0
    faces_of_support: int = 0
    """Of the table and what lies on it besides the object."""
    support_normal: list[float] | None = None
    """Upward, of the table that was cut off."""
    hole_lengths: list[float] = dataclass_field(default_factory=list)
    """Of the boundary loops of what was seen, longest first."""
    open_fraction: float = 0.0
    """Of the surface, were all of its holes closed by flat lids."""
    watertight: bool = False
    faces_invented: int = 0
    """Added to close holes."""
    faces: int = 0
    vertices: int = 0
    seconds: dict[str, float] = dataclass_field(default_factory=dict)

    def to_world(self, radius: float) -> "MeshReport":
        """Return the report with lengths in the input's units instead of the fit's."""
        return replace(self, hole_lengths=[radius * length for length in self.hole_lengths])

    def of_what_is_left(self, mesh: "Mesh") -> "MeshReport":
        """Return the report of `mesh`, which has lost faces since: that opens holes. Lengths are in its units."""
        holes = find_holes(mesh.vertices, mesh.faces)
        return replace(
            self,
            hole_lengths=holes.lengths,
            open_fraction=holes.fraction,
            watertight=is_closed(mesh.faces),
            faces=len(mesh.faces),
            vertices=len(mesh.vertices),
        )

    def describe(self) -> str:
        """Tell what there is to know about the surface, in one line."""
        cut = "the table is cut off" if self.faces_of_support else ""
        if not self.hole_lengths:
            holes = "no holes"
        else:
            n = len(self.hole_lengths)
            holes = f"{n} hole{'s' * (n > 1)}, {100 * self.open_fraction:.1f} % of the surface, "
            holes += f"the longest rim {self.hole_lengths[0]:.3g}"
            if self.watertight:
                holes += "; all closed, which no camera saw"
        return "; ".join(filter(None, [cut, holes]))


def build_mesh(
    field: Field,
    cameras: Cameras,
    occupied: Bool[Tensor, "rx ry rz"],
    aabb: Float[Tensor, "6"],
    options: MeshOptions,
    points: SurfacePoints | None = None,
) -> tuple[Mesh, MeshReport]:
    """Triangulate `field` inside `occupied` cells of `aabb`, as `cameras` (those it was fitted to) saw it.

    Args:
        points: of stereo, which the vertices are moved to.

    Raises:
        SurfaceError: if there is no surface, or none that the cameras saw.
    """
    report, clock = MeshReport(resolution=options.resolution), time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        clock, before = time.perf_counter(), clock
        report.seconds[name] = round(clock - before, 3)

    cameras = evenly_chosen(cameras, _MAX_CAMERAS).to(torch.float32)
    if options.seconds is not None:
        cost = expected_cost(field, cameras, occupied, aabb, points is not None)
        report.resolution = cost.affordable(options.resolution, options.seconds)
    vertices, faces = extract_surface(field.logits, occupied, aabb, report.resolution)
    lap("extract")
    vertices, faces, views = trim_surface(vertices, faces, cameras, report)
    lap("trim")
    if points is not None:
        vertices = refine_vertices(vertices, faces, points)
        lap("refine")
    seen = vertices
    if options.keep != "scene":
        vertices, faces = cut_support(vertices, faces, views, cameras, report)
        lap("support")
    holes = find_holes(vertices, faces)
    report.hole_lengths, report.open_fraction = holes.lengths, holes.fraction
    if options.n_faces is not None:
        vertices, faces = decimate(vertices, faces, options.n_faces)
        lap("decimate")
    if options.watertight:
        before = len(faces)
        vertices, faces = close_holes(vertices, faces)
        report.faces_invented = max(0, len(faces) - before)
        lap("close")
    report.watertight = is_closed(faces)
    nearest = KDTree(seen).query(vertices)[1] if vertices is not seen else np.arange(len(seen))
    colors = color_vertices(field, vertices, views.best_cameras[nearest], cameras, aabb.device)
    lap("color")
    report.faces, report.vertices = len(faces), len(vertices)
    return Mesh(vertices, faces, colors, vertex_normals(vertices, faces)), report


def expected_cost(
    field: Field,
    cameras: Cameras,
    occupied: Bool[Tensor, "rx ry rz"],
    aabb: Float[Tensor, "6"],
    refined: bool,
) -> MeshCost:
    """Tell what `build_mesh` will take of the same arguments; `refined` if there are points."""
    return mesh_cost(field, occupied, aabb, min(len(cameras), _MAX_CAMERAS), refined)


def trim_surface(
    vertices: Float64[np.ndarray, "v 3"],
    faces: Int64[np.ndarray, "f 3"],
    cameras: Cameras,
    report: MeshReport,
) -> tuple[Float64[np.ndarray, "w 3"], Int64[np.ndarray, "g 3"], Views]:
    """Drop what lies on the ROI's border, what no camera saw, and what does not belong to the object.

    Raises:
        SurfaceError: if nothing is left.
    """
    report.faces_extracted = len(faces)
    if not len(faces):
        raise SurfaceError(
            "the field is empty, there is no surface: fit longer, or check --roi and the poses"
        )
    kept = inside_ball(vertices, faces, _ROI_RADIUS)
    report.faces_beyond_roi = int((~kept).sum())
    vertices, faces, _ = compact(vertices, faces[kept])
    views = count_views(vertices, faces, vertex_normals(vertices, faces), cameras)
    kept = faces_seen(faces, views.n_views >= (_MIN_VIEWS if len(cameras) >= 8 else 1), _GAP_RINGS)
    report.faces_unseen = int((~kept).sum())
    faces = faces[kept]
    if not len(faces):
        raise SurfaceError(
            f"none of {report.faces_extracted} faces is seen by the cameras: "
            "check --roi and the poses, or fit longer"
        )
    parts = select_parts(vertices, faces, views.n_views)
    report.parts_kept, report.parts_dropped = parts.n_kept, parts.n_dropped
    report.faces_dropped_with_parts = int((~parts.kept).sum())
    vertices, faces, old = compact(vertices, faces[parts.kept])
    return vertices, faces, Views(*(values[old] for values in views))


def cut_support(
    vertices: Float64[np.ndarray, "v 3"],
    faces: Int64[np.ndarray, "f 3"],
    views: Views,
    cameras: Cameras,
    report: MeshReport,
) -> tuple[Float64[np.ndarray, "w 3"], Int64[np.ndarray, "g 3"]]:
    """Keep what stands on the table, if there is a table; floaters above it are dropped, too."""
    support = find_support(vertices, faces, cameras.centers().double().numpy())
    if support is None:
        return vertices, faces
    points, above = cut_below(vertices, faces, support.heights(vertices) - support.margin)
    n_views = views.n_views[KDTree(vertices).query(points)[1]]
    parts = select_parts(points, above, n_views)
    points, above, _ = compact(points, above[parts.kept])
    report.faces_of_support = len(faces) - len(above)
    report.support_normal = support.normal.tolist()
    return points, above


def color_vertices(
    field: Field,
    vertices: Float64[np.ndarray, "v 3"],
    best_cameras: Int64[np.ndarray, "v 3"],
    cameras: Cameras,
    device: torch.device,
) -> UInt8[np.ndarray, "v 3"]:
    """Compute the mean colour as each vertex's best cameras see it; one that none sees is looked at along its normal.

    A mean over views keeps highlights, which move with the camera, from being painted on.
    """
    colors = np.zeros((len(vertices), 3), np.uint8)
    centers = cameras.centers().float().to(device)
    for first in range(0, len(vertices), _COLOR_BATCH):
        batch = slice(first, first + _COLOR_BATCH)
        points = torch.from_numpy(vertices[batch]).float().to(device)
        best = torch.from_numpy(best_cameras[batch]).to(device)
        with torch.no_grad():
            rgb = _mean_color(field, points, best, centers)
        colors[batch] = (rgb.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return colors


def _mean_color(
    field: Field, points: Float[Tensor, "n 3"], best: Int64[Tensor, "n k"], centers: Float[Tensor, "c 3"]
) -> Float[Tensor, "n 3"]:
    normals = field.shading_normals(points)
    unseen = (best < 0).all(1)
    total = torch.zeros_like(points)
    total[unseen] = field.colors(points[unseen], normals[unseen], -normals[unseen])
    for choice in best.unbind(1):
        index = torch.nonzero(choice >= 0)[:, 0]
        directions = torch.nn.functional.normalize(points[index] - centers[choice[index]], dim=1)
        total[index] += field.colors(points[index], normals[index], directions)
    return total / (best >= 0).sum(1, keepdim=True).clamp_min(1)
