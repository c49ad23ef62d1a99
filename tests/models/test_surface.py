"""What timm's users expect of a model, beyond the checks in ``pacavit.testing``."""

import inspect
from typing import Any

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from timm.utils import freeze, unfreeze
from torch import Tensor, nn

from pacavit.errors import RecipeError, UnknownNameError
from pacavit.layers import Block
from pacavit.models import PacaViT

SMALL: dict[str, Any] = {
    "embed_dims": (8, 12, 16),
    "depths": (3, 2, 1),
    "num_heads": (2, 2, 4),
    "num_classes": 3,
    "num_clusters": (5, 4, 0),
}
# For every argument of PacaViT a value that is not the default; some need company.
OTHERWISE: dict[str, dict[str, Any]] = {
    "in_chans": {"in_chans": 1},
    "num_classes": {"num_classes": 4},
    "global_pool": {"global_pool": "", "num_classes": 0},
    "embed_dims": {"embed_dims": (8, 16, 16)},
    "depths": {"depths": (3, 1, 1)},
    "num_heads": {"num_heads": (4, 2, 4)},
    "mlp_ratios": {"mlp_ratios": (4, 2, 4)},
    "clustering": {"clustering": "mlp"},
    "num_clusters": {"num_clusters": (5, 3, 0)},
    "clustering_options": {"clustering_options": {"kernel_size": 3}},
    "clustering_defaults": {"clustering_defaults": {"conv": {"kernel_size": 3}}},
    "recluster_every": {"recluster_every": (2, 0, 0)},
    "teacher_options": {"clustering": "teacher", "teacher_options": {"depths": 1}},
    "attention": {"attention": ("full", "paca", "paca")},
    "attention_options": {"attention_options": {"window": 3}},  # no attention has options yet
    "stem_dims": {"stem_dims": (4,)},
    "stem_stride": {"stem_dims": (4,), "stem_stride": 4},
    "transition_convs": {"transition_convs": 1},
    "act_layer": {"act_layer": "relu"},
    "drop_rate": {"drop_rate": 0.1},
    "proj_drop_rate": {"proj_drop_rate": 0.1},
    "drop_path_rate": {"drop_path_rate": 0.1},
}


def small(**settings: Any) -> Any:  # Any: submodules are not typed
    torch.manual_seed(0)
    return PacaViT(**{**SMALL, **settings})


def answer(model: Any, in_chans: int) -> Tensor:
    images = torch.linspace(-1, 1, in_chans * 32 * 48).view(1, in_chans, 32, 48)
    result: Tensor = model.eval()(images)
    return result


