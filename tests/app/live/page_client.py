"""A browser's end of the page, without a browser: viser's protocol, spoken through viser's own message classes."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import viser
import zstandard
from viser import _messages
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

PATIENCE = 300.0  # seconds: a machine with ten times the work it has cores for


class PageClient:
    """What a page would show, kept by name and label, and clicks on it."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.nodes: dict[str, list[dict[str, Any]]] = {}
        """Scene nodes by name, every version that was sent."""
        self.positions: dict[str, tuple[float, ...]] = {}
        """Where nodes stand now."""
        self.removed: list[str] = []
        self.gui: dict[str, dict[str, Any]] = {}
        """Properties of the panel's parts by uuid, as they are now."""
        self.files: dict[str, bytes] = {}
        self._transfers: dict[str, str] = {}
        self._send(
            _messages.ViewerCameraMessage(
                (1, 0, 0, 0), (0, 0, 3), 1, 0.1, 100, 600, 800, (0, 0, 0), (0, 0, 1)
            )
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def texts(self) -> str:
        """Everything that is written on the panel."""
        return "\n".join(str(value) for part in list(self.gui.values()) for value in part.values())

    def labelled(self, label: str) -> tuple[str, dict[str, Any]] | None:
        """The uuid and properties of the visible control with this label, if there is one."""
        for uuid, part in list(self.gui.items()):
            if part.get("label") == label and part.get("visible", True):
                return uuid, part
        return None

    def click(self, label: str) -> None:
        """Press a button once it is there and allowed."""
        self.wait(lambda: (found := self.labelled(label)) is not None and not found[1]["disabled"], label)
        self.set(label, True)

    def set(self, label: str, value: Any) -> None:
        """Change a control's value."""
        found = self.labelled(label)
        assert found is not None, f"no control {label!r} among {[p.get('label') for p in self.gui.values()]}"
        self._send(_messages.GuiUpdateMessage(found[0], {"value": value}))

    def drag(self, name: str, position: tuple[float, float, float]) -> None:
        """Pull a gizmo to a place."""
        self._send(_messages.TransformControlsUpdateMessage(name, (1.0, 0.0, 0.0, 0.0), position))

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait until `condition` holds; fail after PATIENCE."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {what}; the page says {self.texts()[:2000]}"
            time.sleep(0.02)

    def _send(self, message: _messages.Message) -> None:
        self._socket.send(msgspec.msgpack.encode(message.as_serializable_dict()))

    def _listen(self) -> None:
        for raw in self._messages():
            assert isinstance(raw, bytes)
            size = int.from_bytes(raw[8:16], "little")
            window = msgspec.msgpack.decode(zstandard.decompress(raw[16 : 16 + size]))
            for message in window["messages"]:
                self._take(message)

    def _messages(self) -> Iterator[bytes | str]:
        """Until either end hangs up."""
        with suppress(ConnectionClosed):
            yield from self._socket

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "FileTransferStartDownload":
            self._transfers[message["transfer_uuid"]] = message["filename"]
        elif kind == "FileTransferPart":
            name = self._transfers[message["transfer_uuid"]]
            self.files[name] = self.files.get(name, b"") + message["content"]
        elif kind == "SetPositionMessage":
            self.positions[message["name"]] = tuple(message["position"])
        elif kind == "RemoveSceneNodeMessage":
            self.removed.append(message["name"])
        elif kind == "GuiRemoveMessage":
            self.gui.pop(message["uuid"], None)
        elif kind == "GuiUpdateMessage":
            self.gui.setdefault(message["uuid"], {}).update(message["updates"])
        elif kind.startswith("Gui") and "props" in message and "uuid" in message:
            self.gui[message["uuid"]] = dict(message["props"])
        elif "name" in message and "props" in message:
            self.nodes.setdefault(message["name"], []).append(message)


@contextmanager
def page_client(url: str) -> Iterator[PageClient]:
    """Connect as a page of this version of viser's client does."""
    protocol = f"viser-v{viser.__version__}"
    with connect(
        url.replace("http", "ws", 1), subprotocols=[protocol], max_size=1 << 28, ping_interval=None
    ) as socket:  # type: ignore[list-item]
        yield PageClient(socket)
