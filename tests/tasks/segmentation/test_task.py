from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pacavit.data import IGNORE_INDEX, Batch, DataInfo, Sample, SampleRandom
from pacavit.errors import RecipeError
from pacavit.tasks import TASKS
from pacavit.tasks.segmentation import SegmentationTask

MakeTask: TypeAlias = Callable[..., SegmentationTask]
MEAN, STD = (0.5, 0.25, 0.75), (0.2, 0.2, 0.2)
RANDOM = SampleRandom(0, 0, torch.tensor([0]))


def image(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def training_batch() -> Batch:
    torch.manual_seed(1)
    masks = torch.randint(0, 3, (2, 12, 16), dtype=torch.uint8)
    masks[0, :4] = IGNORE_INDEX
    return Batch(torch.randn(2, 3, 12, 16), masks, torch.arange(2))


def eval_batch(task: SegmentationTask, *images: Tensor) -> Batch:
    facts = DataInfo("masks", "test", ("sky", "road", "car"), (12, 16), MEAN, STD)
    made = task.preprocess(task.config, facts, training=False)
    samples = [
        made.sample(Sample(each, None, number), RANDOM) for number, each in enumerate(images)
    ]
    return made.batch(made.collate(samples), RANDOM)


def test_the_task_is_registered(make_task: MakeTask) -> None:
    assert TASKS.get("segmentation") is SegmentationTask
    assert SegmentationTask.target == "mask"
    task = make_task()
    metrics, target = task.metrics(), torch.zeros(9, 21, dtype=torch.uint8)
    metrics.update(task.predict(eval_batch(task, image(9, 21))), [target])
    assert next(iter(metrics.compute())) == SegmentationTask.main_metric


@pytest.mark.parametrize("head", ["labeled", "all"])
def test_losses_are_mean_cross_entropies_of_enlarged_logits(head: str, make_task: MakeTask) -> None:
    task, batch = make_task(head), training_batch()
    output = task.model(batch.images)
    known = batch.targets != IGNORE_INDEX
    divisor = int(known.sum()) if head == "labeled" else known.numel()
    expected = []
    for logits in (output.logits, output.supervised["clusters"]):
        large = F.interpolate(logits, size=(12, 16), mode="bilinear")
        scores = large.log_softmax(1).permute(0, 2, 3, 1)[known]
        chosen = scores.gather(1, batch.targets[known].long()[:, None])
        expected.append(-chosen.sum() / divisor)
    losses = task(batch)
    torch.testing.assert_close(losses["pixels"], expected[0])
    torch.testing.assert_close(losses["clusters"], 0.4 * expected[1])
    assert float(task.loss_weight(batch)) == float(divisor)


def test_losses_of_chunks_add_up_to_that_of_the_batch(make_task: MakeTask) -> None:
    task, batch = make_task(), training_batch()
    chunks = batch.chunk(2)
    weights = torch.stack([task.loss_weight(chunk) for chunk in chunks])
    for name, loss in task(batch).items():
        parts = torch.stack([task(chunk)[name] for chunk in chunks])
        torch.testing.assert_close((parts * weights / weights.sum()).sum().float(), loss)


def test_class_weights_weigh_pixels(make_task: MakeTask) -> None:
    task, batch = make_task(), training_batch()
    weights = torch.tensor([1.0, 2.0, 0.5])
    task.set_class_weights(weights)
    large = F.interpolate(task.model(batch.images).logits, size=(12, 16), mode="bilinear")
    expected = F.cross_entropy(
        large, batch.targets.long(), weight=weights, ignore_index=IGNORE_INDEX
    )
    torch.testing.assert_close(task(batch)["pixels"], expected)


def test_a_batch_without_labels_has_no_loss(make_task: MakeTask) -> None:
    task, batch = make_task(), training_batch()
    empty = replace(batch, targets=torch.full_like(batch.targets, IGNORE_INDEX))
    losses = task(empty)
    assert [loss.item() for loss in losses.values()] == [0.0, 0.0]
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in task.parameters())


