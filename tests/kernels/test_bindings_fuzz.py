"""No call of the native module crashes, hangs or raises anything but TypeError, or ValueError that names an argument.

`bindings_table` holds valid arguments for every function; the fuzz spoils one or two of them at a time: dtype, rank,
size, strides, alignment, values, memory shared with another argument, scalars out of range.
Many more examples by hand: `QUICKSURF_FUZZ_EXAMPLES=20000 pytest tests/kernels/test_bindings_fuzz.py`.
"""

import os
import re
from datetime import timedelta

import numpy as np
import pytest
import torch
from bindings_table import BINDINGS, LAYOUT, NETWORK, PARTS, Maker, network_backward, network_forward
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quicksurf.kernels import _native

N_EXAMPLES = int(os.environ.get("QUICKSURF_FUZZ_EXAMPLES", "0"))
BOUNDED = settings(
    max_examples=N_EXAMPLES or 40,
    derandomize=not N_EXAMPLES,
    database=None,
    deadline=timedelta(seconds=5),  # a hang, not a slow machine
    suppress_health_check=list(HealthCheck),
)

DTYPES = ["f2", "f4", "f8", "i4", "i8", "u4", "u8", "u1", "?", "c8", ">f4", ">i8", "O", "S4", "M8[s]"]
SPECIAL = [np.nan, np.inf, 1e-45, 1e-12, 1e-7, 0.999999, 1.0, 1e7, 3e38, 1e300]
REALS = [0.0, *SPECIAL, *(-value for value in SPECIAL)]
POWERS = [2**31, 2**32, 2**63, 2**64]
INTEGERS = [0, 1, 2, 7, 63, 4097, *POWERS, *(p - 1 for p in POWERS), *(-p for p in POWERS), -1, 10**30]
WORDS = ["", "relu", "v9", "\ud800", "x" * 9999]
OTHERS = [*WORDS, None, b"ReLU", [], (), {}, object(), True, 1j, np.float32(2), np.int64(3)]
ODD = [
    torch.zeros(3, device="meta"),
    torch.zeros(4, requires_grad=True),
    torch.zeros(4).to_sparse(),
    torch.zeros(()),
]


def spoil_dtype(array, pick):
    return array.astype(pick(DTYPES))


def spoil_shape(array, pick):
    change = pick(["longer", "shorter", "flat", "deeper", "turned", "empty", "scalar", "endless"])
    if change == "longer":
        return np.concatenate([array, array, array[:1]])
    if change == "endless":  # no memory behind it: refused before any is taken
        return np.broadcast_to(array.dtype.type(1), (2**40, *array.shape[1:]))
    if change == "scalar":
        return np.zeros((), array.dtype)
    shapes = {"shorter": array[:-1], "flat": array.ravel(), "deeper": array[None], "turned": array.T.copy()}
    return shapes[change] if change in shapes else np.zeros((0, 2**40), array.dtype)


def spoil_layout(array, pick):
    change = pick(["reversed", "every second", "column-major", "read-only", "unaligned"])
    if change == "reversed":
        return array[::-1]
    if change == "every second":
        return np.repeat(array, 2, 0)[::2]
    if change == "column-major":
        return np.asfortranarray(array)
    if change == "unaligned":
        memory = np.zeros(array.nbytes + 1, np.uint8)
        memory[1:] = array.ravel().view(np.uint8)
        return memory[1:].view(array.dtype).reshape(array.shape)
    array.flags.writeable = False
    return array


def spoil_values(array, pick):
    """In place; from a value of the type's own to whatever bits."""
    array = array.copy()
    if not array.size:
        return array
    at = pick(range(array.size))
    if pick(["bits", "value"]) == "bits":
        array.view(np.uint8).ravel()[at] ^= pick([1, 128, 255])
    else:
        pool = REALS if array.dtype.kind == "f" else [v for v in INTEGERS if -(2**63) <= v < 2**63]
        with np.errstate(all="ignore"):
            array.ravel()[at] = np.array(pick(pool)).astype(array.dtype)
    return array


def without_memory(array):
    tensor = torch.as_tensor(array).clone()
    tensor.untyped_storage().resize_(0)
    return tensor


def spoil_kind(array, pick):
    makers = [
        torch.as_tensor,
        without_memory,
        memoryview,
        list,
        np.ndarray.tobytes,
        lambda array: pick(ODD + OTHERS),
    ]
    return pick(makers)(array)


