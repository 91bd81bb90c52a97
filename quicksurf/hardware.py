"""The back end that a command was asked for, tried once: what is wrong with it is said before anything is read."""

from quicksurf import backends
from quicksurf.backends import Backend
from quicksurf.errors import BackendError


def load_backend(name: str) -> Backend:
    """`backends.load(name)`, and for native kernels the choice of their instruction set, which is made at first use.

    Raises:
        BackendError: if this machine cannot run it, or QUICKSURF_ISA names instructions that it lacks.
    """
    backend = backends.load(name)
    if backend.name == "cpu":
        from quicksurf import _native

        try:
            _native.instruction_set()
        except ValueError as error:
            raise BackendError(f"QUICKSURF_ISA: {error}, or unset it") from error
    return backend
