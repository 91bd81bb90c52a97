"""What a command took: seconds of its stages, and memory."""

import resource
import sys


def stage_seconds(poses: float, began: float, fitted: float, total: float) -> dict[str, float]:
    """Return seconds of each stage, which add up to the whole: `read` holds start-up and imports, `mesh` the files.

    Args:
        poses: seconds that structure from motion took, between the start and `began`.
        began: when the fit began.
        fitted: when it ended and the mesh was begun.
        total: when everything was done.
    """
    seconds = {
        "read": began - poses,
        "poses": poses,
        "fit": fitted - began,
        "mesh": total - fitted,
        "total": total,
    }
    return {name: round(value, 3) for name, value in seconds.items()}


def peak_memory_mb() -> float:
    """Return the largest resident memory of this process or of one that it started (structure from motion) so far.

    They are not added up: this process waits, small, while the other works. Linux counts kilobytes, macOS bytes
    (getrusage(2)).
    """
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
