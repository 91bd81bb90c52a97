"""What stands in the page's scene: cameras with their photos, sparse points, the region of interest, the mesh.

Captures come in metres, in millimetres and in nothing at all; the browser's camera and gizmos want things of size 1.
So the scene is shown in the frame of the region that was found first, x_view = (x_world − center) / radius, whatever
the user drags later. Files that are exported stay in the world.
"""

import math
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

Surface = Literal["color", "normals", "clay", "off"]
SURFACES: tuple[Surface, ...] = ("color", "normals", "clay", "off")

FRUSTUM = 0.05  # height of a photo by the distance of the cameras: they must not hide what they show
THUMBNAIL = 160  # pixels of a photo's longer side: 60 of them are half a megabyte
MAX_PHOTOS = 240  # beyond, cameras are shown without
MAX_POINTS = 50_000
AMBIENT = 1.2  # beside viser's own lights, so that clay is not dark
CLAY = (170, 166, 158)
TRAIN_COLOR, HELD_OUT_COLOR, ROI_COLOR = (60, 60, 60), (200, 90, 20), (30, 110, 220)


class Nodes:
    """The scene of one server."""

    def __init__(self, server: "viser.ViserServer", scene: Scene) -> None:
        self._server, self._origin = server, scene.roi
        self._mesh: Mesh | None = None
        self._surface: Surface = "color"
        self._photos = self._add_cameras(scene)
        self._points = self._add_points(scene)
        self._ball: viser.SceneNodeHandle | None = None
        server.scene.add_light_ambient("/light", intensity=AMBIENT)
        self._look_from(scene)
        self.show_ball(scene.roi)

    def to_view(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Return world points in the frame of the page."""
        return (points - np.array(self._origin.center)) / self._origin.radius

    def drag_ball(self, radius: float, moved: Callable[[], None]) -> "viser.TransformControlsHandle":
        """Add a gizmo that carries the ball; `moved` hears of every pull. `radius` is in units of the first
        ball's.
        """
        gizmo = self._server.scene.add_transform_controls(
            "/region", scale=1.2, disable_rotations=True, depth_test=False
        )
        gizmo.on_update(lambda event: moved())
        self.scale_ball(radius)
        return gizmo

    def scale_ball(self, radius: float) -> None:
        """Show the gizmo's ball with another radius."""
        self._ball = self._server.scene.add_icosphere(
            "/region/ball", radius, ROI_COLOR, subdivisions=3, opacity=0.18, cast_shadow=False, side="double"
        )

    def roi_at(self, position: Float[np.ndarray, "3"], radius: float) -> Roi:
        """Return the world's ball that stands at `position` with `radius` in the page."""
        x, y, z = (np.array(self._origin.center) + self._origin.radius * np.asarray(position, float)).tolist()
        return Roi((x, y, z), self._origin.radius * radius)

    def show_ball(self, roi: Roi) -> None:
        """Show the region as a faint net, not to be moved (any more)."""
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
        self._mesh = mesh
        self._draw()

    def paint(self, surface: Surface) -> None:
        """Choose how the mesh is coloured."""
        self._surface = surface
        self._draw()

    @property
    def mesh(self) -> Mesh | None:
        """What is shown, in the world."""
        return self._mesh

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
        if self._mesh is None or self._surface == "off" or not len(self._mesh.faces):
            self._server.scene.remove_by_name("/mesh")
            return
        blob = _as_glb(self._mesh, self.to_view(self._mesh.vertices), self._surface)
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
        near = np.abs(points).max(1) < 1e3  # float16 in the page; what lies beyond is a false match
        return self._server.scene.add_point_cloud(
            "/points",
            points[near],
            scene.points.colors[keep].numpy()[near],
            point_size=0.008,
            point_shape="circle",
        )

    def _look_from(self, scene: Scene) -> None:
        """Begin where the photographers stood, a little farther off, with their up."""
        cameras = scene.cameras
        up = -cameras.c2w[:, :, 1].double().mean(0).numpy()
        start = orbit(cameras, scene.roi.center, scene.roi.radius, 1, (4, 3)).centers().double().numpy()
        camera = self._server.initial_camera
        self._server.scene.set_up_direction(up / max(np.linalg.norm(up), 1e-9))
        camera.up = up
        camera.look_at = np.zeros(3)
        camera.position = 1.4 * self.to_view(start)[0]


def _look_through(event: "viser.SceneNodePointerEvent[viser.CameraFrustumHandle]") -> None:
    """Stand where the clicked photo was taken."""
    camera = event.client.camera
    with event.client.atomic():
        camera.wxyz, camera.position = event.target.wxyz, event.target.position


def _thumbnail(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "t u 3"]:
    return np.asarray(Image.fromarray(image).reduce(max(1, max(image.shape[:2]) // THUMBNAIL)))


def _as_glb(mesh: Mesh, vertices: Float64[np.ndarray, "v 3"], surface: Surface) -> bytes:
    """The mesh for the browser: clay in its light, colours and normals as they are."""
    colors = mesh.colors
    if surface == "normals":
        colors = (127.5 * (mesh.normals + 1)).astype(np.uint8)
    elif surface == "clay":
        colors = np.broadcast_to(np.array(CLAY, np.uint8), colors.shape)
    return glb_with_colors(mesh._replace(vertices=vertices, colors=colors), lit=surface == "clay")
