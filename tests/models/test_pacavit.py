"""PaCa-ViT: geometry, timm's surface, and what its arguments promise."""

import math
from typing import Any

import pytest
import timm
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pacavit.errors import PacavitError
from pacavit.layers import Block
from pacavit.models import PacaViT
from pacavit.types import Grid, StageState

SMALL: dict[str, Any] = {
    "embed_dims": (8, 12, 16),
    "depths": (3, 2, 1),
    "num_heads": (2, 2, 4),
    "num_classes": 3,
}


def small(**settings: Any) -> Any:  # Any: submodules are not typed
    torch.manual_seed(0)
    return PacaViT(**{**SMALL, "num_clusters": (5, 4, 0), **settings})


def test_a_block_owns_a_clustering_exactly_if_it_computes_one() -> None:
    def owners(**settings: Any) -> list[list[bool]]:
        stages = small(**settings).stages
        return [[block.clustering is not None for block in stage.blocks] for stage in stages]

    assert owners() == [[True, False, False], [True, False], [False]]
    assert owners(recluster_every=1) == [[True, True, True], [True, True], [False]]
    assert owners(recluster_every=(2, 0, 0)) == [[True, False, True], [True, False], [False]]


def test_arguments_take_one_value_or_one_a_stage() -> None:
    model = small(
        clustering=("conv", "mlp", "linear"),
        num_clusters=(5, 4, 3),
        clustering_options=({"kernel_size": 3}, {"hidden_ratio": 2}, {}),
        attention=("paca", "paca", "full"),
        mlp_ratios=(1, 2, 3),
    )
    kinds = [type(stage.blocks[0].clustering).__name__ for stage in model.stages]
    assert kinds == ["ConvClustering", "MlpClustering", "NoneType"]
    assert model.stages[0].blocks[0].clustering.depthwise.kernel_size == (3, 3)
    assert model.stages[1].blocks[0].clustering.fc1.out_features == 24
    assert [stage.blocks[0].mlp.fc1.out_features for stage in model.stages] == [8, 24, 48]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clustering": "cnov"}, "unknown clustering 'cnov'; did you mean 'conv'"),
        ({"attention": "pacca"}, "unknown attention 'pacca'; did you mean 'paca'"),
        ({"clustering_options": {"kernelsize": 3}}, "of clustering 'conv'"),
        ({"num_clusters": (5, 4)}, "num_clusters has 2 values for 3 stages"),
        ({"num_clusters": -1}, "num_clusters must be 0 or more"),
        ({"attention": "full", "num_clusters": None, "clustering": "mlp"}, "has no effect"),
        ({"attention": "full"}, "num_clusters=.* has no effect"),
        (
            {"attention": "full", "num_clusters": None, "recluster_every": 1},
            "recluster_every=1 has no effect",
        ),
        ({"num_clusters": 0, "attention_options": {"x": 1}}, "attention_options=.* no effect"),
        ({"clustering": ("conv", "conv", "typo")}, "unknown clustering 'typo'"),
        ({"recluster_every": -1}, "recluster_every must be 0 or more"),
        ({"clustering_options": {"kernel_size": 4}}, "kernel_size must be odd"),
        ({"clustering": "mlp", "clustering_options": {"hidden_ratio": -1}}, "hidden_ratio -1"),
        ({"num_heads": 3}, "num_heads 3 does not divide"),
        ({"global_pool": "max"}, "global_pool"),
    ],
)
def test_arguments_that_cannot_take_effect_raise(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PacavitError, match=message):
        small(**settings)


def test_unknown_keyword_raises() -> None:
    with pytest.raises(TypeError, match="unexpected keyword"):
        timm.create_model("pacavit_nano", windows=3)


def test_factories_work_twice_and_the_caller_wins() -> None:
    for _ in range(2):
        model: Any = timm.create_model("pacavit_nano", depths=(1, 2, 1), num_clusters=(9, 7, 0))
        assert len(model.stages[1].blocks) == 2
        assert model.stages[0].blocks[0].clustering.num_clusters == 9
    two: Any = timm.create_model(
        "pacavit_nano", embed_dims=(8, 16), depths=(1, 1), num_heads=(2, 2), num_clusters=(4, 0)
    )
    assert len(two.feature_info) == 2
    assert timm.create_model("pacavit_nano", num_clusters=0).num_classes == 10
    plain: Any = timm.create_model("pacavit_nano", attention="full")
    assert all(block.clustering is None for stage in plain.stages for block in stage.blocks)


