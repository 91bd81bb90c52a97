"""Options of a mesh that come from Python, where nobody has checked them yet."""

from quicksurf.config import Config, with_settings
from quicksurf.errors import ConfigError
from quicksurf.mesh.build import MeshOptions


def check_options(options: MeshOptions) -> None:
    """Refuse what the settings of a mesh would not take.

    Raises:
        ConfigError: naming the option.
    """
    if not isinstance(options, MeshOptions):
        raise ConfigError(f"options are {type(options).__name__}: MeshOptions are expected")
    with_settings(
        Config(),
        {
            "mesh.resolution": options.resolution,
            "mesh.faces": 0 if options.n_faces is None else options.n_faces,
            "mesh.keep": options.keep,
            "mesh.watertight": options.watertight,
            "mesh.level": options.level,
        },
    )
