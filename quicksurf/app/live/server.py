"""The page's server: viser on an address of this machine, silent on the terminal.

viser serves its own client, so the browser needs no network, and its tunnel to a public host is disabled. The gate
(gate.py) decides who may connect and which messages pass; the address that is printed holds its token.
"""

import io
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, NamedTuple

from quicksurf.app.live.gate import Gate
from quicksurf.errors import ViewError

if TYPE_CHECKING:
    import viser

LOOPBACK = "127.0.0.1"
FIRST_PORT = 8080
N_PORTS = 100  # tried from FIRST_PORT on if none is given
TOKEN = "quicksurf_token"  # the server's attribute that holds the gate's token
INSTALL = "pip install 'quicksurf[view]'"


class Address(NamedTuple):
    """Host and port of the page; a port of None is any free one from FIRST_PORT on."""

    host: str = LOOPBACK
    port: int | None = None


def parse_address(text: str) -> Address:
    """Parse `PORT`, `HOST:PORT` or `HOST`; the host is the loopback by default.

    Raises:
        ViewError: if it is none of these.
    """
    match = re.fullmatch(r"(?:(?P<host>[\w.-]+):)?(?P<port>\d{1,5})|(?P<alone>[\w.-]*[A-Za-z.][\w.-]*)", text)
    port = None if match is None or match["port"] is None else int(match["port"])
    if match is None or (port is not None and not 1 <= port <= 65535):
        raise ViewError(
            f"--view-at {text!r} is no address: give PORT, HOST or HOST:PORT, with a port from 1 to 65535"
        )
    return Address(match["host"] or match["alone"] or LOOPBACK, port)


@contextmanager
def serving(address: Address, title: str) -> Iterator["viser.ViserServer"]:
    """Serve on `address` until the end of the block.

    Raises:
        ViewError: if viser is not installed, the port is taken or the host is not this machine.
    """
    port = _free_port(address)
    server = _open(address.host, port, title)
    try:
        if address.port is not None and server.get_port() != port:
            raise ViewError(f"port {port} of {address.host} was taken this moment: try again")
        yield server
    finally:
        server.stop()


def url_of(server: "viser.ViserServer") -> str:
    """Write the address for a browser on this machine; it grants access to the page and its buttons."""
    host = server.get_host()
    here = "localhost" if host == "0.0.0.0" else host
    return f"http://{here}:{server.get_port()}/{getattr(server, TOKEN)}/"


def _open(host: str, port: int, title: str) -> "viser.ViserServer":
    try:
        import viser
    except ImportError as error:
        raise ViewError(f"the live view needs viser ({error}): {INSTALL}") from error

    class LocalServer(viser.ViserServer):
        def request_share_url(self, verbose: bool = True) -> None:
            """Refuse the tunnel to a public host that a page may request."""

    gate = Gate(host)
    with gate.installed(), redirect_stdout(io.StringIO()):  # viser prints to standard output
        server = LocalServer(host, port, label=title, verbose=False)
    setattr(server, TOKEN, gate.token)
    server.gui.configure_theme(control_width="medium", show_logo=False, show_share_button=False)
    return server


def _free_port(address: Address) -> int:
    """Find a port that can be bound: viser would silently take another one, or search without end.

    Raises:
        ViewError: if there is none.
    """
    ports = range(FIRST_PORT, FIRST_PORT + N_PORTS) if address.port is None else [address.port]
    reason = ""
    for port in ports:
        try:
            with socket.create_server((address.host, port)):
                return port
        except (OSError, UnicodeError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    where = f"port {ports[0]}" if len(ports) == 1 else f"any port from {ports[0]} to {ports[-1]}"
    raise ViewError(
        f"the live view cannot use {where} of {address.host}: {reason.lower()}; give another with --view-at"
    )
