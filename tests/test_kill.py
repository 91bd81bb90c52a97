"""A fraction of tools/kill.py: commands killed at random moments lose nothing, and the next one sweeps up."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "kill.py"


def run_tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOL), *arguments], capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_kills_and_a_full_disk_lose_nothing() -> None:
    ended = run_tool("--kills", "4", "--full", "1", "--kinds", "fit", "extend", "mesh", "--seed", "3")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.endswith("4 kills, 1 full disks: 0 faults\n")
