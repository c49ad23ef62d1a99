from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.data import Batch, DataInfo, MemoryImages, SampleRandom
from pacavit.errors import DataError, RecipeError
from pacavit.tasks import NetworkFactory
from pacavit.tasks.classification import Predictions
from pacavit.tasks.classification.config import MixConfig
from pacavit.tasks.multilabel import MultilabelConfig, MultilabelMetrics, MultilabelTask
from pacavit.tasks.multilabel.thresholds import f1_by_threshold

INFO = DataInfo("test", "test", ("a", "b", "c"), (4, 4), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Flat(nn.Module):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.fc = nn.Linear(3, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(images.mean((2, 3)))
        return logits


def make_task(**config: object) -> MultilabelTask:
    torch.manual_seed(0)
    made = MultilabelConfig.model_validate({"name": "multilabel", **config})
    network = cast(NetworkFactory, lambda *, num_classes: Flat(num_classes))
    return MultilabelTask.build(made, INFO, network)


def make_batch(num: int = 6) -> Batch:
    torch.manual_seed(1)
    targets = (torch.rand(num, 3) < 0.5).to(torch.uint8)
    return Batch(torch.randn(num, 3, 4, 4), targets, torch.arange(num))


def test_loss_is_the_mean_binary_cross_entropy_over_images_and_classes() -> None:
    task, batch = make_task(), make_batch()
    p = task.model(batch.images).sigmoid()
    t = batch.targets
    expected = -(t * p.log() + (1 - t) * (1 - p).log()).mean()
    torch.testing.assert_close(task(batch)["loss"], expected)
    weighted = make_task(positive_weight=3.0)
    expected = -(3 * t * p.log() + (1 - t) * (1 - p).log()).mean()
    torch.testing.assert_close(weighted(batch)["loss"], expected)


def test_probabilities_are_sigmoids_and_need_not_sum_to_one() -> None:
    task, batch = make_task(), make_batch()
    found = task.predict(batch)
    assert torch.equal(found.probabilities, task.model(batch.images).sigmoid())
    assert len(found) == 6
    assert torch.equal(found[2].probabilities, found.probabilities[2])


def test_scores_agree_with_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    truth = (generator.random((200, 4)) < [0.1, 0.3, 0.6, 0.9]).astype(np.int64)
    probabilities = np.clip(0.3 * truth + 0.7 * generator.random((200, 4)), 0, 1)
    metrics = MultilabelMetrics(4, 0.5)
    for rows in np.split(np.arange(200), 4):
        scores = torch.from_numpy(probabilities[rows])
        metrics.update(Predictions(scores.logit(), scores), torch.from_numpy(truth[rows]))
    found = metrics.compute()
    called = probabilities >= 0.5
    expected = {
        "mAP": average_precision_score(truth, probabilities, average="macro"),
        "f1_macro": f1_score(truth, called, average="macro"),
        "f1_micro": f1_score(truth, called, average="micro"),
        "exact_match": (called == truth).all(1).mean(),
        "average_precision_per_class": average_precision_score(truth, probabilities, average=None),
        "precision_per_class": precision_score(truth, called, average=None),
        "recall_per_class": recall_score(truth, called, average=None),
        "f1_per_class": f1_score(truth, called, average=None),
        "support_per_class": truth.sum(0),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].numpy(), value, rtol=1e-5, err_msg=name)
    curves = f1_by_threshold(found["threshold_counts"])
    for place in (9, 49, 79):
        threshold = np.float32((place + 1) / 100)
        value = f1_score(truth, probabilities >= threshold, average=None)
        np.testing.assert_allclose(curves[:, place].numpy(), value, rtol=1e-6)


def test_a_class_without_images_is_left_out_of_the_mean() -> None:
    metrics = MultilabelMetrics(2, 0.5)
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.4]])
    metrics.update(Predictions(scores.logit(), scores), torch.tensor([[1, 0], [0, 0]]))
    found = metrics.compute()
    assert found["mAP"] == 1
    assert found["average_precision_per_class"].isnan().tolist() == [False, True]
    assert found["support_per_class"].tolist() == [1, 0]


def test_mixing_blends_rows_of_zeros_and_ones() -> None:
    config = MultilabelConfig(mix=MixConfig(mixup=0.4))
    preprocess = MultilabelTask.preprocess(config, INFO, training=True, epochs=3)
    assert preprocess.unit == 2
    batch = Batch(
        torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
        torch.tensor([[1, 0, 1], [0, 0, 1]], dtype=torch.uint8),
        torch.arange(2),
    )
    mixed = preprocess.batch(batch, SampleRandom(0, 0, batch.indices))
    assert mixed.targets.dtype == torch.float32
    torch.testing.assert_close(mixed.targets.sum(0), torch.tensor([1.0, 0.0, 2.0]))
    loss = F.binary_cross_entropy_with_logits(torch.zeros(2, 3), mixed.targets)
    torch.testing.assert_close(loss, torch.tensor(2.0).log())


def test_labels_of_other_classes_are_refused() -> None:
    task = make_task()
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    task.check_data(MemoryImages(images, torch.zeros(2, 3, dtype=torch.uint8)))
    with pytest.raises(DataError, match=r"labels of shape \(2, 5\), but the model knows 3 classes"):
        task.check_data(MemoryImages(images, torch.zeros(2, 5, dtype=torch.uint8)))
    with pytest.raises(DataError, match=r"labels of shape \(2,\)"):
        task.check_data(MemoryImages(images, torch.zeros(2, dtype=torch.int64)))


def test_a_network_with_another_number_of_outputs_is_refused() -> None:
    task = make_task()
    task.model = Flat(5)
    with pytest.raises(RecipeError, match=r"must return logits of shape \(2, 3\)"):
        task.check(torch.randn(2, 3, 4, 4))


@pytest.mark.parametrize("wrong", [{"threshold": 1.0}, {"positive_weight": 0.0}, {"smooth": 0.1}])
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        MultilabelConfig.model_validate({"name": "multilabel", **wrong})
