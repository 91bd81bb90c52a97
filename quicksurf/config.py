"""Settings of a fit: nested frozen dataclasses, TOML presets of a few lines, unknown keys refused.

One dial, `--minutes`, drives a fit; what stands here is for people who change the method. A preset is a TOML file in
`configs/` that holds only what differs from the defaults below:

    [model]
    log2_hashmap_size = 15

Settings are named `section.key` in messages and overrides. A key's type and range stand in its annotation, so that
the definition, the check and the message cannot drift apart. This module imports nothing of the package but its
errors: everything else may read it.
"""

import dataclasses
import difflib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from quicksurf.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_PRESET_BYTES = 1 << 20  # a preset is 20 lines; a gigabyte file is a mistake and is not read


class Between(NamedTuple):
    """Closed range that a setting must lie in."""

    low: float
    high: float
    or_zero: bool = False
    """Whether 0 may be chosen besides."""

    def __contains__(self, value: object) -> bool:
        return isinstance(value, (int, float)) and (
            self.low <= value <= self.high or (self.or_zero and value == 0)
        )

    def __str__(self) -> str:
        return ("0, or " if self.or_zero else "") + f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class ModelConfig:
    """The field: hash encoding (names as in tiny-cuda-nn) and the two small networks."""

    n_levels: Annotated[int, Between(1, 32)] = 14
    n_features_per_level: Literal[1, 2, 4, 8] = 2
    log2_hashmap_size: Annotated[int, Between(8, 24)] = 16
    base_resolution: Annotated[int, Between(2, 512)] = 16
    finest_resolution: Annotated[int, Between(2, 65536)] = 1024
    n_neurons: Literal[16, 32, 64, 128] = 64

    def describe(self) -> str:
        """Describe the size, for the user to see at the start of a fit."""
        return (
            f"a hash grid of {self.n_levels} levels, {self.base_resolution}³ to {self.finest_resolution}³ cells, with "
            f"{1 << self.log2_hashmap_size:,} entries each at most; networks {self.n_neurons} wide"
        )


@dataclass(frozen=True)
class UnisurfConfig:
    """UNISURF: samples around the surface and losses on the geometry. Lengths are in radii of the region."""

    interval_start: Annotated[float, Between(1e-3, 4.0)] = 0.5
    interval_reach: Annotated[float, Between(0.0, 50.0)] = 6.0
    """κ l at the interval's ends, at least; the transmittance there is e to the minus this."""
    n_interval_samples: Annotated[int, Between(2, 256)] = 16
    n_front_samples: Annotated[int, Between(0, 256)] = 8
    alpha_from: Literal["transmittance", "occupancy"] = "transmittance"
    """How alpha follows from occupancy: see methods/unisurf.py. UNISURF's own formula is "occupancy"."""
    sharpness_start: Annotated[float, Between(1.0, 1e4)] = 20.0
    sharpness_end: Annotated[float, Between(1.0, 1e5)] = 400.0
    query_noise: Annotated[float, Between(0.0, 1.0)] = 0.02
    normal_smoothness_weight: Annotated[float, Between(0.0, 10.0)] = 0.005
    gradient_penalty_weight: Annotated[float, Between(0.0, 10.0)] = 0.01
    balloon_weight: Annotated[float, Between(0.0, 10.0)] = 0.04
    """Of the balloon force on the surface where patches do not match across views, in the second half of the run;
    twice as much where there are masks."""


@dataclass(frozen=True)
class NerfConfig:
    """NeRF: density along rays."""

    distortion_weight: Annotated[float, Between(0.0, 10.0)] = 0.01
    """Of mip-NeRF 360's distortion loss."""


@dataclass(frozen=True)
class IdrConfig:
    """IDR: surface rendering with masks."""

    eikonal_weight: Annotated[float, Between(0.0, 10.0)] = 0.1
    mask_weight: Annotated[float, Between(0.0, 1e4)] = 100.0


@dataclass(frozen=True)
class RendererConfig:
    """The colour network, IDR's M(x, n, v, z): of place, normal, view direction and the geometry's features."""

    inputs: Literal["xnvz", "xvz", "xnz", "xnv"] = "xnvz"
    """What it sees."""


@dataclass(frozen=True)
class RenderConfig:
    """What all methods render with."""

    n_background_samples: Annotated[int, Between(2, 256)] = 16
    """Of the background, behind the region."""
    grid_resolution: Annotated[int, Between(8, 512)] = 96
    grid_threshold: Annotated[float, Between(1e-6, 0.5)] = 0.01


