"""Names of networks to measure, what they cost, and which sizes they take."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pacavit.bench import candidates
from pacavit.bench.candidates import Candidate, find_candidate
from pacavit.bench.counts import count
from pacavit.bench.published import differs, peer_set, published_networks
from pacavit.errors import PacavitError, UnknownNameError
from pacavit.models import PacaViT


def test_arguments_follow_a_name() -> None:
    name = "pacavit_nano,num_clusters=[4,2,0],attention=paca,embed_dims=[24,32,48]"
    network: Any = find_candidate(name).build(32)
    assert isinstance(network, PacaViT)
    assert [mixer.num_clusters for mixer in network.mixers] == [4, 2, 0]
    assert not network.training


def test_networks_of_fixed_size_are_built_for_the_size() -> None:
    with torch.device("meta"):
        network = find_candidate("deit_tiny_patch16_224").build(64)
    positions: Any = network.pos_embed
    assert positions.shape[1] == 1 + 4 * 4


def test_trained_networks_are_read_once_and_copied() -> None:
    candidate = find_candidate("cifar10_nano_conv", "ours")
    first, second = candidate.build(32), candidate.build(32)
    assert candidate.label == "ours"
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert one is not other
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("pvt_v2_b", "did you mean 'pvt_v2_b"),
        ("focal_tin", "did you mean 'focal_tiny'"),
        ("pacavit_smal,num_clusters=4", "did you mean 'pacavit_small'"),
        ("cifar10_nano_con", "did you mean 'cifar10_nano_conv'"),
        ("zzzz", "known: pacavit_"),
    ],
)
def test_unknown_names_suggest_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UnknownNameError, match=hint):
        find_candidate(name)


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "find_spec", lambda name: None)
    with pytest.raises(PacavitError, match=r"cvt_13 needs .* pip install 'pacavit\[peers\]'"):
        find_candidate("cvt_13")
    assert find_candidate("focal_tiny").name == "focal_tiny"


class OfSide32(nn.Module):
    """A layer that refuses all other images."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[-1] == 32, "images have another size than 32"
        return self.layer(images)


def test_counts_by_size() -> None:
    found = count(Candidate("a", "a", lambda _: nn.Conv2d(3, 4, 1)), [32, 16])
    assert found.parameters == {32: 16, 16: 16}
    assert found.macs == {32: 12 * 32**2, 16: 12 * 16**2}


def test_a_size_that_a_network_does_not_take_is_refused() -> None:
    with pytest.raises(PacavitError, match=r"odd cannot take images of 48 x 48 .*but of 32; give"):
        count(Candidate("odd", "odd", lambda _: OfSide32()), [32, 48])


def test_a_network_that_fails_at_every_size_says_why() -> None:
    def build(size: int) -> nn.Module:
        raise TypeError("no such\nargument")

    assert count(Candidate("broken", "broken", build), [32]).error == "TypeError: no such argument"


def test_clusterings_that_need_values_are_counted_on_the_cpu() -> None:
    found = count(find_candidate("cifar10_nano_dbscan"), [32])
    assert found.error is None
    assert 1e8 < found.macs[32] < 2e8


def test_published_networks_can_all_be_found() -> None:
    pytest.importorskip("transformers")
    assert len(published_networks()) == 34
    for name, label in {**peer_set("paper"), **peer_set("attentions")}.items():
        assert find_candidate(name, label).label == label
    with pytest.raises(UnknownNameError, match="did you mean 'paper'"):
        peer_set("papers")


@pytest.mark.parametrize(
    ("published", "counted", "expected"),
    [
        ("4.0", 4.05, False),  # the rounding of the published digits
        ("29", 28.29, False),
        ("2.8", 2.93, True),
        ("14.8", 15.11, False),  # 2.1 %
        ("1.3", 1.254, False),  # 3.5 %, but within the rounding
        ("13.1", 14.01, True),
    ],
)
def test_a_difference_is_more_than_rounding_and_3_percent(
    published: str, counted: float, expected: bool
) -> None:
    assert differs(published, counted) is expected
