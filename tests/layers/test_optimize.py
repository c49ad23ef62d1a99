"""Optimized networks are folded, and return the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from pacavit.attention import ATTENTIONS, FullAttention
from pacavit.clustering import CLUSTERINGS
from pacavit.detectors import DETECTORS
from pacavit.heads import HEADS
from pacavit.layers import optimize
from pacavit.layers.mlp import ShortcutDepthwise
from pacavit.models import PacaViT, build_pyramid
from pacavit.models.variants import ORIGINALS, VARIANTS
from pacavit.types import Grid, StageState

TOLERANCE = 1e-4
TOY: dict[str, Any] = {"embed_dims": (16, 24, 32), "num_heads": (2, 2, 4), "num_classes": 5}
PAPER = TOY | {"depths": (2, 2, 1), "num_clusters": (5, 4, 0)}
"""The stem, the transitions and the stages of tiny, small and base, in toy widths."""
DENSE = PAPER | {"stem_dims": (8, 16), "transition_convs": 2, "act_layer": "relu", "mlp_ratios": 2}
"""Those of nano, mini and large32."""
ATTENTION_OPTIONS: dict[str, dict[str, Any]] = {
    "agent": {"num_agents": 9},
    "big_bird": {"tile_size": 2, "num_global": 1, "num_random": 1},
    "context_cluster": {"num_centers": 9},
    "linformer": {"num_keys": 9, "base_size": 4},
    "local_subsampled": {"window_size": 3, "sr_ratio": 2},
    "lsh": {"chunk_size": 8},
    "pooled": {"pool_size": 3},
    "spatial_reduction": {"sr_ratio": 2},
    "windows": {"window_size": 3},
}


def randomize(network: nn.Module) -> Any:  # Any: submodules are not typed
    """Norms that change their input, with factors of both signs, so that folding them counts."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.track_running_stats:
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
        if isinstance(module, nn.Linear):
            # Weights that decide: with the first ones, of 0.02, images hardly differ.
            nn.init.normal_(module.weight, 0, module.in_features**-0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0, 0.3)
    return network.eval()


def build(**settings: Any) -> Any:
    torch.manual_seed(0)
    return randomize(PacaViT(**{"num_classes": 5, **settings}))


def pixels(batch: int = 2, size: tuple[int, int] = (40, 56)) -> Tensor:
    """Noise around another mean in each image and channel."""
    generator = torch.Generator().manual_seed(1)
    means = 2 * torch.randn(batch, 3, 1, 1, generator=generator)
    return torch.randn(batch, 3, *size, generator=generator) + means


@torch.no_grad()
def check_equal(network: Any, *, padded: bool = True) -> Any:
    """Logits, and maps with padding, of a network and its optimized copy; returns the copy."""
    images, fast = pixels(), optimize(network)
    expected = network(images)
    torch.testing.assert_close(fast(images), expected, rtol=TOLERANCE, atol=TOLERANCE)
    assert expected.std(0).max() > 1e-2  # the images differ, and so the comparison means something
    if padded:
        mask = torch.ones(2, *images.shape[2:], dtype=torch.bool)
        mask[1, 24:] = mask[1, :, 40:] = False
        for own, theirs in zip(
            fast.forward_stages(images, mask), network.forward_stages(images, mask), strict=True
        ):
            torch.testing.assert_close(
                own.features, theirs.features, rtol=TOLERANCE, atol=TOLERANCE
            )
    return fast


@pytest.mark.parametrize("attention", ATTENTIONS.names())
@pytest.mark.parametrize("kind", ["paper", "dense"])
def test_every_attention_gives_the_same(kind: str, attention: str) -> None:
    settings = (PAPER if kind == "paper" else DENSE) | {"attention": attention}
    if not ATTENTIONS.get(attention).uses_clusters:
        settings["num_clusters"] = None
    options = ATTENTION_OPTIONS.get(attention)
    check_equal(build(**settings, attention_options=options))


@pytest.mark.parametrize("clustering", CLUSTERINGS.names())
@pytest.mark.parametrize("recluster_every", [0, 1])
def test_every_clustering_gives_the_same(clustering: str, recluster_every: int) -> None:
    if clustering == "teacher":
        recluster_every = 0
    settings = PAPER | {"clustering": clustering, "recluster_every": recluster_every}
    check_equal(build(**settings), padded=clustering != "teacher")


def test_no_bit_changes_where_a_clustering_depends_on_rounding() -> None:
    network, images = build(**DENSE | {"clustering": "dbscan"}), pixels()
    fast = optimize(network)
    with torch.no_grad():
        assert torch.equal(fast(images), network(images))
    assert not [each for each in fast.modules() if isinstance(each, ShortcutDepthwise)]
    assert [each for each in fast.modules() if isinstance(each, nn.BatchNorm2d)]


def test_folding_leaves_plain_layers() -> None:
    fast = check_equal(build(**DENSE))
    assert not [each for each in fast.modules() if isinstance(each, ShortcutDepthwise)]
    block, full = fast.stages[0].blocks[0], fast.stages[2].blocks[0]
    assert block.norm1.weight is not None  # the clustering and the clusters read it too
    for norm in (block.norm2, block.attn.cluster_norm, full.norm1, full.norm2):
        assert norm.weight is None
        assert norm.bias is None
    assert block.attn.scale == full.attn.scale == 1


