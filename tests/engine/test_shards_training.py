"""Runs on images in shards resume with the same bits, and predict what they were trained on."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pacavit.engine import load_model, train
from pacavit.engine.trainer import Trainer
from pacavit.errors import Interrupted
from pacavit.recipes import Recipe, parse


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """30 dark and 30 bright images of differing sizes, one broken, in two shards of each kind."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(60):
        height, width = rng.integers(8, 20, 2)
        low, stream = 150 * (number % 2), io.BytesIO()
        pixels = rng.integers(low, low + 100, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(stream, "png")
        rows.append((b"no image" if number == 17 else stream.getvalue(), number % 2))
    for kind in ("parquet", "webdataset"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "classes.txt").write_text("dark\nlight\n")
    for shard in range(2):
        part = rows[30 * shard : 30 * shard + 30]
        images = [{"bytes": data, "path": None} for data, _ in part]
        table = pa.table({"image": images, "label": [label for _, label in part]})
        file = tmp_path / f"parquet/train-{shard}.parquet"
        pq.write_table(table, file, row_group_size=7)
        with tarfile.open(tmp_path / f"webdataset/train-{shard}.tar", "w") as tar:
            for number, (data, label) in enumerate(part):
                for name, content in (("png", data), ("cls", str(label).encode())):
                    member = tarfile.TarInfo(f"{number:03}.{name}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return tmp_path


def recipe(root: Path, kind: str, num_workers: int = 0) -> Recipe:
    return parse(
        {
            "name": "tiny",
            "task": {"image_size": 8, "crop": {"scale": [0.3, 1.0]}},
            "data": {
                "name": kind,
                "root": str(root / kind),
                "val_size": 10,
                "num_workers": num_workers,
            },
            "model": {"name": "tiny_net"},
            "train": {"epochs": 2, "batch_size": 10, "lr": 0.02, "device": "cpu"},
        },
        "the test's recipe",
    )


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_workers_and_resuming_change_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def weights(run: Path) -> dict[str, torch.Tensor]:
        return load_model(run).task.model.state_dict()

    expected = weights(train(recipe(root, kind), tmp_path / "here", progress=False))
    original, out = Trainer._train_step, tmp_path / "workers"

    def step(self: Trainer, batch: Any) -> torch.Tensor:
        self.stop_requested = self.progress.step == 6  # in mid-epoch
        return original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", step)
        with pytest.raises(Interrupted):
            train(recipe(root, kind, 2), out, progress=False)
    train(recipe(root, kind, 1), out, resume=True, progress=False)
    resumed = weights(out)
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())
    assert load_model(out).info.class_names == ("dark", "light")
    place = "row 17" if kind == "parquet" else "017"
    assert f": {place}" in (out / "broken_images.txt").read_text()
