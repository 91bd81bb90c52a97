"""Whoever reaches the live view's port without being its user reads nothing, presses nothing and ends nothing."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import viser
from cut_fit import cut_to
from page_client import PageClient, page_client
from tiny_capture import write_capture
from viser import _messages
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from quicksurf.app.budget import Budget, StopRequest
from quicksurf.app.fit import run_fit
from quicksurf.app.listener import Listener
from quicksurf.app.live.server import LOOPBACK, Address, serving, url_of
from quicksurf.app.live.session import MAX_ADDED_MINUTES, ROI_SECONDS, LiveView, live_view
from quicksurf.app.requests import FitRequest
from quicksurf.capture.load import ReadOptions, read_scene
from quicksurf.capture.scene import Scene
from quicksurf.geometry.region import Roi

TINY = str(Path(__file__).parents[2] / "tiny.toml")
OWN = f"viser-v{viser.__version__}"
CAMERA = {
    "type": "ViewerCameraMessage",
    **{"wxyz": (1, 0, 0, 0), "position": (0, 0, 3), "look_at": (0, 0, 0), "up_direction": (0, 0, 1)},
    **{"fov": 1, "near": 0.1, "far": 100, "image_height": 600, "image_width": 800},
}


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_capture(tmp_path_factory.mktemp("capture"))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(Address(), "title") as server:
        yield url_of(server)


def bare(address: str) -> str:
    """The address without its token."""
    return f"http://{urlsplit(address).netloc}/"


def knock(address: str, protocols: tuple[str, ...] = (OWN,), **headers: str) -> int:
    """The status that a page's socket is answered with; 101 if it is let in."""
    url = address.replace("http", "ws", 1)
    try:
        with connect(url, subprotocols=list(protocols), additional_headers=headers, open_timeout=20):  # type: ignore[arg-type]
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def fetched(address: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=20) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_address_has_a_token_that_cannot_be_guessed() -> None:
    tokens = set()
    for _ in range(2):
        with serving(Address(), "title") as server:
            tokens.add(urlsplit(url_of(server)).path.strip("/"))
    assert len(tokens) == 2 and all(len(token) >= 16 for token in tokens)


@pytest.mark.parametrize("path", ["", "index.html", "x/", "%2e%2e/", "?token="])
def test_without_the_token_nothing_is_served(address: str, path: str) -> None:
    assert fetched(address) == 200
    assert fetched(bare(address) + path) == 403
    assert knock(bare(address) + path) == 403


def test_a_token_that_is_nearly_right_is_wrong(address: str) -> None:
    token = urlsplit(address).path.strip("/")
    for wrong in (token[:-1], token + "0", token.upper() + "X", token + "/../"):
        assert fetched(bare(address) + wrong.replace("/../", "%00")) == 403


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "https://127.0.0.1.evil.example", "http://localhost:1", "file://", ""],
)
def test_a_page_of_another_site_is_refused_though_it_knew_the_token(address: str, origin: str) -> None:
    assert knock(address, Origin=origin) == 403


def test_the_own_page_and_a_client_without_origin_come_in(address: str) -> None:
    host = urlsplit(address).netloc
    assert knock(address) == 101
    assert knock(address, Origin=f"http://{host}") == 101
    local = address.replace(LOOPBACK, "localhost")
    assert knock(local, Origin=f"http://localhost:{urlsplit(address).port}") == 101


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", ""])
def test_a_name_that_was_bound_to_this_machine_is_refused(address: str, host: str) -> None:
    """DNS rebinding: the browser believes that the page and the site are one."""
    host = host.format(port=urlsplit(address).port)
    assert fetched(address, Host=host) in (400, 403)
    status = raw_request(address, host)
    assert status in (400, 403)


def raw_request(address: str, host: str) -> int:
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname or "", parts.port or 0), 20) as line:
        line.sendall(
            f"GET {parts.path} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Sec-WebSocket-Protocol: {OWN}\r\n\r\n".encode()
        )
        return int(line.recv(4096).split()[1])