def test_features_only_answers_maps_and_feature_info() -> None:
    model: Any = timm.create_model("pacavit_nano", features_only=True, out_indices=(0, 2))
    maps = model(torch.randn(2, 3, 32, 48))
    channels, reductions = model.feature_info.channels(), model.feature_info.reduction()
    assert [tuple(feature.shape) for feature in maps] == [
        (2, chans, 32 // reduction, 48 // reduction)
        for chans, reduction in zip(channels, reductions, strict=True)
    ]


def test_a_coarser_stem_has_the_same_weights() -> None:
    fine: Any = timm.create_model("pacavit_nano").eval()
    coarse: Any = timm.create_model("pacavit_nano", stem_stride=4).eval()
    coarse.load_state_dict(fine.state_dict())
    assert [info["reduction"] for info in coarse.feature_info] == [4, 8, 16]
    assert coarse.settings["stem_stride"] == 4
    images = torch.randn(1, 3, 37, 50)
    maps = coarse.forward_intermediates(images, intermediates_only=True)
    assert [tuple(each.shape[2:]) for each in maps] == [(10, 13), (5, 7), (3, 4)]
    # The first convolution, whose maps are pooled before the BatchNorm.
    conv, norm, act = fine.stages[0].embed.convs[0]
    pooled = torch.nn.functional.max_pool2d(conv(images), 2, ceil_mode=True)
    torch.testing.assert_close(coarse.stages[0].embed.convs[0](images), act(norm(pooled)))
    assert timm.create_model("pacavit_tiny", stem_stride=4) is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stem_stride": 2}, "stem_stride of the paper's stem must be 4, not 2"),
        ({"stem_dims": (6,), "stem_stride": 8}, "must be 2 or 4, not 8"),
    ],
)
def test_strides_that_a_stem_cannot_have_raise(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PacavitError, match=message):
        small(**settings)


def test_classifier_can_be_replaced_and_removed() -> None:
    model, images = small().eval(), torch.randn(2, 3, 32, 32)
    assert model(images).shape == (2, 3)
    model.reset_classifier(7)
    assert model(images).shape == (2, 7)
    assert model.get_classifier().out_features == 7
    model.reset_classifier(0)
    assert model(images).shape == (2, 16)
    assert torch.equal(model(images), model.forward_head(model.forward_features(images), True))
    model.reset_classifier(0, global_pool="")
    assert model(images).shape == (2, 16, 2, 2)


def test_gradient_checkpointing_changes_nothing() -> None:
    model, images = small(), torch.randn(2, 3, 32, 32)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(images).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_with_clustering_keeps_all_other_weights() -> None:
    model = small().eval()
    other = model.with_clustering("grid", num_clusters=(9, 3, 0))
    assert other is not model
    weights, others = model.state_dict(), other.state_dict()
    assert {name for name in weights if name not in others} == {
        name for name in weights if ".clustering." in name
    }
    assert all(torch.equal(weights[name], tensor) for name, tensor in others.items())
    assert other.stages[0].blocks[0].clustering.num_clusters == 9
    again = other.with_clustering("conv", kernel_size=3)
    assert again.stages[1].blocks[0].clustering.num_clusters == 3
    assert not again.training
    nano: Any = timm.create_model("pacavit_nano")
    for method in ("conv", "mlp"):
        trained = timm.create_model("pacavit_nano", clustering=method).state_dict()
        nano.with_clustering(method).load_state_dict(trained)
    with pytest.raises(PacavitError, match="of clustering 'grid'"):
        model.with_clustering("grid", kernel_size=3)


def test_layer_groups_follow_depth() -> None:
    model = small()
    groups = timm.models.group_parameters(model, model.group_matcher(), reverse=True)
    assert groups["stages.0.embed.proj.weight"] < groups["stages.0.blocks.0.norm1.weight"]
    assert groups["stages.0.blocks.2.norm1.weight"] < groups["stages.1.blocks.0.norm1.weight"]
    assert groups["stages.2.blocks.0.norm1.weight"] < groups["head.weight"]


