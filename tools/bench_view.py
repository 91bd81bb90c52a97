"""What the page costs a fit: steps a second of processor time with somebody at the page and without, in turns.

    python tools/bench_view.py CAPTURE [--pairs 100] [--seconds 0.6]

One fit, of which every second block of --seconds of processor time is watched: figures once a second, curve, clicks
asked for after every step, and the growing mesh as often as the pacer allows; its clock runs in watched blocks alone.
The client is connected all the time, in a process of its own that does not count; the server's threads do. Progress
stands still, so that a step costs the same in every block, and pairs change their order. A mesh falls into one block
of many: the median of the pairs says what standing by costs, the sums what the page costs with its meshes.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quicksurf import backends
from quicksurf.config import load_config
from quicksurf.data.load import ReadOptions, read_scene
from quicksurf.data.scene import Scene
from quicksurf.errors import QuicksurfError
from quicksurf.session.budget import Budget, StopRequest
from quicksurf.train.loop import FitStatus
from quicksurf.train.trainer import Trainer
from quicksurf.view.live import LiveView, live_view
from quicksurf.view.pacing import WorkClock
from quicksurf.view.server import Address

_CLIENTS = Path(__file__).resolve().parents[1] / "tests" / "view"
_WARM_SECONDS, _PROGRESS = 10.0, 0.4  # a surface whose mesh is as large as it will be
_FIT_SECONDS = 600.0  # the fit that the pacer plans its meshes for
_CLIENT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from page_client import page_client
with page_client(sys.argv[2]):
    time.sleep(7200)
"""


class Bench:
    """One fit and its page."""

    def __init__(self, scene: Scene, view: LiveView) -> None:
        self._trainer, self._view = Trainer(scene, load_config(None, {}), backends.load("auto"), None), view
        self._watched, self._since, self._told = 0.0, 0.0, 0.0
        self.mesh_seconds: list[float] = []
        """Processor time of each mesh."""

    def warm_up(self) -> None:
        """Fit a surface, unwatched."""
        start = time.process_time()
        while (seconds := time.process_time() - start) < _WARM_SECONDS:
            self._trainer.step(_PROGRESS * seconds / _WARM_SECONDS)

    def begin_watch(self, scene: Scene) -> float:
        """Open the page's scene; returns the processor seconds that takes."""
        start, self._since = time.process_time(), time.process_time()
        self._view.begin(Budget(_FIT_SECONDS), StopRequest())
        self._view.captured(scene)
        self._view.stage("fit")
        self._view._work = WorkClock(self._watched_seconds, self._watched_seconds)
        self._view._grow = self._timed(self._view._grow)
        return time.process_time() - start

    def _timed(self, grow: Callable[..., None]) -> Callable[..., None]:
        def timed(*arguments: object) -> None:
            start = time.process_time()
            grow(*arguments)
            self.mesh_seconds.append(time.process_time() - start)

        return timed

    def block(self, seconds: float, watched: bool) -> tuple[int, float]:
        """Steps, and the processor seconds that they took."""
        start, n_steps = time.process_time(), 0
        self._since = start
        while time.process_time() - start < seconds:
            self._trainer.step(_PROGRESS)
            n_steps += 1
            if watched:
                self._view.step(self._trainer.result)
                if self._watched_seconds() >= self._told + 1.0:
                    self._told = self._watched_seconds()
                    self._view.fit(self._status())
        if watched:
            self._view._server.flush()
            self._watched += time.process_time() - start
        return n_steps, time.process_time() - start

    def _watched_seconds(self) -> float:
        return self._watched + time.process_time() - self._since

    def _status(self) -> FitStatus:
        step, elapsed = self._trainer.result.step, self._watched_seconds()
        rest = (0.01, 25.0, 24.0, 0.5, 0.1, 20.0, 40.0, 15000.0, 50.0)
        return FitStatus(step, _PROGRESS, elapsed, _FIT_SECONDS - elapsed, *rest)


@contextmanager
def somebody_at(view: LiveView) -> Iterator[None]:
    """A client in a process of its own, connected when the block begins."""
    assert view.greeting is not None
    url = view.greeting.split()[-1]
    client = subprocess.Popen([sys.executable, "-c", _CLIENT, str(_CLIENTS), url])
    try:
        while not view._server.get_clients():
            time.sleep(0.1)
            if client.poll() is not None:
                raise SystemExit("the client could not connect")
        yield
    finally:
        client.kill()
        client.wait()


def main() -> int:
    """Print each pair, the median and the sums."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("capture", type=Path, help="what quicksurf fit would read; masks are left aside")
    parser.add_argument("--pairs", type=int, default=100, help="blocks watched, and unwatched (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.6, help="processor time of a block (%(default)s)")
    options = parser.parse_args()
    try:
        max_pixels = load_config(None, {}).train.max_pixels
        scene = read_scene(options.capture, ReadOptions(max_pixels=max_pixels, use_masks=False))
        with live_view(Address()) as view, somebody_at(view):
            _compare(Bench(scene, view), scene, options.pairs, options.seconds)
    except QuicksurfError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _compare(bench: Bench, scene: Scene, pairs: int, seconds: float) -> None:
    bench.warm_up()
    print(f"opening the page: {bench.begin_watch(scene):.2f} s of processor time, once")
    sums, ratios = {True: [0, 0.0], False: [0, 0.0]}, []
    for pair in range(pairs):
        rates = {}
        for watched in (pair % 2 == 0, pair % 2 == 1):
            n_steps, took = bench.block(seconds, watched)
            sums[watched] = [sums[watched][0] + n_steps, sums[watched][1] + took]
            rates[watched] = n_steps / took
        ratios.append(rates[True] / rates[False])
    meshes = bench.mesh_seconds
    share = 100 * sum(meshes) / sums[True][1]
    print(
        f"{len(meshes)} meshes of {statistics.mean(meshes or [0.0]):.2f} s: {share:.2f} % of the watched time"
    )
    total = (sums[True][0] / sums[True][1]) / (sums[False][0] / sums[False][1])
    print(f"median of the pairs {statistics.median(ratios):.4f}; sums, with all meshes, {total:.4f}")


if __name__ == "__main__":
    sys.exit(main())