def test_a_tunnel_on_another_port_is_the_same_page(address: str) -> None:
    """`ssh -L 9000:127.0.0.1:8080`: name of this machine, other port."""
    assert raw_request(address, "localhost:9000") == 101


def test_the_page_may_not_be_framed_and_tells_nobody_its_address(address: str) -> None:
    with urllib.request.urlopen(address, timeout=20) as reply:
        assert reply.headers["X-Frame-Options"] == "DENY"
        assert reply.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("protocols", [("viser-v0.0.1",), ("viser-v0.0.1", OWN), ("other",)])
def test_another_version_prints_nothing(
    address: str, protocols: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    with suppress(InvalidHandshake):
        knock(address, protocols)
    time.sleep(0.3)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def sent(page: ClientConnection, message: Any) -> None:
    page.send(msgspec.msgpack.encode(message))


GARBAGE = [
    "a text frame",
    b"",
    b"\xc1garbage",
    msgspec.msgpack.encode(5),
    msgspec.msgpack.encode({"type": "Message"}),
    msgspec.msgpack.encode({"type": 3}),
    msgspec.msgpack.encode({"type": "ShareUrlDisconnect"}),
    msgspec.msgpack.encode({"type": "ShareUrlRequest"}),
    msgspec.msgpack.encode({"type": "GuiUpdateMessage", "uuid": [], "updates": 3}),
    msgspec.msgpack.encode({**CAMERA, "wxyz": "north"}),
    msgspec.msgpack.encode({**CAMERA, "more": 1}),
    msgspec.msgpack.encode({"type": "TransformControlsUpdateMessage", "name": "/region", "wxyz": [1]}),
]


@pytest.mark.slow
@pytest.mark.parametrize("raw", GARBAGE, ids=range(len(GARBAGE)))
def test_what_no_page_sends_is_dropped_in_silence(
    address: str, raw: bytes | str, capfd: pytest.CaptureFixture[str]
) -> None:
    with connect(address.replace("http", "ws", 1), subprotocols=[OWN]) as page:  # type: ignore[list-item]
        sent(page, CAMERA)
        page.send(raw)
        sent(page, CAMERA)
        time.sleep(0.3)
        assert page.ping().wait(20), "the page that sent it is still served"
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_large_messages_and_floods_end_the_page_that_sends_them(address: str) -> None:
    url = address.replace("http", "ws", 1)
    with (
        connect(url, subprotocols=[OWN], max_size=None) as page,  # type: ignore[list-item]
        pytest.raises(ConnectionClosed),
    ):
        page.send(bytes(1 << 22))
        while True:
            page.recv(20)
    with (
        connect(url, subprotocols=[OWN], max_size=None) as page,  # type: ignore[list-item]
        pytest.raises(ConnectionClosed),
    ):
        for _ in range(3000):
            sent(page, CAMERA)
        while True:
            page.recv(20)


class Parts(PageClient):
    """A page that sends what it should not."""

    address: str

    def upload(self, label: str, part_count: int = 0) -> None:
        found = self.labelled(label)
        assert found is not None
        self._send(_messages.FileTransferStartUpload(found[0], "t", "x", "text/plain", part_count, 0))

    def smash(self, label: str, updates: dict[str, Any]) -> None:
        found = self.labelled(label)
        assert found is not None
        self._send(_messages.GuiUpdateMessage(found[0], updates))


@pytest.fixture
def opened(capture: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[LiveView, Parts, Scene]]:
    """A view with a page that misbehaves, and what is fitted."""
    scene = read_scene(capture, ReadOptions(max_pixels=48 * 48))
    monkeypatch.setattr("page_client.PageClient", Parts)
    with live_view(Address()) as view:
        view.begin(Budget(60.0), StopRequest())
        address = view.greeting.split()[-1]  # type: ignore[union-attr]
        with page_client(address) as page:
            assert isinstance(page, Parts)
            page.address = address
            view.captured(scene)
            view.stage("fit")
            page.wait(lambda: page.labelled("Pause"), "the panel")
            yield view, page, scene


def test_properties_of_the_panel_are_not_the_pages_to_change(opened: tuple[LiveView, Parts, Scene]) -> None:
    view, page, _ = opened
    for updates in ({"props": 5}, {"value": [1] * 10}, {"value": {"x": 1}}, {"value": None}, {"order": "x"}):
        page.smash("Pause", updates)
    page.upload("Surface")
    time.sleep(0.3)
    view.stage("fit")
    assert isinstance(view._panel._buttons["pause"].label, str)
    assert isinstance(view._panel._buttons["pause"].value, bool)


def test_uploads_take_no_memory(opened: tuple[LiveView, Parts, Scene]) -> None:
    view, page, _ = opened
    page.upload("Surface", 40)
    time.sleep(0.3)
    assert not view._server.gui._current_file_upload_states


@pytest.mark.slow
def test_minutes_added_by_clicks_are_bounded(opened: tuple[LiveView, Parts, Scene]) -> None:
    view, page, _ = opened
    for _ in range(200):
        page.set("Add 5 minutes", True)
    end = time.monotonic() + 3
    while time.monotonic() < end:
        view._obey()
        time.sleep(0.05)
    assert view._budget.seconds <= 60.0 + 60 * MAX_ADDED_MINUTES
    assert view._budget.seconds > 60.0
    page.wait(lambda: "the most that this page can add" in page.texts(), "the reason")


def test_buttons_that_are_off_do_nothing(opened: tuple[LiveView, Parts, Scene]) -> None:
    view, page, _ = opened
    view.stage("mesh")
    stop = view._stop
    stop.worthwhile = True
    page.wait(lambda: page.labelled("Stop and keep")[1]["disabled"], "the mesh stage")  # type: ignore[index]
    page.set("Stop and keep", True)
    time.sleep(0.3)
    view.stage("fit")
    view._obey()
    assert not stop()


ATTACK = """
<script>
const targets = %s, protocol = %s, found = {};
const socket = (url) => new Promise((done) => {
  const line = new WebSocket(url.replace("http", "ws"), [protocol]);
  line.onopen = () => done("open");
  line.onerror = line.onclose = () => done("refused");
});
const read = (url) => fetch(url).then((reply) => reply.text(), () => "refused");
const frame = (url) => new Promise((done) => {
  const part = document.createElement("iframe");
  part.onload = () => done(part.contentDocument === null ? "refused" : part.contentDocument.body.innerText);
  part.src = url;
  document.body.append(part);
});
window.onload = async () => {
  for (const url of targets) found[url] = [await socket(url), await read(url), await frame(url)];
  document.title = JSON.stringify(found);
};
</script><body></body>
"""


@contextmanager
def page_of_another_site(content: str) -> Iterator[int]:
    """A server of one page; its port."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((LOOPBACK, 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("host", [LOOPBACK, "localhost"])
def test_a_hostile_page_in_a_real_browser_reads_and_presses_nothing(
    opened: tuple[LiveView, Parts, Scene], browser: Any, host: str
) -> None:
    """It knows even the token, and comes from this machine, as a page of another user's server does."""
    view, page, _ = opened
    view._stop.worthwhile = True
    address = page.address
    targets = [bare(address), address, address.replace(LOOPBACK, "localhost")]
    with page_of_another_site(ATTACK % (json.dumps(targets), json.dumps(OWN))) as port:
        tab = browser.new_page()
        tab.goto(f"http://{host}:{port}/")
        tab.wait_for_function("document.title.startsWith('{')", timeout=60_000)
        found = json.loads(tab.title())
        tab.close()
    assert found == {url: ["refused"] * 3 for url in targets}
    view._obey()
    assert len(view._server.get_clients()) == 1 and not view._stop() and view._budget.seconds == 60.0


def test_another_user_of_the_machine_who_lacks_the_token_gets_nothing(
    opened: tuple[LiveView, Parts, Scene],
) -> None:
    """Every port of this machine can be found; what is sent to this one without the token costs nothing."""
    view, page, _ = opened
    parts = urlsplit(page.address)
    for first in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 4096, b"GET /" + b"a" * 100_000, b""):
        with socket.create_connection((parts.hostname or "", parts.port or 0), 20) as line, suppress(OSError):
            line.sendall(first)
            line.settimeout(0.5)
            assert b"<html" not in line.recv(1 << 16)
    for path in ("", "0" * len(parts.path.strip("/"))):
        assert fetched(bare(page.address) + path) == 403
        assert knock(bare(page.address) + path, Origin=f"http://{parts.netloc}") == 403
    page.wait(lambda: page.labelled("Pause"), "the panel, still there")
    assert len(view._server.get_clients()) == 1


