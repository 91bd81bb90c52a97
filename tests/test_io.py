"""A file is the old one or the new one, whatever happens while it is written; nothing else is left behind."""

import errno
import json
import math
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import quicksurf
from quicksurf import files as io
from quicksurf.errors import OutputError

ROOT = Path(quicksurf.__file__).parents[1]  # where child processes find the package that is tested
KILLED = """
import os, signal, sys
from pathlib import Path
from quicksurf.files import write_atomic

def half_then_die(file):
    file.write(b"half of the new")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

write_atomic(Path(sys.argv[1]), half_then_die)
"""


@pytest.fixture
def old(tmp_path) -> Path:
    path = tmp_path / "summary.json"
    path.write_text("old")
    return path


def fail_with(number: int):
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_file_is_written_with_its_folders_and_nothing_beside_it(tmp_path):
    path = tmp_path / "run/poses/log.txt"
    io.write_text(path, "grüß")
    assert path.read_bytes() == "grüß".encode()
    assert os.listdir(path.parent) == ["log.txt"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_decides_who_may_read(tmp_path, umask):
    before = os.umask(umask)
    try:
        io.write_text(tmp_path / "a.txt", "new")
        io.write_text(tmp_path / "a.txt", "newer")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~umask


def test_a_disk_without_modes_is_written(tmp_path, monkeypatch):
    for name in ("chmod", "fchmod", "lchmod"):
        monkeypatch.setattr(os, name, fail_with(errno.EPERM), raising=False)
    io.write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"


def test_the_temporary_file_has_the_suffix_that_writers_go_by(tmp_path):
    with io.atomic_path(tmp_path / "mesh.glb") as temporary:
        assert temporary.suffix == ".glb" and temporary.parent == tmp_path
        assert temporary.name.startswith(".")
        temporary.write_bytes(b"new")
        assert not (tmp_path / "mesh.glb").exists()
    assert (tmp_path / "mesh.glb").read_bytes() == b"new"


def test_a_killed_writer_leaves_the_old_file(old):
    ended = subprocess.run([sys.executable, "-c", KILLED, str(old)], cwd=ROOT, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert old.read_text() == "old"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_is_full_at_the_flush_leaves_the_old_file(old, monkeypatch, number):
    monkeypatch.setattr(io.os, "fsync", fail_with(number))
    with pytest.raises(OutputError, match=rf"disk full while writing {old}: free some space"):
        io.write_text(old, "new")
    assert old.read_text() == "old"
    assert os.listdir(old.parent) == [old.name]


def test_a_disk_that_is_full_while_writing_leaves_the_old_file(old):
    def write(file) -> None:
        file.write(b"half of the new")
        fail_with(errno.ENOSPC)()

    with pytest.raises(OutputError, match="disk full"):
        io.write_atomic(old, write)
    assert old.read_text() == "old"
    assert os.listdir(old.parent) == [old.name]


def test_a_bug_in_the_writer_is_not_hidden_and_leaves_the_old_file(old):
    def write(file) -> None:
        file.write(b"half of the new")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        io.write_atomic(old, write)
    assert old.read_text() == "old"
    assert os.listdir(old.parent) == [old.name]


def test_a_folder_that_cannot_be_made_is_an_output_error(old):
    with pytest.raises(
        OutputError, match=r"cannot write .*summary\.json/mesh\.ply: .*choose another --output"
    ):
        io.write_text(old / "mesh.ply", "new")


def test_json_is_read_back_and_nan_is_refused(old):
    io.write_json(old, {"psnr": 31.5, "names": ["a"]})
    assert json.loads(old.read_text()) == {"psnr": 31.5, "names": ["a"]}
    with pytest.raises(ValueError, match="JSON"):
        io.write_json(old, {"psnr": math.nan})
    assert json.loads(old.read_text())["psnr"] == 31.5
