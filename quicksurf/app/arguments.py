"""A command line looked at before it is parsed: what is wrong with it in one line, in the terms of its own command.

tyro's boxes answer for all commands at once, and in the terms of Python's types.
"""

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import tyro

from quicksurf.config import unknown

_HELP = ("-h", "--help")


class UsageError(Exception):
    """The command line cannot be understood."""


class Option(NamedTuple):
    """What follows an option on the command line."""

    kind: str
    """`flag`, `number`, `whole`, `choice`, `choices`, `scale`, `text`, or `texts`, one or two."""
    choices: tuple[str, ...] = ()


def check_arguments(name: str, command: type, arguments: Sequence[str]) -> None:
    """Refuse what `command` cannot take.

    Raises:
        UsageError: saying what was found and what is expected.
    """
    if any(argument in _HELP for argument in arguments):
        return
    options, places = _options(command), _places(command)
    given = list(_positionals(name, options, arguments))
    if len(given) < len(places):
        raise UsageError(f"quicksurf {name} needs {places[len(given)]}: see quicksurf {name} --help")
    if len(given) > len(places):
        raise UsageError(f"quicksurf {name} does not expect {given[len(places)]!r}")
    if "" in given:
        raise UsageError(
            f"{places[given.index('')]} is empty: was it a variable of the shell that is not set?"
        )


def _positionals(name: str, options: Mapping[str, Option], arguments: Sequence[str]) -> Iterator[str]:
    """What is left when the options and their values, each checked, are taken away."""
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--"):
            yield argument
            continue
        written, joined, value = argument.partition("=")
        option = "--" + written[2:].replace("_", "-")
        if option not in options:
            raise UsageError(f"{unknown('option', written, sorted(options))} (quicksurf {name} --help)")
        values = [value] if joined else _values(options[option], rest)
        _check_values(option, options[option], values)


def _values(option: Option, rest: list[str]) -> list[str]:
    """Take the values of an option from the front of `rest`."""
    most = {"flag": 0, "choices": len(rest), "texts": 2, "scale": 3}.get(option.kind, 1)
    count = next((k for k, value in enumerate(rest[:most]) if value.startswith("--")), min(most, len(rest)))
    if option.kind == "scale" and rest[:1] == ["markers"]:
        count = min(count, 2)
    values, rest[:] = rest[:count], rest[count:]
    return values


def _check_values(name: str, option: Option, values: list[str]) -> None:
    shown = " ".join(values)
    if option.kind == "flag" and values:
        raise UsageError(f"{name}={shown} has a value: it takes none")
    if option.kind in ("number", "whole", "text", "texts", "choice") and not values:
        raise UsageError(f"{name} lacks its value")
    if option.kind in ("text", "texts") and "" in values:
        raise UsageError(f"{name} is empty: was it a variable of the shell that is not set?")
    if option.kind in ("number", "whole"):
        kind, words = (float, "a number") if option.kind == "number" else (int, "a whole number")
        if not _reads(kind, shown):
            raise UsageError(f"{name} is {shown!r}: {words} is expected")
    if option.choices and any(value not in option.choices for value in values):
        wrong = next(value for value in values if value not in option.choices)
        raise UsageError(f"{name} is {wrong!r}: choose from {', '.join(option.choices)}")
    if option.kind == "scale":
        _check_scale(name, values)


def _check_scale(name: str, values: list[str]) -> None:
    expected = 2 if values[:1] == ["markers"] else 3
    if len(values) != expected or not _reads(float, values[-1]):
        raise UsageError(
            f"{name} is {' '.join(values)!r}: two points and their distance, or markers and their side, are expected"
        )


def _reads(kind: type, text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _options(command: type) -> dict[str, Option]:
    hints = get_type_hints(command, include_extras=True)
    found = {"--help": Option("flag")}
    for field in fields(command):
        if not _is_positional(hints[field.name]):
            prefix = "--no-" if field.default is True else "--"
            found[prefix + field.name.replace("_", "-")] = _option(hints[field.name])
    return found


def _places(command: type) -> list[str]:
    hints = get_type_hints(command, include_extras=True)
    return [f.name.upper() for f in fields(command) if _is_positional(hints[f.name]) and f.default is MISSING]


def _is_positional(hint: Any) -> bool:
    return tyro.conf.Positional[Path] == hint


def _option(hint: Any) -> Option:
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, types.UnionType):
        parts = [part for part in get_args(hint) if part is not type(None)]
        if len(parts) == 1:
            return _option(parts[0])
        return Option("texts" if all(set(get_args(part)) == {str} for part in parts) else "scale")
    if get_origin(hint) is Literal:
        return Option("choice", get_args(hint))
    if get_origin(hint) is tuple:
        return Option("choices", _option(get_args(hint)[0]).choices)
    return Option({bool: "flag", float: "number", int: "whole"}.get(hint, "text"))
