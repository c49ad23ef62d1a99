from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support
from torchmetrics.classification import MulticlassAccuracy

from pacavit.data import MemoryImages
from pacavit.engine import build, evaluate, load_model
from pacavit.errors import DataError
from pacavit.tasks.classification import ClassificationMetrics, ClassificationTask


def test_scores_agree_with_scikit_learn(finished: Path) -> None:
    loaded = load_model(finished)
    images = build.data_source(loaded.recipe).load("test")
    loader = build.eval_loader(loaded.recipe, images, loaded.info)
    result = evaluate(loaded.classifier, loader, loaded.info.class_names)
    probabilities = loaded.task.predict(next(loader.epoch(0)).images).probabilities
    exact = probabilities.double() / probabilities.double().sum(1, keepdim=True)
    labels, guesses = images.labels, probabilities.argmax(1)

    assert result.num_images == 30
    assert result.images_per_second > 0
    assert result.accuracy == pytest.approx((labels == guesses).float().mean().item())
    assert result.loss == pytest.approx(log_loss(labels, exact, labels=range(3)))
    # Of three classes, the five likeliest are all; the bins are checked with the metrics.
    assert result.other_scores.keys() == {"calibration_error"}
    assert 0 <= result.other_scores["calibration_error"] <= 1
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


def test_further_numbers_of_the_task_are_kept(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = ClassificationTask.metrics

    def more(self: ClassificationTask) -> ClassificationMetrics:
        metrics = measured(self)
        metrics.add_metrics({"top2": MulticlassAccuracy(3, average="micro", top_k=2)})
        return metrics

    monkeypatch.setattr(ClassificationTask, "metrics", more)
    loaded = load_model(finished)
    loader = build.eval_loader(
        loaded.recipe, build.data_source(loaded.recipe).load("test"), loaded.info
    )
    result = evaluate(loaded.classifier, loader, loaded.info.class_names)
    assert result.other_scores.keys() == {"calibration_error", "top2"}
    assert result.accuracy <= result.other_scores["top2"] <= 1
    assert result.to_dict()["other_scores"] == result.other_scores


def test_labels_beyond_the_classes_are_refused(finished: Path) -> None:
    loaded = load_model(finished)
    images = MemoryImages(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 7]))
    loader = build.eval_loader(loaded.recipe, images, loaded.info)
    with pytest.raises(DataError, match="labels up to 7, but the model knows 3 classes"):
        evaluate(loaded.classifier, loader, loaded.info.class_names)
