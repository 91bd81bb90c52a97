"""The metrics log of a fit, metrics.jsonl: one line per report, over all the sittings of a run."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quicksurf.app.run.files import own_file
from quicksurf.files import write_text
from quicksurf.untrusted import is_number, parse_json, read_bytes

NAME = "metrics.jsonl"
MAX_SECONDS = 1e9  # of one sitting
MAX_BYTES = 64 << 20  # a line is 300 bytes, an hour of fitting a megabyte


def append_metrics(folder: Path, figures: Mapping[str, Any]) -> None:
    """Add one line to the log of a run; NaN and infinity become null, which is what JSON has for them."""
    values = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in figures.items()
    }
    with own_file(folder / NAME) as file:
        file.write(json.dumps(values, allow_nan=False).encode() + b"\n")


def repair_metrics_log(folder: Path) -> None:
    """Drop the torn last line that a kill may have left."""
    path = folder / NAME
    if path.is_file() and path.stat().st_size <= MAX_BYTES:
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            write_text(path, content[: content.rfind(b"\n") + 1].decode(errors="replace"))


def read_metrics_log(folder: Path) -> list[dict[str, Any]]:
    """Read the lines that can be read, their `seconds` counted from the first sitting on.

    A command that resumes a run counts its own seconds, from 0: where they fall, a sitting has ended, and what it
    had counted is added to all that follow. A torn line, which a kill leaves, and one without seconds are left out;
    a file that is absent or larger than MAX_BYTES gives none.
    """
    try:
        content = read_bytes(folder / NAME, MAX_BYTES)
    except (OSError, ValueError):
        return []
    lines, before, last = [], 0.0, 0.0
    for text in content.decode("utf-8", "replace").splitlines():
        try:
            line = parse_json(text)
        except ValueError:
            continue
        seconds = line.get("seconds") if isinstance(line, dict) else None
        if not is_number(seconds) or not 0 <= seconds <= MAX_SECONDS:
            continue
        before += last if seconds < last else 0.0
        last = seconds
        lines.append({**line, "seconds": before + seconds})
    return lines
