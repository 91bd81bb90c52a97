"""The choice between instruction sets, and that each runs every kernel that is compiled once per set.

Networks, search, samples and weights from logits are held against their twins under every set in `test_networks.py`,
`tests/render/test_surface.py` and `tests/render/test_unisurf.py`; here is what those leave out.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bindings_table import BINDINGS, Maker
from tolerances import GRADIENT32, INPUT_GRADIENT32, relative

import quicksurf
from quicksurf.kernels import _native, cpu
from quicksurf.kernels.reference import rays as torch_rays

SETS = _native.instruction_sets()
ADAM = {"learning_rate": 1e-2, "betas": (0.9, 0.99), "epsilon": 1e-8, "step": 3}


@pytest.fixture(params=SETS)
def instruction_set(request):
    before = _native.instruction_set()
    _native.set_instruction_set(request.param)
    yield request.param
    _native.set_instruction_set(before)


def choose(name: str) -> subprocess.CompletedProcess:
    """A fresh interpreter that says which set it took."""
    code = "from quicksurf.kernels import _native; print(_native.instruction_set())"
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"QUICKSURF_ISA": name},
        cwd=Path(quicksurf.__file__).parents[1],  # beside the package that is tested
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_narrowest_set_is_always_there():
    assert SETS[0] == ("v2" if platform.machine() in ("x86_64", "AMD64") else "generic")


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_the_environment_chooses(name):
    assert choose(name).stdout.split() == [name]


@pytest.mark.slow
def test_without_a_name_it_is_the_widest():
    assert choose("").stdout.split() == [SETS[-1]]


@pytest.mark.slow
def test_an_unknown_name_in_the_environment_is_an_error_that_lists_the_known():
    done = choose("v9")
    assert done.returncode != 0
    assert f"ValueError: instruction set 'v9' cannot run here: choose one of {', '.join(SETS)}" in done.stderr


def test_an_unknown_name_is_refused_and_the_choice_stays(instruction_set):
    with pytest.raises(ValueError, match="'avx2' cannot run here"):
        _native.set_instruction_set("avx2")
    assert _native.instruction_set() == instruction_set


@pytest.mark.parametrize("n", [0, 1, 15, 17, 40000])
@pytest.mark.parametrize("skip_zero", [False, True])
def test_adam_equals_its_twin(instruction_set, n, skip_zero):
    generator = torch.Generator().manual_seed(0)
    arrays = [torch.rand(n, generator=generator) for _ in range(4)]
    arrays[1][::3] = 0
    native, twin = ([array.clone() for array in arrays] for _ in range(2))
    cpu.adam_step(*native, **ADAM, skip_zero=skip_zero)
    torch_rays.adam_step(*twin, **ADAM, skip_zero=skip_zero)
    for found, expected in zip(native, twin, strict=True):
        assert relative(found, expected) < GRADIENT32


@pytest.mark.parametrize("name", BINDINGS)
@pytest.mark.parametrize("real", ["f4", "f8"])
def test_every_set_gives_what_the_narrowest_gives(instruction_set, name, real):
    """All outputs of all bindings, to rounding: a set may fuse products and sums."""
    function, valid = BINDINGS[name]
    results = []
    for chosen in (SETS[0], instruction_set):
        _native.set_instruction_set(chosen)
        args = valid(Maker(65, real, 0))
        function(**args)
        results.append([args[key] for key in args if isinstance(args[key], np.ndarray)])
    for narrow, wide in zip(*results, strict=True):
        assert relative(*(torch.as_tensor(array).double() for array in (wide, narrow))) < INPUT_GRADIENT32
