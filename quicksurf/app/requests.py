"""What a fit is asked for, and what of it a run folder allows: its place, its minutes, its settings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from quicksurf.app.budget import Budget
from quicksurf.app.export.request import MeshRequest
from quicksurf.app.run.folder import Run, claim_run, default_output, is_run, open_run
from quicksurf.capture.automatic_masks.network import Saliency, find_network, load_saliency
from quicksurf.capture.scene import Scene
from quicksurf.config import Config, load_config
from quicksurf.errors import CaptureError, ConfigError, OutputError, RoiError
from quicksurf.fields.table_size import with_tables_for
from quicksurf.geometry.region import Roi
from quicksurf.kernels import Backend
from quicksurf.model import TrainedModel

DEFAULT_MINUTES = 10.0
# Seconds of the whole command: in fewer, making masks would take a third of the fit.
SHORTEST_TO_MAKE_MASKS = 60.0


@dataclass(frozen=True)
class FitRequest:
    """What `quicksurf fit` and `quicksurf.fit` are asked for."""

    source: Path
    minutes: float | None = None
    output: Path | None = None
    resume: bool = False
    roi: Roi | None = None
    capture: str | None = None
    """Kind of the capture; None and "auto" tell it from cameras and points."""
    masks: str | None = None
    """auto, make, none, or a folder of masks; None is auto."""
    mesh: MeshRequest = field(default_factory=MeshRequest)
    preset: str | None = None
    device: str = "auto"
    seed: int | None = None
    method: str | None = None
    """Name of the method; None is the preset's, or unisurf."""
    appearance: str | None = None
    """Name of what photos have of their own; None is the preset's, or affine."""
    hold_out: str | None = None


def parse_roi(text: str) -> Roi:
    """Parse `cx,cy,cz,r` as a ball.

    Raises:
        RoiError: if it is not four finite numbers with a positive radius.
    """
    try:
        x, y, z, radius = (float(part) for part in text.split(","))
    except ValueError as error:
        raise RoiError(
            f"--roi {text!r} is not cx,cy,cz,r: give four numbers in the cameras' frame"
        ) from error
    return as_roi((x, y, z, radius))


def as_roi(values: Sequence[float]) -> Roi:
    """Check (cx, cy, cz, r) and make a ball of it.

    Raises:
        RoiError: if it is not four finite numbers with a positive radius.
    """
    try:
        x, y, z, radius = (float(value) for value in values)
    except (TypeError, ValueError, OverflowError) as error:
        raise RoiError(f"the ROI {values!r} is not (cx, cy, cz, r): give four numbers") from error
    if not all(abs(value) < float("inf") for value in (x, y, z, radius)) or radius <= 0:
        raise RoiError(
            f"the ROI {x:g},{y:g},{z:g},{radius:g}: the centre must be finite and the radius above 0"
        )
    return Roi((x, y, z), radius)


def claim(request: FitRequest) -> Run:
    """Take the run folder; a run given as the source stands for its own capture and folder."""
    source, output = request.source, request.output
    if is_run(source):
        if output is not None and output.resolve() != source.resolve():
            raise OutputError(f"{source} is a run: it goes on in its own folder, leave out --output")
        source, output = open_run(source).source, source
    output = output or default_output(source.stem)
    return claim_run(output, source, request.resume, request.minutes is not None)


def _minutes(request: FitRequest, run: Run) -> float:
    """What was asked for; else what an unfinished run has left of its plan; else the default."""
    if request.minutes is not None:
        return request.minutes
    planned, spent = (run.record.get(name) for name in ("minutes", "minutes_spent"))
    if run.state == "unfinished" and isinstance(planned, float) and isinstance(spent, float):
        return max(1.0, planned - spent)
    return DEFAULT_MINUTES


def budget_of(request: FitRequest, run: Run, started: float) -> Budget:
    """Start the clock of this command; a mesh that was made before tells how long the next one takes."""
    budget = Budget(60 * _minutes(request, run), started=started)
    if run.state == "finished":
        seconds = run.read_summary().get("seconds")
        if not isinstance(seconds, dict) or not isinstance(seconds.get("mesh"), (int, float)):
            raise OutputError(
                f"{run.path / 'summary.json'} is damaged: it lacks seconds.mesh; delete it and --resume"
            )
        budget.expect_mesh_seconds(seconds["mesh"])
    return budget


