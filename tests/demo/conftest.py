"""The packaged models, a picture of known content, and a page that runs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import pytest
from PIL import Image

from pacavit.demo.classification.classified import Classified
from pacavit.demo.examples import example_images
from pacavit.demo.models import Models
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
def ship(models: Models, examples: dict[str, Path]) -> Classified:
    found = models.explain(OWN, examples["ship"])
    assert isinstance(found, Classified)
    return found


@pytest.fixture(scope="session")
def photograph(models: Models, examples: dict[str, Path]) -> Classified:
    """Wider than high, so that the network does not see all of it."""
    found = models.explain(OWN, examples["photograph"])
    assert isinstance(found, Classified)
    return found


Serve: TypeAlias = Callable[[str], AbstractContextManager[str]]


@pytest.fixture(scope="session")
def serve() -> Serve:
    """Run the demo with a model of one's own, and give its address."""

    @contextmanager
    def serve(model: str) -> Iterator[str]:
        pytest.importorskip("gradio", reason="the extra demo is not installed")
        ready: Queue[tuple[Server, str]] = Queue()

        def run() -> None:
            with prepare([model], host="127.0.0.1", port=0, write=write_explanations) as prepared:
                server, listener, url = prepared
                ready.put((server, url))
                server.run(sockets=[listener])

        # All in one thread: in the main one Playwright may have an event loop running.
        thread = Thread(target=run)
        thread.start()
        server, url = ready.get(timeout=120)
        yield url
        server.should_exit = True
        thread.join()

    return serve


@pytest.fixture(scope="module")
def served(serve: Serve, examples: dict[str, Path]) -> Iterator[Served]:
    with serve(OWN) as url:
        yield Served(url, examples)


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
