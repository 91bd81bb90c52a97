"""Imports go downwards only: cli → pipeline, api → report → takeaway → session → train → data, model → backends.

The imports are read from the source (ast), those inside functions and under TYPE_CHECKING included.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "quicksurf"

LAYERS: tuple[set[str], ...] = (
    {"__main__"},
    {"cli"},
    {"commands"},
    {"arguments"},
    {"__init__", "api", "evaluation", "doctor", "batch"},
    {"view"},
    {"pipeline", "views", "mask_files"},
    {"fit_request", "report"},
    {"takeaway"},
    {"session"},
    {"train"},
    {"reconstruction"},
    {"demo_scene", "checkpoint"},
    {"mesh"},
    {"data", "model", "render"},
    {"backends"},
    {
        "cameras",
        "camera_paths",
        "rays",
        "losses",
        "schedules",
        "metrics",
        "photo_figures",
        "io",
        "film",
        "argument_types",
        "points",
    },
    {"config", "errors", "plain", "srgb", "untrusted", "_native"},
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
THIRD_PARTY_LIMITS = {
    "nerfacc": {"backends", "render", "doctor"},
    "tinycudann": {"backends"},
    "triton": {"backends"},
    "onnxruntime": {"data"},
    "pycolmap": {"data"},
    "viser": {"view", "doctor"},
    "cv2": {"data", "takeaway"},
}


def parts() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    """Top-level module or subpackage that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Dotted names of everything a file imports, `from a import b` as a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_part_has_its_layer() -> None:
    assert {part_of(path) for path in parts()} <= set(RANK)


@pytest.mark.parametrize("path", parts(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downwards(path: Path) -> None:
    own = part_of(path)
    used = {name.split(".")[1] for name in imported(path) if name.startswith("quicksurf.")} - {own}
    upward = {name for name in used if RANK.get(name, RANK["__init__"]) <= RANK[own]}
    siblings = {name for name in upward if RANK.get(name) == RANK[own]}
    assert not upward - siblings, f"{path.name} imports {upward - siblings} from above"
    assert not any(own in _uses(name) for name in siblings), (
        f"{path.name} and one of {siblings} import each other"
    )


@pytest.mark.parametrize("library", sorted(THIRD_PARTY_LIMITS))
def test_library_stays_in_its_place(library: str) -> None:
    users = {
        part_of(path) for path in parts() if any(name.split(".")[0] == library for name in imported(path))
    }
    assert users <= THIRD_PARTY_LIMITS[library]


def _uses(part: str) -> set[str]:
    files = [path for path in parts() if part_of(path) == part]
    return {name.split(".")[1] for path in files for name in imported(path) if name.startswith("quicksurf.")}
