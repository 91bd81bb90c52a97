"""The commands and their options, as dataclasses: tyro makes the command line and its help of them.

Kept apart from quicksurf.app.cli, which imports this under its signal handlers: tyro takes a quarter of a second.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

import quicksurf
from quicksurf.app.arguments import UsageError, check_arguments
from quicksurf.config import unknown

DESCRIPTION = "A folder of photos to a surface mesh in minutes."

MeshFormat = Literal["ply", "obj", "glb", "stl"]
Keep = Literal["object", "scene"]
Method = Literal["unisurf", "paper", "nerf", "idr"]
Compared = Literal[
    "unisurf", "paper", "nerf", "idr", "colmap", "unisurf-no-masks", "nerf-no-masks", "idr-no-masks"
]
AppearanceOf = Literal["affine", "code", "none"]
Capture = Literal["auto", "around", "facade", "inside"]
HoldOut = Literal["join", "keep", "none"]
Device = Literal["auto", "cpu", "cuda", "torch"]
Flag = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]


def _option(metavar: str, default: str) -> Any:
    """How an option with a default that is found out later shows in the help."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=default)


ViewAt = Annotated[str | None, _option("[HOST:]PORT", "(default: 127.0.0.1, first free port from 8080)")]
Preset = Annotated[str | None, _option("NAME", "(default: none)")]
Masking = Annotated[Literal["auto", "make", "none"] | None, _option("auto|make|none", "(default: auto)")]


@dataclass(frozen=True)
class Fit:
    """Fit a surface to photos and write its mesh."""

    source: tyro.conf.Positional[Path]
    """Folder of photos, video, transforms.json, COLMAP model, IDR/DTU folder; or a run, to go on with it."""
    minutes: Annotated[float | None, _option("M", "(default: 10)")] = None
    """Wall-clock for everything, from reading to the last file. On a finished run: minutes to add."""
    output: Annotated[Path | None, _option("RUN", "(default: runs/NAME-TIME)")] = None
    """Run folder."""
    resume: Flag = False
    """Resume an interrupted run."""
    roi: Annotated[str | None, _option("cx,cy,cz,r", "(default: found from the capture)")] = None
    """Ball to reconstruct, in the cameras' frame."""
    capture: Annotated[Capture | None, _option("auto|around|facade|inside", "(default: auto)")] = None
    """Kind of capture: around an object, of a facade, or from inside a room or a courtyard; auto tells it itself."""
    masks: Annotated[str | None, _option("auto|make|none|PATH", "(default: auto)")] = None
    """Use given masks, else make them (auto), make all of them, use none, or use those in a folder."""
    format: tuple[MeshFormat, ...] = ("ply",)
    """Mesh files to write."""
    resolution: Annotated[int | None, _option("N", "(default: the preset's)")] = None
    """Grid cells along the ROI's diameter when the mesh is extracted."""
    faces: Annotated[int | None, _option("N", "(default: all)")] = None
    """Simplify the mesh to at most this many faces."""
    keep: Annotated[Keep | None, _option("object|scene", "(default: object around one, else scene)")] = None
    """Cut off the table that the object stands on, where one is recognised, or keep all that was seen."""
    watertight: Flag = False
    """Close all holes, with surface that no camera saw; the amount is reported."""
    texture: Flag = False
    """Also write a textured mesh, baked from the photos: textured.glb and textured.obj."""
    texture_size: Annotated[int | None, _option("N", "(default: as the photos resolve)")] = None
    """Texels a side of the texture."""
    confidence: Flag = False
    """Add each vertex's confidence to the PLY, and draw it in confidence.png."""
    trim: Annotated[float | None, _option("C", "(default: keep all)")] = None
    """Drop what has less confidence than this; 0.5 is two good views."""
    preset: Preset = None
    """Name of a preset (draft, fine), or a TOML file with settings that differ from the defaults."""
    device: Device = "auto"
    """Where to compute: on a GPU if there is one (auto), cpu, cuda; torch is the slow specification of both."""
    seed: Annotated[int | None, _option("N", "(default: 0)")] = None
    """Seed of everything random."""
    method: Annotated[Method | None, _option("unisurf|paper|nerf|idr", "(default: unisurf)")] = None
    """How rays are rendered and the surface is shaped: UNISURF as improved here, as published (paper), NeRF, or IDR."""
    appearance: Annotated[AppearanceOf | None, _option("affine|code|none", "(default: affine)")] = None
    """What each photo has of its own: a colour map, a map and a code of its light (photos in the wild), or nothing."""
    hold_out: Annotated[HoldOut | None, _option("join|keep|none", "(default: join)")] = None
    """Photos that measure the fit, one in eight: they join it for the last stretch, are kept out, or there are none."""
    view: Flag = False
    """Show the fit on a page of this machine, with buttons to steer it (needs quicksurf[view])."""
    view_at: ViewAt = None
    """Where --view serves its page."""
    quiet: Flag = False
    """Print errors only."""
    json: Flag = False
    """Print summary.json on standard output at the end; progress goes to standard error."""


