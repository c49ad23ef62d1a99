"""Who can reach the demo, and what it says when it cannot be served."""

import importlib.util
import os
import socket
from pathlib import Path

import pytest

from pacavit import api
from pacavit.errors import PacavitError
from pacavit_cli.main import main


@pytest.fixture
def with_gradio() -> None:
    pytest.importorskip("gradio", reason="the extra demo is not installed")


def test_without_gradio_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "gradio" else found(name)
    )
    assert main(["demo"]) == 2
    told = "error: the demo needs Gradio; install it with: pip install 'pacavit[demo]'\n"
    assert capsys.readouterr().err == told


@pytest.mark.usefixtures("with_gradio")
def test_a_port_in_use_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["demo", "--port", str(port), "--no-browser"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: port {port} of 127.0.0.1 is in use; give another one")
    assert len(told.splitlines()) == 1


@pytest.mark.usefixtures("with_gradio")
def test_wrong_models_and_addresses_are_reported(tmp_path: Path) -> None:
    before = dict(os.environ)
    with pytest.raises(PacavitError, match="no run folder or weights file"):
        api.demo([str(tmp_path / "none.safetensors")], port=0)
    with pytest.raises(PacavitError, match=r"cannot listen at port 0 of 192\.0\.2\.1"):
        api.demo(host="192.0.2.1", port=0)
    with pytest.raises(PacavitError, match="cannot listen at port 99999"):
        api.demo(port=99999)
    assert dict(os.environ) == before


def test_the_command_refuses_what_is_no_port(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--port", "70000"]) == 2
    assert "--port" in capsys.readouterr().err
