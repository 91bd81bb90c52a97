"""Imports go downwards only, the application stands on the core, and no room's name appears twice.

The imports are read from the source (ast), those inside functions and under TYPE_CHECKING included.
"""

import ast
from itertools import pairwise
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "quicksurf"

# From above: what stands in a line may import what stands in lines below it.
CORE: tuple[set[str], ...] = (
    {"train"},
    {"model"},
    {"mesh", "render"},
    {"methods"},
    {"fields", "capture"},
    {"kernels"},
    {"geometry"},
    {"config", "files", "untrusted"},
    {"errors"},
)
APPLICATION: tuple[set[str], ...] = (
    {"cli"},
    {"commands"},
    {"arguments"},
    {"compare"},
    {"api", "evaluate", "batch"},
    {"doctor"},
    {"live"},
    {"fit", "render", "masks"},
    {"requests", "report", "summary"},
    {"export"},
    {"listener"},
    {"progress"},
    {"run"},
    {"budget", "demo", "film", "metrics", "argument_types"},
    {"console"},
    {"plain"},
)
THIRD_PARTY_LIMITS = {
    "nerfacc": {"kernels", "fields", "methods", "app.doctor"},
    "tinycudann": {"kernels"},
    "triton": {"kernels"},
    "onnxruntime": {"capture"},
    "pycolmap": {"capture", "app.compare"},
    "viser": {"app.live", "app.doctor"},
    "cv2": {"capture", "mesh", "app.export"},
}


def parts() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> tuple[str, ...]:
    """The parts of a module's name below `quicksurf`."""
    names = path.relative_to(PACKAGE).with_suffix("").parts
    return names[:-1] if names[-1] == "__init__" else names


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


def own_imports(path: Path) -> set[tuple[str, ...]]:
    """What a file imports of this package, as parts of names below `quicksurf`."""
    return {tuple(name.split(".")[1:]) for name in imported(path) if name.split(".")[0] == "quicksurf"}


def upward(path: Path, storey: tuple[set[str], ...], depth: int) -> set[str]:
    """Names at `depth` that a file imports from its own line of `storey` or from above, but for its own."""
    rank = {name: rank for rank, names in enumerate(storey) for name in names}
    own, storey_of = module_of(path)[depth], module_of(path)[:depth]
    used = {name[depth] for name in own_imports(path) if name[:depth] == storey_of and len(name) > depth}
    return {name for name in used - {own} if rank[name] <= rank[own]}


CORE_FILES = [path for path in parts() if module_of(path) and module_of(path)[0] not in ("app", "__main__")]
APP_FILES = [path for path in parts() if module_of(path)[:1] == ("app",) and len(module_of(path)) > 1]


def test_every_part_has_its_line() -> None:
    assert {module_of(path)[0] for path in CORE_FILES} == set().union(*CORE)
    assert {module_of(path)[1] for path in APP_FILES} == set().union(*APPLICATION)


@pytest.mark.parametrize("path", CORE_FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_core_imports_downwards_and_never_the_application(path: Path) -> None:
    assert not {name for name in own_imports(path) if name[0] == "app"}
    assert not upward(path, CORE, 0)


@pytest.mark.parametrize("path", APP_FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_application_imports_downwards(path: Path) -> None:
    assert not upward(path, APPLICATION, 1)


@pytest.mark.parametrize("path", parts(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_seam_names_the_extension(path: Path) -> None:
    if module_of(path)[:1] != ("kernels",):
        assert not {name for name in own_imports(path) if "_native" in name}


@pytest.mark.parametrize("path", [p for p in parts() if module_of(p)[:1] == ("methods",)], ids=str)
def test_methods_name_no_engine(path: Path) -> None:
    assert not {name for name in own_imports(path) if name[:2] in (("kernels", "cpu"), ("kernels", "gpu"))}


def test_a_name_of_a_folder_appears_once() -> None:
    names = sorted(path.parent.name for path in PACKAGE.rglob("__init__.py"))
    assert not [one for one, other in pairwise(names) if one == other]


@pytest.mark.parametrize("library", sorted(THIRD_PARTY_LIMITS))
def test_library_stays_in_its_place(library: str) -> None:
    users = [path for path in parts() if any(name.split(".")[0] == library for name in imported(path))]
    rooms = {
        module_of(path)[0] if module_of(path)[0] != "app" else ".".join(module_of(path)[:2]) for path in users
    }
    assert rooms <= THIRD_PARTY_LIMITS[library]
