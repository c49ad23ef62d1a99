"""The external teacher: what it gives to which stage, and where it does not fit."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from pacavit.errors import PacavitError
from pacavit.models import ConvMixerTeacher, PacaViT, Teacher
from pacavit.models.teacher import TeacherOutput
from pacavit.types import Assignment

SMALL: dict[str, Any] = {
    "embed_dims": (8, 12, 16),
    "depths": (2, 1, 1),
    "num_heads": (2, 2, 4),
    "num_classes": 3,
    "num_clusters": (5, 4, 0),
}


def small(**settings: Any) -> Any:  # Any: submodules are not typed
    torch.manual_seed(0)
    return PacaViT(**{**SMALL, "clustering": "teacher", **settings})


def test_every_block_of_a_stage_with_a_teacher_uses_the_same_assignment() -> None:
    model, seen = small().eval(), []
    assert all(block.clustering is None for stage in model.stages for block in stage.blocks)
    for stage in model.stages:
        for block in stage.blocks:
            block.attn.register_forward_pre_hook(lambda _, args: seen.append(args[2].assignment))
    with torch.no_grad():
        model(torch.randn(2, 3, 45, 62))
    assert seen[0] is seen[1]
    assert [None if one is None else tuple(one.weights.shape) for one in seen[1:]] == [
        (2, 5, 12 * 16),
        (2, 4, 6 * 8),
        None,  # without clusters: full attention, and the teacher ends before it
    ]


def test_teacher_has_its_options() -> None:
    teacher = small(teacher_options={"depths": (1, 3, 2), "kernel_size": 3}).teacher
    assert [len(stage) for stage in teacher.stages] == [1, 3]
    assert teacher.stages[0][0].depthwise.kernel_size == (3, 3)
    assert teacher.pyramid[0].depthwise.kernel_size == (3, 3)


def test_later_stages_may_cluster_themselves() -> None:
    model = small(clustering=("teacher", "mlp", "mlp"), recluster_every=1)
    assert len(model.teacher.clusterings) == 1
    assert type(model.stages[1].blocks[0].clustering).__name__ == "MlpClustering"
    model(torch.randn(2, 3, 32, 32)).sum().backward()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clustering": ("conv", "teacher", "teacher")}, "stage 0 leaves out the teacher"),
        ({"num_clusters": (5, 0, 4)}, "stage 1 leaves out the teacher"),
        ({"recluster_every": 1}, "recluster_every=1 has no effect"),
        ({"clustering": "conv", "teacher_options": {"depths": 1}}, "teacher_options=.*no effect"),
        ({"clustering_options": {"kernel_size": 3}}, "of clustering 'teacher'"),
        ({"teacher_options": {"depth": 1}}, "option of the teacher 'depth'; did you mean 'depths'"),
        ({"teacher_options": {"depths": (1, 2)}}, "depths of the teacher has 2 values for 3"),
        ({"teacher_options": {"depths": 0}}, "depths of the teacher must be 1 or more"),
        ({"teacher_options": {"kernel_size": 4}}, "kernel_size must be odd"),
    ],
)
def test_arguments_that_cannot_take_effect_raise(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PacavitError, match=message):
        small(**settings)


def test_with_clustering_removes_and_adds_teachers() -> None:
    taught, images = small(teacher_options={"depths": 1}).eval(), torch.randn(2, 3, 32, 32)
    conv = taught.with_clustering("conv", kernel_size=3)
    assert conv.teacher is None
    assert conv.stages[0].blocks[0].clustering.num_clusters == 5
    again = conv.with_clustering("teacher", num_clusters=(7, 3, 0))
    assert isinstance(again.teacher, ConvMixerTeacher)
    assert not again.training
    assert [clustering.num_clusters for clustering in again.teacher.clusterings] == [7, 3]
    assert all(block.clustering is None for stage in again.stages for block in stage.blocks)
    for other in (conv, again):
        assert other(images).shape == (2, 3)
        weights, others = taught.state_dict(), other.state_dict()
        own = [name for name in weights if not name.startswith("teacher.")]
        assert all(torch.equal(weights[name], others[name]) for name in own)


class Uniform(Teacher):
    """Outputs for the first two stages: one without features, one without an assignment."""

    def forward(self, stem_map: Tensor) -> list[TeacherOutput]:
        batch, _, height, width = stem_map.shape
        weights = stem_map.new_full((batch, 2, height * width), 1 / (height * width))
        added = stem_map.new_ones(batch, 12, height // 2, width // 2)
        assignment = Assignment(weights, weights.new_zeros(batch, 2))
        return [TeacherOutput(assignment), TeacherOutput(features=added)]


def test_a_teacher_output_may_lack_either_field() -> None:
    model = small(num_clusters=(5, 0, 0)).eval()
    model.teacher = Uniform()
    images, seen = torch.randn(2, 3, 32, 32), []
    model.stages[0].blocks[0].attn.register_forward_pre_hook(
        lambda _, args: seen.append(args[2].assignment.weights.shape)
    )
    before: list[Tensor] = []
    model.stages[1].norm.register_forward_pre_hook(lambda _, args: before.append(args[0]))
    model.stages[1].blocks[-1].register_forward_hook(lambda _, args, out: before.append(out[0]))
    with torch.no_grad():
        model(images)
    assert seen == [(2, 2, 64)]
    blocks, normed = before
    torch.testing.assert_close(normed, blocks + 1)


def test_features_only_keeps_the_whole_teacher() -> None:
    model: Any = timm.create_model(
        "pacavit_nano", clustering="teacher", features_only=True, out_indices=(0, 1)
    ).eval()
    whole: Any = timm.create_model("pacavit_nano", clustering="teacher").eval()
    assert not model.model.load_state_dict(whole.state_dict(), strict=False).missing_keys
    images = torch.randn(1, 3, 32, 40)
    with torch.no_grad():
        maps = whole.forward_intermediates(images, intermediates_only=True)
        for own, other in zip(model(images), maps, strict=False):
            torch.testing.assert_close(own, other)


def test_layer_groups_put_the_teacher_before_the_blocks_that_use_it() -> None:
    model = small()
    groups = timm.models.group_parameters(model, model.group_matcher(), reverse=True)
    assert groups["stages.0.embed.proj.weight"] < groups["teacher.stages.0.0.depthwise.weight"]
    assert groups["teacher.downs.1.conv.weight"] < groups["stages.1.blocks.0.norm1.weight"]
    assert groups["stages.0.blocks.1.norm1.weight"] < groups["teacher.downs.1.conv.weight"]


def test_padding_is_refused() -> None:
    with pytest.raises(ValueError, match="teachers do not support padding"):
        small()(torch.randn(2, 3, 32, 32), torch.ones(2, 32, 32, dtype=torch.bool))


@pytest.mark.parametrize(
    "settings",
    [
        {"clustering": "conv"},
        {"attention": "full"},
        {"num_clusters": 0},
        {"clustering": ("teacher", "conv", "conv", "conv"), "recluster_every": 1},
    ],
)
def test_defaults_of_the_teacher_give_way(settings: dict[str, Any]) -> None:
    with torch.device("meta"):
        model: Any = timm.create_model("pacavit_convmixer_tiny_100", **settings)
        blockwise = timm.create_model("pacavit_small_p2cconv_100_blockwise", clustering="teacher")
    assert (model.teacher is None) == ("teacher" not in settings.get("clustering", ()))
    assert isinstance(blockwise.teacher, ConvMixerTeacher)


def test_settings_build_the_like_after_a_change_of_clustering() -> None:
    options = {"depths": (1, 3, 2)}
    taught: Any = timm.create_model("pacavit_nano", clustering="teacher", teacher_options=options)
    conv = taught.with_clustering("conv", kernel_size=5)
    for model in (taught, conv, conv.with_clustering("teacher", num_clusters=(3, 4, 0))):
        like = timm.create_model("pacavit_nano", **model.settings)
        like.load_state_dict(model.state_dict())
