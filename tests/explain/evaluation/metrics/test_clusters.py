from __future__ import annotations

import pytest
import torch
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from pacavit.explain.evaluation.metrics import (
    adjusted_rand_index,
    hungarian_miou,
    mean_best_overlap,
    normalized_mutual_information,
    purity,
)


def labels(high: int, seed: int) -> torch.Tensor:
    return torch.randint(high, (4, 9, 8), generator=torch.Generator().manual_seed(seed))


def test_ari_and_nmi_are_those_of_scikit_learn() -> None:
    true, found = labels(4, 0), labels(6, 1)
    found[:, :4] = true[:, :4]
    all_pixels = adjusted_rand_index(true, found, foreground=False)
    objects = adjusted_rand_index(true, found)
    shared = normalized_mutual_information(true, found)
    for image in range(4):
        one, other = true[image].flatten().numpy(), found[image].flatten().numpy()
        assert all_pixels[image].item() == pytest.approx(adjusted_rand_score(one, other))
        assert shared[image].item() == pytest.approx(normalized_mutual_info_score(one, other))
        front = one > 0
        expected = adjusted_rand_score(one[front], other[front])
        assert objects[image].item() == pytest.approx(expected)


def test_perfect_clusters_have_perfect_scores_whatever_their_names() -> None:
    true = labels(4, 0)
    found = torch.tensor([5, 2, 0, 3])[true]
    for score in (
        adjusted_rand_index,
        mean_best_overlap,
        hungarian_miou,
        normalized_mutual_information,
        purity,
    ):
        torch.testing.assert_close(score(true, found), torch.ones(4, dtype=torch.float64))


def test_overlaps_by_hand() -> None:
    true = torch.tensor([[0, 0, 1, 1, 1, 1, 2, 2, -1]])
    found = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1]])
    # Object 1: 3 of 6 with cluster 1; object 2: 2 of 5 with cluster 1, which can serve only one.
    assert mean_best_overlap(true, found).item() == pytest.approx((3 / 6 + 2 / 5) / 2)
    assert hungarian_miou(true, found).item() == pytest.approx(max(3 / 6 + 0, 1 / 6 + 2 / 5) / 2)
    assert purity(true, found).item() == pytest.approx((2 + 3) / 8)


def test_single_parts_and_missing_objects() -> None:
    background, one = torch.zeros(1, 6, dtype=torch.int64), torch.ones(1, 6, dtype=torch.int64)
    assert mean_best_overlap(background, one).isnan().all()
    assert hungarian_miou(background, one).isnan().all()
    assert adjusted_rand_index(background, one).isnan().all()
    assert adjusted_rand_index(one, one).item() == 1
    assert normalized_mutual_information(one, one).item() == 1
    assert purity(one, torch.tensor([[-1, -1, -1, 0, 0, 1]])).item() == 1
