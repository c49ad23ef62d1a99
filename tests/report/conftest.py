"""A small evaluation with awkward class names, and a small folder of images."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from pacavit import api
from pacavit.engine.evaluate import ClassScores, Evaluation


@pytest.fixture
def evaluation() -> Evaluation:
    return Evaluation(
        num_images=10,
        accuracy=0.8,
        loss=0.5,
        precision_macro=0.81,
        recall_macro=0.82,
        f1_macro=0.83,
        precision_weighted=0.84,
        recall_weighted=0.85,
        f1_weighted=0.86,
        per_class=(
            ClassScores("cat, [bold]", 0.9, 0.7, 0.75, 6),
            ClassScores("$dog|", 0.7, 0.9, 0.85, 4),
        ),
        confusion=torch.tensor([[5, 1], [1, 3]]),
        images_per_second=1234.5,
        other_scores={"calibration_error": 0.0625},
    )


@pytest.fixture(scope="session")
def cifar10_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder as CIFAR-10's official one, with ten images of noise in each file."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (10, 3072), np.uint8)
    batch = pickle.dumps({"data": pixels, "labels": list(range(10))}, 2)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(batch)
    return root


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on digits, of one epoch."""
    return api.train("digits", tmp_path_factory.mktemp("runs") / "run", set=["train.epochs=1"])
