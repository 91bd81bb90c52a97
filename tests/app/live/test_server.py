"""Where the page is served, and what is said when it cannot be."""

import builtins
import socket
import urllib.request

import pytest

from quicksurf.app.live.server import FIRST_PORT, LOOPBACK, Address, parse_address, serving, url_of
from quicksurf.errors import ViewError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8090", Address(LOOPBACK, 8090)),
        ("localhost:81", Address("localhost", 81)),
        ("0.0.0.0", Address("0.0.0.0", None)),
        ("10.0.0.7:65535", Address("10.0.0.7", 65535)),
    ],
)
def test_addresses_are_understood(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", ":", "0", "70000", "host:", "host:port:1", "a b", "-1", "http://x:1"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ViewError, match="HOST:PORT"):
        parse_address(text)


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as server:
        return server.getsockname()[1]


def test_page_is_served_on_loopback_alone_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Address(port=free_port()), "title") as server:
        url = url_of(server)
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=30) as reply:
            page = reply.read().decode()
        assert "<html" in page
        assert server.request_share_url() is None
    with pytest.raises(OSError):
        urllib.request.urlopen(url, timeout=2)
    assert capsys.readouterr().out == ""  # standard output may be for summary.json


def test_a_port_in_use_is_said_and_another_is_found_where_none_is_given() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        said = rf"port {port} of 127\.0\.0\.1: address already in use.*--view-at"
        with pytest.raises(ViewError, match=said), serving(Address(port=port), "title"):
            pass
    with serving(Address(), "one") as one, serving(Address(), "two") as two:
        assert min(one.get_port(), two.get_port()) >= FIRST_PORT and one.get_port() != two.get_port()


def test_where_another_process_takes_the_port_just_before_the_next_one_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr("quicksurf.app.live.server._free_port", lambda address: port)
        with serving(Address(), "title") as server:
            assert server.get_port() != port
            with urllib.request.urlopen(url_of(server), timeout=30) as reply:
                assert "<html" in reply.read().decode()
        with pytest.raises(ViewError, match="taken this moment"), serving(Address(port=port), "title"):
            pass


def test_a_host_of_another_machine_is_refused() -> None:
    with pytest.raises(ViewError, match=r"192\.0\.2\.1"), serving(Address("192.0.2.1", 8080), "title"):
        pass


def test_without_viser_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def lacking(name: str, *rest: object) -> object:
        if name == "viser":
            raise ImportError("No module named 'viser'")
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(ViewError, match=r"pip install 'quicksurf\[view\]'"), serving(Address(), "title"):
        pass