def resolve_config(
    request: FitRequest, run: Run, resumed: TrainedModel | None, seconds: float, backend: Backend
) -> Config:
    """Choose the preset and options of a new run; the checkpoint's settings for one that goes on, but for the mesh's.

    Args:
        seconds: of the whole command; together with the backend's speed they decide what a preset leaves open.

    Raises:
        ConfigError: if options or an edited config.toml ask for others than the field was fitted with.
    """
    if resumed is None:
        asked = {
            "train.seed": request.seed,
            "train.method": request.method,
            "train.appearance": request.appearance,
            "train.hold_out": request.hold_out,
            "train.capture": request.capture,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        config = load_config(request.preset, given, with_tables_for(seconds, Config(), backend))
        return request.mesh.applied_to(config)
    _refuse_changes(request, run, resumed.config)
    kept = run.path / "config.toml"
    config = load_config(kept, {}) if kept.exists() else resumed.config
    if replace(config, mesh=resumed.config.mesh) != resumed.config:
        raise ConfigError(
            f"{kept} is not what the run was fitted with: delete it to go on with the settings of the checkpoint, or "
            f"fit anew with --preset {kept} and another --output"
        )
    resumed.config = request.mesh.applied_to(config)
    return resumed.config


def _refuse_changes(request: FitRequest, run: Run, fitted: Config) -> None:
    """Refuse options that the field of the run was not fitted with.

    Raises:
        ConfigError: naming them.
    """
    asked = {
        "--preset": request.preset is not None,
        "--seed": request.seed is not None,
        "--method": request.method not in (None, fitted.train.method),
        "--appearance": request.appearance not in (None, fitted.train.appearance),
        "--hold-out": request.hold_out is not None,
        "--roi": request.roi is not None,
        "--capture": request.capture not in (None, "auto"),
        "--masks": request.masks is not None and request.masks != run.record.get("mask_option", "auto"),
    }
    changes = [option for option, given in asked.items() if given]
    if changes:
        raise ConfigError(
            f"settings of {run.path} cannot change when it is resumed: leave out {' and '.join(changes)}"
        )


class MaskUse(NamedTuple):
    """Where the masks of a new fit come from."""

    option: str
    use_given: bool
    folder: Path | None
    saliency: Callable[[], Saliency] | None
    """Loads the network, if masks may be made."""

    @property
    def record(self) -> dict[str, str | None]:
        """The entries of run.json that say so."""
        return {
            "mask_option": self.option,
            "mask_folder": None if self.folder is None else str(self.folder.resolve()),
        }


def mask_use(request: FitRequest, seconds: float) -> MaskUse:
    """Tell what `--masks` asks for, in a fit of so many seconds: one of a minute has no time to make any.

    Raises:
        ConfigError: if masks are to be made and the network is not installed.
        CaptureError: if the folder is not there.
    """
    option = request.masks or "auto"
    if option == "auto":
        return MaskUse(option, True, None, load_saliency if seconds > SHORTEST_TO_MAKE_MASKS else None)
    if option == "none":
        return MaskUse(option, False, None, None)
    if option == "make":
        find_network()
        return MaskUse(option, False, None, load_saliency)
    if not Path(option).is_dir():
        raise CaptureError(f"--masks {option}: no such folder; give auto, make, none or a folder of masks")
    return MaskUse(option, True, Path(option), None)


def as_fitted(scene: Scene, resumed: TrainedModel, run: Run) -> Scene:
    """Give the scene of a resumed run the cameras of its field, which may have been refined, and its split.

    Raises:
        CaptureError: if it was fitted with masks that are gone.
    """
    if resumed.masked and all(mask is None for mask in scene.masks):
        raise CaptureError(
            f"{run.path} was fitted with masks, which are gone from {run.source}: bring them back, "
            "or fit anew with another --output"
        )
    return replace(scene, cameras=resumed.cameras, held_out=resumed.held_out)