@dataclass(frozen=True)
class Mesh:
    """Extract the mesh of a finished run again."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    format: tuple[MeshFormat, ...] = ("ply",)
    """Mesh files to write."""
    resolution: Annotated[int | None, _option("N", "(default: the run's)")] = None
    """Grid cells along the ROI's diameter."""
    faces: Annotated[int | None, _option("N", "(default: the run's)")] = None
    """Simplify the mesh to at most this many faces; 0 keeps all."""
    keep: Annotated[Keep | None, _option("object|scene", "(default: the run's)")] = None
    """Cut off the table that the object stands on, where one is recognised, or keep all that was seen."""
    watertight: Flag = False
    """Close all holes, with surface that no camera saw; the amount is reported."""
    level: Annotated[float | None, _option("L", "(default: the run's)")] = None
    """Density of the surface of a run of --method nerf, per radius of the region: 1, 50, 500."""
    texture: Flag = False
    """Also write a textured mesh, baked from the photos: textured.glb and textured.obj."""
    texture_size: Annotated[int | None, _option("N", "(default: as the photos resolve)")] = None
    """Texels a side of the texture."""
    confidence: Flag = False
    """Add each vertex's confidence to the PLY, and draw it in confidence.png."""
    trim: Annotated[float | None, _option("C", "(default: keep all)")] = None
    """Drop what has less confidence than this; 0.5 is two good views."""
    scale_from: Annotated[
        tuple[str, str, float] | tuple[Literal["markers"], float] | None,
        _option("A B METRES | markers SIDE", "(default: the cameras')"),
    ] = None
    """Scale to metres: two points, as x,y,z of the mesh or PHOTO@column,row, and their distance; or the side of
    ArUco or AprilTag markers beside the object (needs quicksurf[markers])."""
    up: Annotated[
        Literal["auto", "gravity", "plane", "cameras"] | None, _option("SOURCE", "(default: the cameras')")
    ] = None
    """Stand the mesh upright, z up (y up in GLB and OBJ); auto takes the first of gravity, plane, cameras."""
    output: Annotated[Path | None, _option("FOLDER", "(default: the run's)")] = None
    """Folder for the files."""
    device: Device = "auto"
    """Where to compute."""


@dataclass(frozen=True)
class Render:
    """Render a run along a camera path: PNG and MP4 of colour, depth and normals, EXR of depth, GIF of colour."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    path: str = "orbit"
    """orbit, flight (past the photos' places), input (the photos' cameras) or a cameras.json."""
    light_of: Annotated[
        tuple[str] | tuple[str, str] | None, _option("PHOTO [PHOTO]", "(default: the photos' mean)")
    ] = None
    """Render in the light of a photo; of two, from the first's to the second's."""
    renderer: Annotated[Path | None, _option("RUN", "(default: the run's own)")] = None
    """Draw with the colour network of another run."""
    frames: int = 60
    """Number of frames of an orbit or a flight."""
    size: int = 480
    """Longest side in pixels."""
    rate: int = 30
    """Frames per second of the films."""
    output: Annotated[Path | None, _option("FOLDER", "(default: RUN/render)")] = None
    """Folder for the images."""
    device: Device = "auto"
    """Where to compute."""


@dataclass(frozen=True)
class Report:
    """Write RUN/report.html: is the capture good, what came of it, what to photograph next."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    device: Device = "auto"
    """How to compute."""


@dataclass(frozen=True)
class Eval:
    """Measure a run or a mesh: distances to a true surface, PSNR and SSIM on held-out views."""

    target: tyro.conf.Positional[Path]
    """Run folder or mesh file."""
    truth: Annotated[Path | None, _option("FILE", "(default: views alone)")] = None
    """True surface: a mesh or a point cloud in the same frame."""
    roi: Annotated[str | None, _option("cx,cy,cz,r", "(default: everything counts)")] = None
    """Ball outside which nothing of either surface counts."""
    views: int = 8
    """Held-out views of a run to render and compare; 0 for none."""
    device: Device = "auto"
    """Where to compute."""


@dataclass(frozen=True)
class Batch:
    """Fit every capture in a folder; run it again to go on. index.html shows what came of each."""

    captures: tyro.conf.Positional[Path]
    """Folder that holds a folder of photos, or a video, for each capture."""
    minutes: float = 10.0
    """Wall-clock for each capture."""
    output: Annotated[Path | None, _option("FOLDER", "(default: runs/batch-NAME)")] = None
    """Folder of the runs."""
    jobs: Annotated[int | None, _option("N", "(default: by cores and memory)")] = None
    """Captures at a time on this machine."""
    ray: Annotated[str | None, _option("ADDRESS", "(default: this machine)")] = None
    """Fit on a Ray cluster: auto, HOST:PORT, ray://HOST:PORT or local."""
    masks: Masking = None
    """Use given masks, else make them (auto), make all of them, or use none."""
    format: tuple[MeshFormat, ...] = ("ply",)
    """Mesh files to write."""
    preset: Preset = None
    """Name of a preset (draft, fine), or a TOML file with settings that differ from the defaults."""
    device: Device = "auto"
    """How to compute."""


