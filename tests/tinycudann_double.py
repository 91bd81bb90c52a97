"""A double of the module `tinycudann` on the CPU, with the interface and parameter layout of the real one.

Recorded from tiny-cuda-nn's sources (version 2): bindings/torch/tinycudann/modules.py and bindings.cpp for the
interface and what it refuses, network_with_input_encoding.h, composite.h, grid.h, identity.h, spherical_harmonics.h and
fully_fused_mlp.h for layout, padding and precision. Written without a look at quicksurf's own conversion; values of one
grid level and of spherical harmonics are the twin's.
"""

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import torch

from quicksurf.kernels.layout import GridLevelLayout
from quicksurf.kernels.reference.networks import activate, grid_level, spherical_harmonics

BATCH = 256
MAX_DENSE = 2**31


def multiple(n, divisor):
    return -(-n // divisor) * divisor


def rounded(x):
    """Through half precision, as all that tiny-cuda-nn keeps is; the gradient passes."""
    return x + (x.half().float() - x).detach()


class Identity:
    alignment = 1

    def __init__(self, n, config):
        self.n_input = self.width = n
        self.n_params, self.padding = 0, 0

    def __call__(self, params, x):
        return torch.cat([x, x.new_ones(len(x), self.padding)], 1)


class SphericalHarmonics:
    alignment = 1

    def __init__(self, n, config):
        if n != 3:
            raise RuntimeError("Can only encode 3D directions in spherical harmonics.")
        self.n_input, self.degree = 3, config.get("degree", 4)
        self.width, self.n_params, self.padding = self.degree**2, 0, 0

    def __call__(self, params, x):
        return torch.cat([x.new_ones(len(x), self.padding), spherical_harmonics(self.degree, 2 * x - 1)], 1)


class Grid:
    def __init__(self, n, config):
        self.n_input, self.padding = n, 0
        self.n_features = self.alignment = config.get("n_features_per_level", 2)
        self.levels, offset = [], 0
        growth = np.log2(np.float32(config.get("per_level_scale", 2.0)))
        for level in range(config.get("n_levels", 16)):
            scale = np.exp2(np.float32(level) * growth) * np.float32(config.get("base_resolution", 16)) - 1
            resolution = math.ceil(scale) + 1
            size = multiple(min(resolution**3, MAX_DENSE), 8)
            if config["otype"] == "HashGrid":
                size = min(size, 1 << config.get("log2_hashmap_size", 19))
            hashed = config["otype"] == "HashGrid" and resolution**3 > size
            self.levels.append(GridLevelLayout(float(scale), resolution, size, hashed, offset))
            offset += size
        self.n_params, self.width = offset * self.n_features, self.n_features * len(self.levels)

    def __call__(self, params, x):
        if bool(((x < 0) | (x > 1)).any()) or bool(x.isnan().any()):
            raise RuntimeError("the real one reads entries of the other side here")
        entries = params.view(-1, self.n_features)
        parts = [grid_level(level, entries[level.offset :][: level.size], x) for level in self.levels]
        return torch.cat([*parts, x.new_zeros(len(x), self.padding)], 1)


KINDS = {"Identity": Identity, "SphericalHarmonics": SphericalHarmonics, "HashGrid": Grid, "DenseGrid": Grid}


class Composite:
    def __init__(self, n, config, alignment):
        self.nested, left = [], n
        given = sum(part.get("n_dims_to_encode", 0) for part in config["nested"])
        for part in config["nested"]:
            take = part.get("n_dims_to_encode", n - given)
            self.nested.append(KINDS[part["otype"]](take, part))
            left -= take
        if left < 0:
            raise RuntimeError("CompositeEncoding: nested encodings must not encode more dims than composite")
        done = 0
        for part, following in pairwise(self.nested):
            part.padding = multiple(done + part.width, following.alignment) - done - part.width
            done += part.width + part.padding
        whole = multiple(done + self.nested[-1].width, alignment)
        self.nested[-1].padding = whole - done - self.nested[-1].width
        self.width = whole
        self.n_params = sum(part.n_params for part in self.nested)

    def __call__(self, params, x):
        values, at, begin = [], 0, 0
        for part in self.nested:
            table = params[at : at + part.n_params]
            values.append(part(table, x[:, begin : begin + part.n_input]))
            at, begin = at + part.n_params, begin + part.n_input
        return torch.cat(values, 1)


class FullyFusedMLP:
    def __init__(self, n_input, n_output, config):
        if config["otype"] != "FullyFusedMLP" or n_input % 16:
            raise RuntimeError("FullyFusedMLP: input width must be a multiple of 16")
        if config["n_neurons"] not in (16, 32, 64, 128):
            raise RuntimeError("FullyFusedMLP only supports 16, 32, 64, and 128 neurons")
        widths = [n_input, *[config["n_neurons"]] * config["n_hidden_layers"], multiple(n_output, 16)]
        self.shapes = [(b, a) for a, b in pairwise(widths)]
        self.n_params = sum(math.prod(shape) for shape in self.shapes)
        self.width, self.config = widths[-1], config

    def __call__(self, params, x):
        at = 0
        for index, shape in enumerate(self.shapes):
            last = index == len(self.shapes) - 1
            weights = params[at : at + math.prod(shape)].view(shape)
            at += math.prod(shape)
            x = rounded(
                activate(self.config["output_activation" if last else "activation"], rounded(x @ weights.T))
            )
        return x


class NativeModule:
    """What the binding calls `_C.Module`."""

    def __init__(self, n_input, encoding, network, dtype):
        self.n_input, self.encoding, self.network, self.dtype = n_input, encoding, network, dtype
        self.calls = []

    def n_params(self):
        return self.encoding.n_params + (self.network.n_params if self.network else 0)

    def n_output_dims(self):
        return self.network.width if self.network else self.encoding.width

    def fwd(self, x, params):
        self._check(x, params)
        n_network = self.network.n_params if self.network else 0
        leaves = x.detach().clone().requires_grad_(), params.detach().float().requires_grad_()
        with torch.enable_grad():
            y = self.encoding(leaves[1][n_network:], leaves[0])
            if self.network:
                y = self.network(leaves[1][:n_network], rounded(y))
        training = x.requires_grad or params.requires_grad
        self.calls.append(len(x))
        return SimpleNamespace(y=y, leaves=leaves) if training else None, y.detach().to(self.dtype)

    def bwd(self, context, x, params, output, grad_output):
        if context is None:
            raise RuntimeError("Module::bwd: called with invalid context.")
        self._check(x, params)
        require(grad_output.dtype == self.dtype and grad_output.is_contiguous())
        require(grad_output.shape == output.shape == (len(x), self.n_output_dims()))
        grads = torch.autograd.grad(
            context.y, context.leaves, grad_output.float(), retain_graph=True, allow_unused=True
        )
        grad_x, grad_params = (
            torch.zeros_like(leaf) if grad is None else grad
            for grad, leaf in zip(grads, context.leaves, strict=True)
        )
        return (
            grad_x if x.requires_grad else None,
            grad_params.to(self.dtype) if params.requires_grad else None,
        )

    def _check(self, x, params):
        require(x.dtype == torch.float32 and params.dtype == self.dtype)
        require(x.is_contiguous() and params.is_contiguous())
        require(x.shape[1] == self.n_input and len(params) == self.n_params())
        require(len(x) > 0 and len(x) % BATCH == 0)


def require(condition):
    if not condition:
        raise RuntimeError("CHECK_THROW failed")


class Module(torch.nn.Module):
    def __init__(self, native, seed):
        super().__init__()
        self.native_tcnn_module, self.dtype, self.seed = native, native.dtype, seed
        self.loss_scale = 128.0 if native.dtype == torch.half else 1.0
        self.params = torch.nn.Parameter(torch.zeros(native.n_params()))


class Encoding(Module):
    def __init__(self, n_input_dims, encoding_config, seed=1337, dtype=None):
        encoding = Composite(n_input_dims, encoding_config, 1)
        super().__init__(NativeModule(n_input_dims, encoding, None, dtype or torch.half), seed)
        self.n_output_dims = encoding.width


class NetworkWithInputEncoding(Module):
    def __init__(self, n_input_dims, n_output_dims, encoding_config, network_config, seed=1337):
        encoding = Composite(n_input_dims, encoding_config, 16)
        network = FullyFusedMLP(encoding.width, n_output_dims, network_config)
        super().__init__(NativeModule(n_input_dims, encoding, network, torch.half), seed)
        self.n_output_dims = n_output_dims