@pytest.mark.parametrize("name", inspect.signature(PacaViT).parameters)
def test_every_argument_takes_effect_or_raises(name: str) -> None:
    other = OTHERWISE[name]
    default = small(**{key: value for key, value in other.items() if key != name})
    try:
        changed = small(**other)
    except (RecipeError, UnknownNameError):
        assert name == "attention_options"
        return
    logits = answer(default, 3), answer(changed, other.get("in_chans", 3))
    same = torch.equal(*logits)
    assert not same or str(changed) != str(default)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embed_dims": ()}, "embed_dims is empty"),
        ({"global_pool": ""}, "a classifier needs pooled features"),
        ({"num_heads": 0}, "num_heads 0 does not divide"),
        ({"mlp_ratios": 0}, "mlp_ratio 0 leaves no hidden layer"),
        ({"drop_path_rate": 1.0}, "drop_path must be"),
        ({"transition_convs": -1}, "transition_convs must be 0 or more"),
        ({"clustering_defaults": {"cnov": {}}}, "unknown clustering 'cnov'"),
    ],
)
def test_values_that_cannot_take_effect_raise(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((RecipeError, UnknownNameError), match=message):
        small(**settings)


def test_out_indices_need_features_only() -> None:
    with pytest.raises(TypeError, match="out_indices"):
        timm.create_model("pacavit_nano", out_indices=(0,))


@pytest.mark.parametrize("name", timm.list_models("pacavit_*"))
def test_building_twice_gives_the_same_network(name: str) -> None:
    with torch.device("meta"):
        first = timm.create_model(name)
        timm.create_model(name, num_classes=3, clustering="grid", num_clusters=4, drop_rate=0.5)
        second = timm.create_model(name)
    assert str(first) == str(second)
    shapes = [
        {key: tuple(value.shape) for key, value in model.state_dict().items()}
        for model in (first, second)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("size", [(32, 32), (45, 70), (33, 19)])
@pytest.mark.parametrize("indices", [None, (-1,), (0, -1), (1,), 2])
def test_features_only_gives_the_chosen_maps(indices: Any, size: tuple[int, int]) -> None:
    chosen = {} if indices is None else {"out_indices": indices}
    model: Any = timm.create_model("pacavit_nano", features_only=True, **chosen).eval()
    stages = {None: (0, 1, 2), (-1,): (2,), (0, -1): (0, 2), (1,): (1,), 2: (1, 2)}[indices]
    assert model.feature_info.channels() == [(64, 128, 256)[stage] for stage in stages]
    assert model.feature_info.reduction() == [(2, 4, 8)[stage] for stage in stages]
    with torch.no_grad():
        maps = model(torch.randn(2, 3, *size))
    assert [tuple(feature.shape) for feature in maps] == [
        (2, info["num_chs"], *(-(-side // info["reduction"]) for side in size))
        for info in model.feature_info.get_dicts()
    ]
    names = [name for name, _ in model.named_parameters()]
    assert not any("head" in name for name in names)
    assert any(f"stages.{max(stages)}." in name for name in names)
    assert not any(f"stages.{max(stages) + 1}." in name for name in names)


def test_intermediates_are_the_maps_on_the_way() -> None:
    model, images = small().eval(), torch.randn(2, 3, 33, 50)
    final = model.forward_features(images)
    last, maps = model.forward_intermediates(images)
    assert torch.equal(last, final)
    assert torch.equal(maps[-1], final)
    assert [feature.shape[1] for feature in maps] == [8, 12, 16]
    only = model.forward_intermediates(images, [0, -1], intermediates_only=True, norm=True)
    assert all(torch.equal(*pair) for pair in zip(only, (maps[0], maps[2]), strict=True))
    with pytest.raises(ValueError, match="output_fmt must be 'NCHW'"):
        model.forward_intermediates(images, output_fmt="NLC")
    ran = []
    model.stages[2].register_forward_hook(lambda *_: ran.append(2))
    stopped, one = model.forward_intermediates(images, [1], stop_early=True)
    assert not ran
    assert torch.equal(stopped, maps[1])
    assert torch.equal(one[0], maps[1])
    model.forward_intermediates(images, [1])
    assert ran


def test_checkpointing_recomputes_blocks_and_changes_nothing() -> None:
    # Blocks share assignments, some cluster anew, and all draw random numbers.
    model = small(recluster_every=(2, 0, 0), drop_path_rate=0.3, proj_drop_rate=0.2).train()
    images = torch.randn(4, 3, 32, 40)
    calls, results = [0], []
    for module in model.modules():
        if isinstance(module, Block):
            module.register_forward_pre_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        torch.manual_seed(1)
        calls[0] = 0
        loss = model(images).square().sum()
        loss.backward()
        results.append((loss, *(parameter.grad.clone() for parameter in model.parameters())))
        assert calls[0] == (12 if enable else 6)
    for plain, checkpointed in zip(*results, strict=True):
        torch.testing.assert_close(checkpointed, plain, rtol=0, atol=0)


@pytest.mark.parametrize("coarse", [False, True])
def test_layer_groups_cover_all_parameters_from_stem_to_head(coarse: bool) -> None:
    model = small(recluster_every=1, transition_convs=1)
    groups = timm.models.group_parameters(model, model.group_matcher(coarse), reverse=True)
    numbers = [groups[name] for name, _ in model.named_parameters()]  # in the order of the layers
    assert numbers == sorted(numbers)
    assert {groups[name] for name in groups if name.startswith("head.")} == {max(numbers)}
    # Stem with head, and the stages; or the stem, six blocks, two transitions and the head.
    assert len(set(numbers)) == (5 if coarse else 10)


def test_layer_decay_scales_every_parameter_once() -> None:
    model = small()
    names = {parameter: name for name, parameter in model.named_parameters()}
    scales: dict[str, float] = {}
    for group in param_groups_layer_decay(model, weight_decay=0.1, layer_decay=0.5):
        for parameter in group["params"]:
            assert names[parameter] not in scales
            scales[names[parameter]] = group["lr_scale"]
            assert (group["weight_decay"] == 0) == (parameter.ndim == 1)
    assert list(scales) != []
    assert scales.keys() == set(names.values())
    assert scales["head.weight"] == 1
    assert scales["stages.2.blocks.0.attn.q.weight"] == scales["stages.2.norm.weight"] == 0.5
    assert scales["stages.0.embed.proj.weight"] == 0.5**9
    blocks = [scales[f"stages.0.blocks.{block}.mlp.fc1.weight"] for block in range(3)]
    assert blocks == [0.5**8, 0.5**7, 0.5**6]


def test_frozen_stages_get_no_gradients_and_keep_their_statistics() -> None:
    model = small(stem_dims=(4,), transition_convs=1).train()
    freeze(model, ["stages.0", "stages.1.embed"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if value.ne(before[name]).any()}
    assert not any(name.startswith(("stages.0.", "stages.1.embed.")) for name in moved)
    assert {"head.weight", "stages.1.blocks.0.mlp.fc1.weight"} <= moved
    assert any("running_mean" in name for name in moved)
    unfreeze(model)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == 4


def test_with_clustering_updates_the_settings() -> None:
    settings = {key: SMALL[key] for key in ("embed_dims", "depths", "num_heads", "num_clusters")}
    model: Any = timm.create_model("pacavit_nano", **settings)
    other = model.with_clustering("mlp", num_clusters=(7, 3, 2), hidden_ratio=2)
    again: Any = timm.create_model("pacavit_nano", **other.settings)
    assert str(again) == str(other)
    again.load_state_dict(other.state_dict())
    assert small().settings == {}
    assert small().with_clustering("mlp").settings == {}
