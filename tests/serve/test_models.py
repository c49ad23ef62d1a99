"""Names of models, limits of images, and weights that change while they are served."""

import json
import os
import shutil
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file

from pacavit.engine.weights.packaged import packaged_file
from pacavit.errors import DataError, PacavitError
from pacavit.serve import ServeOptions
from pacavit.serve.models import Weights, model_sources

if TYPE_CHECKING:
    from tests.serve.conftest import Served

MODEL = "cifar10_nano_conv"


def copied(path: Path, change: float = 0.0) -> None:
    """The packaged weights in a file, their first class more likely by a change of its bias."""
    with resources.as_file(packaged_file(MODEL)) as file, safe_open(file, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        metadata = opened.metadata()
    (bias,) = (name for name, value in tensors.items() if name.endswith("head.bias"))
    tensors[bias] = tensors[bias].float() + change * torch.eye(10)[0]
    save_file(tensors, path.with_suffix(".tmp"), metadata)
    os.replace(path.with_suffix(".tmp"), path)  # noqa: PTH105


def test_models_are_served_under_the_names_of_their_files(tmp_path: Path) -> None:
    run = tmp_path / "my.run"
    run.mkdir()
    file = str(tmp_path / "w.safetensors")
    assert model_sources([MODEL, str(run), file, f"other={file}"]) == {
        MODEL: MODEL,
        "my.run": str(run),
        "w": file,
        "other": file,
    }


def test_names_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(PacavitError, match="two models have the name 'a'; give them names"):
        model_sources(["x/a.safetensors", "y/a.safetensors"])
    with pytest.raises(PacavitError, match="cannot be served under the name 'my run'"):
        model_sources(["x/my run.safetensors"])
    with pytest.raises(PacavitError, match="cannot be served under the name '-a'"):
        model_sources(["x/-a.safetensors"])
    with pytest.raises(PacavitError, match="give at least one model"):
        model_sources([])


def test_images_that_resizing_would_make_too_large_are_refused(segmenter: Path) -> None:
    weights = Weights(str(segmenter), ServeOptions(max_pixels=0.01))
    thin = torch.zeros(3, 1, 2000, dtype=torch.uint8)
    weights.job(thin, "a.png")
    task = weights.model.task
    task.config = task.config.model_copy(update={"image_size": 8})
    with pytest.raises(DataError, match=r"a\.png has 16000 x 8 pixels, once resized"):
        weights.job(thin, "a.png")


def test_messages_do_not_show_where_weights_lie(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    copied(file)
    weights = Weights(str(file), ServeOptions())
    assert weights.public(f"{file} in {tmp_path} has errors") == "the model in the model has errors"


def test_weights_that_are_no_numbers_are_an_error_without_a_path(
    served: "Served", tmp_path: Path, files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(MODEL) as client:
        predictor = client.app.state.models.find(None).weights.predictor
        with torch.no_grad():
            next(predictor.task.parameters()).fill_(torch.nan)
        answer = client.post("/predict", content=files[0])
    assert answer.status_code == 500
    message = "the network returns values for image 0 that are not numbers"
    assert answer.json() == {"error": message}


def until(condition: Callable[[], Any]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_changed_weights_are_loaded_and_wrong_ones_are_not(
    served: "Served", tmp_path: Path, pixels: NDArray[np.uint8], segmenter: Path
) -> None:
    file = tmp_path / "w.safetensors"
    copied(file)
    shape = list(pixels.shape)
    field = {"name": "images", "datatype": "UINT8", "shape": shape, "data": pixels.ravel().tolist()}
    with served(str(file), reload=0.05) as client:

        def answer() -> tuple[str, NDArray[np.float64]]:
            found = client.post("/v2/models/w/infer", json={"inputs": [field]})
            assert found.status_code == 200
            return found.json()["model_version"], np.array(found.json()["outputs"][0]["data"])

        def reloads(outcome: str) -> float:
            text = client.get("/metrics").text
            line = f'pacavit_reloads_total{{model="w",outcome="{outcome}"}} '
            return sum(float(row.removeprefix(line)) for row in text.splitlines() if line in row)

        before, logits = answer()
        copied(file, change=5.0)
        until(lambda: answer()[0] != before)  # every request in between is answered
        after, changed = answer()
        assert changed.reshape(3, 10)[:, 0] == pytest.approx(logits.reshape(3, 10)[:, 0] + 5)
        assert reloads("loaded") == 1
        old = client.post(f"/v2/models/w/versions/{before}/infer", json={"inputs": [field]})
        assert old.status_code == 404
        assert after in old.json()["error"]

        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        until(lambda: reloads("failed") == 1)
        assert answer()[0] == after
        shutil.copy(segmenter, file)
        until(lambda: reloads("failed") == 2)
        assert answer()[0] == after
        file.unlink()
        until(lambda: reloads("failed") == 3)
        version, last = answer()
        assert version == after
        assert np.array_equal(last, changed)
        assert client.get("/health/ready").status_code == 200
        found = client.post("/explain", content=b"x")
        assert found.status_code == 400
        assert str(tmp_path) not in json.dumps(found.json())


def test_options_out_of_range_are_refused() -> None:
    wrong: dict[str, Any] = {"queue": 0, "max_batch": 0, "timeout": 0.0, "max_delay": -1.0}
    for name, value in wrong.items():
        with pytest.raises(PacavitError, match=f"--{name.replace('_', '-')} must be at least"):
            ServeOptions(**{name: value})
    with pytest.raises(PacavitError, match="--max-body must be at least"):
        ServeOptions(max_body=float("nan"))
    with pytest.raises(PacavitError, match="the token is empty"):
        ServeOptions(token="")
