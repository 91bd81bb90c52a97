"""What the page costs a fit: processor time of what is done for it, against that of the whole process.

    python tools/bench_view.py CAPTURE [--seconds 60] [--alone]

One fit with a client connected, in a process of its own that does not count: the page is opened, figures come once a
second, clicks are asked for after every step, and the growing mesh as often as the pacer allows. Each of these is timed
by the processor clock, what runs inside another one apart, so that the figures do not depend on what else the machine
does: no step of the fit runs meanwhile. Threads of the page's server run beside the fit and are read from their own
clocks; what of it falls into a timed item is counted there and not twice. Progress stands still, so that a mesh costs
what it costs of a surface as large as it will be.

Not seen here: the interpreter that the server's threads hold for moments, and caches that they empty.
"""

import argparse
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from quicksurf import kernels
from quicksurf.app.budget import Budget, StopRequest
from quicksurf.app.live import nodes, preview
from quicksurf.app.live.server import Address
from quicksurf.app.live.session import LiveView, live_view
from quicksurf.capture.load import ReadOptions, read_scene
from quicksurf.capture.scene import Scene
from quicksurf.config import load_config
from quicksurf.errors import QuicksurfError
from quicksurf.train.loop import Trainer
from quicksurf.train.status import FitStatus

_CLIENTS = Path(__file__).resolve().parents[1] / "tests" / "app" / "live"
_WARM_SECONDS, _PROGRESS = 10.0, 0.4  # a surface whose mesh is as large as it will be
_FIT_SECONDS = 600.0  # the fit that the pacer plans its meshes for
_CLIENT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from page_client import page_client
with page_client(sys.argv[2]):
    time.sleep(7200)
"""
_SERVER = "server's threads"


class Account:
    """Processor seconds by item; `clock` and `beside` (that of threads that run beside) are read around each."""

    def __init__(
        self, clock: Callable[[], float] = time.process_time, beside: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._clock, self._beside = clock, beside
        self._inner: list[float] = []
        """Seconds already counted inside each item that is open, innermost last."""
        self._beside_inside = 0.0
        self._began, self._beside_began = clock(), beside()
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)

    def timed(self, item: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, counted as `item` without what is counted inside it."""

        def measured(*arguments: Any, **keywords: Any) -> Any:
            start, beside = self._clock(), self._beside()
            self._inner.append(0.0)
            try:
                return function(*arguments, **keywords)
            finally:
                took = self._clock() - start
                self.seconds[item] += took - self._inner.pop()
                self.calls[item] += 1
                if self._inner:
                    self._inner[-1] += took
                else:
                    self._beside_inside += self._beside() - beside

        return measured

    def close(self) -> float:
        """Count the threads beside; returns the processor seconds of the whole process since the beginning."""
        self.seconds[_SERVER] = self._beside() - self._beside_began - self._beside_inside
        return self._clock() - self._began


class Bench:
    """One fit and its page."""

    def __init__(self, scene: Scene, view: LiveView) -> None:
        self._trainer, self._view = Trainer(scene, load_config(None, {}), kernels.load("auto"), None), view

    def warm_up(self) -> None:
        """Fit a surface, unwatched."""
        start = time.process_time()
        while (seconds := time.process_time() - start) < _WARM_SECONDS:
            self._trainer.step(_PROGRESS * seconds / _WARM_SECONDS)

    def watch(self, scene: Scene, seconds: float) -> tuple[Account, float]:
        """Fit for `seconds` of processor time with the page open; the account, and the seconds of the process."""
        account = Account(beside=server_seconds)
        with self._counted(account):
            self._view.begin(Budget(_FIT_SECONDS), StopRequest())
            self._view.captured(scene)
            self._view.stage("fit")
            start = told = time.process_time()
            while (now := time.process_time()) < start + seconds:
                self._trainer.step(_PROGRESS)
                self._view.step(self._trainer.result)
                if now >= told + 1.0:
                    told = now
                    self._view.fit(self._status(now - start))
            self._view._server.flush()
            return account, account.close()

    @contextmanager
    def _counted(self, account: Account) -> Iterator[None]:
        """Every part of the page's work under its name, while the block lasts."""
        parts = [
            (self._view, "captured", "opening the page"),
            (self._view, "fit", "figures and curve"),
            (self._view, "step", "asking for clicks"),
            (preview, "extract_surface", "mesh: surface"),
            (preview, "_seen", "mesh: what cameras see"),
            (preview, "color_vertices", "mesh: colours"),
            (self._view, "_grow", "mesh: the rest"),
            (nodes, "_as_glb", "mesh: glTF"),
        ]
        before = [getattr(owner, name) for owner, name, _ in parts]
        for (owner, name, item), function in zip(parts, before, strict=True):
            setattr(owner, name, account.timed(item, function))
        try:
            yield
        finally:
            for (owner, name, _), function in zip(parts, before, strict=True):
                setattr(owner, name, function)

    def _status(self, elapsed: float) -> FitStatus:
        step = self._trainer.result.step
        rest = (0.01, 25.0, 24.0, 0.5, 0.1, 20.0, 40.0, 15000.0, 50.0)
        return FitStatus(step, _PROGRESS, elapsed, _FIT_SECONDS - elapsed, *rest)


def server_seconds() -> float:
    """Processor seconds of all of Python's threads but this one; the kernels' are none of Python's."""
    own, total = threading.get_ident(), 0.0
    for thread in threading.enumerate():
        if thread.ident is not None and thread.ident != own:
            total += time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    return total


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
    """Print each item, and the sum."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("capture", type=Path, help="what quicksurf fit would read; masks are left aside")
    parser.add_argument("--seconds", type=float, default=60.0, help="processor time watched (%(default)s)")
    parser.add_argument("--alone", action="store_true", help="nobody has the page open")
    options = parser.parse_args()
    try:
        max_pixels = load_config(None, {}).train.max_pixels
        scene = read_scene(options.capture, ReadOptions(max_pixels=max_pixels, use_masks=False))
        with live_view(Address()) as view, nullcontext() if options.alone else somebody_at(view):
            bench = Bench(scene, view)
            bench.warm_up()
            print("\n".join(table(*bench.watch(scene, options.seconds))))
    except QuicksurfError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def table(account: Account, total: float) -> list[str]:
    """Lines of item, how often, milliseconds each and a minute, costliest first; then the fractions of the process."""
    lines = []
    for item, seconds in sorted(account.seconds.items(), key=lambda pair: -pair[1]):
        n_calls = account.calls.get(item, 0)
        each = f"{1000 * seconds / n_calls:9.2f} ms each" if n_calls else " " * 17
        lines.append(f"{item:24s} {n_calls:7d} {each} {60_000 * seconds / total:9.1f} ms a minute")
    page = sum(account.seconds.values())
    once = account.seconds.get("opening the page", 0.0)
    lines.append(
        f"the page: {page:.2f} of {total:.1f} processor seconds, {100 * page / total:.2f} %; "
        f"without opening it {100 * (page - once) / total:.2f} %"
    )
    return lines


if __name__ == "__main__":
    sys.exit(main())
