from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

from pacavit.data import MemoryImages
from pacavit.engine import build, evaluate, load_model
from pacavit.errors import DataError


def test_scores_agree_with_scikit_learn(finished: Path) -> None:
    loaded = load_model(finished)
    images = build.data_source(loaded.recipe.data).load("test")
    loader = build.eval_loader(loaded.recipe, images, loaded.info)
    result = evaluate(loaded.task, loader, loaded.info.class_names)
    probabilities = loaded.task.predict(next(loader.epoch(0)).images).probabilities
    exact = probabilities.double() / probabilities.double().sum(1, keepdim=True)
    labels, guesses = images.labels, probabilities.argmax(1)

    assert result.num_images == 30
    assert result.images_per_second > 0
    assert result.accuracy == pytest.approx((labels == guesses).float().mean().item())
    assert result.loss == pytest.approx(log_loss(labels, exact, labels=range(3)))
    assert result.confusion.tolist() == confusion_matrix(labels, guesses).tolist()
    for average in ("macro", "weighted"):
        expected = precision_recall_fscore_support(
            labels, guesses, average=average, zero_division=0
        )
        for name, value in zip(("precision", "recall", "f1"), expected, strict=False):
            assert getattr(result, f"{name}_{average}") == pytest.approx(value)
    rows = precision_recall_fscore_support(labels, guesses, zero_division=0)
    for row, *expected_row in zip(result.per_class, *rows, strict=True):
        found = [row.precision, row.recall, row.f1, row.support]
        assert found == pytest.approx([float(value) for value in expected_row])
    assert [row.name for row in result.per_class] == ["row", "column", "none"]
    assert json.loads(json.dumps(result.to_dict()))["confusion"] == result.confusion.tolist()


def test_labels_beyond_the_classes_are_refused(finished: Path) -> None:
    loaded = load_model(finished)
    images = MemoryImages(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 7]))
    loader = build.eval_loader(loaded.recipe, images, loaded.info)
    with pytest.raises(DataError, match="labels up to 7, but the model knows 3 classes"):
        evaluate(loaded.task, loader, loaded.info.class_names)
