"""Runs on images in files: the same for any number of workers, and no broken file ends one."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pacavit.data import Batch, FileImages, Loader, Sample, Split
from pacavit.engine import build, evaluate, load_model, train
from pacavit.engine.predictor import Predictor
from pacavit.engine.scoring import score_model
from pacavit.engine.trainer import Trainer
from pacavit.engine.weights.checkpoint import newest
from pacavit.errors import DataError, Interrupted, ReadError
from pacavit.recipes import Recipe, parse
from pacavit.report.publishing.packaging import score_for_card


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """30 dark and 30 bright images of differing sizes; a dark one, no test image, is broken."""
    rng = np.random.default_rng(0)
    for low, name in ((0, "dark"), (150, "light")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(30):
            height, width = rng.integers(8, 20, 2)
            pixels = rng.integers(low, low + 100, (height, width, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number:02}.png")
    (tmp_path / "data" / "dark" / "08.png").write_bytes(b"no image")
    return tmp_path / "data"


def recipe(root: Path, num_workers: int = 0, **data: Any) -> Recipe:
    options = {"image_size": 8, "in_memory": False, "test_size": 10, **data}
    crop = {"crop": {"scale": [0.3, 1.0]}}
    return parse(
        {
            "name": "tiny",
            "task": {"image_size": 8, **({} if options["in_memory"] else crop)},
            "data": {
                "name": "folder",
                "root": str(root),
                "val_size": 10,
                "num_workers": num_workers,
                "options": options,
            },
            "model": {"name": "tiny_net"},
            "train": {"epochs": 2, "batch_size": 10, "lr": 0.02, "device": "cpu"},
        },
        "the test's recipe",
    )


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_model(run).task.model.state_dict()


@contextmanager
def stopped_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> Iterator[None]:
    """A run is asked to stop in the last of so many training steps."""
    original = Trainer._train_step

    def step(self: Trainer, batch: Any) -> torch.Tensor:
        self.stop_requested = self.progress.step == steps - 1
        return original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", step)
        yield


def test_workers_and_resuming_change_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = weights(train(recipe(root), tmp_path / "here", progress=False))

    out = tmp_path / "workers"
    with stopped_after(monkeypatch, 6), pytest.raises(Interrupted):  # in mid-epoch
        train(recipe(root, 2), out, progress=False)
    train(recipe(root, 1), out, resume=True, progress=False)
    resumed = weights(out)
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())


@pytest.mark.parametrize("in_memory", [True, False])
def test_broken_images_are_counted_and_listed(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], in_memory: bool
) -> None:
    out = train(recipe(root, in_memory=in_memory), tmp_path / "run", progress=True)
    broken = str(root / "dark" / "08.png")
    printed = capsys.readouterr().out
    assert printed.count("1 image is left out: ") == 1
    assert broken in printed
    assert (out / "broken_images.txt").read_text().startswith(broken)


def test_a_resumed_run_keeps_the_list_of_broken_images(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with stopped_after(monkeypatch, 5), pytest.raises(Interrupted):  # the first epoch is over
        train(recipe(root), out, progress=False)
    # Met in the first session only, like an image that the rest of an epoch does not reach.
    earlier = "data/gone.png is broken"
    kept = (out / "broken_images.txt").read_text().splitlines()
    (out / "broken_images.txt").write_text("\n".join([earlier, *kept, ""]))
    train(recipe(root), out, resume=True, progress=False)
    assert (out / "broken_images.txt").read_text().splitlines() == [earlier, *kept]


def test_measuring_counts_readable_images_and_predicting_crops_alike(
    root: Path, tmp_path: Path
) -> None:
    model = load_model(train(recipe(root), tmp_path / "run", progress=False))
    source = build.data_source(model.recipe)
    images = source.load("test")
    loader = build.eval_loader(model.recipe, images, model.info)
    evaluation = evaluate(model.classifier, loader, model.info.class_names)
    train_images = source.load("train")
    assert isinstance(images, FileImages)
    assert isinstance(train_images, FileImages)
    train_images.path(0).write_bytes(b"")
    paths = [images.path(index) for index in range(len(images))]
    predictions = Predictor(model)(paths)
    readable = [prediction for prediction in predictions if prediction.error is None]
    names = [model.info.class_names[int(found.record.logits.argmax())] for found in readable]
    right = [name == found.source.parent.name for name, found in zip(names, readable, strict=True)]
    assert len(readable) == evaluation.num_images > 0
    assert evaluation.accuracy == pytest.approx(sum(right) / len(right))
    for split in ("train", "val", "test"):
        score = score_model(model, split, device=torch.device("cpu"))
        assert score.evaluation.num_images == len(score.images) - len(score.images.broken)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_disk_that_fails_stops_with_a_checkpoint_and_breaks_no_image(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: Split
) -> None:
    expected = weights(train(recipe(root), tmp_path / "whole", progress=False))
    images = build.data_source(recipe(root)).load(split)
    assert isinstance(images, FileImages)
    victim = images.path(len(images) - 1)
    original = FileImages.__getitem__

    def fail(self: FileImages, index: int) -> Sample:
        if self.path(index) == victim:
            raise ReadError(f"cannot read {victim}: Input/output error")
        return original(self, index)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(FileImages, "__getitem__", fail)
        with pytest.raises(ReadError, match="Input/output error"):
            train(recipe(root), out, progress=False)
    assert newest(out / "checkpoints") is not None
    train(recipe(root), out, resume=True, progress=False)
    resumed = weights(out)
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())
    assert (
        not (out / "broken_images.txt").exists()
        or str(victim) not in (out / "broken_images.txt").read_text()
    )


def test_a_worker_that_dies_of_the_signal_to_stop_is_a_stop(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Loader.epoch

    def die(self: Loader, epoch: int, start: int = 0) -> Iterator[Batch]:
        yield next(original(self, epoch, start))
        os.kill(os.getpid(), signal.SIGTERM)
        raise DataError("a process that reads images died")

    monkeypatch.setattr(Loader, "epoch", die)
    with pytest.raises(Interrupted, match="stopped after step 1"):
        train(recipe(root, 1), tmp_path / "run", progress=False)
    assert newest(tmp_path / "run" / "checkpoints") is not None


def test_other_data_are_reported_and_make_no_card(root: Path, tmp_path: Path) -> None:
    model = load_model(train(recipe(root), tmp_path / "run", progress=False))
    cpu = torch.device("cpu")
    assert score_model(model, "test", device=cpu).note is None
    (root / "dark" / "new.png").write_bytes((root / "dark" / "01.png").read_bytes())
    note = score_model(model, "test", device=cpu).note
    assert note is not None
    for part in ("folder of 61 images", "folder of 60 images", "10 images of the test split"):
        assert part in note
    with pytest.raises(DataError, match=r"61 images.*60 images"):
        score_for_card(model, "x", data=None, progress=False)
