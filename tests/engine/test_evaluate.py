from __future__ import annotations

import copy
import json
import math
import pickle
from pathlib import Path

import pytest
import torch
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support
from torchmetrics.classification import MulticlassAccuracy

from pacavit.data import MemoryImages
from pacavit.engine import build, evaluate, load_model
from pacavit.engine.evaluate import ClassScores, Evaluation
from pacavit.errors import DataError
from pacavit.tasks.classification import ClassificationMetrics, ClassificationTask


def test_scores_agree_with_scikit_learn(finished: Path) -> None:
    loaded = load_model(finished)
    images = build.data_source(loaded.recipe).load("test")
    assert isinstance(images, MemoryImages)
    loader = build.eval_loader(loaded.recipe, images, loaded.info)
    result = evaluate(loaded.classifier, loader, loaded.info.class_names)
    probabilities = loaded.classifier.predict(next(loader.epoch(0))).probabilities
    exact = probabilities.double() / probabilities.double().sum(1, keepdim=True)
    labels, guesses = images.labels, probabilities.argmax(1)

    assert result.num_images == 30
    assert result.images_per_second > 0
    assert result.accuracy == pytest.approx((labels == guesses).float().mean().item())
    assert result.loss == pytest.approx(log_loss(labels, exact, labels=range(3)))
    # Of three classes, the top 5 are all; the bins are checked with the metrics.
    averages = {
        f"{score}_{average}"
        for score in ("precision", "recall", "f1")
        for average in ("macro", "weighted")
    }
    assert result.task == "classification"
    assert result.scores.keys() == {"accuracy", "loss", "calibration_error", *averages}
    assert result.arrays.keys() == {"confusion"}
    assert 0 <= result.calibration_error <= 1
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
    assert json.loads(json.dumps(result.to_dict()))["arrays"] == {
        "confusion": result.confusion.tolist()
    }


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
    assert list(result.scores)[-2:] == ["calibration_error", "top2"]
    assert result.accuracy <= result.top2 <= 1
    assert result.to_dict()["scores"] == result.scores


def test_labels_beyond_the_classes_are_refused(finished: Path) -> None:
    loaded = load_model(finished)
    images = MemoryImages(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 7]))
    loader = build.eval_loader(loaded.recipe, images, loaded.info)
    with pytest.raises(DataError, match="labels up to 7, but the model knows 3 classes"):
        evaluate(loaded.classifier, loader, loaded.info.class_names)


@pytest.fixture
def evaluation() -> Evaluation:
    return Evaluation(
        task="toy",
        scores={"mAP": 0.25, "loss": 1.5},
        per_class=(
            ClassScores("cat", {"ap": 0.5, "recall": 0.75}, 12),
            ClassScores("dog", {"ap": math.nan, "recall": 0.0}, 0),
        ),
        arrays={"curve": torch.tensor([[0.0, 1.0], [0.5, 0.25]]), "counts": torch.tensor([3, 4])},
        num_images=12,
        images_per_second=34.5,
    )


def test_an_evaluation_is_read_back_from_json(evaluation: Evaluation) -> None:
    stored = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert stored["per_class"][0] == {"name": "cat", "ap": 0.5, "recall": 0.75, "support": 12}
    assert stored["per_class"][1]["ap"] is None
    found = Evaluation.from_dict(stored | {"command": "pacavit evaluate", "date": "today"})
    assert (found.task, found.num_images) == ("toy", 12)
    assert found.images_per_second == 34.5
    assert found.scores == evaluation.scores
    assert list(found.scores) == ["mAP", "loss"]
    assert found.per_class[0] == evaluation.per_class[0]
    assert math.isnan(found.per_class[1].ap)
    assert (found.per_class[1].name, found.per_class[1].support) == ("dog", 0)
    assert found.arrays.keys() == evaluation.arrays.keys()
    for name, value in evaluation.arrays.items():
        assert torch.equal(found.arrays[name], value)
        assert found.arrays[name].dtype == value.dtype
    assert found.to_dict() == evaluation.to_dict()


@pytest.mark.parametrize("missing", ["task", "scores", "per_class", "arrays", "num_images"])
def test_an_incomplete_evaluation_is_an_error(evaluation: Evaluation, missing: str) -> None:
    stored = evaluation.to_dict()
    del stored[missing]
    with pytest.raises(KeyError, match=missing):
        Evaluation.from_dict(stored)


def test_scores_and_arrays_are_attributes(evaluation: Evaluation) -> None:
    assert evaluation.mAP == 0.25
    assert torch.equal(evaluation.counts, torch.tensor([3, 4]))
    assert evaluation.per_class[0].recall == 0.75
    assert not hasattr(evaluation, "accuracy")
    with pytest.raises(AttributeError, match="Evaluation has no attribute or score 'accuracy'"):
        evaluation.accuracy  # noqa: B018
    with pytest.raises(AttributeError, match="ClassScores has no attribute or score 'f1'"):
        evaluation.per_class[0].f1  # noqa: B018


def test_evaluations_can_be_copied_and_pickled(evaluation: Evaluation) -> None:
    """Attributes that are looked up in ``scores`` do not recurse before there are any."""
    copied, pickled = copy.deepcopy(evaluation), pickle.loads(pickle.dumps(evaluation))
    assert copied.to_dict() == pickled.to_dict() == evaluation.to_dict()
