"""Write quicksurf/kernels/_native.pyi from the extension that is installed: `python tools/write_stub.py`.

Arrays are passed in by the buffer protocol, torch's tensors among them; nanobind's stub names numpy's alone.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import quicksurf

STUB = Path(__file__).resolve().parents[1] / "quicksurf" / "kernels" / "_native.pyi"
_ARRAY = re.compile(r"Annotated\[NDArray\[numpy\.(\w+)\], dict\([^)]*(?:\([^)]*\)[^)]*)?\)\]")


def stub() -> str:
    """Generate the text of the stub."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "_native.pyi"
        command = [
            sys.executable,
            "-m",
            "nanobind.stubgen",
            "-m",
            "quicksurf.kernels._native",
            "-o",
            str(path),
        ]
        home = str(Path(quicksurf.__file__).parents[1])  # not the source folder that hides what is installed
        environment = {**os.environ, "PYTHONPATH": home}
        subprocess.run(command, check=True, capture_output=True, timeout=120, cwd=folder, env=environment)
        lines = path.read_text().splitlines()
    text = "\n".join(_taking_tensors(line) for line in lines)
    text = text.replace("import Annotated, overload", "import overload")
    return text.replace(
        "from numpy.typing import NDArray\n", "from numpy.typing import NDArray\nfrom torch import Tensor\n"
    )


def _taking_tensors(line: str) -> str:
    """Let the parameters of a function be tensors, too; leave what it returns."""
    parameters, arrow, returned = line.partition(") -> ")
    return (
        _ARRAY.sub(r"NDArray[numpy.\1] | Tensor", parameters)
        + arrow
        + _ARRAY.sub(r"NDArray[numpy.\1]", returned)
    )


if __name__ == "__main__":
    STUB.write_text(stub())
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", str(STUB)], check=True, timeout=60)
