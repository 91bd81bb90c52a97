"""The mesh of a run: made of its field, refused if it shows that nothing was found, written in the forms asked for."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from quicksurf.app.export.frame import SIDECAR, export_frame, write_frame
from quicksurf.app.export.products import ExportedMesh
from quicksurf.app.export.request import TEXTURED_FACES, MeshRequest
from quicksurf.app.export.rule import MeshRule
from quicksurf.app.film import write_png
from quicksurf.app.run.files import sweep_files
from quicksurf.app.run.folder import Run, open_run
from quicksurf.capture.scene import Scene
from quicksurf.config import MeshConfig
from quicksurf.errors import ConfigError, ImageError, OutputError, SurfaceError
from quicksurf.geometry.region import Roi
from quicksurf.mesh.build import MeshOptions, MeshReport
from quicksurf.mesh.confidence import confidence_picture
from quicksurf.mesh.export import FORMATS, write_mesh
from quicksurf.mesh.frame import MeshT, move, to_file_axes
from quicksurf.mesh.texture.bake import TexturedMesh
from quicksurf.mesh.texture.files import TEXTURED_SUFFIXES, write_textured
from quicksurf.mesh.types import Mesh
from quicksurf.model import TrainedModel

EXPORT = "export"  # folder of a run for meshes that are not in the cameras' frame
CONFIDENCE = "confidence.png"
TEXTURED = "textured"
PRODUCTS = (
    *(f"mesh.{suffix}" for suffix in FORMATS),
    *(f"{TEXTURED}.{suffix}" for suffix in TEXTURED_SUFFIXES),
    CONFIDENCE,
)
"""What a fit leaves of its field for other programs, at most."""
ADVICE = "give more --minutes, check masks and poses, or set --roi cx,cy,cz,r around the object"
# Of its radius: the untouched field, half the ROI, is round to 2 to 5 % with random weights.
SPHERE_SPREAD = 0.06
SPHERE_OFFSET = 0.3  # from half the ROI's radius: a first second of fitting shrinks or grows it
SPHERE_PSNR = 20.0  # dB: a ball that was really fitted explains its photos better


def run_mesh(
    folder: Path, request: MeshRequest, output: Path | None = None, device: str = "auto"
) -> tuple[list[Path], MeshReport]:
    """Extract the mesh of a run again; return the files written, and what was done.

    Args:
        output: folder for the files; None: the run's own, or RUN/export for a mesh that is scaled or turned, because
            what lies in a run is in the cameras' frame.

    Raises:
        ConfigError: if an option cannot be used.
        CaptureError: if photos are needed and are no longer those of the fit.
        OutputError: if `folder` is not a run, or has no usable checkpoint.
        SurfaceError: if its field has no surface, or none of the confidence asked for.
    """
    request.check()
    run = open_run(folder)
    home = output or (run.path / EXPORT if request.moves else run.path)
    if request.moves and home.resolve() == run.path.resolve():
        raise ConfigError(
            f"--output {home}: the mesh in a run's folder is in the cameras' frame, where other commands read it; "
            "choose another folder for one that is scaled or turned"
        )
    with run.locked():
        sweep_files(home, (*PRODUCTS, SIDECAR))
        model = run.model(device)
        config = request.applied_to(model.config).mesh
        scene = run.scene(model) if request.needs_photos else None
        made, files = export_mesh(model, scene, config, request, home, MeshRule())
        if not request.moves:  # what a sidecar says is of the mesh that was there before
            (home / SIDECAR).unlink(missing_ok=True)
        return files, made.report


def export_mesh(
    model: TrainedModel,
    scene: Scene | None,
    config: MeshConfig,
    request: MeshRequest,
    folder: Path,
    rule: MeshRule,
) -> tuple[ExportedMesh, list[Path]]:
    """Make the mesh of a field and write it, with all that is asked beside it.

    Args:
        scene: its photos; None if `request` needs none.
        config: settings of the mesh, those of `request` included.
        rule: what it may take, and what becomes of failures.

    Raises:
        SurfaceError: if the field has no surface.
        QuicksurfError: what `rule` raises.
    """
    seconds = rule.mesh_seconds()
    mesh, report = model.mesh(
        MeshOptions(
            config.resolution, config.faces or None, config.keep, config.watertight, seconds, config.level
        )
    )
    rule.extracted(report, config.resolution)
    check_surface(mesh, model.roi, model.psnr_held_out)
    made = _with_confidence(ExportedMesh(model, scene, mesh, report), request, rule)
    export = export_frame(made, request)

    def moved(any_mesh: MeshT, suffix: str) -> MeshT:
        if not request.moves:
            return any_mesh
        return move(any_mesh, to_file_axes(export.similarity, suffix, export.up is not None))

    try:
        files = write_mesh(made.mesh, folder, "mesh", request.formats, moved)
    except OutputError as error:
        rule.make_room(error)
        files = write_mesh(made.mesh, folder, "mesh", request.formats, moved)
    if made.mesh.confidence is not None:
        write_png(folder / CONFIDENCE, confidence_picture(made.mesh, model.cameras))
        files.append(folder / CONFIDENCE)
    if request.texture:
        files += _write_texture(
            made, config.faces or TEXTURED_FACES, request.texture_size, folder, moved, rule
        )
    if request.moves:
        files.append(write_frame(model, export, request, files))
    return made, files


def _with_confidence(made: ExportedMesh, request: MeshRequest, rule: MeshRule) -> ExportedMesh:
    """The mesh with confidence and trimmed, as asked."""
    if not request.measures:
        return made
    try:
        made = made.with_confidence()
        return made if request.trim is None else made.trimmed(request.trim)
    except ImageError as error:
        rule.failed("confidence is not measured", error)
    except SurfaceError as error:  # nothing would be left
        rule.failed("the mesh is not trimmed", error)
    return made


def _write_texture(
    made: ExportedMesh,
    n_faces: int,
    size: int | None,
    folder: Path,
    moved: Callable[[TexturedMesh, str], TexturedMesh],
    rule: MeshRule,
) -> list[Path]:
    """The files of the textured mesh; none if `rule` leaves it out."""
    affordable = rule.texture_of(n_faces, size, len(made.scene.images))
    if affordable is None:
        return []
    try:
        return write_textured(made.textured(*affordable), folder, TEXTURED, moved)
    except ImageError as error:
        rule.failed("no texture", error)
        return []


def check_surface(mesh: Mesh, roi: Roi, psnr: float | None) -> None:
    """Refuse a mesh that shows that the fit found nothing; `psnr` is that of held-out views, if there are any.

    Raises:
        SurfaceError: if it is still the sphere that the field began as.
    """
    radii = np.linalg.norm(mesh.vertices - np.array(roi.center), axis=-1) / (roi.radius / 2)
    round_as_ever = radii.std() < SPHERE_SPREAD and abs(radii.mean() - 1) < SPHERE_OFFSET
    if round_as_ever and (psnr is None or psnr < SPHERE_PSNR):
        raise SurfaceError(
            f"the field stayed the sphere it began as, half the ROI {roi.describe()}; {ADVICE}"
        )


def mesh_of(run: Run) -> Path:
    """Find the run's mesh, in whichever form it has.

    Raises:
        OutputError: if it has none.
    """
    for name in FORMATS:
        if (run.path / f"mesh.{name}").is_file():
            return run.path / f"mesh.{name}"
    raise OutputError(f"{run.path} has no mesh: make it with quicksurf mesh {run.path}")


def drop_older(folder: Path, files: Sequence[Path]) -> None:
    """Remove what earlier fits made of a run's field and this one did not make again: it shows an older field."""
    for name in PRODUCTS:
        if folder / name not in files:
            (folder / name).unlink(missing_ok=True)