@dataclass(frozen=True)
class Compare:
    """Fit several methods to one capture at equal minutes, one after another, and write a page that compares them."""

    source: tyro.conf.Positional[Path]
    """Folder of photos, video, transforms.json, COLMAP model, IDR/DTU folder."""
    methods: tuple[Compared, ...] = ("unisurf", "paper", "nerf", "idr", "colmap")
    """Methods of fit, colmap for a classical baseline of stereo and Poisson, and -no-masks for a fit without masks."""
    minutes: float = 3.0
    """Wall-clock for each method."""
    output: Annotated[Path | None, _option("FOLDER", "(default: runs/compare-NAME)")] = None
    """Folder of the runs and the page."""
    truth: Annotated[Path | None, _option("FILE", "(default: views alone)")] = None
    """True surface: a mesh or a point cloud in the frame of the given cameras."""
    views: int = 4
    """Held-out views to render and compare."""
    ray: Annotated[str | None, _option("ADDRESS", "(default: this machine)")] = None
    """Fit on a Ray cluster: auto, HOST:PORT, ray://HOST:PORT or local."""
    masks: Annotated[str | None, _option("auto|make|none|PATH", "(default: auto)")] = None
    """Use given masks, else make them (auto), make all of them, use none, or use those in a folder."""
    roi: Annotated[str | None, _option("cx,cy,cz,r", "(default: found from the capture)")] = None
    """Ball to reconstruct, in the cameras' frame."""
    capture: Annotated[Capture | None, _option("auto|around|facade|inside", "(default: auto)")] = None
    """Kind of capture: around an object, of a facade, or from inside a room or a courtyard; auto tells it itself."""
    keep: Annotated[Keep | None, _option("object|scene", "(default: object around one, else scene)")] = None
    """Cut off the table that the object stands on, where one is recognised, or keep all that was seen."""
    preset: Preset = None
    """Name of a preset (draft, fine), or a TOML file with settings that differ from the defaults."""
    seed: Annotated[int | None, _option("N", "(default: 0)")] = None
    """Seed of everything random."""
    device: Device = "auto"
    """Where to compute."""


@dataclass(frozen=True)
class Masks:
    """Make masks of the object and write them, for you to look at and correct (needs quicksurf[masks])."""

    source: tyro.conf.Positional[Path]
    """Folder of photos, transforms.json, COLMAP model, IDR/DTU folder."""
    output: Annotated[Path | None, _option("FOLDER", "(default: SOURCE/masks)")] = None
    """Folder for the masks."""
    roi: Annotated[str | None, _option("cx,cy,cz,r", "(default: found from the capture)")] = None
    """Ball that holds the object, in the cameras' frame."""


@dataclass(frozen=True)
class View:
    """Show a run on a page of this machine until Ctrl-C (needs quicksurf[view])."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    view_at: ViewAt = None
    """Where to serve the page."""
    device: Device = "auto"
    """How to compute the surface of a run that has no mesh yet."""


@dataclass(frozen=True)
class Demo:
    """Make a scene with a known surface, fit it, and print how far off the mesh is."""

    minutes: float = 2.0
    """Wall-clock for the fit and its mesh."""
    output: Annotated[Path | None, _option("FOLDER", "(default: runs/demo-TIME)")] = None
    """Folder for the capture and the run."""
    device: Device = "auto"
    """Where to compute."""
    quiet: Flag = False
    """Print the result only."""


@dataclass(frozen=True)
class Doctor:
    """Look at the machine and the installation; print what is missing and the command that fixes it."""


Command = Fit | Mesh | Render | Report | Eval | Batch | Compare | Masks | View | Demo | Doctor
"""tyro names the subcommands after the classes."""

COMMANDS: dict[str, type] = {command.__name__.lower(): command for command in get_args(Command)}


def parse(arguments: Sequence[str]) -> Command:
    """Parse the command that `arguments` spell.

    Raises:
        UsageError: saying what is wrong.
        SystemExit: after printing help, the version or a completion (code 0), or what is wrong (code 2).
    """
    if list(arguments) == ["--version"]:
        print(f"quicksurf {quicksurf.__version__}")
        raise SystemExit(0)
    options: Any = {"config": (tyro.conf.FlagCreatePairsOff,)}
    with _without_color():
        if not arguments or arguments[0].startswith("-"):
            return tyro.cli(
                Command, args=list(arguments), prog="quicksurf", description=DESCRIPTION, **options
            )
        name, *rest = arguments
        if name not in COMMANDS:
            raise UsageError(unknown("command", name, list(COMMANDS)))
        check_arguments(name, COMMANDS[name], rest)
        return tyro.cli(COMMANDS[name], args=rest, prog=f"quicksurf {name}", **options)


@contextmanager
def _without_color() -> Iterator[None]:
    """Let tyro print plain text where NO_COLOR is set (no-color.org), which it does not look at itself."""
    terminal = os.environ.get("TERM")
    if os.environ.get("NO_COLOR"):
        os.environ["TERM"] = "dumb"
    try:
        yield
    finally:
        if terminal is not None:
            os.environ["TERM"] = terminal
