"""Limits of this machine, measured beside the kernels that are held against them.

Each is a torch operation on one thread that lets go of Python's lock; for several cores as many Python threads take
chunks of it from one counter. torch's own threads are not used: they spin after every operation and would take the
cores from the kernels that are measured next.

    sgemm     [4096×64]·[64×64] in place: 2 MB a core, in the second cache
    gather    8-byte loads at random from a table, by index_select with 32-bit indices. It is a limit of the caches,
              not of the call: from a table of 4 KB it does 0.9–1.2 · 10⁹ a second on one core, from one of 14 MB
              0.18 · 10⁹ (numpy's take 0.15, torch.gather 0.09). Both are printed.
    entries   the same loads at the entries that the encoding reads for given points, level after level. Points along
              rays share entries of coarse levels, so this is faster than loads at random: a fraction of those above
              1 says that points are coherent. A fraction of these near 1 says that nothing is left to gain; where most
              entries lie in the first caches it can pass 1, for a kernel loads several entries with one instruction.
    copy      bytes read plus bytes written by copy_, of as many bytes as the operation moves, so that both meet
              the same caches
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from quicksurf.kernels.layout import NetworkLayout
from quicksurf.kernels.reference.networks import entry_index

_N_INDICES = 1 << 20  # many times the lines of a cache, so that no chunk finds the lines of the one before
_GATHER_CHUNK = 1 << 15
_GEMM_ROWS, _GEMM_WIDTH = 4096, 64
_COPY_CHUNK = 1 << 20  # bytes


class Limit(NamedTuple):
    """An operation that does nothing but use up one resource."""

    name: str
    unit: str
    scale: float
    """Of the unit: 1e9 for GFLOP/s."""
    chunk_work: float
    n_chunks: int
    """Chunks of a call: some milliseconds."""
    prepare: Callable[[int, int], Callable[[], object]]
    """(thread, number of threads) → one chunk of work in that thread's own part of the memory."""

    def on(self, n_threads: int) -> Callable[[], object]:
        """A call that does `call_work` on `n_threads`."""
        chunks = [self.prepare(thread, n_threads) for thread in range(n_threads)]
        if n_threads == 1:
            return lambda: _drain(chunks[0], range(self.n_chunks))
        pool = ThreadPoolExecutor(n_threads)

        def call() -> None:
            shared = iter(range(self.n_chunks))
            list(pool.map(_drain, chunks, [shared] * n_threads))

        return call

    @property
    def call_work(self) -> float:
        """Work of a call, on any number of threads."""
        return self.chunk_work * self.n_chunks


def _drain(chunk: Callable[[], object], counter: Iterable[int]) -> None:
    """Chunk after chunk while the counter, which threads draw from, gives numbers."""
    for _ in counter:
        chunk()


def sgemm() -> Limit:
    """Products of float32 matrices that stay in cache."""

    def prepare(thread: int, n_threads: int) -> Callable[[], object]:
        left, right = torch.rand(_GEMM_ROWS, _GEMM_WIDTH), torch.rand(_GEMM_WIDTH, _GEMM_WIDTH)
        out = torch.empty(_GEMM_ROWS, _GEMM_WIDTH)
        return lambda: torch.mm(left, right, out=out)

    return Limit("sgemm", "GFLOP/s", 1e9, 2.0 * _GEMM_ROWS * _GEMM_WIDTH**2, 64, prepare)


def gather(n_entries: int, name: str = "random gathers") -> Limit:
    """Random loads of 8 bytes (two float32 features) from a table of `n_entries`."""
    table = torch.rand(n_entries, dtype=torch.float64)

    def prepare(thread: int, n_threads: int) -> Callable[[], object]:
        indices = torch.randint(n_entries, (_N_INDICES,), dtype=torch.int32)
        return _gather_chunk(table, indices)

    return Limit(name, "M/s", 1e6, _GATHER_CHUNK, 128, prepare)


def machine() -> tuple[Limit, ...]:
    """Limits that are printed by themselves; the gathers from 4 KB show what the call costs without waiting."""
    table = gather(1 << 21, "gathers from 16 MB")
    return sgemm(), gather(512, "gathers from 4 KB"), table, copy(1 << 26)


def gather_entries(layout: NetworkLayout, points: Float[Tensor, "n 3"]) -> Limit:
    """Loads of 8 bytes at the entries of the first grid of `layout` that the encoding of `points` reads."""
    indices = entries_read(layout, points)
    grid = next(part for part in layout.parts if part.levels)
    table = torch.rand(sum(level.size for level in grid.levels), dtype=torch.float64)

    def prepare(thread: int, n_threads: int) -> Callable[[], object]:
        return _gather_chunk(table, indices.chunk(n_threads)[thread])

    n_chunks = max(1, len(indices) // _GATHER_CHUNK)
    return Limit("entries' gathers", "M/s", 1e6, _GATHER_CHUNK, n_chunks, prepare)


def entries_read(layout: NetworkLayout, points: Float[Tensor, "n 3"]) -> Int[Tensor, "m"]:
    """Entries that the grid of `layout` reads: level after level, point after point, the 8 corners together."""
    grid = next(part for part in layout.parts if part.levels)
    corners = torch.tensor([[c & 1, c >> 1 & 1, c >> 2] for c in range(8)])
    indices = []
    for level in grid.levels:
        cells = (points.clamp(0, 1) * level.scale + 0.5).floor().long()
        index = entry_index(level, cells[:, None] + corners)
        indices.append((level.offset + index).int().reshape(-1))
    return torch.cat(indices)


def _gather_chunk(table: Tensor, indices: Int[Tensor, "m"]) -> Callable[[], object]:
    out = torch.empty(_GATHER_CHUNK, dtype=table.dtype)
    parts = [part for part in indices.split(_GATHER_CHUNK) if len(part) == _GATHER_CHUNK]
    at = -1

    def chunk() -> None:
        nonlocal at
        at = (at + 1) % len(parts)
        torch.index_select(table, 0, parts[at], out=out)

    return chunk


def copy(n_bytes: float) -> Limit:
    """Copies that read and write `n_bytes` together."""
    n_chunks = max(2, round(n_bytes / 2 / _COPY_CHUNK))
    source = torch.zeros(n_chunks, _COPY_CHUNK, dtype=torch.uint8)
    target = torch.zeros_like(source)

    def prepare(thread: int, n_threads: int) -> Callable[[], object]:
        rows = list(zip(target[thread::n_threads], source[thread::n_threads], strict=True))
        at = -1

        def chunk() -> None:
            nonlocal at
            at = (at + 1) % len(rows)
            rows[at][0].copy_(rows[at][1])

        return chunk

    return Limit("copy", "GB/s", 1e9, 2.0 * _COPY_CHUNK, n_chunks, prepare)
