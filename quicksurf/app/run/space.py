"""Room on the disk, looked at before the fit: a full disk at its end costs the field, or all."""

import shutil

from quicksurf.app.run.folder import Run
from quicksurf.config import Config
from quicksurf.errors import OutputError
from quicksurf.fields.surface import geometry_encoding
from quicksurf.kernels.layout import encoding_layout

MESH_BYTES = 8_000_000  # 150,000 faces, a summary and a report without its pictures
_COPIES = 5  # of the parameters, in single precision: themselves and four moments of Adam


def check_space(run: Run, config: Config) -> None:
    """Refuse to begin where checkpoint and mesh do not fit.

    Raises:
        OutputError: saying how much is there and how much is needed.
    """
    tables = encoding_layout(6, geometry_encoding(config.model)).n_params
    needed = MESH_BYTES + 4 * _COPIES * tables + 5 * config.render.grid_resolution**3
    try:
        free = shutil.disk_usage(run.path).free
    except OSError:  # a file system that does not say
        return
    if free < needed:
        raise OutputError(
            f"disk full: {free / 1e6:.0f} MB are free at {run.path}, checkpoint and mesh take about "
            f"{needed / 1e6:.0f} MB; free some space or choose another --output"
        )
