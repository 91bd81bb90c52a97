"""The page's scene: cameras with their photos, sparse points, the region of interest (ROI), the mesh.

Captures come in any unit; the browser's camera and gizmos need a scene of size 1. The scene is therefore shown in the
frame of the initial ROI, x_view = (x_world − center) / radius. Exported files stay in the world's frame.
"""

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float, Float64, UInt8
from PIL import Image

from quicksurf.capture.scene import Scene
from quicksurf.geometry.paths import orbit
from quicksurf.geometry.region import Roi
from quicksurf.mesh.gltf import glb_with_colors
from quicksurf.mesh.types import Mesh

if TYPE_CHECKING:
    import viser

Shading = Literal["color", "normals", "clay", "off"]
SHADINGS: tuple[Shading, ...] = ("color", "normals", "clay", "off")

SMALLEST, LARGEST = 0.1, 3.0  # radius of the ROI, in radii of the initial one
FRUSTUM = 0.05  # height of a photo by the distance of the cameras: small enough not to hide the object
THUMBNAIL = 160  # pixels of a photo's longer side: 60 of them are half a megabyte
MAX_PHOTOS = 240  # further cameras are shown without their photo
MAX_POINTS = 50_000
AMBIENT = 1.2  # added to viser's lights, which leave clay dark
CLAY = (170, 166, 158)
TRAIN_COLOR, HELD_OUT_COLOR, ROI_COLOR = (60, 60, 60), (200, 90, 20), (30, 110, 220)