class CountCopies(TorchDispatchMode):
    """Counts the operators that move data without computing."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in ("clone", "copy_", "contiguous", "_to_copy"):
            self.copies.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("clustering", ["conv", "mlp", "linear"])
def test_blocks_make_no_layout_copies(clustering: str) -> None:
    model = small(clustering=clustering).eval()
    grid = Grid(8, 6)
    block = model.stages[0].blocks[0]
    assert isinstance(block, Block)
    with torch.no_grad(), CountCopies() as counter:
        block(torch.randn(2, grid.num_patches, 8), grid, StageState())
    assert counter.copies == []
    images = torch.randn(2, 3, 32, 24).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), CountCopies() as counter:
        model(images)
    assert counter.copies == []


def test_initial_weights_are_the_papers() -> None:
    """Pointwise convolutions of the clustering are linear layers here, and begin as before."""
    model: Any = PacaViT(embed_dims=(256,), depths=(1,), num_heads=(4,), num_clusters=128)
    block = model.stages[0].blocks[0]
    clustering = block.clustering
    for weight, std in (
        (block.attn.q.weight, 0.02),
        (block.mlp.depthwise.weight, math.sqrt(2 / 9)),
        (clustering.depthwise.weight, math.sqrt(2 / 49)),
        (clustering.pointwise.weight, math.sqrt(2 / 256)),
        (clustering.to_clusters.weight, math.sqrt(2 / 128)),
    ):
        assert weight.std().item() == pytest.approx(std, rel=0.05)
    assert not clustering.pointwise.bias.any()


@pytest.mark.parametrize(
    ("device", "dtype"),
    [("cpu", torch.float64), ("cpu", torch.bfloat16), ("meta", torch.float32)],
)
def test_fresh_layers_have_the_device_and_precision_of_the_network(
    device: str, dtype: torch.dtype
) -> None:
    model = small().to(device, dtype)
    model.eval().reset_classifier(7)
    others = (model.with_clustering("mlp"), model.with_clustering("teacher"))
    for network in (model, *others):
        for name, tensor in network.state_dict().items():
            assert tensor.device.type == device, name
            assert tensor.dtype == (dtype if tensor.is_floating_point() else torch.int64), name
        assert not any(module.training for module in network.modules())
        logits = network(torch.randn(2, 3, 32, 32).to(device, dtype))
        assert logits.shape == (2, 7)
        assert logits.dtype == dtype
    model.reset_classifier(0)
    assert model(torch.randn(1, 3, 32, 32).to(device, dtype)).dtype == dtype


@pytest.mark.parametrize("clustering", ["conv", "teacher"])
def test_stages_hand_on_their_maps_and_states(clustering: str) -> None:
    model, images = small(clustering=clustering, depths=(2, 2, 1)).eval(), torch.randn(2, 3, 40, 56)
    seen: list[Any] = []
    for stage in model.stages:
        stage.blocks[-1].attn.register_forward_pre_hook(
            lambda _, args: seen.append(args[2].assignment)
        )
    with torch.no_grad():
        outputs = model.forward_stages(images)
        expected = model.forward_intermediates(images, intermediates_only=True)
    for output, features in zip(outputs, expected, strict=True):
        assert torch.equal(output.features, features)
    assert [output.state.assignment for output in outputs] == seen[:3]
    first, second, last = (output.state.assignment for output in outputs)
    assert first.membership().shape == (2, 5, 10 * 14)
    assert second.partition().shape == (2, 5 * 7)
    assert last is None


def test_states_of_padded_images_leave_padding_out() -> None:
    model, mask = small().eval(), torch.ones(1, 32, 48, dtype=torch.bool)
    mask[:, :, 32:] = False
    with torch.no_grad():
        first = model.forward_stages(torch.randn(1, 3, 32, 48), mask)[0]
    partition = first.state.assignment.partition().unflatten(1, (8, 12))
    assert partition[..., 8:].eq(-1).all()
    assert partition[..., :8].ge(0).all()
    assert first.features[..., 8:].eq(0).all()
