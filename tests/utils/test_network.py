"""What servers listen at."""

import socket

import pytest

from pacavit.errors import PacavitError
from pacavit.utils.network import address, is_local, listen


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("192.168.0.7", False),
        ("example.org", False),
    ],
)
def test_what_is_local(host: str, local: bool) -> None:
    assert is_local(host) == local


def test_listening_at_a_free_port() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert address("127.0.0.1", listener) == f"http://127.0.0.1:{port}/"
        with pytest.raises(PacavitError, match=f"port {port} of 127.0.0.1 is in use; give another"):
            listen("127.0.0.1", port)


def test_addresses_of_version_6_stand_in_brackets() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        assert address("::1", listener) == f"http://[::1]:{listener.getsockname()[1]}/"
