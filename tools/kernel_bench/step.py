"""Row of the whole training step in the middle of a fit, default configuration, solid background.

    floor = flops / sgemm + table accesses / gathers + (Adam's and the scans' bytes) / copy

with the useful work of the parts, counted in a block of steps before those that are timed: the geometry net at the
search's evaluations, at the samples, at the regulariser's and the occupancy grid's probes, the colour net at the shaded
samples, both backward where a gradient is not 0; Adam at the entries that moved. Ray generation, march, losses and
torch's glue have no limit of their own, so the floor is low. With random gathers the floor is too
high on the other side: points along rays share entries of coarse levels. The second floor has gathers of the entries
that the encoding of points along rays reads.
"""

import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

from kernel_bench import counts, limits
from kernel_bench.check import Mismatch
from kernel_bench.limits import Limit
from kernel_bench.networks import ray_points
from kernel_bench.results import Row
from kernel_bench.scene import painted_ellipsoid
from kernel_bench.timing import Action, interleaved, pool_threads, spread
from quicksurf import kernels
from quicksurf.app.run.checkpoint import load_checkpoint, save_checkpoint
from quicksurf.capture.scene import Scene
from quicksurf.config import Config, with_settings
from quicksurf.kernels.modules import EncodedNetwork
from quicksurf.train.loop import Trainer

NAME = "training step"
PROGRESS = 0.5  # all levels active, no query noise any more, the interval at a twentieth of its start
UNISURF_RAYS = 17.0  # a second, of the official UNISURF's step on two such cores
_FRACTION_OF_FLOOR = 0.5
_N_WARM_UP = 112  # steps; the occupancy grid probes every cell in the first 96
_BLOCK = 32  # steps from one update of the occupancy grid to the next
_TWIN_SAMPLES = 1 << 13  # 256 rays: the twin's march is a loop in Python
_LOSS_TOLERANCE = (
    1e-3  # the few rays that graze the surface may hit it in one back end and miss it in the other
)


@cache
def warmed_up() -> tuple[Scene, TemporaryDirectory]:
    """The scene, and the folder of a fit that has come to the middle of its time; made once."""
    scene, folder = painted_ellipsoid(), TemporaryDirectory()
    trainer = Trainer(scene, Config(), kernels.load("cpu"), None)
    for step in range(_N_WARM_UP):
        trainer.step(PROGRESS * step / _N_WARM_UP)
    trainer.step(PROGRESS)
    save_checkpoint(trainer.snapshot(), Path(folder.name))
    return scene, folder


def resumed(scene: Scene, folder: Path, backend: str, n_samples: int) -> Trainer:
    """A trainer of its own at the saved state."""
    config = with_settings(Config(), {"train.n_samples": n_samples})
    engine = kernels.load(backend)
    return Trainer(scene, config, engine, load_checkpoint(folder, engine))


class Block(NamedTuple):
    """Means over the steps of a block."""

    rays: float
    samples: float
    evaluations: float


def run_block(trainer: Trainer, n_steps: int = _BLOCK) -> Block:
    """Some steps, one of which updates the occupancy grid."""
    renderings = [trainer.step(PROGRESS)[0] for _ in range(n_steps)]
    sums = [(len(r.colors), r.n_samples, r.n_evaluations - len(r.probed)) for r in renderings]
    return Block(*(sum(column) / n_steps for column in zip(*sums, strict=True)))


def measure(n_threads: int, repeats: int) -> Row:
    """Check the first step against the twin's, then time the step beside its limits and the twin."""
    row, (scene, saved) = Row(NAME), warmed_up()
    folder = Path(saved.name)
    twin_seconds = _twin_seconds_per_sample(scene, folder)
    trainer = resumed(scene, folder, "cpu", Config().train.n_samples)
    run_block(trainer)  # until the number of rays has settled
    work, block = count_work(trainer)
    own_limits = _limits(trainer)
    seconds = _time(trainer, own_limits, n_threads, repeats)
    _rates(row, block, seconds["own"])
    _add_floor(row, "floor", _FRACTION_OF_FLOOR, _floors(work, own_limits, seconds, "random"), seconds["own"])
    along_rays = _floors(work, own_limits, seconds, "along rays")
    _add_floor(row, "floor along rays", None, along_rays, seconds["own"])
    twin = [twin_seconds * block.samples / own for own in seconds["own"]]
    row.add_ratio("times the twin, per sample", spread(twin), 15.0)
    if n_threads > 1:
        gains = [one / own for one, own in zip(seconds["one"], seconds["own"], strict=True)]
        row.add_ratio(f"{n_threads} threads against 1", spread(gains))  # a part of it is torch, on one thread
    return row


def _add_floor(row: Row, name: str, target: float | None, floors: list[float], own: list[float]) -> None:
    row.add(name, spread([1e3 * floor for floor in floors]), "ms")
    row.add_ratio(
        f"fraction of its {name}", spread([f / o for f, o in zip(floors, own, strict=True)]), target
    )


