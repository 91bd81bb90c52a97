"""What a person asks of a mesh: one request for `quicksurf fit`, `quicksurf mesh` and the Python API."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float64

from quicksurf.app.export.texture_cost import SECONDS_A_PHOTO, USUAL_SIZE, texture_seconds
from quicksurf.config import Config, with_settings
from quicksurf.errors import ConfigError
from quicksurf.mesh import frame
from quicksurf.mesh.confidence import check_trim
from quicksurf.mesh.export import check_formats
from quicksurf.mesh.texture.bake import check_texture_size

TEXTURED_FACES = 50_000  # the texture holds the detail; xatlas takes 7 to 11 s of processor time for these
UP_SOURCES = ("auto", "gravity", "plane", "cameras")
MARKERS = "markers"

ScaleFrom: TypeAlias = tuple[str, str, float] | tuple[Literal["markers"], float]
"""Two points, as x,y,z of the mesh or PHOTO@column,row, and the metres between them; or the side of the markers."""


@dataclass(frozen=True)
class MeshRequest:
    """Options of a mesh and of what is made of it; None leaves the choice to the preset or the run."""

    formats: tuple[str, ...] = ("ply",)
    resolution: int | None = None
    faces: int | None = None
    keep: str | None = None
    watertight: bool | None = None
    texture: bool = False
    """Also a textured mesh: GLB and OBJ."""
    texture_size: int | None = None
    """Texels a side; None: as many as the photos resolve, or USUAL_SIZE where time is short."""
    confidence: bool = False
    """Confidence of each vertex in the PLY, and a picture of it."""
    trim: float | None = None
    """Drop what is less certain than this; measures confidence, too."""
    scale_from: ScaleFrom | None = None
    up: str | None = None
    """One of UP_SOURCES: turn up to +z."""
    level: float | None = None
    """Density of the surface of nerf, per radius of the region."""

    @property
    def measures(self) -> bool:
        """Whether confidence is measured."""
        return self.confidence or self.trim is not None

    @property
    def moves(self) -> bool:
        """Whether the mesh leaves the frame of the cameras."""
        return self.scale_from is not None or self.up is not None

    @property
    def needs_photos(self) -> bool:
        """Whether anything is asked that the photos are read for."""
        return self.texture or self.measures or self.moves

    def check(self) -> None:
        """Refuse a format or a frame that cannot be, before anything is looked for.

        Raises:
            ConfigError: naming the option.
        """
        check_formats(self.formats)
        if self.up is not None and self.up not in UP_SOURCES:
            raise ConfigError(f"--up {self.up}: choose from {', '.join(UP_SOURCES)}")
        if self.scale_from is not None:
            *ends, metres = self.scale_from
            frame.check_metres(metres)
            for end in ends if ends != [MARKERS] else ():
                parse_point(end)

    def applied_to(self, config: Config) -> Config:
        """Merge the options that were given into `config`, checked like any setting; check the others.

        Raises:
            ConfigError: naming the option that cannot be used.
        """
        given = {
            f"mesh.{name}": getattr(self, name)
            for name in ("resolution", "faces", "keep", "watertight", "level")
        }
        config = with_settings(config, {name: value for name, value in given.items() if value is not None})
        if self.texture_size is not None:
            check_texture_size(self.texture_size)
        if self.trim is not None:
            check_trim(self.trim)
            if config.mesh.watertight:
                raise ConfigError("--trim opens what --watertight closes: choose one of the two")
        return config

    def extra_seconds(self, n_photos: int) -> float:
        """Estimate the seconds that confidence and texture take on two slow cores."""
        confidence = SECONDS_A_PHOTO * n_photos if self.measures else 0.0
        size = self.texture_size or USUAL_SIZE
        texture = texture_seconds(TEXTURED_FACES, size, n_photos) if self.texture else 0.0
        return confidence + texture


class Pixel(NamedTuple):
    """A place in a photo."""

    photo: str
    column: float
    row: float


def parse_point(text: str) -> Pixel | Float64[np.ndarray, "3"]:
    """Parse x,y,z or PHOTO@column,row.

    Raises:
        ConfigError: if it is neither.
    """
    name, at, pixel = text.rpartition("@")
    if not at:
        return frame.scale_point(text)
    try:
        column, row = (float(part) for part in pixel.split(","))
    except ValueError as error:
        raise ConfigError(f"--scale-from {text!r}: expected PHOTO@column,row") from error
    return Pixel(name, column, row)
