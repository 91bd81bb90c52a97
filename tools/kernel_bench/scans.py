"""Rows of what streams through memory: scans along rays and Adam, held against a copy that moves the same bytes."""

import nerfacc
import torch
from jaxtyping import Int
from tolerances import GRADIENT32, SCAN32
from torch import Tensor

from kernel_bench import counts, limits
from kernel_bench.check import same
from kernel_bench.kernel import Kernel
from quicksurf import kernels as seam
from quicksurf.geometry.rays import pack_counts
from quicksurf.kernels import Backend
from quicksurf.kernels.reference import rays as torch_rays
from quicksurf.train.optimizer import BETAS, EPSILON

_N_RAYS, _PER_RAY = 1 << 15, 24
_SCAN = _N_RAYS * _PER_RAY
_ADAM_VALUES = 1 << 22  # a table of 16 levels of 2^17 entries of 2 features
_SHARPNESS, _OPACITY, _DELTA = 100.0, "transmittance", 0.01


def kernels() -> list[Kernel]:
    """All rows of this file."""
    return [*_weights(), *_logit_weights(), *_accumulate(), _adam()]


def _packed(n_rays: int) -> Int[Tensor, "n 2"]:
    return pack_counts(torch.full((n_rays,), _PER_RAY))


def _weights() -> list[Kernel]:
    packed = _packed(_N_RAYS)
    alphas = (0.3 * torch.rand(_SCAN)).requires_grad_()
    outputs = nerfacc.render_weight_from_alpha(alphas, packed_info=packed)
    grads = torch.rand(_SCAN), torch.rand(_SCAN)

    def run() -> object:
        return nerfacc.render_weight_from_alpha(alphas.detach(), packed_info=packed)

    def back() -> object:
        return torch.autograd.grad(outputs, alphas, grads, retain_graph=True)

    return [
        _scan(
            "nerfacc.render_weight_from_alpha, forward", run, _check_weights, counts.WEIGHTS_FORWARD * _SCAN
        ),
        _scan(
            "nerfacc.render_weight_from_alpha, backward",
            back,
            _check_weights,
            counts.WEIGHTS_BACKWARD * _SCAN,
        ),
    ]


def _logit_weights() -> list[Kernel]:
    unisurf, packed = seam.load("cpu").unisurf, _packed(_N_RAYS)
    logits = (0.05 * torch.randn(_SCAN)).requires_grad_()
    deltas = torch.full_like(logits.detach(), _DELTA)
    outputs = unisurf.render_weight_from_logits(logits, deltas, packed, _SHARPNESS, _OPACITY)
    grads = torch.rand(_SCAN), torch.rand(_N_RAYS)

    def run() -> object:
        return unisurf.render_weight_from_logits(logits.detach(), deltas, packed, _SHARPNESS, _OPACITY)

    def back() -> object:
        return torch.autograd.grad(outputs, logits, grads, retain_graph=True)

    forward, backward = (
        counts.logits_forward_bytes(_SCAN, _N_RAYS),
        counts.logits_backward_bytes(_SCAN, _N_RAYS),
    )
    return [
        _scan("render_weight_from_logits, forward", run, _check_logit_weights, forward),
        _scan("render_weight_from_logits, backward", back, _check_logit_weights, backward),
    ]


def _accumulate() -> list[Kernel]:
    rays, packed = seam.load("cpu").rays, _packed(_N_RAYS)
    weights, values = torch.rand(_SCAN).requires_grad_(), torch.rand(_SCAN, 3).requires_grad_()
    output, grad = rays.accumulate_along_rays(weights, values, packed), torch.rand(_N_RAYS, 3)

    def run() -> object:
        return rays.accumulate_along_rays(weights.detach(), values.detach(), packed)

    def back() -> object:
        return torch.autograd.grad(output, (weights, values), grad, retain_graph=True)

    shape = _SCAN, _N_RAYS, 3
    forward, backward = counts.accumulate_forward_bytes(*shape), counts.accumulate_backward_bytes(*shape)
    return [
        _scan("accumulate_along_rays (scan), forward", run, _check_accumulate, forward),
        _scan("accumulate_along_rays (scan), backward", back, _check_accumulate, backward),
    ]


def _scan(name: str, run, check, n_bytes: float) -> Kernel:
    """A row in GB/s beside a copy of as many bytes."""
    return Kernel(name, run, n_bytes, "GB/s", 1e9, check, limits=((limits.copy(n_bytes), n_bytes),))


def _check_weights() -> None:
    alphas, packed = torch.rand(1000 * _PER_RAY), _packed(1000)
    alphas[::7] = 1.0
    grads = torch.rand_like(alphas), torch.rand_like(alphas)

    def run(backend: Backend, leaf: Tensor) -> tuple[Tensor, ...]:
        if backend.name == "cpu":
            return nerfacc.render_weight_from_alpha(leaf, packed_info=packed)
        return torch_rays.render_weight_from_alpha(leaf, packed)

    _same_scans("render_weight_from_alpha", (alphas,), grads, run)


def _check_logit_weights() -> None:
    logits, packed = 0.05 * torch.randn(1000 * _PER_RAY), _packed(1000)
    deltas = torch.full_like(logits, _DELTA)
    grads = torch.rand_like(logits), torch.rand(1000)

    def run(backend: Backend, leaf: Tensor) -> tuple[Tensor, ...]:
        return backend.unisurf.render_weight_from_logits(leaf, deltas, packed, _SHARPNESS, _OPACITY)

    _same_scans("render_weight_from_logits", (logits,), grads, run)


def _check_accumulate() -> None:
    inputs, packed = (torch.rand(1000 * _PER_RAY), torch.rand(1000 * _PER_RAY, 3)), _packed(1000)

    def run(backend: Backend, weights: Tensor, values: Tensor) -> tuple[Tensor]:
        return (backend.rays.accumulate_along_rays(weights, values, packed),)

    _same_scans("accumulate_along_rays", inputs, (torch.rand(1000, 3),), run)


def _same_scans(what: str, inputs: tuple[Tensor, ...], grads: tuple[Tensor, ...], run) -> None:
    """Compare values and gradients of a scan on both back ends."""
    results = []
    for name in ("cpu", "torch"):
        leaves = [part.clone().requires_grad_() for part in inputs]
        outputs = run(seam.load(name), *leaves)
        results.append([*outputs, *torch.autograd.grad(outputs, leaves, grads)])
    for found, expected in zip(*results, strict=True):
        same(what, found, expected, SCAN32)


def _adam() -> Kernel:
    rays, n_bytes = seam.load("cpu").rays, float(counts.ADAM * _ADAM_VALUES)
    state = _adam_state(_ADAM_VALUES)

    def run() -> None:
        _adam_step(rays, state)

    return _scan("Adam over a table of 2^22 values", run, _check_adam, n_bytes)


def _adam_state(n: int) -> list[Tensor]:
    """Value, gradient and moments."""
    generator = torch.Generator().manual_seed(0)
    values, grad, first, second = torch.randn(4, n, generator=generator)
    return [values, grad, 0.1 * first, 0.1 + second.square()]


def _adam_step(rays, state: list[Tensor]) -> None:
    rays.adam_step(*state, learning_rate=1e-2, betas=BETAS, epsilon=EPSILON, step=100, skip_zero=True)


def _check_adam() -> None:
    native, twin = _adam_state(10_000), _adam_state(10_000)
    for name, state in (("cpu", native), ("torch", twin)):
        state[1][::3] = 0
        _adam_step(seam.load(name).rays, state)
    for found, expected in zip(native, twin, strict=True):
        same("Adam", found, expected, GRADIENT32)