def _rates(row: Row, block: Block, seconds: list[float]) -> None:
    row.add("a step", spread([1e3 * s for s in seconds]), "ms")
    row.add("samples", spread([block.samples / s / 1e3 for s in seconds]), "k/s", 600.0)
    row.add("evaluations", spread([block.evaluations / s / 1e3 for s in seconds]), "k/s")
    row.add("rays", spread([block.rays / s / 1e3 for s in seconds]), "k/s")
    row.add("times UNISURF's 17 rays/s", spread([block.rays / s / UNISURF_RAYS for s in seconds]), "", 2000.0)


def _time(
    trainer: Trainer, own_limits: dict[str, Limit], n_threads: int, repeats: int
) -> dict[str, list[float]]:
    """Seconds of a step, and of a call of each limit."""
    actions = {name: Action(limit.on(n_threads)) for name, limit in own_limits.items()}
    actions["own"] = Action(lambda: run_block(trainer), pool_threads(n_threads))
    if n_threads > 1:
        actions["one"] = Action(lambda: run_block(trainer), pool_threads(1))
    seconds = interleaved(actions, repeats)
    return {name: [s / _BLOCK if name in ("own", "one") else s for s in row] for name, row in seconds.items()}


def _limits(trainer: Trainer) -> dict[str, Limit]:
    layout = trainer.result.field.geometry.network.layout
    n_values = layout.n_params - layout.n_network_params
    return {
        "flops": limits.sgemm(),
        "random": limits.gather(n_values // 2),
        "along rays": limits.gather_entries(layout, ray_points(1024)),
        "bytes": limits.copy(counts.ADAM * n_values),
    }


def _floors(
    work: counts.StepWork, own_limits: dict[str, Limit], seconds: dict[str, list[float]], gathers: str
) -> list[float]:
    """The step's floor in each repetition, with one of the two kinds of gathers."""
    per_call = [own_limits[name].call_work for name in ("flops", gathers, "bytes")]
    times = zip(seconds["flops"], seconds[gathers], seconds["bytes"], strict=True)
    return [
        counts.floor_seconds(work, counts.Rates(*(w / s for w, s in zip(per_call, row, strict=True))))
        for row in times
    ]


class _Points:
    """Counts the points that a network is evaluated at, and those that a gradient other than 0 comes back to."""

    def __init__(self, network: EncodedNetwork) -> None:
        self.layout, self.n_active_levels = network.layout, network.n_active_levels
        self.forward = self.backward = 0
        self._handle = network.register_forward_hook(self._count)

    def _count(self, network: EncodedNetwork, inputs: tuple, output: torch.Tensor) -> None:
        self.forward += len(output)
        if output.requires_grad:
            output.register_hook(self._count_gradients)

    def _count_gradients(self, grad: torch.Tensor) -> None:
        self.backward += int((grad != 0).any(1).sum())

    def work(self, n_steps: int) -> tuple[float, float]:
        """Mean flops and table accesses of a step."""
        only_forward, both = (self.forward - self.backward) / n_steps, self.backward / n_steps
        return counts.network_work(self.layout, only_forward, both, self.n_active_levels)

    def remove(self) -> None:
        """Stop counting."""
        self._handle.remove()


def count_work(trainer: Trainer) -> tuple[counts.StepWork, Block]:
    """Mean useful work of the steps of one block.

    Raises:
        Mismatch: if the networks are not called through their modules, so that points are missed here.
    """
    field = trainer.result.field
    before = field.geometry.network.params.detach().clone()
    trainer.step(PROGRESS)
    n_moved = int((field.geometry.network.params.detach() != before).sum())
    geometry, color = _Points(field.geometry.network), _Points(field.color.network)
    block = run_block(trainer)
    for points in (geometry, color):
        points.remove()
    n_shaded = color.forward / _BLOCK
    if geometry.forward < block.samples * _BLOCK or color.backward == 0:
        raise Mismatch(
            "the step evaluates its networks past their modules: count its points in kernel_bench/step.py"
        )
    n_search = block.evaluations - block.samples
    parts = [points.work(_BLOCK) for points in (geometry, color)]
    parts.append(counts.network_work(geometry.layout, n_search, 0, geometry.n_active_levels))
    flops, accesses = (sum(column) for column in zip(*parts, strict=True))
    adam = counts.ADAM * n_moved + counts.ADAM_SKIPPED * (geometry.layout.n_params - n_moved)
    return counts.StepWork(
        flops, accesses, adam, counts.step_scan_bytes(block.samples, n_shaded, block.rays)
    ), block


def _twin_seconds_per_sample(scene: Scene, folder: Path) -> float:
    """Of the `torch` back end's second step on few rays; the loss of its first must be that of the `cpu` back end.

    On one thread: its loops over rays are made of operations too small for two threads.
    """
    native, twin = (resumed(scene, folder, name, _TWIN_SAMPLES) for name in ("cpu", "torch"))
    found = twin.step(PROGRESS)[1]
    start = time.perf_counter()
    n_samples = twin.step(PROGRESS)[0].n_samples
    seconds = (time.perf_counter() - start) / n_samples
    expected = native.step(PROGRESS)[1]
    if not abs(found - expected) <= _LOSS_TOLERANCE * abs(expected):
        raise Mismatch(f"training step: loss {found:.6g} in the torch twin, {expected:.6g} in native code")
    return seconds