@pytest.mark.parametrize("radius", ["nan", "inf", "-5", "1e300"])
def test_the_ball_stays_a_ball(capture: Path, radius: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = read_scene(capture, ReadOptions(max_pixels=48 * 48))
    monkeypatch.setattr("page_client.PageClient", Parts)
    monkeypatch.setattr("quicksurf.app.live.session.ROI_SECONDS", 3.0)
    with live_view(Address()) as view:
        view.begin(Budget(60.0), StopRequest())
        with page_client(view.greeting.split()[-1]) as page:  # type: ignore[union-attr]
            page.wait(lambda: view._server.get_clients(), "the connection")

            def misbehave() -> None:
                page.wait(lambda: page.labelled("Radius"), "the slider")
                page.smash("Radius", {"value": radius})
                page.drag("/region", (float("nan"), 0.0, 0.0))
                page.drag("/region", (1e300, 0.0, 0.0))
                page.click("Start the fit")

            thread = threading.Thread(target=misbehave, daemon=True)
            thread.start()
            roi = view.choose_roi(scene)
            thread.join(30)
    assert all(abs(value) < 1e6 for value in (*roi.center, roi.radius)) and roi.radius > 0
    assert ROI_SECONDS > 0


class Broken(Listener):
    """A page that fails wherever it is called."""

    def __init__(self, where: str) -> None:
        self.where, self.calls = where, 0
        self.greeting = "live view at http://nowhere"

    def __getattribute__(self, name: str) -> Any:
        own = object.__getattribute__
        if name in ("where", "calls", "greeting") or name.startswith("__"):
            return own(self, name)
        if name == own(self, "where"):
            self.calls += 1
            raise AttributeError("'int' object has no attribute 'label'")
        return own(self, name)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["begin", "choose_roi", "step", "fit", "meshed"])
def test_a_watcher_that_fails_costs_the_page_and_never_the_fit(
    capture: Path, tmp_path: Path, where: str
) -> None:
    listener = Broken(where)
    result = run_fit(
        FitRequest(capture, 20.0, tmp_path / "run", preset=TINY), listener=listener, fit=cut_to(1.0)
    )
    assert (tmp_path / "run" / "mesh.ply").exists()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    said = [text for text in result.summary["warnings"] if "live view" in text]
    if where != "meshed":  # after summary.json is written
        assert len(said) == 1 and said == [t for t in summary["warnings"] if "live view" in t]
        assert listener.calls == 1


def test_a_watcher_may_still_be_interrupted(capture: Path, tmp_path: Path) -> None:
    class Leaving(Listener):
        def choose_roi(self, scene: Scene) -> Roi:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_fit(FitRequest(capture, 20.0, tmp_path / "run", preset=TINY), listener=Leaving(), fit=cut_to(1.0))
