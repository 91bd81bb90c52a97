"""What a command says when it ends otherwise than it should: one line on standard error, the traceback in a file."""

import os
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path

from quicksurf.app.plain import plain

INTERRUPTED = 130
DEBUG = "QUICKSURF_DEBUG"


def say(message: str, code: int) -> int:
    """Print one line on standard error, and return `code`; newlines inside a library's message are folded."""
    if os.environ.get(DEBUG) == "1" and code != INTERRUPTED:
        traceback.print_exc()
    with suppress(OSError):  # a closed standard error does not change the exit code
        print(f"quicksurf: {plain(' '.join(message.split()))}", file=sys.stderr, flush=True)
    return code


def describe_crash(error: Exception, command: object) -> str:
    """Save the traceback beside the run if there is one, else in the temporary folder; say where."""
    folder = getattr(command, "output", None) or getattr(command, "run", None)
    if folder is None or not Path(folder).is_dir():
        folder = tempfile.gettempdir()
    what = f"a bug: {type(error).__name__}: {error}"
    try:  # a name that is free: what lies in a shared folder may be somebody's link
        handle, path = tempfile.mkstemp(prefix="quicksurf-traceback-", suffix=".txt", dir=folder)
        with open(handle, "w", encoding="utf-8") as file:
            file.write("".join(traceback.format_exception(error)))
    except OSError:
        return f"{what} (set {DEBUG}=1 for the traceback)"
    return f"{what} (traceback in {path})"
