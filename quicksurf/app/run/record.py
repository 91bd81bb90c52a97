"""JSON files of a run folder: read with bounds, each entry of run.json checked before anybody uses it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from quicksurf.errors import OutputError
from quicksurf.geometry.region import Roi
from quicksurf.untrusted import is_count, is_number, is_path, read_json

FARTHEST = 1e12  # of a coordinate: the Earth in tenths of a millimetre
_SMALLEST_RADIUS = 1e-9
MAX_JSON_BYTES = 64 << 20  # a thousand cameras are half a megabyte


def read_object(path: Path) -> dict[str, Any]:
    """Read the object that a file holds.

    Raises:
        OutputError: if it cannot be read or is damaged.
    """
    try:
        value = read_json(path, MAX_JSON_BYTES)
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise OutputError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise OutputError(f"{path} is damaged: expected a JSON object")
    return value


def check_record(path: Path, record: Mapping[str, Any]) -> None:
    """Refuse entries of run.json that are not what they should be.

    Raises:
        OutputError: naming the entry.
    """
    for name, is_sound in _RECORD.items():
        if record.get(name) is not None and not is_sound(record[name]):
            raise OutputError(f"{path} is damaged: {name} is {str(record[name])[:80]!r}")


def read_roi(value: Any) -> Roi:
    """Read the region of interest of a run.

    Raises:
        ValueError: if it is not four numbers in the range of real captures.
    """
    numbers = isinstance(value, list) and len(value) == 4 and all(map(is_number, value))
    if not numbers or max(map(abs, value)) > FARTHEST or value[3] < _SMALLEST_RADIUS:
        raise ValueError(f"roi is {str(value)[:80]!r}")
    x, y, z, radius = map(float, value)
    return Roi((x, y, z), radius)


def _is_list_of(kind: type, value: object) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)


_RECORD: dict[str, Callable[[Any], bool]] = {
    "name": is_path,
    "posed_images": is_path,
    "photos": is_count,
    "masks": lambda value: isinstance(value, bool),
    "made_masks": lambda value: isinstance(value, dict),
    "mask_folder": is_path,
    "mask_option": lambda value: isinstance(value, str),
    "minutes": is_number,
    "minutes_spent": is_number,
    "names": lambda value: _is_list_of(str, value),
    "held_out": lambda value: _is_list_of(bool, value),
}
"""What each entry of run.json has to be, where it is there."""