def test_images_of_other_sizes_in_a_batch_have_no_influence(make_task: MakeTask) -> None:
    task = make_task()
    images = [image(9, 21), image(16, 8, seed=1), image(9, 21, seed=2), image(5, 5, seed=3)]
    together = task.predict(eval_batch(task, *images))
    for own, each in zip(together, images, strict=True):
        [alone] = task.predict(eval_batch(task, each))
        assert own.labels.shape == each.shape[1:]
        assert torch.equal(own.labels, alone.labels)
        torch.testing.assert_close(own.logits, alone.logits, atol=1e-5, rtol=1e-5)
        assert own.cluster_labels is not None
        assert alone.cluster_labels is not None
        assert torch.equal(own.cluster_labels, alone.cluster_labels)


def test_predictions_have_the_pixels_of_the_original(make_task: MakeTask) -> None:
    task = make_task(image_size=8)
    original = image(31, 20)
    batch = eval_batch(task, original)
    assert batch.images.shape[2:] == (12, 8)
    [record] = task.predict(batch)
    assert record.labels.shape == (31, 20)
    probabilities = record.probabilities()
    assert probabilities.shape == (3, 31, 20)
    assert torch.equal(probabilities.argmax(0).to(torch.uint8), record.labels)
    torch.testing.assert_close(record.confidence(), probabilities.amax(0))


def test_windows_cover_the_image_and_agree_with_a_single_one(make_task: MakeTask) -> None:
    whole = make_task()
    batch = eval_batch(whole, image(20, 31))
    single = make_task(slide={"window": [40, 40], "stride": [20, 20]}).predict(batch)[0]
    assert torch.equal(single.labels, whole.predict(batch)[0].labels)
    several = make_task(slide={"window": [12, 16], "stride": [8, 10]})
    found = several.predict(batch)[0]
    assert found.logits.shape == (3, 20, 31)
    # An independent sum over the windows.
    total, visits = torch.zeros(3, 20, 31), torch.zeros(20, 31)
    for top in (0, 8):
        for left in (0, 10, 15):
            part = batch.images[:, :, top : top + 12, left : left + 16]
            logits = F.interpolate(whole.model(part).logits, size=(12, 16), mode="bilinear")
            total[:, top : top + 12, left : left + 16] += logits[0].detach()
            visits[top : top + 12, left : left + 16] += 1
    assert visits.min() > 0
    torch.testing.assert_close(found.logits, total / visits)


def test_predictions_name_classes_with_their_areas(make_task: MakeTask, info: DataInfo) -> None:
    task = make_task()
    [record] = task.predict(eval_batch(task, image(9, 21)))
    named = task.prediction(Path("a.png"), record, None, info, 5)
    plain = named.to_dict()
    areas = {each["class"]: each["area"] for each in plain["classes"]}
    for label, name in enumerate(info.class_names):
        expected = float((record.labels == label).float().mean())
        assert areas.get(name, 0.0) == pytest.approx(expected, abs=1e-6)
    assert list(areas.values()) == sorted(areas.values(), reverse=True)
    failed = task.prediction(Path("b.png"), None, "broken", info, 5)
    assert failed.to_dict() == {"path": "b.png", "classes": [], "error": "broken"}


def test_a_head_with_other_outputs_is_refused(make_task: MakeTask) -> None:
    task = make_task()
    task.num_classes = 5
    with pytest.raises(RecipeError, match=r"must return \(2, 5, H, W\)"):
        task.check(torch.randn(2, 3, 12, 16))


def test_numbers_that_are_not_finite_are_noticed(make_task: MakeTask) -> None:
    task = make_task()
    [record] = task.predict(eval_batch(task, image(9, 21)))
    assert task.is_finite([record])
    assert not task.is_finite([replace(record, logits=record.logits * torch.nan)])