def alias(args, name, pick):
    """The memory of another argument behind this one, in its own type and shape where that fits."""
    arrays = [value for value in args.values() if isinstance(value, np.ndarray) and value.flags.c_contiguous]
    other, array = pick([*arrays, args[name]]), args[name]
    memory = (
        np.frombuffer(other, np.uint8) if other.size and not other.dtype.hasobject else np.zeros(0, np.uint8)
    )
    shift = pick([0, 0, 0, array.itemsize])
    fits = memory.nbytes - shift >= array.nbytes
    return memory[shift : shift + array.nbytes].view(array.dtype).reshape(array.shape) if fits else other


def spoil_parts(pick):
    """An encoding's description with one or two numbers replaced."""
    parts = [[*part[:5], [list(level) for level in part[5]]] for part in PARTS]
    for _ in range(pick([1, 2])):
        grid = pick([True, False])
        target = pick(parts[1][5]) if grid else pick(parts)
        at = pick(range(4)) if grid else pick(range(1, 5))
        near = [target[at] + 1, target[at] - 1, 2 * target[at], target[at] / 2]
        target[at] = pick([*near, *near, *INTEGERS, *REALS, 1000.0, 2**20, 2**28])
    parts[1][5] *= pick([1, 1, 16, 17])
    parts *= pick([1, 1, 1, 0, 3, 500])
    return [(*part[:5], [tuple(level) for level in part[5]]) for part in parts]


def spoil(args, name, pick):
    value = args[name]
    if not isinstance(value, np.ndarray):
        return spoil_parts(pick) if name == "parts" else pick(pick([REALS, INTEGERS, OTHERS]))
    change = pick([spoil_dtype, spoil_shape, spoil_layout, spoil_values, spoil_values, spoil_kind, alias])
    return alias(args, name, pick) if change is alias else change(value, pick)


@st.composite
def calls(draw, name):
    """A function and arguments of which one or two are spoilt."""

    def pick(choices):
        return draw(st.sampled_from(choices)) if len(choices) else None

    function, valid = BINDINGS[name]
    args = valid(Maker(pick([0, 1, 2, 7, 300]), pick(["f4", "f8"]), pick(range(5))))
    for key in (
        draw(st.lists(st.sampled_from(sorted(args)), min_size=1, max_size=2, unique=True)) if args else []
    ):
        args[key] = spoil(args, key, pick)
    return function, args


def attempt(function, args):
    """What the call returns; None where it is refused as it should be."""
    try:
        return function(**args)
    except TypeError:
        return None
    except ValueError as error:
        texts = [str(value) for value in args.values() if isinstance(value, str)]
        assert any(re.search(rf"\b{re.escape(word)}\b", str(error)) for word in [*args, *texts]), (
            f"names no argument: {error}"
        )
        return None


@pytest.fixture(autouse=True)
def settings_of_the_module():
    before = _native.num_threads(), _native.instruction_set()
    yield
    _native.set_num_threads(before[0])
    _native.set_instruction_set(before[1])


def test_every_function_of_the_module_is_covered():
    here = set()
    for name, value in vars(_native).items():
        if name.startswith("_"):
            continue
        methods = vars(value) if isinstance(value, type) else {}
        here |= {
            f"{name}.{method}" for method in methods if callable(getattr(value, method)) and method[0] != "_"
        }
        here |= set() if isinstance(value, type) else {name}
    assert {name.split(",")[0] for name in BINDINGS} == here


@pytest.mark.parametrize("name", BINDINGS)
@pytest.mark.parametrize("n", [0, 1, 65])
def test_valid_arguments_are_accepted(name, n):
    function, valid = BINDINGS[name]
    function(**valid(Maker(n, "f4", 0)))


@pytest.mark.slow
@pytest.mark.parametrize("name", BINDINGS)
def test_spoilt_arguments_are_refused_or_harmless(name):
    @BOUNDED
    @given(calls(name))
    def check(call):
        attempt(*call)

    check()


@BOUNDED
@given(st.data())
def test_layouts_that_are_accepted_run(data):
    def pick(choices):
        return data.draw(st.sampled_from(choices))

    network = attempt(_native.Network.make, LAYOUT | {"parts": spoil_parts(pick)})
    if network is None or network.n_params > 1 << 22:
        return
    make = Maker(3, pick(["f4", "f8"]), 0)
    args = network_backward(make, network)
    args["x"][:] = pick([0.0, 1.0, 0.5, -1.0, 2.0, np.nan, np.inf])
    network.backward(**args)
    network.forward(**network_forward(make, network) | {"x": args["x"]})


def test_a_network_without_a_description_is_refused():
    empty = _native.Network.__new__(_native.Network)
    with pytest.warns(RuntimeWarning), pytest.raises(TypeError):
        empty.forward(**network_forward(Maker(1, "f4", 0), NETWORK))
