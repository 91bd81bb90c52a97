"""Access control of the page, which viser lacks: who may connect, and which messages pass.

Every web site open in a browser can reach ports of this machine, and so can its other users. A request must therefore
contain the token of the address; name this machine as its host, which a site with DNS rebinding does not; and come
from this page where the browser gives an Origin. Messages pass if the page's client sends such messages, with values
in range; others are dropped, and a flood of messages closes the connection.
"""

import asyncio
import hmac
import ipaddress
import logging
import secrets
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from types import ModuleType
from typing import Any

from quicksurf.untrusted import is_number

MAX_MESSAGE_BYTES = 1 << 16  # the page's own are below 1 kB
MAX_PAGES = 16
# Messages of one page: a moving camera and a gizmo send 60 a second each.
PER_SECOND, BURST = 250.0, 1000.0
LARGEST = 1e6  # of a number: the scene is shown at size 1
MAX_TEXT = 4096  # of a name: photos are nodes
_HEADERS = {
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_starting = threading.Lock()


class Gate:
    """The gate of one server on `host`."""

    def __init__(self, host: str) -> None:
        self.token = secrets.token_hex(12)
        self._hosts = {host.lower(), "localhost", "127.0.0.1", "[::1]"}
        self._any_address = host in ("0.0.0.0", "::")
        if self._any_address:
            self._hosts |= _own_names()
        self._n_pages = 0

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Guard the server that is started inside the block.

        viser passes neither origins nor a check of requests on to websockets, and prints with rich: both modules are
        replaced while its thread imports them.
        """
        from websockets.asyncio import server as sockets

        real_serve, real_rich = sockets.serve, sys.modules.get("rich")
        import rich

        quiet = ModuleType("rich")
        quiet.__dict__.update(vars(rich))
        quiet.__dict__["print"] = lambda *texts, **options: None

        def serve(handler: Callable[[Any], Awaitable[None]], host: str, port: int, **options: Any) -> Any:
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
            return real_serve(self._handled(handler), host, port, **{**options, **self._options(options)})

        with _starting:
            sockets.serve, sys.modules["rich"] = serve, quiet  # type: ignore[misc]
            try:
                yield
            finally:
                sockets.serve, sys.modules["rich"] = real_serve, real_rich or rich  # type: ignore[misc]

    def _options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options of websockets that extend or replace viser's."""
        logger = logging.getLogger("quicksurf.app.live")
        logger.propagate, logger.disabled = False, True
        return {
            "process_request": self._asked(options["process_request"]),
            "select_subprotocol": lambda connection, offered: _own_protocol(),
            "max_size": MAX_MESSAGE_BYTES,
            "logger": logger,
        }

    def _asked(self, answer: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """Pass allowed requests, without the token, to `answer`, viser's file server."""

        def process_request(connection: Any, request: Any) -> Any:
            rest = self._without_token(request.path)
            if rest is None or not self._is_own(request.headers):
                return connection.respond(HTTPStatus.FORBIDDEN, "Open the address that quicksurf prints.\n")
            if any("websocket" in value.lower() for value in request.headers.get_all("Upgrade")):
                if _own_protocol() not in _offered(request.headers):
                    return connection.respond(HTTPStatus.BAD_REQUEST, "Load the page again.\n")
                return None
            response = answer(connection, replace(request, path=rest))
            for name, value in _HEADERS.items():
                response.headers[name] = value
            return response

        return process_request

    def _without_token(self, path: str) -> str | None:
        """The path below the token; None if it does not begin with the token."""
        first, _, rest = path.partition("?")[0].removeprefix("/").partition("/")
        known = hmac.compare_digest(first.encode("utf-8", "replace"), self.token.encode())
        return f"/{rest}" if known else None

    def _is_own(self, headers: Any) -> bool:
        """Whether the host is this machine and the origin, if given, has the same host and port."""
        hosts, origins = headers.get_all("Host"), headers.get_all("Origin")
        if len(hosts) != 1 or not self._is_here(hosts[0].lower()):
            return False
        own = {f"{scheme}://{hosts[0].lower()}" for scheme in ("http", "https")}  # https: behind a proxy
        return not origins or (len(origins) == 1 and origins[0].lower() in own)

    def _is_here(self, host: str) -> bool:
        """Whether `host`, with any port (a tunnel has its own), is a name or an address of this machine."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if name in self._hosts:
            return True
        try:  # an address is safe: DNS rebinding needs a name
            return self._any_address and bool(ipaddress.ip_address(name.strip("[]")))
        except ValueError:
            return False

    def _handled(self, handler: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
        """Serve at most MAX_PAGES at a time, and pass allowed messages to `handler`."""

        async def handle(connection: Any) -> None:
            if self._n_pages >= MAX_PAGES:
                await connection.close(1013, "too many pages")
                return
            self._n_pages += 1
            try:
                connection.recv = _sifted(connection)
                await handler(connection)
            finally:
                self._n_pages -= 1

        return handle


def _sifted(connection: Any) -> Callable[[], Awaitable[bytes]]:
    """The connection's `recv` without messages that no page sends."""
    receive, allowance = connection.recv, Allowance(PER_SECOND, BURST)

    async def recv() -> bytes:
        while True:
            raw = await receive()
            if not allowance.take():
                await connection.close(1008, "too many messages")
            elif is_understood(raw):
                return raw

    return recv


class Allowance:
    """A token bucket: `per_second` on average, `burst` at once."""

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = per_second, burst, clock
        self._left, self._seen = burst, clock()

    def take(self) -> bool:
        """Take one token; return False if none is left."""
        now = self._clock()
        self._left = min(self._burst, self._left + self._rate * (now - self._seen))
        self._seen = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def is_understood(raw: object) -> bool:
    """Tell whether `raw` is a complete message of the page's client with values in range."""
    import msgspec

    if not isinstance(raw, bytes):
        return False
    try:
        message = msgspec.msgpack.decode(raw)
    except (ValueError, RecursionError):  # msgspec.DecodeError is a ValueError
        return False
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        return False
    fields = _MESSAGES.get(message.pop("type"))
    if fields is None or not {"owner", *fields} >= set(message) >= set(fields):
        return False
    return _text(message.get("owner", "")) and all(check(message[name]) for name, check in fields.items())


def _number(value: Any) -> bool:
    return is_number(value, LARGEST)


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT


def _vector(length: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) == length and all(map(_number, value))


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


def _new_value(updates: Any) -> bool:
    """A control's value: only the server sets its other properties."""
    if not isinstance(updates, dict) or set(updates) != {"value"}:
        return False
    return isinstance(updates["value"], bool) or _number(updates["value"]) or _text(updates["value"])


_POSE = {"wxyz": _vector(4), "position": _vector(3)}
_MESSAGES: dict[str, dict[str, Callable[[Any], bool]]] = {
    "ViewerCameraMessage": {
        **_POSE,
        **{"look_at": _vector(3), "up_direction": _vector(3)},
        **dict.fromkeys(("fov", "near", "far", "image_height", "image_width"), _number),
    },
    "GuiUpdateMessage": {"uuid": _text, "updates": _new_value},
    "TransformControlsUpdateMessage": {"name": _text, **_POSE},
    "TransformControlsDragStartMessage": {"name": _text},
    "TransformControlsDragEndMessage": {"name": _text},
    "SceneNodeClickMessage": {
        "name": _text,
        "instance_index": _or_none(_number),
        "ray_origin": _vector(3),
        "ray_direction": _vector(3),
        "screen_pos": _vector(2),
        "modifier": _or_none(_text),
    },
}


def _offered(headers: Any) -> set[str]:
    lists = headers.get_all("Sec-WebSocket-Protocol")
    return {name.strip() for names in lists for name in names.split(",")}


def _own_protocol() -> str:
    import viser

    return f"viser-v{viser.__version__}"


def _own_names() -> set[str]:
    """Names of this machine on its network."""
    name = socket.gethostname().lower()
    return {name, f"{name.partition('.')[0]}.local"}
