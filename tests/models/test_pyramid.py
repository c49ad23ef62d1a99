"""Any timm model as a pyramid of maps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import timm
import torch
from torch import nn

from pacavit.errors import RecipeError
from pacavit.models import PacaViT, build_pyramid
from pacavit.models.pyramid import same_names

# Strides of the default maps.
STRIDES = {
    "pacavit_nano": (2, 4, 8),
    "pacavit_tiny": (4, 8, 16, 32),
    "resnet10t": (4, 8, 16, 32),
    "convnext_atto": (4, 8, 16, 32),  # rounds odd sides down
    "pvt_v2_b0": (4, 8, 16, 32),
    "swin_tiny_patch4_window7_224": (4, 8, 16, 32),  # channels last, and a fixed image size
    "mobilenetv3_small_050": (4, 8, 16, 32),
    "tf_efficientnet_lite0": (4, 8, 16, 32),
    "vit_tiny_patch16_224": (16, 16, 16, 16),
    "hrnet_w18_small": (4, 8, 16, 32),  # refuses odd sides
    "efficientvit_m0": (16, 32, 64),
    "edgenext_xx_small": (4, 8, 16, 32),
}


@pytest.mark.parametrize("name", STRIDES)
def test_any_model_and_any_size(name: str) -> None:
    pyramid = build_pyramid(name).eval()
    assert pyramid.strides == STRIDES[name]
    for size in ((64, 64), (37, 70)):
        with torch.no_grad():
            maps = pyramid(torch.randn(2, 3, *size))
        for each, channels, stride in zip(maps, pyramid.channels, pyramid.strides, strict=True):
            sides = [math.ceil(side / stride) for side in size]
            assert each.shape == (2, channels, *sides), name


@pytest.mark.parametrize("name", ["pacavit_nano", "resnet10t", "swin_tiny_patch4_window7_224"])
def test_the_maps_are_those_of_the_network(name: str) -> None:
    pyramid = build_pyramid(name).eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        network: Any = timm.create_model(name).eval()
        weights = network.state_dict()
        names = same_names(weights, pyramid.body.state_dict())
        pyramid.body.load_state_dict({names[key]: weights[key] for key in names})
        expected = network.forward_intermediates(images, intermediates_only=True)
        for each, other in zip(pyramid(images), expected[-len(pyramid.strides) :], strict=True):
            torch.testing.assert_close(each, other, atol=1e-4, rtol=1e-4)


def test_padding_is_invisible_in_the_shapes_alone() -> None:
    pyramid = build_pyramid("convnext_atto").eval()
    assert pyramid.multiple == 32
    image = torch.randn(1, 3, 40, 50)
    padded = nn.functional.pad(image, (0, 14, 0, 24))
    with torch.no_grad():
        for each, other in zip(pyramid(image), pyramid(padded), strict=True):
            torch.testing.assert_close(each, other[:, :, : each.shape[2], : each.shape[3]])


def test_layers_after_the_last_map_are_not_built() -> None:
    pyramid: Any = build_pyramid("pacavit_nano", (0, 1), drop_path_rate=0.3)
    body: Any = pyramid.body
    assert isinstance(body, PacaViT)
    stages: Any = body.stages
    assert len(stages) == 2
    assert isinstance(body.head, nn.Identity)
    assert stages[1].blocks[0].drop_path.drop_prob > 0
    everything = build_pyramid("pacavit_nano").state_dict().keys()
    assert not any(".head." in name for name in everything)
    names = build_pyramid("resnet10t", (1, 2)).state_dict().keys()
    assert any(name.startswith("network.layer2") for name in names)
    assert not any(name.startswith(("network.layer3", "network.fc")) for name in names)


@pytest.mark.parametrize("name", ["pacavit_nano", "convnext_atto", "vit_tiny_patch16_224"])
def test_names_of_the_classifier_are_found(name: str) -> None:
    pyramid = build_pyramid(name)
    weights = pyramid.classifier().state_dict()
    own = pyramid.body.state_dict()
    found = same_names(weights, own)
    assert set(found.values()) == set(own)
    assert all(weights[key].shape == own[found[key]].shape for key in found)
    assert {key.split(".")[0] for key in weights.keys() - found.keys()} <= {"head", "norm"}


def test_the_random_generator_does_not_depend_on_the_search_for_maps() -> None:
    torch.manual_seed(0)
    default = build_pyramid("resnet10t")
    torch.manual_seed(0)
    chosen = build_pyramid("resnet10t", (1, 2, 3, 4))
    for one, other in zip(default.parameters(), chosen.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "stages", "message"),
    [
        ("pacavit_nano", (0, 5), r"has the maps 0 \(stride 2\), 1 \(stride 4\), 2 \(stride 8\);"),
        ("resnet10t", (7,), r"task.stages \[7\]: .* 0 \(stride 2\), .*, 4 \(stride 32\);"),
        ("convnext_atto", (4,), r"has the maps 0 \(stride 4\)"),
        ("resnet10t", (2, 1), "ascending"),
        ("resnet10t", (), "ascending"),
        ("mixer_s32_224", None, "does not take images of any size"),
        ("maxvit_nano_rw_256", None, "does not take images of any size"),
    ],
)
def test_what_cannot_be_is_one_line(
    name: str, stages: tuple[int, ...] | None, message: str
) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        build_pyramid(name, stages)
    assert "\n" not in str(caught.value)


def test_a_model_of_somebody_may_have_no_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(*_args: Any, **arguments: Any) -> nn.Module:
        raise TypeError("flat_net() got an unexpected keyword argument 'features_only'")

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(RecipeError, match="'flat_net' cannot return maps of its stages"):
        build_pyramid("flat_net")
