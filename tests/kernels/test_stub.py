"""The committed stub names what the extension has: its functions, and their parameters."""

import ast
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "tools"))

from write_stub import STUB, stub

pytestmark = pytest.mark.slow


def signatures(text: str) -> list[tuple[str, list[str]]]:
    """Names of functions and of their parameters, in order; overloads one by one."""
    functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
    return [(function.name, [a.arg for a in function.args.args]) for function in functions]


def test_stub_is_of_these_bindings() -> None:
    fresh = signatures(stub())
    assert len(fresh) > 20
    assert signatures(STUB.read_text()) == fresh, "write it again: python tools/write_stub.py"