def test_batch_norms_fold_unless_a_pooling_sees_negative_factors() -> None:
    network = build(**DENSE)
    norms = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    pooled = network.stages[1].embed.convs[0]
    with torch.no_grad():
        for norm in norms:
            norm.weight.abs_()
        pooled[2].weight[0] *= -1
    fast = check_equal(network)
    left = [name for name, each in fast.named_modules() if isinstance(each, nn.BatchNorm2d)]
    assert left == ["stages.1.embed.convs.0.2"]


def test_the_network_itself_is_changed_only_in_place() -> None:
    network = build(**DENSE)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimize(network)
    assert before.keys() == network.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert optimize(network, in_place=True) is network
    assert isinstance(network.stages[0].blocks[0].mlp.depthwise, nn.Conv2d)
    assert before.keys() != network.state_dict().keys()


def test_twice_is_once() -> None:
    network, images = optimize(build(**DENSE)), pixels()
    with torch.no_grad():
        assert torch.equal(optimize(network)(images), network(images))


def test_nothing_is_drawn() -> None:
    network, state = build(**DENSE), torch.get_rng_state()
    optimize(network)
    assert torch.equal(torch.get_rng_state(), state)


class Gated(FullAttention):
    """A plug-in that derives from an attention that folds, and has another formula."""

    def forward(
        self, x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, StageState]:
        return self.attend(x, x, patch_mask) * self.q(x) + x, state


def test_what_an_attention_declares_does_not_count_for_its_subclasses() -> None:
    network = build(**PAPER | {"attention": "full", "num_clusters": None})
    for module in network.modules():
        if isinstance(module, FullAttention):
            module.__class__ = Gated
    fast = check_equal(network)
    assert fast.stages[0].blocks[0].norm1.weight is not None


def test_sequences_of_other_libraries_fold() -> None:
    shared = nn.Conv2d(4, 4, 1)
    network = randomize(
        nn.Sequential(
            Conv2dNormActivation(3, 4),
            nn.Sequential(shared, nn.BatchNorm2d(4)),
            nn.Sequential(shared, nn.BatchNorm2d(4)),
            nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4)),
            nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)),
        )
    )
    images, fast = pixels(), optimize(network)
    with torch.no_grad():
        torch.testing.assert_close(fast(images), network(images), rtol=TOLERANCE, atol=TOLERANCE)
    assert isinstance(fast[0][1], nn.Identity)
    assert all(isinstance(fast[index][1], nn.BatchNorm2d) for index in (1, 2, 4))


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("head", HEADS.names())
def test_heads_give_the_same(head: str, norm: str) -> None:
    torch.manual_seed(0)
    options = {"channels": 16, "norm": norm}
    network = randomize(HEADS.create(head, (6, 8), (4, 8), 5, options=options))
    maps = [torch.randn(2, 6, 9, 12), torch.randn(2, 8, 5, 6)]
    fast = optimize(network)
    with torch.no_grad():
        (expected, others), (found, own) = network(maps), fast(maps)
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
    for name, logits in others.items():
        torch.testing.assert_close(own[name], logits, rtol=TOLERANCE, atol=TOLERANCE)
    left = [each for each in fast.modules() if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert not left


@pytest.mark.parametrize("detector", DETECTORS.names())
def test_detectors_give_the_same(detector: str) -> None:
    torch.manual_seed(0)
    sizes = {"embed_dims": (16, 24, 32), "stem_dims": (8, 16), "num_heads": (2, 2, 2)}
    backbone = build_pyramid("pacavit_nano", stem_stride=4, **sizes)
    options = {} if detector == "watershed" else {"channels": 64}
    network = randomize(DETECTORS.create(detector, backbone, 3, options=options))
    fast, images = optimize(network), pixels(1, (64, 96))
    boxes = torch.tensor([[8.0, 8, 40, 40]])
    with torch.no_grad():
        for own, theirs in zip(fast.backbone(images), network.backbone(images), strict=True):
            torch.testing.assert_close(own, theirs, rtol=TOLERANCE, atol=TOLERANCE)
        logits = [
            each.class_logits(each.backbone(images), (64, 96), boxes) for each in (fast, network)
        ]
        torch.testing.assert_close(*logits, rtol=TOLERANCE, atol=TOLERANCE)
        assert len(fast(images)) == 1


@pytest.mark.parametrize("name", [*VARIANTS, *ORIGINALS])
def test_every_model_gives_the_same_in_toy_widths(name: str) -> None:
    torch.manual_seed(0)
    dims = (16, 24, 32, 32)[: len(VARIANTS.get(name, VARIANTS["pacavit_tiny"])["embed_dims"])]
    network = timm.create_model(name, embed_dims=dims, num_heads=(2,) * len(dims), num_classes=5)
    fast = check_equal(randomize(network), padded="convmixer" not in name)
    assert not [each for each in fast.modules() if isinstance(each, ShortcutDepthwise)]
