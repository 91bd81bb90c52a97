"""The mesh of a run: made of its field, refused if it shows that nothing was found, written in the forms asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from quicksurf import kernels
from quicksurf.app.export.frame import SIDECAR, FrameRequest, export_frame, write_frame
from quicksurf.app.export.products import TEXTURED_FACES, ExportedMesh, Extras
from quicksurf.app.run.files import sweep_files
from quicksurf.app.run.folder import Run, open_run
from quicksurf.app.run.resume import read_capture
from quicksurf.capture.assemble import ReadOptions
from quicksurf.capture.scene import Scene
from quicksurf.config import Config, MeshConfig, with_settings
from quicksurf.errors import ConfigError, OutputError, SurfaceError
from quicksurf.geometry.region import Roi
from quicksurf.mesh.build import MeshOptions, MeshReport
from quicksurf.mesh.export import FORMATS, check_formats, write_mesh
from quicksurf.mesh.frame import MeshT, move, to_file_axes
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
SPHERE_SPREAD = (
    0.06  # of its radius: the untouched field, half the ROI, is round to 2 to 5 % with random weights
)
SPHERE_OFFSET = 0.3  # from half the ROI's radius: a first second of fitting shrinks or grows it
SPHERE_PSNR = 20.0  # dB: a ball that was really fitted explains its photos better


@dataclass(frozen=True)
class Wanted:
    """What a user wants of a surface beside its mesh in the cameras' frame."""

    extras: Extras = field(default_factory=Extras)
    frame: FrameRequest = field(default_factory=FrameRequest)


def run_mesh(
    folder: Path,
    *,
    formats: tuple[str, ...] = ("ply",),
    resolution: int | None = None,
    faces: int | None = None,
    keep: str | None = None,
    watertight: bool | None = None,
    level: float | None = None,
    output: Path | None = None,
    device: str = "auto",
    wanted: Wanted | None = None,
) -> tuple[list[Path], MeshReport]:
    """Extract the mesh of a run again; return the files written, and what was done. None: as the run says.

    Args:
        output: folder for the files; None: the run's own, or RUN/export for a mesh that is scaled or turned, because
            what lies in a run is in the cameras' frame.

    Raises:
        ConfigError: if an option cannot be used.
        CaptureError: if photos are needed and are no longer those of the fit.
        OutputError: if `folder` is not a run, or has no usable checkpoint.
        SurfaceError: if its field has no surface, or none of the confidence asked for.
    """
    wanted = wanted or Wanted()
    check_formats(formats)
    wanted.frame.check()
    run = open_run(folder)
    home = _home(run, output, wanted.frame)
    with run.locked():
        sweep_files(home, (*PRODUCTS, SIDECAR))
        reconstruction = run.load_checkpoint(kernels.load(device))
        mesh_config = with_mesh(reconstruction.config, resolution, faces, keep, watertight, level).mesh
        wanted.extras.check(watertight=mesh_config.watertight)
        needed = wanted.extras.needs_photos or wanted.frame.moves
        scene = _read_again(run, reconstruction) if needed else None
        mesh, report = reconstruction.mesh(mesh_options(mesh_config, None))
        check_surface(mesh, reconstruction.roi, reconstruction.psnr_held_out)
        if scene is None:
            files = write_mesh(mesh, home, "mesh", formats)
        else:
            taken = ExportedMesh(reconstruction, scene, mesh, report).trimmed(wanted.extras)
            files, report = _write_all(taken, home, formats, mesh_config.faces, wanted), taken.report
        if not wanted.frame.moves:  # what a sidecar says is of the mesh that was there before
            (home / SIDECAR).unlink(missing_ok=True)
        return files, report


def _home(run: Run, output: Path | None, frame: FrameRequest) -> Path:
    """The folder to write into."""
    if not frame.moves:
        return output or run.path
    folder = output or run.path / EXPORT
    if folder.resolve() == run.path.resolve():
        raise ConfigError(
            f"--output {folder}: the mesh in a run's folder is in the cameras' frame, where other commands read it; "
            "choose another folder for one that is scaled or turned"
        )
    return folder


def _read_again(run: Run, reconstruction: TrainedModel) -> Scene:
    options = ReadOptions(
        max_pixels=reconstruction.config.train.max_pixels,
        use_masks=reconstruction.masked,
        roi=run.roi,
        work_folder=run.path / "poses",
        say=lambda line: None,
    )
    return read_capture(run, options)


def _write_all(
    taken: ExportedMesh, output: Path, formats: Sequence[str], faces: int, wanted: Wanted
) -> list[Path]:
    """Mesh, confidence, texture and the sidecar, as wanted."""
    extras = wanted.extras
    export = export_frame(taken, wanted.frame)

    def moved(any_mesh: MeshT, suffix: str) -> MeshT:
        return move(any_mesh, to_file_axes(export.similarity, suffix, export.up is not None))

    files = write_mesh(taken.mesh, output, "mesh", formats, moved)
    if extras.measures:
        files.append(taken.write_confidence_picture(output / CONFIDENCE))
    if extras.texture:
        textured = taken.textured(faces or TEXTURED_FACES, extras.texture_size)
        files += write_textured(textured, output, TEXTURED, moved)
    if wanted.frame.moves:
        files.append(write_frame(taken.reconstruction, export, wanted.frame, files))
    return files


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


def with_mesh(
    config: Config,
    resolution: int | None,
    faces: int | None,
    keep: str | None,
    watertight: bool | None,
    level: float | None = None,
) -> Config:
    """Return the configuration with the mesh options that were given, checked like any setting."""
    given = {
        "mesh.resolution": resolution,
        "mesh.faces": faces,
        "mesh.keep": keep,
        "mesh.watertight": watertight,
        "mesh.level": level,
    }
    return with_settings(config, {key: value for key, value in given.items() if value is not None})


def mesh_of(run: Run) -> Path:
    """Return the run's mesh, in whichever form it has.

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


def mesh_options(config: MeshConfig, seconds: float | None) -> MeshOptions:
    """Return the options of an extraction that may take `seconds`; None: as long as it needs."""
    n_faces = config.faces or None
    return MeshOptions(config.resolution, n_faces, config.keep, config.watertight, seconds, config.level)
