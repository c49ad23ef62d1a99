"""The mathematics of assignments and of records of attention, with numbers by hand."""

import re

import pytest
import torch
from torch.nn import functional as F

from pacavit.types import Assignment, AttentionRecord


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (AttentionRecord(torch.ones(1, 2, 3)), r"weights of shape \(1, 2, 3\)"),
        (AttentionRecord(torch.full((1, 1, 3, 2), 0.5)), r"keys of shape \(2,\)"),
        (
            AttentionRecord(torch.full((1, 1, 3, 2), 0.5), torch.zeros(1, 2, 3).long()),
            r"keys of shape \(2, 3\)",
        ),
        (
            AttentionRecord(torch.full((1, 1, 3, 2), 0.5), torch.full((1, 3, 2), 3)),
            "keys from 3 to 3, which are no indices of 3 patches",
        ),
        (AttentionRecord(torch.full((1, 1, 2, 2), 0.7)), "do not sum to 1"),
        (AttentionRecord(torch.full((1, 1, 2, 2), torch.nan)), "not finite"),
    ],
)
def test_faults_of_a_record_are_named(found: AttentionRecord, fault: str) -> None:
    text = found.fault()
    assert text is not None
    assert re.search(fault, text)


def test_values_go_to_the_patches_of_their_keys() -> None:
    weights = torch.tensor([[[[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]]]])
    queries = torch.tensor([[1.0, 2.0, 4.0]])
    lists = torch.tensor([[[0, 1], [2, 0], [1, 1]]])
    moved = AttentionRecord(weights, lists).to_patches(queries, weights.mean(1))
    assert moved.tolist() == [[0.25, 0.75 + 4, 2]]
    members = torch.tensor([[[0.5, 0.5, 0], [0, 0, 1.0]]])
    moved = AttentionRecord(weights, members).to_patches(queries, weights.mean(1))
    arrived = (0.25 + 2 + 2, 0.75 + 0 + 2)
    assert moved.tolist() == [[arrived[0] / 2, arrived[0] / 2, arrived[1]]]
    square = torch.eye(3)[None, None].roll(1, 3)
    moved = AttentionRecord(square).to_patches(queries, square.mean(1))
    assert moved.tolist() == [[4, 1, 2]]
    with pytest.raises(ValueError, match="2 keys for 3 patches"):
        AttentionRecord(weights).to_patches(queries, weights.mean(1))


def test_assignments_know_their_memberships_and_partition() -> None:
    weights = torch.tensor([[[0.5, 0.5, 0.0, 0.0, 0.0], [0.0, 0.25, 0.75, 0.0, 0.0]]])
    mass = torch.tensor([[2.0, 4.0]])  # 1, 1, 0 and 0, 1, 3
    assignment = Assignment(weights, mass.log())
    expected = [[1, 0.5, 0, 0, 0], [0, 0.5, 1, 0, 0]]
    torch.testing.assert_close(assignment.membership()[0], torch.tensor(expected))
    assert assignment.partition().tolist() == [[0, 0, 1, -1, -1]]
    half = Assignment(weights.bfloat16(), mass.log().bfloat16())
    assert half.membership().dtype is torch.float32
    assert torch.equal(F.one_hot(assignment.partition()[0, :3], 2).sum(0), torch.tensor([2, 1]))
