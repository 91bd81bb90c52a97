"""quicksurf: a folder of photos to a surface mesh in minutes.

>>> import quicksurf
>>> reconstruction = quicksurf.fit("photos/", minutes=10)
>>> mesh, report = reconstruction.mesh()
>>> quicksurf.load("runs/photos-20250101-120000").occupancy(points)

The functions live in quicksurf.app.api and are imported when first used: `import quicksurf` alone does not load torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str

    from quicksurf.app.api import export, fit, load, set_num_threads

__all__ = ["export", "fit", "load", "set_num_threads"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version("quicksurf")
        except metadata.PackageNotFoundError:  # a source folder that was not installed
            return "unknown"
    if name in __all__:
        from quicksurf.app import api

        return getattr(api, name)
    raise AttributeError(f"module 'quicksurf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
