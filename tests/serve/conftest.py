"""Servers inside the test's process, and the pixels and files that are sent to them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from starlette.testclient import TestClient

from pacavit.serve import ServeOptions
from pacavit.serve.app import create_app
from pacavit.serve.models import model_sources

MODEL = "cifar10_nano_conv"

Served: TypeAlias = Callable[..., AbstractContextManager[Any]]


@contextmanager
def served(*models: str, wait: bool = True, **options: Any) -> Iterator[Any]:
    """A client of a server that has loaded its models."""
    errors: list[BaseException] = []
    settings = ServeOptions(**{"reload": 0, **options})
    app = create_app(model_sources(models), settings, wait=wait, ended=errors.append)
    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        client.errors = errors
        yield client


@pytest.fixture(scope="session", name="served")
def _served() -> Served:
    return served


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Of a server with one classifier."""
    with served(MODEL) as client:
        yield client


@pytest.fixture(scope="session")
def pixels() -> NDArray[np.uint8]:
    """(3, 3, 40, 32), random."""
    return np.random.default_rng(0).integers(0, 256, (3, 3, 40, 32)).astype(np.uint8)


def png(image: NDArray[np.uint8]) -> bytes:
    """(3, H, W) -> the bytes of a PNG file."""
    file = BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def files(pixels: NDArray[np.uint8]) -> list[bytes]:
    """The same as PNG files."""
    return [png(image) for image in pixels]
