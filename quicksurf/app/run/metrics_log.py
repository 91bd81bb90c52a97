"""The metrics log of a fit, metrics.jsonl: one line per report, over all the sittings of a run."""

from typing import Any

from quicksurf.app.run.folder import Run
from quicksurf.untrusted import is_number, parse_json, read_bytes

MAX_SECONDS = 1e9  # of one sitting
MAX_BYTES = 64 << 20  # a line is 300 bytes, an hour of fitting a megabyte


def read_metrics_log(run: Run) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl that can be read, their `seconds` counted from the first sitting on.

    A command that resumes a run counts its own seconds, from 0: where they fall, a sitting has ended, and what it
    had counted is added to all that follow. A torn line, which a kill leaves, and one without seconds are left out;
    a file that is absent or larger than MAX_BYTES gives none.
    """
    try:
        content = read_bytes(run.path / "metrics.jsonl", MAX_BYTES)
    except (OSError, ValueError):
        return []
    lines, before, last = [], 0.0, 0.0
    for text in content.decode("utf-8", "replace").splitlines():
        line = _parsed(text)
        seconds = line.get("seconds")
        if not is_number(seconds) or not 0 <= seconds <= MAX_SECONDS:
            continue
        before += last if seconds < last else 0.0
        last = seconds
        lines.append({**line, "seconds": before + seconds})
    return lines


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = parse_json(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
