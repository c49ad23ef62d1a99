"""The examples for Ray; the actor of one needs no cluster, and ``make ray`` tests both on one."""

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pacavit import api

LoadExample = Callable[[str], ModuleType]
MODEL = "cifar10_nano_conv"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images and a broken one."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        pixels = rng.integers(0, 256, (12, 10, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "images" / "5.png").write_bytes(b"no image")
    return tmp_path / "images"


def expected(folder: Path) -> list[str]:
    """The most probable class of each image; empty for the broken one."""
    found = [each.to_dict()["top"] for each in api.predict(MODEL, folder)]
    return [top[0]["class"] if top else "" for top in found]


def classes(predictions: list[str]) -> list[str]:
    tops = [json.loads(text)["top"] for text in predictions]
    return [top[0]["class"] if top else "" for top in tops]


def test_an_actor_predicts_a_batch(load_example: LoadExample, folder: Path) -> None:
    files = sorted(folder.iterdir())
    batch = {
        "bytes": np.array([file.read_bytes() for file in files], object),
        "path": np.array([str(file) for file in files]),
    }
    columns = load_example("ray_predict").PredictBatch(MODEL)(batch)
    assert columns["path"].tolist() == [str(file) for file in files]
    assert classes(columns["prediction"].tolist()) == expected(folder)
    assert columns["error"].tolist()[:5] == [""] * 5
    assert "is not an image" in columns["error"][5]


@pytest.mark.ray
def test_a_cluster_predicts_a_folder(
    load_example: LoadExample, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    words = ["ray_predict.py", MODEL, str(folder), str(out), "--actors", "1"]
    monkeypatch.setattr(sys, "argv", words)
    load_example("ray_predict").main()
    table = pq.read_table(out)
    assert [Path(path).name for path in table["path"].to_pylist()] == [f"{n}.png" for n in range(6)]
    assert classes(table["prediction"].to_pylist()) == expected(folder)


@pytest.mark.ray
def test_a_cluster_serves_a_model(load_example: LoadExample, folder: Path) -> None:
    from ray import serve

    serve.run(load_example("ray_serve").application(MODEL, 1))
    try:
        with urllib.request.urlopen(
            "http://127.0.0.1:8000/", (folder / "0.png").read_bytes()
        ) as answer:
            found = json.loads(answer.read())
        assert found["top"][0]["class"] == expected(folder)[0]
        with pytest.raises(urllib.error.HTTPError, match="422"):
            urllib.request.urlopen("http://127.0.0.1:8000/", b"no image")
    finally:
        serve.shutdown()
