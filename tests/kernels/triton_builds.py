"""Compile Triton's kernels for a GPU that need not be here, and print one JSON line a kernel.

Run as `python triton_builds.py CAPABILITY`: the interpreter accepts what the compiler refuses. Not under
TRITON_INTERPRET=1.
"""

import inspect
import json
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from quicksurf.kernels.gpu import encoding as triton_encoding
from quicksurf.kernels.gpu import mlp as triton_mlp
from quicksurf.kernels.gpu import rays as triton_rays
from quicksurf.kernels.gpu import unisurf as triton_unisurf
from quicksurf.kernels.gpu import weights as triton_weights
from quicksurf.kernels.gpu.networks import FORWARD_PRECISION, GRID_TILE, launch_constants
from quicksurf.kernels.layout import network_layout

SIZES = {"n", "pitch", "n_steps", "n_x", "n_y", "n_z", "n_front", "n_interval"}
INTEGERS = SIZES | {"stride_point", "stride_axis", "stride_row"}
SCALARS = {"rate", "root", "beta_first", "beta_second", "epsilon", "step_size", "sharpness"}
POINTERS = dict.fromkeys(("levels", "index", "packed_info"), "*i64") | dict.fromkeys(
    ("sound", "cells", "occupied", "hits"), "*u8"
)


def build(kernel, capability: int, num_warps: int = 4, **constants) -> dict[str, object]:
    """A kernel with 32-bit sizes and 16-byte aligned tensors, as torch hands them over."""
    arguments = list(inspect.signature(kernel.fn).parameters)
    signature = dict.fromkeys(arguments, "*fp32") | POINTERS | dict.fromkeys(constants, "constexpr")
    signature |= dict.fromkeys(INTEGERS, "i32") | dict.fromkeys(SCALARS, "fp32")
    source = ASTSource(kernel, {name: signature[name] for name in arguments}, constants)
    target = GPUTarget("cuda", capability, 32)
    built = triton.compile(source, target=target, options={"num_warps": num_warps})
    ptx = built.asm["ptx"]
    return {
        "kernel": kernel.fn.__name__,
        "bytes": len(built.asm["cubin"]),
        "tensor_cores": "mma" in ptx,
        "atomics": "red.global" in ptx or "atom.global" in ptx,
    }


def builds(capability: int):
    """All kernels, those of networks as the default geometry network uses them."""
    yield build(triton_rays.adam, capability, SKIP_ZERO=True, TILE=triton_rays.ADAM_TILE)
    yield build(triton_unisurf.march, capability, N_BOXES=1, TILE=triton_unisurf.TILE)
    yield build(triton_unisurf.narrow, capability, KNOWN=True, TILE=triton_unisurf.TILE)
    yield build(triton_unisurf.spread, capability, STEPS=512)
    for kernel in (triton_weights.weights_forward, triton_weights.weights_backward):
        yield build(kernel, capability, triton_weights.WARPS, PAPER=False, TILE=triton_weights.TILE)
    grid = {"F": 2, "TILE": GRID_TILE}
    for name in ("encode_grid_forward", "encode_grid_backward", "encode_grid_backward_input"):
        yield build(getattr(triton_encoding, name), capability, **grid)
    layout = network_layout(31, 16, {"otype": "Identity"}, {"n_neurons": 64, "activation": "Softplus"})
    constants = launch_constants(layout)
    forward = {"KEEP": True, "PRECISION": FORWARD_PRECISION[64]}
    yield build(triton_mlp.network_forward, capability, **constants, **forward)
    yield build(triton_mlp.network_backward, capability, **constants, WANT_ENCODED=True)


if __name__ == "__main__":
    for row in builds(int(sys.argv[1])):
        print(json.dumps(row), flush=True)
