"""The packaged models, a picture of known content, and a page that runs."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import pytest
from PIL import Image

from pacavit.demo.examples import example_images
from pacavit.demo.explaining import Explained, Models
from pacavit.demo.server import prepare
from pacavit.report.explanation.page import write_explanations

if TYPE_CHECKING:
    from uvicorn import Server

OWN = "cifar10_nano_kmeans"

WrongFiles: TypeAlias = Mapping[str, Callable[[Path], None]]


class Served(NamedTuple):
    """A running demo: its address, and the images that it offers."""

    url: str
    examples: dict[str, Path]


@pytest.fixture(scope="session")
def models() -> Models:
    return Models([OWN])


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The images that the demo offers, by name."""
    folder = tmp_path_factory.mktemp("examples")
    return {file.stem: file for file in example_images(folder, "cifar10")}


@pytest.fixture(scope="session")
def ship(models: Models, examples: dict[str, Path]) -> Explained:
    found = models.explain(OWN, examples["ship"])
    assert isinstance(found, Explained)
    return found


@pytest.fixture(scope="session")
def photograph(models: Models, examples: dict[str, Path]) -> Explained:
    """Wider than high, so that the network does not see all of it."""
    found = models.explain(OWN, examples["photograph"])
    assert isinstance(found, Explained)
    return found


@pytest.fixture(scope="module")
def served(examples: dict[str, Path]) -> Iterator[Served]:
    pytest.importorskip("gradio", reason="the extra demo is not installed")
    ready: Queue[tuple[Server, str]] = Queue()

    def run() -> None:
        with prepare([OWN], host="127.0.0.1", port=0, write=write_explanations) as prepared:
            server, listener, url = prepared
            ready.put((server, url))
            server.run(sockets=[listener])

    # All in one thread: in the main one Playwright may have an event loop running.
    thread = Thread(target=run)
    thread.start()
    server, url = ready.get(timeout=120)
    yield Served(url, examples)
    server.should_exit = True
    thread.join()


def broken(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\nnonsense")


def enormous(path: Path) -> None:
    Image.new("1", (9000, 9000)).save(path)


def animated(path: Path) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def tiny(path: Path) -> None:
    Image.new("RGB", (1, 1)).save(path)


@pytest.fixture
def wrong_files() -> WrongFiles:
    """What writes a file that cannot be explained, by what is wrong with it."""
    return {"broken": broken, "enormous": enormous, "animated": animated, "tiny": tiny}
