from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from pacavit.data import IGNORE_INDEX, Placement, Region
from pacavit.tasks.segmentation import Segmentation, SegmentationMetrics
from pacavit.tasks.segmentation.metrics import boundary_region


def record(labels: Tensor, clusters: Tensor | None = None) -> Segmentation:
    size = (labels.shape[0], labels.shape[1])
    placement = Placement(size, Region(0, 0, *size), size)
    return Segmentation(labels, clusters, torch.zeros(4, 1, 1), None, placement)


def pictures(num: int = 5, classes: int = 4) -> tuple[list[Tensor], list[Tensor]]:
    """Blocks of classes, and predictions with some of their pixels wrong."""
    generator = np.random.default_rng(0)
    truths, found = [], []
    for _ in range(num):
        height, width = generator.integers(20, 60, 2)
        blocks = generator.integers(0, classes, (height // 5 + 1, width // 5 + 1))
        truth = np.kron(blocks, np.ones((5, 5), dtype=int))[:height, :width].astype(np.uint8)
        wrong = generator.random((height, width)) < 0.2
        predicted = np.where(wrong, generator.integers(0, classes, truth.shape), truth)
        truth[generator.random(truth.shape) < 0.1] = IGNORE_INDEX
        truths.append(torch.from_numpy(truth))
        found.append(torch.from_numpy(predicted.astype(np.uint8)))
    return truths, found


def count(truths: list[Tensor], found: list[Tensor], classes: int) -> NDArray[np.int64]:
    matrix = np.zeros((classes, classes), dtype=np.int64)
    for truth, predicted in zip(truths, found, strict=True):
        for row in range(classes):
            for column in range(classes):
                both = (truth.numpy() == row) & (predicted.numpy() == column)
                matrix[row, column] += both.sum()
    return matrix


def test_scores_equal_an_independent_count() -> None:
    truths, found = pictures()
    metrics = SegmentationMetrics(5, clusters=True)
    for start in (0, 3):
        part = slice(start, start + 3)
        records = [record(labels, labels.flip(0)) for labels in found[part]]
        metrics.update(records, truths[part])
    scores = metrics.compute()
    matrix = count(truths, found, 5)
    assert torch.equal(scores["confusion"], torch.from_numpy(matrix))
    correct, truth, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    ious = (correct / np.maximum(truth + predicted - correct, 1))[:4]
    np.testing.assert_allclose(scores["iou_per_class"][:4], ious, rtol=1e-6)
    assert torch.isnan(scores["iou_per_class"][4])
    assert math.isclose(scores["mIoU"], ious.mean(), rel_tol=1e-6)
    np.testing.assert_allclose(scores["pixel_accuracy"], correct.sum() / truth.sum(), rtol=1e-6)
    accuracies = correct[:4] / truth[:4]
    np.testing.assert_allclose(scores["mean_accuracy"], accuracies.mean(), rtol=1e-6)
    weighted = (ious * truth[:4]).sum() / truth.sum()
    np.testing.assert_allclose(scores["frequency_weighted_IoU"], weighted, rtol=1e-6)
    flipped = count(truths, [labels.flip(0) for labels in found], 5)
    union = flipped.sum(0) + flipped.sum(1) - flipped.diagonal()
    expected = (flipped.diagonal() / np.maximum(union, 1))[:4].mean()
    np.testing.assert_allclose(scores["clusters_mIoU"], expected, rtol=1e-6)
    assert scores["support_per_class"].tolist() == truth.tolist()


def independent_boundary(labels: NDArray[np.uint8], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Each class's mask without its erosion, as published; unknown pixels erode no class."""
    reach = max(1, round(0.02 * math.hypot(*labels.shape)))
    found = np.zeros(labels.shape, dtype=bool)
    for label in np.unique(labels):
        mask = (labels == label) & known
        inside = ndimage.binary_erosion(
            mask | ~known, np.ones((3, 3)), iterations=reach, border_value=0
        )
        found |= mask & ~inside
    return found


def test_boundaries_are_masks_without_their_erosion() -> None:
    for labels in pictures()[0]:
        large = labels.repeat_interleave(4, 0).repeat_interleave(4, 1)
        known = large != IGNORE_INDEX
        expected = independent_boundary(large.numpy(), known.numpy())
        assert np.array_equal(boundary_region(large, known).numpy(), expected)


def test_right_predictions_at_all_known_pixels_have_the_highest_boundary_iou() -> None:
    truth = torch.zeros(100, 100, dtype=torch.uint8)
    truth[:, 60:] = 1
    predicted = truth.clone()
    truth[20:40, 20:40] = IGNORE_INDEX  # inside of a class
    truth[:, 59:61] = IGNORE_INDEX  # between the classes
    metrics = SegmentationMetrics(2)
    metrics.update([record(predicted)], [truth])
    scores = metrics.compute()
    assert scores["mIoU"] == 1
    assert scores["boundary_IoU"] == 1
    near = boundary_region(truth, truth != IGNORE_INDEX)
    # Three pixels from one class to the other, across the two unknown ones.
    assert near[50, [57, 58, 61, 62]].tolist() == [False, True, True, False]


def test_boundary_iou_equals_an_independent_count() -> None:
    truths, found = pictures(3)
    metrics = SegmentationMetrics(4)
    metrics.update([record(labels) for labels in found], truths)
    both, union = np.zeros(4), np.zeros(4)
    for truth, predicted in zip(truths, found, strict=True):
        known = truth.numpy() != IGNORE_INDEX
        near_truth = independent_boundary(truth.numpy(), known)
        near_found = independent_boundary(predicted.numpy(), known)
        for label in range(4):
            own = near_truth & (truth.numpy() == label)
            other = near_found & (predicted.numpy() == label)
            both[label] += (own & other).sum()
            union[label] += (own | other).sum()
    expected = both / union
    scores = metrics.compute()
    np.testing.assert_allclose(scores["boundary_iou_per_class"], expected, rtol=1e-6)
    np.testing.assert_allclose(scores["boundary_IoU"], expected.mean(), rtol=1e-6)


def test_a_perfect_prediction_has_scores_of_1() -> None:
    truths, _ = pictures()
    metrics = SegmentationMetrics(4)
    perfect = [torch.where(truth == IGNORE_INDEX, 0, truth) for truth in truths]
    metrics.update([record(labels) for labels in perfect], truths)
    scores = metrics.compute()
    for name in ("mIoU", "pixel_accuracy", "mean_accuracy", "frequency_weighted_IoU"):
        assert float(scores[name]) == 1.0


def test_an_image_without_labels_counts_nothing() -> None:
    metrics = SegmentationMetrics(4)
    metrics.update(
        [record(torch.zeros(8, 8, dtype=torch.uint8))],
        [torch.full((8, 8), IGNORE_INDEX, dtype=torch.uint8)],
    )
    scores = metrics.compute()
    assert int(scores["confusion"].sum()) == 0
    assert torch.isnan(scores["mIoU"])
