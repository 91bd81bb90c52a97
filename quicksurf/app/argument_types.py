"""Arguments of the Python API, checked against their annotations: a wrong type is a sentence, not a traceback.

numpy's scalars pass for Python's, a `torch.device` for its name, and what is no file name for no path at all.
"""

import functools
import inspect
import types
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch

from quicksurf.app.plain import plain
from quicksurf.errors import ConfigError, OutputError
from quicksurf.untrusted import is_path

P = ParamSpec("P")
R = TypeVar("R")
_MOST = 10**300  # of a whole number: beyond, it is none of Python's real ones
_PATHS = ("source", "output", "run")
_WORDS: dict[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    torch.device: "a torch.device",
    type(None): "None",
}


def checks_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Let `function` be called with what its annotations say alone.

    Raises:
        ConfigError: (by the function made) naming the argument, what it is and what is expected.
        OutputError: (likewise) if the system refuses a path.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        hints = get_type_hints(function)
        for name, value in bound.arguments.items():
            bound.arguments[name] = _checked(name, value, hints[name])
        try:
            return function(*bound.args, **bound.kwargs)
        except OSError as error:
            if error.filename is None:
                raise
            raise OutputError(
                f"cannot use {error.filename}: {error.strerror}; choose another path"
            ) from error

    return checked


def _checked(name: str, value: Any, hint: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray, torch.Tensor)):
        value = value.tolist()
    if not _is(value, hint):
        raise ConfigError(f"{name} is {plain(repr(value), 80)}: {_expected(hint)} is expected")
    if isinstance(value, torch.device):
        return value.type
    if name in _PATHS and value is not None and not is_path(str(value)):
        raise ConfigError(f"{name} is {plain(repr(value), 80)}: no file system takes that for a path")
    return value


def _is(value: Any, hint: Any) -> bool:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_is(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if origin is tuple:
        return isinstance(value, (tuple, list)) and len(value) == len(parts) and all(map(_is, value, parts))
    if origin is Sequence:
        return isinstance(value, (tuple, list)) and all(_is(item, parts[0]) for item in value)
    if hint in (float, int):
        real = (int, float) if hint is float else int
        endless = isinstance(value, int) and abs(value) > _MOST
        return isinstance(value, real) and not isinstance(value, bool) and not endless
    return isinstance(value, PathLike if origin is PathLike else hint)


def _expected(hint: Any) -> str:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_expected(part) for part in parts)
    if origin in (Sequence, tuple):
        return f"a sequence of {' and '.join(dict.fromkeys(map(_expected, parts)))}"
    return "a path" if origin is PathLike else _WORDS.get(hint, repr(hint).removeprefix("typing."))
