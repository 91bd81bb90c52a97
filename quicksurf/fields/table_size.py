"""How large the hash tables of a fit are: as large as its minutes can fill.

Larger tables keep more places apart, but each place is then seen less often, and once a level no longer fits the
second-level cache a step is slower. So the size follows the samples that the time holds, at the speed of this machine.
"""

import time
from dataclasses import replace

import torch

from quicksurf.config import Config
from quicksurf.fields.surface import SurfaceField
from quicksurf.kernels import Backend

LARGER = 18  # log2 of the entries of a level
MANY_SAMPLES = 1.0e8  # an object on a table at 3·10⁷: nothing gained; at 10⁸: 8 % nearer for 17 % more time
_GEOMETRY_FRACTION = 0.2  # of the time of a step: the geometry network, forward and backward, at its samples
_RUNS = 3  # the fastest counts: others may be at work


def with_tables_for(seconds: float, config: Config, backend: Backend) -> Config:
    """Return `config`, with larger tables if a fit of so many seconds learns from more than `MANY_SAMPLES` samples."""
    if seconds * samples_per_second(config, backend) < MANY_SAMPLES:
        return config
    return replace(config, model=replace(config.model, log2_hashmap_size=LARGER))


def samples_per_second(config: Config, backend: Backend) -> float:
    """Return an estimate of the samples that a fit learns from in a second, from a trial of the geometry network."""
    field = SurfaceField(config.model, backend, config.train.seed)
    generator = torch.Generator(backend.device).manual_seed(0)
    shape = config.train.n_samples * backend.batch_multiplier, 3
    points = torch.rand(shape, generator=generator, device=backend.device) - 0.5
    seconds = min(_trial(field, points) for _ in range(_RUNS))
    return _GEOMETRY_FRACTION * len(points) / seconds


def _trial(field: SurfaceField, points: torch.Tensor) -> float:
    began = time.perf_counter()
    logits, features = field.geometry.query(points)
    (logits.sum() + features.sum()).backward()
    assert field.geometry.network.params.grad is not None
    float(field.geometry.network.params.grad[0])  # waits for the device
    return time.perf_counter() - began
