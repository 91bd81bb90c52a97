"""The errors a user can meet, each with the exit code the command line returns for it.

Every message says what was found, what was expected and what to do next. Code that meets a bad input raises one of
these; anything else that escapes is a bug. Codes 1 (bug), 2 (usage) and 130 (second Ctrl-C) are taken by the
command line itself.
"""

DOUBTFUL = 13
"""Exit code of a fit that wrote its mesh, where the poses or the surface may be wrong."""

INSTALL_TINYCUDANN = "pip install git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch"
"""The line of tiny-cuda-nn's README; it needs nvcc, and takes minutes."""


class QuicksurfError(Exception):
    """Base of all errors that are the input's or the machine's fault, not the program's."""

    exit_code = 1


class ImageError(QuicksurfError):
    """No usable images: an empty folder, too few photos, unreadable or oversized files."""

    exit_code = 3


class CaptureError(QuicksurfError):
    """A camera file (transforms.json, COLMAP model, npz, masks) is broken, incomplete or inconsistent."""

    exit_code = 4


class PosesError(QuicksurfError):
    """Structure from motion found no or too few cameras."""

    exit_code = 5


class RoiError(QuicksurfError):
    """The region of interest cannot be used: no camera sees it, or it is malformed."""

    exit_code = 6


class BudgetError(QuicksurfError):
    """`--minutes` leaves no room for the work that must be done."""

    exit_code = 7


class OutputError(QuicksurfError):
    """The run folder is taken, not a run, damaged, or the disk is full."""

    exit_code = 8


class SurfaceError(QuicksurfError):
    """The fit left no surface: the field is empty or stayed the sphere it began as."""

    exit_code = 9


class ConfigError(QuicksurfError, ValueError, TypeError):
    """A preset, an option or an argument is unknown, out of range or of another type."""

    exit_code = 10


class BackendError(QuicksurfError):
    """A back end was asked for that this machine cannot run."""

    exit_code = 11


class ViewError(QuicksurfError):
    """The live view cannot be opened: viser is not installed, or its address cannot be used."""

    exit_code = 12
