"""Maps stay channels-last through the whole network at batch 1, and nothing is copied for it.

The stride of an axis of length 1 is arbitrary, so a batch of one image can hide the layout from
PyTorch; then a convolution returns a contiguous map and every later layer copies.
"""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.clustering import CLUSTERINGS
from pacavit.layers import optimize
from pacavit.layers.mlp import ShortcutDepthwise
from pacavit.models import PacaViT
from pacavit.types import Grid
from pacavit.utils.layout import map_of, tokens_of

PAPER: dict[str, Any] = {
    "embed_dims": (16, 24, 32),
    "depths": (2, 1, 1),
    "num_heads": (2, 2, 4),
    "num_clusters": (5, 4, 0),
    "num_classes": 3,
}
DENSE = PAPER | {"stem_dims": (8, 16), "transition_convs": 2, "act_layer": "relu"}
SETTINGS = {
    "paper": PAPER,
    "dense": DENSE,
    "teacher": PAPER | {"clustering": "teacher"},
    "full attention": PAPER | {"attention": "full", "num_clusters": None},
    "reclustered": PAPER | {"recluster_every": 1},
    "gray": PAPER | {"in_chans": 1},
}
BIASED = ("aten::addmm", "aten::baddbmm", "aten::_slow_conv2d_forward")
"""Operators that begin with a copy of the bias."""


def build(settings: dict[str, Any]) -> PacaViT:
    torch.manual_seed(0)
    return PacaViT(**settings)


def is_channels_last(x: Tensor) -> bool:
    """With the very strides that PyTorch chooses for the layout, on axes of length 1 too."""
    expected = torch.empty(x.shape, memory_format=torch.channels_last).stride()
    return x.stride() == expected


def watch_convs(model: nn.Module) -> list[str]:
    """Names of convolutions that take or return another layout, filled by passes through them."""
    wrong: list[str] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not inputs[0].is_contiguous(memory_format=torch.channels_last):
                wrong.append(f"{name} takes {inputs[0].shape} with strides {inputs[0].stride()}")
            if not is_channels_last(output):
                wrong.append(f"{name} returns {output.shape} with strides {output.stride()}")

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.BatchNorm2d):
            module.register_forward_hook(note(name))
    return wrong


def num_copies(model: nn.Module, images: Tensor) -> int:
    """Copies of a tensor in a pass, also those inside of operators, except of a bias or number."""
    with torch.no_grad():
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities, record_shapes=True) as profile:
            model(images)
    found = 0
    for event in profile.events() or ():
        parent = event.cpu_parent
        bias = parent is not None and parent.name in BIASED
        found += event.name == "aten::copy_" and not bias and event.input_shapes[0] != []
    return found


def pixels(batch: int, in_chans: int = 3) -> Tensor:
    images = torch.randn(batch, in_chans, 40, 56)
    return images.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("training", [False, True])
def test_every_map_is_channels_last_at_batch_1(name: str, training: bool) -> None:
    settings = SETTINGS[name]
    model = build(settings).train(training)
    wrong = watch_convs(model)
    model(pixels(1, settings.get("in_chans", 3)))
    assert not wrong
    for output in model.eval().forward_stages(pixels(1, settings.get("in_chans", 3))):
        assert is_channels_last(output.features)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", SETTINGS)
def test_optimized_maps_are_channels_last_at_batch_1(name: str, half: bool) -> None:
    settings = SETTINGS[name]
    model = optimize(build(settings), half=half)
    wrong = watch_convs(model)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        model(pixels(1, settings.get("in_chans", 3)))
    assert not wrong
    depthwise = [
        each for each in model.modules() if isinstance(each, nn.Conv2d) and each.groups > 1
    ]
    assert depthwise


@pytest.mark.parametrize("name", ["paper", "dense"])
def test_every_map_is_channels_last_with_padding(name: str) -> None:
    model, mask = build(SETTINGS[name]).eval(), torch.ones(1, 40, 56, dtype=torch.bool)
    mask[:, :, 40:] = False
    wrong = watch_convs(model)
    model(pixels(1), mask)
    assert not wrong


@pytest.mark.parametrize("clustering", CLUSTERINGS.names())
def test_every_clustering_keeps_the_layout(clustering: str) -> None:
    model = build(PAPER | {"clustering": clustering}).eval()
    wrong = watch_convs(model)
    with torch.no_grad():
        model(pixels(1))
    assert not wrong


@pytest.mark.parametrize("name", SETTINGS)
def test_one_image_is_copied_as_often_as_several(name: str) -> None:
    settings = SETTINGS[name]
    model, in_chans = build(settings).eval(), settings.get("in_chans", 3)
    alone, several = (num_copies(model, pixels(batch, in_chans)) for batch in (1, 2))
    assert alone == several == 0


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("variant", ["pacavit_tiny", "pacavit_nano"])
def test_registered_models_copy_nothing(variant: str, batch: int) -> None:
    model = timm.create_model(variant, num_classes=3).eval()
    assert num_copies(model, pixels(batch)) == 0


def test_contiguous_kernels_do_not_lose_the_layout() -> None:
    """FSDP keeps parameters contiguous; the layout of depthwise maps is that of their input."""
    model = build(PAPER).eval().to(memory_format=torch.contiguous_format)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            kernel = module.weight.detach().flatten().view(module.weight.shape)
            module.weight = nn.Parameter(kernel)
            assert not is_channels_last(module.weight)
    wrong = watch_convs(model)
    model(pixels(1))
    assert not [text for text in wrong if "depthwise" in text]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("variant", ["pacavit_tiny", "pacavit_nano"])
def test_optimized_models_copy_nothing(variant: str, batch: int) -> None:
    model = optimize(timm.create_model(variant, num_classes=3))
    assert num_copies(model, pixels(batch)) == 0


def test_bf16_copies_no_weights() -> None:
    """Left are the image, the last map, and the assignments, which are computed in fp32."""
    model = optimize(timm.create_model("pacavit_nano", num_classes=3), half=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = num_copies(model, pixels(1))
    layers = sum(isinstance(each, nn.Linear | nn.Conv2d) for each in model.modules())
    assert found <= 8 < layers


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("grid", [Grid(5, 7), Grid(1, 7), Grid(7, 1), Grid(1, 1)])
def test_maps_are_views_of_tokens(batch: int, grid: Grid) -> None:
    tokens = torch.randn(batch, grid.num_patches, 6)
    found = map_of(tokens, grid)
    assert found.data_ptr() == tokens.data_ptr()
    assert is_channels_last(found)
    expected = tokens.transpose(1, 2).unflatten(2, grid)
    assert torch.equal(found, expected)
    again, size = tokens_of(found)
    assert again.data_ptr() == tokens.data_ptr()
    assert torch.equal(again, tokens)
    assert size == grid


def test_one_image_has_the_numbers_of_a_contiguous_convolution() -> None:
    layer, tokens, grid = ShortcutDepthwise(16), torch.randn(1, 35, 16), Grid(5, 7)
    found = layer(map_of(tokens, grid))
    plain = map_of(tokens, grid).contiguous()
    expected = plain + F.conv2d(plain, layer.weight, layer.bias, padding=1, groups=16)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
