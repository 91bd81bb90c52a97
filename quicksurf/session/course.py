"""The course of a fit, as metrics.jsonl holds it: one line per report, over all the sittings of a run."""

import json
import math
from typing import Any, TypeGuard

from quicksurf.session.runs import Run

MAX_BYTES = 64 << 20  # a line is 300 bytes, an hour of fitting a megabyte


def read_course(run: Run) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that can be read, their `seconds` counted from the first sitting on.

    A command that goes on with a run counts its own seconds, from 0: where they fall, a sitting has ended, and what it
    had counted is added to all that follow. A torn line, which a kill leaves, and one without seconds are left out;
    a file that is absent or larger than MAX_BYTES gives none.
    """
    path = run.path / "metrics.jsonl"
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        return []
    lines, before, last = [], 0.0, 0.0
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        line = _parsed(text)
        seconds = line.get("seconds")
        if not is_number(seconds):
            continue
        before += last if seconds < last else 0.0
        last = seconds
        lines.append({**line, "seconds": before + seconds})
    return lines


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value read from JSON is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
