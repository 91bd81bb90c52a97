"""What killed commands have left: files that are broken, what is lost, and litter; for tools/kill.py."""

import json
from pathlib import Path

import imageio.v3 as imageio

from quicksurf.app.run.files import is_litter
from quicksurf.app.run.folder import open_run
from quicksurf.mesh.export import read_mesh

UNFINISHED = ("checkpoint.new", "checkpoint.old", "summary.previous.json")


def fault_of(run: Path) -> str | None:
    """What is broken of the files of a run that have their names, if something is."""
    for path in sorted(path for path in run.rglob("*") if path.is_file() and not is_litter(path.name)):
        if path.name != ".lock" and path.parent.name not in ("checkpoint.new", "checkpoint.old"):
            try:
                _read(path)
            except Exception as error:
                return f"{path.relative_to(run)} cannot be read: {error!r}"
    if (run / "run.json").exists() and (loaded := open_run(run)).checkpoint_folder() is not None:
        loaded.model("cpu")
    return None


def _read(path: Path) -> None:
    kind = path.suffix
    if kind == ".json":
        json.loads(path.read_text())
    elif kind == ".jsonl":
        for line in path.read_text().split("\n")[:-1]:
            json.loads(line)
    elif kind in (".ply", ".stl") or (kind in (".obj", ".glb") and path.stem == "mesh"):
        read_mesh(path)
    elif kind in (".png", ".gif", ".mp4", ".exr"):
        imageio.imread(path, **({"plugin": "pyav"} if kind in (".mp4", ".exr") else {}))
    elif kind == ".html":
        assert path.read_text().rstrip().endswith("</html>"), "it is cut off"


def lost(before: Path, after: Path) -> list[str]:
    """What of an earlier run is gone."""
    if not (before / "run.json").exists():
        return []
    missing = [
        name for name in ("run.json", "mesh.ply") if (before / name).exists() and not (after / name).exists()
    ]
    fitted = _seconds_fitted(before)
    return missing if _seconds_fitted(after) >= fitted else [*missing, f"{fitted:.1f} s of fitting"]


def _seconds_fitted(run: Path) -> float:
    for name in ("checkpoint", "checkpoint.old"):
        if (run / name / "state.json").exists():
            return json.loads((run / name / "state.json").read_text())["seconds_fitted"]
    return 0.0


def litter(work: Path) -> list[str]:
    """What should not be there once a command has ended."""
    return [
        str(path.relative_to(work))
        for path in work.rglob("*")
        if (is_litter(path.name) and path.name != ".lock")
        or path.name in UNFINISHED
        or path.name.startswith(("sfm-", "frames-", "quicksurf-traceback"))
    ]