@dataclass(frozen=True)
class TrainConfig:
    """The optimisation."""

    method: Literal["unisurf", "paper", "nerf", "idr"] = "unisurf"
    """How rays are sampled and weighted, and what shapes the geometry: see methods/."""
    appearance: Literal["affine", "code", "none"] = "affine"
    """What a photo has of its own: a colour map, a map and a code that colours are a function of, or nothing."""
    seed: Annotated[int, Between(0, 2**31 - 1)] = 0
    capture: Literal["auto", "around", "facade", "inside"] = "auto"
    """Kind of the capture; "auto" tells it from cameras and points."""
    n_samples: Annotated[int, Between(1024, 1 << 22)] = 1 << 15
    """Samples of a step; the number of rays follows from how many a ray needs."""
    max_pixels: Annotated[int, Between(1024, 1 << 28)] = 400_000
    """Pixels that a photo is kept at; larger ones are resampled."""
    learning_rate_tables: Annotated[float, Between(1e-6, 1.0)] = 1e-2
    learning_rate_geometry: Annotated[float, Between(1e-6, 1.0)] = 2e-3
    """Of the surface's network: faster, sharp surfaces swell, because what grew opaque has no gradient to shrink."""
    learning_rate_networks: Annotated[float, Between(1e-6, 1.0)] = 1e-2
    """Of the colours' and the background's networks."""
    learning_rate_appearance: Annotated[float, Between(0.0, 1.0)] = 2e-4
    learning_rate_codes: Annotated[float, Between(0.0, 1.0)] = 3e-2
    """Of the photos' codes, with `appearance = "code"`."""
    hold_out: Literal["join", "keep", "none"] = "join"
    """What becomes of one photo in eight: it measures the fit and joins it for the last stretch, stays out, or is used
    from the start, unmeasured."""
    first_levels: Annotated[int, Between(1, 32)] = 5
    """Hash levels active at the start; all are at half time."""
    background_noise: Annotated[float, Between(0.0, 1.0)] = 0.1
    n_surface_points: Annotated[int, Between(0, 1 << 16)] = 256
    """Surface points of a step that the losses on the logit's gradient look at."""
    silhouette_weight: Annotated[float, Between(0.0, 100.0)] = 0.005
    """Of masks, where there are any: opacity against which side of the outline a ray is on."""
    points_weight: Annotated[float, Between(0.0, 100.0)] = 3.0
    """Of the verified points of structure from motion: free space before them, the surface at them."""
    dense_weight: Annotated[float, Between(0.0, 100.0)] = 2.0
    """Of depths that stereo finds between such points, times theirs; 0 leaves stereo out."""
    n_point_rays: Annotated[int, Between(1, 1 << 16)] = 384
    """Observations of such points that a step looks at."""
    consistency_weight: Annotated[float, Between(0.0, 100.0)] = 0.2
    """Of the correlation of surface patches across views, in the second half of the run."""


@dataclass(frozen=True)
class MeshConfig:
    """Extraction of the surface."""

    resolution: Annotated[int, Between(96, 2048)] = 384
    """Grid cells along the ROI's diameter."""
    faces: Annotated[int, Between(4, 100_000_000, or_zero=True)] = 0
    """Largest number of faces; 0 keeps all. A closed surface has at least four."""
    keep: Literal["auto", "object", "scene"] = "auto"
    """Whether the table that the object stands on is cut off, where one is recognised; "auto" does so in captures
    around an object."""
    watertight: bool = False
    """Whether holes are closed, with surface that no camera saw."""
    level: Annotated[float, Between(1e-3, 1e6, or_zero=True)] = 0.0
    """Density of the surface of nerf, per radius of the region; 0 is the method's own."""


@dataclass(frozen=True)
class Config:
    """Everything a fit depends on besides the capture and the minutes."""

    model: ModelConfig = field(default_factory=ModelConfig)
    unisurf: UnisurfConfig = field(default_factory=UnisurfConfig)
    nerf: NerfConfig = field(default_factory=NerfConfig)
    idr: IdrConfig = field(default_factory=IdrConfig)
    renderer: RendererConfig = field(default_factory=RendererConfig)
    render: RenderConfig = field(default_factory=RenderConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)


# What a method changes in the defaults; a preset and the command line win over it. Published methods know neither
# verified points, nor patches, nor a balloon force.
_PLAIN = {"train.points_weight": 0.0, "train.consistency_weight": 0.0}
OF_METHOD: dict[str, dict[str, Any]] = {
    "unisurf": {},
    "paper": {
        **_PLAIN,
        "unisurf.alpha_from": "occupancy",
        "unisurf.sharpness_start": 50.0,
        "unisurf.sharpness_end": 50.0,
        "unisurf.interval_start": 2.0,
        "unisurf.n_interval_samples": 64,
        "unisurf.n_front_samples": 32,
        "unisurf.query_noise": 0.0,
        "unisurf.gradient_penalty_weight": 0.0,
        "unisurf.balloon_weight": 0.0,
    },
    "nerf": _PLAIN,
    # a ray has one or two samples: as many as elsewhere would be a step of 25,000 rays, and few steps
    "idr": {**_PLAIN, "train.silhouette_weight": 0.0, "train.n_samples": 4096},
}