class Nodes:
    """The scene of one server."""

    def __init__(self, server: "viser.ViserServer", scene: Scene) -> None:
        self._server, self._origin = server, scene.roi
        self.mesh: Mesh | None = None
        """The mesh shown, in the world's frame."""
        self._surface: Shading = "color"
        self._photos = self._add_cameras(scene)
        self._points = self._add_points(scene)
        self._ball: viser.SceneNodeHandle | None = None
        server.scene.add_light_ambient("/light", intensity=AMBIENT)
        self._look_from(scene)
        self.show_ball(scene.roi)

    def to_view(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Transform world points to the page's frame."""
        return (points - np.array(self._origin.center)) / self._origin.radius

    def drag_ball(self, radius: float, moved: Callable[[], None]) -> "viser.TransformControlsHandle":
        """Add a gizmo to drag the ball, which calls `moved`; `radius` is in radii of the initial ball."""
        gizmo = self._server.scene.add_transform_controls(
            "/region", scale=1.2, disable_rotations=True, depth_test=False
        )
        gizmo.on_update(lambda event: moved())
        self.scale_ball(radius)
        return gizmo

    def scale_ball(self, radius: float) -> None:
        """Set the radius of the gizmo's ball."""
        self._ball = self._server.scene.add_icosphere(
            "/region/ball", radius, ROI_COLOR, subdivisions=3, opacity=0.18, cast_shadow=False, side="double"
        )

    def roi_at(self, position: Float[np.ndarray, "3"], radius: float) -> Roi:
        """Transform a ball from the page's frame to the world."""
        x, y, z = (np.array(self._origin.center) + self._origin.radius * np.asarray(position, float)).tolist()
        return Roi((x, y, z), self._origin.radius * radius)

    def show_ball(self, roi: Roi) -> None:
        """Show the region as a faint wireframe that cannot be dragged."""
        self._server.scene.remove_by_name("/region")
        self._ball = self._server.scene.add_icosphere(
            "/region",
            roi.radius / self._origin.radius,
            ROI_COLOR,
            subdivisions=2,
            wireframe=True,
            opacity=0.12,
            cast_shadow=False,
            position=self.to_view(np.array([roi.center]))[0],
        )

    def show_mesh(self, mesh: Mesh) -> None:
        """Replace the mesh."""
        self.mesh = mesh
        self._draw()

    def paint(self, surface: Shading) -> None:
        """Choose how the mesh is colored."""
        self._surface = surface
        self._draw()

    def show_photos(self, visible: bool) -> None:
        """Show or hide the cameras."""
        for photo in self._photos:
            photo.visible = visible

    def show_points(self, visible: bool) -> None:
        """Show or hide the sparse points."""
        if self._points is not None:
            self._points.visible = visible

    def show_region(self, visible: bool) -> None:
        """Show or hide the ball."""
        if self._ball is not None:
            self._ball.visible = visible

    def _draw(self) -> None:
        if self.mesh is None or self._surface == "off" or not len(self.mesh.faces):
            self._server.scene.remove_by_name("/mesh")
            return
        blob = _as_glb(self.mesh, self.to_view(self.mesh.vertices), self._surface)
        self._server.scene.add_glb("/mesh", blob, cast_shadow=False, receive_shadow=False)

    def _add_cameras(self, scene: Scene) -> "list[viser.SceneNodeHandle]":
        from viser.transforms import SO3

        cameras, handles = scene.cameras, []
        centers = self.to_view(cameras.centers().double().numpy())
        scale = FRUSTUM * float(np.median(np.linalg.norm(centers, axis=1)))
        for index, name in enumerate(scene.names):
            width, height = cameras.sizes[index].tolist()
            image = _thumbnail(scene.images[index]) if index < min(MAX_PHOTOS, len(scene.images)) else None
            frustum = self._server.scene.add_camera_frustum(
                f"/photos/{index:04d} {name.replace('/', ' ')}",
                fov=2 * math.atan(height / 2 / float(cameras.intrinsics[index, 1])),
                aspect=width / height,
                scale=scale,
                thickness=0.015 * scale,
                color=HELD_OUT_COLOR if scene.held_out[index] else TRAIN_COLOR,
                image=image,
                jpeg_quality=75,
                wxyz=SO3.from_matrix(cameras.c2w[index, :, :3].double().numpy()).wxyz,
                position=centers[index],
                cast_shadow=False,
                receive_shadow=False,
            )
            frustum.on_click(_look_through)
            handles.append(frustum)
        return handles

    def _add_points(self, scene: Scene) -> "viser.SceneNodeHandle | None":
        if scene.points is None or not len(scene.points.positions):
            return None
        keep = slice(None, None, math.ceil(len(scene.points.positions) / MAX_POINTS))
        points = self.to_view(scene.points.positions[keep].double().numpy())
        near = np.abs(points).max(1) < 1e3  # float16 in the page; points beyond are false matches
        return self._server.scene.add_point_cloud(
            "/points",
            points[near],
            scene.points.colors[keep].numpy()[near],
            point_size=0.008,
            point_shape="circle",
        )

    def _look_from(self, scene: Scene) -> None:
        """Start a little behind the cameras, with their up."""
        cameras = scene.cameras
        up = -cameras.c2w[:, :, 1].double().mean(0).numpy()
        start = orbit(cameras, scene.roi.center, scene.roi.radius, 1, (4, 3)).centers().double().numpy()
        camera = self._server.initial_camera
        self._server.scene.set_up_direction(up / max(np.linalg.norm(up), 1e-9))
        camera.up = up
        camera.look_at = np.zeros(3)
        camera.position = 1.4 * self.to_view(start)[0]


class RegionChooser:
    """The ROI in the user's hands: a gizmo for its center, a slider for its radius, a button to start.

    Events arrive in viser's threads, one value at a time.
    """

    def __init__(self, server: "viser.ViserServer", nodes: Nodes, start: Callable[[], None]) -> None:
        self._nodes = nodes
        self.moved = False
        """Whether the user has changed the ball."""
        self.touched = time.monotonic()
        """Time of the last change."""
        self._folder = server.gui.add_folder("Region of interest", order=-1.0)
        with self._folder:
            self._radius = server.gui.add_slider("Radius", SMALLEST, LARGEST, 0.01, 1.0)
            button = server.gui.add_button("Start the fit", color="blue")
        self._gizmo = nodes.drag_ball(1.0, self._note)
        self._radius.on_update(lambda event: self._rescale())
        button.on_click(lambda event: start())

    def roi(self) -> Roi:
        """Convert the current ball to the world."""
        return self._nodes.roi_at(self._gizmo.position, self._in_range())

    def close(self) -> None:
        """Remove all controls."""
        self._folder.remove()
        self._gizmo.remove()

    def _note(self) -> None:
        self.moved, self.touched = True, time.monotonic()

    def _rescale(self) -> None:
        self._note()
        self._nodes.scale_ball(self._in_range())

    def _in_range(self) -> float:
        """The slider's radius, clamped: a page may send any number."""
        radius = float(self._radius.value)
        return min(max(radius, SMALLEST), LARGEST) if math.isfinite(radius) else 1.0


def _look_through(event: "viser.SceneNodePointerEvent[viser.CameraFrustumHandle]") -> None:
    """Move the view to the camera that was clicked."""
    camera = event.client.camera
    with event.client.atomic():
        camera.wxyz, camera.position = event.target.wxyz, event.target.position


def _thumbnail(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "t u 3"]:
    return np.asarray(Image.fromarray(image).reduce(max(1, max(image.shape[:2]) // THUMBNAIL)))


def _as_glb(mesh: Mesh, vertices: Float64[np.ndarray, "v 3"], surface: Shading) -> bytes:
    """Encode for the browser: clay with lights, colors and normals without."""
    colors = mesh.colors
    if surface == "normals":
        colors = (127.5 * (mesh.normals + 1)).astype(np.uint8)
    elif surface == "clay":
        colors = np.broadcast_to(np.array(CLAY, np.uint8), colors.shape)
    return glb_with_colors(mesh._replace(vertices=vertices, colors=colors), lit=surface == "clay")
