"""A small evaluation and a small run with awkward class names, and a small folder of images."""

import pickle
import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from pacavit import api
from pacavit.data import DATASETS, Batch, DataInfo, DataSource, MemoryImages, Split
from pacavit.engine.evaluate import ClassScores, Evaluation
from pacavit.engine.scoring import SplitScore
from pacavit.report.tasks.classification.observe import TopClasses, TopClassesObserver
from pacavit.tasks.classification import Predictions

SCRIPT = "<script>document.title = 'executed'</script>"
IMAGE = "<img src=x onerror=\"document.title = 'executed'\">"


@DATASETS.register("awkward-names")
class AwkwardNames(DataSource):
    """Noise in three brightnesses, whose class names are a danger to pages."""

    default_val_size: ClassVar[int] = 12

    @property
    def info(self) -> DataInfo:
        half = (0.5, 0.5, 0.5)
        names = (SCRIPT, IMAGE, "cat & dog " + 20 * "very" + " long")
        return DataInfo("awkward-names", f"noise {SCRIPT}", names, (32, 32), half, half)

    def load(self, split: Split) -> MemoryImages:
        num = {"train": 48, "val": self.val_size, "test": 30}[split]
        generator = torch.Generator().manual_seed(len(split))
        labels = torch.arange(num) % 3
        noise = torch.randint(0, 100, (num, 3, 32, 32), generator=generator, dtype=torch.uint8)
        return MemoryImages(noise + (70 * labels).byte()[:, None, None, None], labels)


@pytest.fixture(scope="session")
def awkward_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs with validation results; tests must not change it."""
    settings = ["data.name=awkward-names", "train.epochs=2", "train.batch_size=16"]
    settings += [f"name={SCRIPT}", f"description={SCRIPT}", "train.clip=null"]
    return api.train("digits", tmp_path_factory.mktemp("awkward") / "run", set=settings)


@pytest.fixture
def evaluation() -> Evaluation:
    return Evaluation(
        task="classification",
        scores={
            "accuracy": 0.8,
            "loss": 0.5,
            "precision_macro": 0.81,
            "recall_macro": 0.82,
            "f1_macro": 0.83,
            "precision_weighted": 0.84,
            "recall_weighted": 0.85,
            "f1_weighted": 0.86,
            "calibration_error": 0.0625,
        },
        per_class=(
            ClassScores("cat, [bold]", {"precision": 0.9, "recall": 0.7, "f1": 0.75}, 6),
            ClassScores("$dog|", {"precision": 0.7, "recall": 0.9, "f1": 0.85}, 4),
        ),
        arrays={"confusion": torch.tensor([[5, 1], [1, 3]])},
        num_images=10,
        images_per_second=1234.5,
    )


LABELS = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])


@pytest.fixture
def observed() -> TopClassesObserver:
    """A prediction for each image: 5 and 9 are incorrect, 9 with more probability."""
    guesses = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 0])
    surest = torch.tensor([0.9, 0.6, 0.8, 0.7, 0.9, 0.6, 0.8, 0.9, 0.7, 0.8])
    first = torch.where(guesses == 0, surest, 1 - surest)
    probabilities = torch.stack([first, 1 - first], 1)
    observer, images = TopClassesObserver(), torch.zeros(10, 3, 5, 5)
    for rows in (slice(0, 4), slice(4, 10)):
        batch = Batch(images[rows], LABELS[rows], torch.arange(10)[rows])
        observer(Predictions(probabilities[rows].log(), probabilities[rows]), batch)
    return observer


@pytest.fixture
def top(observed: TopClassesObserver) -> TopClasses:
    """The most probable classes of each image."""
    return observed.top()


@pytest.fixture
def score(evaluation: Evaluation) -> SplitScore:
    """The evaluation with its images."""
    grey = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 5, 5)
    images = MemoryImages(grey, LABELS)
    half = (0.5, 0.5, 0.5)
    names = tuple(row.name for row in evaluation.per_class)
    return SplitScore(evaluation, images, DataInfo("pets", "pets", names, (5, 5), half, half), None)


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


@pytest.fixture
def run(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on digits, of one epoch; a copy, which the test may change."""
    return shutil.copytree(digits_run, tmp_path_factory.mktemp("runs") / "run")