def load_config(
    preset: str | Path | None, overrides: Mapping[str, Any], defaults: Config | None = None
) -> Config:
    """Merge the defaults, the method's, a preset and `overrides` (keys `section.key`), each value checked.

    Args:
        preset: name of a file in configs/ (without .toml), path of a TOML file, or None.
        overrides: settings that win over the preset's.
        defaults: `Config()` if None.

    Raises:
        ConfigError: on an unknown preset or key (the nearest one is named), a wrong type or a value out of range.
    """
    origin = f"preset {preset}" if preset is not None else "defaults"
    settings = dict(_flatten(_read_preset(preset))) if preset is not None else {}
    chosen = with_settings(_apply(Config(), settings, origin), overrides).train.method
    base = _apply(defaults or Config(), OF_METHOD[chosen], f"method {chosen}")
    return with_settings(_apply(base, settings, origin), overrides)


def with_settings(config: Config, overrides: Mapping[str, Any]) -> Config:
    """Return `config` with the settings of `overrides` (keys `section.key`), each value checked.

    Raises:
        ConfigError: as `load_config`.
    """
    return _apply(config, overrides, "options")


def from_settings(sections: Mapping[str, Any]) -> Config:
    """Return the configuration that `dataclasses.asdict` made `sections` of, each value checked again.

    Raises:
        ConfigError: as `load_config`.
    """
    return _apply(Config(), dict(_flatten(sections)), "saved settings")


def preset_names() -> list[str]:
    """Return names of the presets that came with the package."""
    return sorted(path.stem for path in _preset_folder().glob("*.toml"))


def to_toml(config: Config) -> str:
    """Return every setting as TOML; `load_config` of a file with this text gives an equal Config."""
    lines: list[str] = []
    for section in dataclasses.fields(config):
        values = dataclasses.asdict(getattr(config, section.name))
        lines += [
            f"[{section.name}]",
            *(f"{key} = {_toml_value(value)}" for key, value in values.items()),
            "",
        ]
    return "\n".join(lines)


def _preset_folder() -> Path:
    installed = Path(__file__).parent / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "configs"


def _read_preset(preset: str | Path) -> dict[str, Any]:
    path = Path(preset)
    if path.suffix != ".toml":
        path = _preset_folder() / f"{preset}.toml"
        if not path.is_file():
            raise ConfigError(
                unknown("preset", str(preset), preset_names()) + "; or give the path of a .toml file"
            )
    try:
        if path.stat().st_size > MAX_PRESET_BYTES:
            raise ConfigError(
                f"{path} is larger than {MAX_PRESET_BYTES} bytes: a preset is a few lines of TOML"
            )
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read preset {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _setting_types() -> dict[str, Any]:
    """`section.key` → annotation, for every setting there is."""
    return {
        f"{section}.{key}": annotation
        for section, cls in get_type_hints(Config).items()
        for key, annotation in get_type_hints(cls, include_extras=True).items()
    }


def _apply(config: Config, settings: Mapping[str, Any], origin: str) -> Config:
    types = _setting_types()
    for name, value in settings.items():
        if name not in types:
            raise ConfigError(f"{origin}: " + unknown("setting", name, list(types)))
        section, key = name.split(".")
        checked = _check(name, value, types[name], origin)
        config = dataclasses.replace(
            config, **{section: dataclasses.replace(getattr(config, section), **{key: checked})}
        )
    return config


def _check(name: str, value: Any, annotation: Any, origin: str) -> Any:
    """`value` as the annotated type; an int is accepted where a float is asked for, never the reverse."""
    base, *bounds = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    if get_origin(base) is Literal:
        if value not in get_args(base) or isinstance(value, bool) != isinstance(get_args(base)[0], bool):
            choices = ", ".join(repr(choice) for choice in get_args(base))
            raise ConfigError(f"{origin}: {name} is {value!r}; expected one of {choices}")
        return value
    if base is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not base:
        raise ConfigError(f"{origin}: {name} is {value!r} ({type(value).__name__}); expected {base.__name__}")
    if bounds and value not in bounds[0]:
        raise ConfigError(f"{origin}: {name} is {value!r}; expected {bounds[0]}")
    return value


def unknown(kind: str, name: str, known: Sequence[str]) -> str:
    """Say that `name` is no `kind`, and name the nearest that is, with or without its section, or all of them."""
    tails = {key.rpartition(".")[2]: key for key in known}
    near = partial(difflib.get_close_matches, n=1, cutoff=0.5)
    nearest = near(name, known) or [tails[tail] for tail in near(name.rpartition(".")[2], tails)]
    hint = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(known) or 'none'}"
    return f"unknown {kind} {name!r}: {hint}"


def _toml_value(value: Any) -> str:
    """A TOML literal. JSON's escapes in strings are TOML's; Python's float repr is a TOML float, inf and nan too."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
