"""What the command says when it cannot serve, and a server in a process of its own."""

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pacavit
from pacavit import api
from pacavit.errors import PacavitError
from pacavit_cli.main import main

MODEL = "cifar10_nano_conv"
ROOT = Path(__file__).parents[2]
GUIDE = re.compile(r"```py\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("name", ["fastapi", "uvicorn", "prometheus_client"])
def test_without_the_extra_it_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda each: None if each == name else found(each)
    )
    assert main(["serve", MODEL]) == 2
    told = f"error: serving needs {name}; install it with: pip install 'pacavit[serve]'\n"
    assert capsys.readouterr().err == told


def test_a_port_in_use_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", MODEL, "--port", str(port)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: port {port} of 127.0.0.1 is in use; give another one")
    assert len(told.splitlines()) == 1


def test_other_machines_need_a_token(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PACAVIT_TOKEN", raising=False)
    assert main(["serve", MODEL, "--host", "0.0.0.0"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: 0.0.0.0 can be reached by other machines, so requests need a")
    assert "PACAVIT_TOKEN" in told
    assert len(told.splitlines()) == 1


def test_a_wrong_model_ends_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path / "none"), "--port", "0"]) == 2
    told = capsys.readouterr()
    assert told.err == f"error: no run folder or weights file at {tmp_path / 'none'}\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "--workers must be at least 1"),
        ({"queue": 0}, "--queue must be at least 1"),
        ({"port": 99999}, "cannot listen at port 99999"),
        ({"device": "gpu"}, "no device"),
        ({"token": "ä"}, "the token must be printable ASCII"),
    ],
)
def test_wrong_options_are_reported(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PacavitError, match=message):
        api.serve(MODEL, **{"port": 0, **options})


@contextmanager
def process(*words: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A server in a process of its own, and its address without ``http://``."""
    started = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "pacavit_cli", "serve", MODEL, "--port", "0", *words],
        env={**os.environ, "PYTHONPATH": str(Path(pacavit.__path__[0]).parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert started.stdout is not None
    try:
        line = started.stdout.readline()
        assert line.startswith(f"serving {MODEL} at http://127.0.0.1:"), line
        yield started, line.split("http://")[1].split("/")[0]
    finally:
        started.kill()
        started.wait()
        started.stdout.close()


@pytest.mark.slow
def test_a_client_that_others_wrote_is_answered_until_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton's client, unchanged; what had arrived before SIGTERM is answered."""
    http = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 64, 64)).astype(np.uint8)
    expected = api.predict(MODEL, [image.transpose(1, 2, 0) for image in images[:2]], top_k=1)
    names = [prediction.to_dict()["top"][0]["class"] for prediction in expected]

    with process() as (server, url):
        client = http.InferenceServerClient(url)
        limit = time.monotonic() + 60
        while not client.is_server_ready():
            assert time.monotonic() < limit
            time.sleep(0.05)
        assert client.is_server_live()
        assert client.is_model_ready(MODEL)
        assert client.get_server_metadata()["name"] == "pacavit"
        described = client.get_model_metadata(MODEL)
        assert [each["name"] for each in described["inputs"]] == ["images"]
        for binary in (True, False):
            given = http.InferInput("images", [2, 3, 64, 64], "UINT8")
            given.set_data_from_numpy(images[:2], binary_data=binary)
            wanted = [
                http.InferRequestedOutput("logits", binary_data=binary),
                http.InferRequestedOutput("probabilities", binary_data=binary, class_count=1),
            ]
            answer = client.infer(MODEL, [given], outputs=wanted)
            assert answer.as_numpy("logits").shape == (2, 10)
            top = answer.as_numpy("probabilities")[:, 0].tolist()
            found = [each if isinstance(each, str) else each.decode() for each in top]
            assert [each.split(":")[2] for each in found] == names
        with pytest.raises(Exception, match="there is no model 'other'"):
            client.infer("other", [given])

        Image.fromarray(images[0].transpose(1, 2, 0)).save(tmp_path / "cat.jpg")
        monkeypatch.chdir(tmp_path)
        for snippet in GUIDE.findall((ROOT / "docs/guides/serve.md").read_text("utf-8")):
            exec(snippet.replace("127.0.0.1:8000", url).replace("digits", MODEL), {})

        shapes: list[Any] = []

        def ask() -> None:
            own = http.InferenceServerClient(url, network_timeout=120)
            given = http.InferInput("images", images.shape, "UINT8")
            given.set_data_from_numpy(images)
            shapes.append(own.infer(MODEL, [given]).as_numpy("logits").shape)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        while in_work(url) + len(images) * len(shapes) < 3 * len(images):
            assert time.monotonic() < limit
        server.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert shapes == [(64, 10)] * 3
        assert server.wait(60) == 0
        assert server.stdout is not None
        assert server.stdout.read() == ""


def metrics(url: str) -> str:
    from urllib.request import urlopen

    with urlopen(f"http://{url}/metrics", timeout=60) as answer:
        return str(answer.read().decode())


def in_work(url: str) -> float:
    (row,) = (row for row in metrics(url).splitlines() if row.startswith("pacavit_images_in_work{"))
    return float(row.split()[-1])


def spawned(parent: int) -> list[int]:
    """The processes that Python's multiprocessing has started."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    lines = {int(child): Path(f"/proc/{child}/cmdline").read_text() for child in children}
    return [child for child, line in lines.items() if "spawn_main" in line]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds workers in /proc")
def test_a_killed_worker_is_replaced() -> None:
    with process("--workers", "2") as (server, url):
        limit = time.monotonic() + 120
        assert 'pacavit_model_ready{model="cifar10_nano_conv"} 1.0' in metrics(url)
        workers = spawned(server.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        assert server.stdout is not None
        told = server.stdout.readline()
        assert told == f"worker {workers[0]} ended by SIGKILL; another one starts\n"
        assert "pacavit_requests_total" in metrics(url)  # as soon as another one is ready
        assert time.monotonic() < limit
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
