"""Every method: finite maps of the image, nothing changed in the network, and what it refuses."""

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.errors import PacavitError, UnknownNameError
from pacavit.explain import METHODS
from pacavit.models import PacaViT

MakeSmall = Callable[..., PacaViT]
SpellOut = Callable[[nn.Module, Tensor, int], list[Tensor]]
OPTIONS: dict[str, dict[str, Any]] = {"integrated_gradients": {"steps": 4}}
ATTENTIVE = ("rollout", "relevance")
CLUSTERED = ("class_map", "attention_map", "cluster_contributions", "cluster_gradient")


def deit(**options: Any) -> nn.Module:
    settings = {"img_size": (32, 48), "num_classes": 3, "depth": 2, **options}
    return timm.create_model("deit_tiny_patch16_224", **settings)


def explain(name: str, model: nn.Module, images: Tensor, classes: list[int]) -> Tensor:
    method = METHODS.create(name, model, options=OPTIONS.get(name, {}))
    return method(images, torch.tensor(classes))


def over_image(patches: Tensor) -> Tensor:
    """Values of the 2 x 3 patches of an image of 32 x 48 pixels: (1, 6) -> (1, 32, 48)."""
    return F.interpolate(patches.view(1, 1, 2, 3), size=(32, 48), mode="bilinear")[:, 0]


@pytest.mark.parametrize("name", METHODS.names())
def test_every_method_on_our_model(small: MakeSmall, name: str) -> None:
    model = small().train()
    model.head.bias.grad = kept = torch.ones(3)
    images = torch.randn(2, 3, 32, 48)
    before = images.clone()
    found = explain(name, model, images, [0, 2])
    assert found.shape == (2, 32, 48)
    assert found.dtype is torch.float32
    assert not found.requires_grad
    assert found.isfinite().all()
    assert found.max() > found.min()
    assert images.equal(before)
    assert not images.requires_grad
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert [p for p in model.parameters() if p.grad is not None] == [model.head.bias]
    assert model.head.bias.grad is kept
    assert not any(module._forward_hooks for module in model.modules())
    alone = explain(name, model, images[1:], [2])
    torch.testing.assert_close(found[1:], alone, atol=1e-5, rtol=1e-3)
    other = explain(name, model, images, [1, 1])
    assert torch.equal(found, other) != METHODS.get(name).class_specific


@pytest.mark.parametrize("name", [name for name in METHODS if name not in CLUSTERED])
def test_every_other_method_on_a_plain_transformer(name: str) -> None:
    found = explain(name, deit(), torch.randn(2, 3, 32, 48), [0, 2])
    assert found.shape == (2, 32, 48)
    assert found.isfinite().all()


def test_any_network_has_a_cam() -> None:
    model = timm.create_model("resnet10t", num_classes=3)
    found = explain("grad_cam", model, torch.randn(1, 3, 64, 64), [1])
    assert found.shape == (1, 64, 64)
    for name in (*ATTENTIVE, *CLUSTERED):
        with pytest.raises(PacavitError, match="such as grad_cam"):
            explain(name, model, torch.randn(1, 3, 64, 64), [1])


def test_rollout_of_a_plain_transformer_is_that_of_the_paper(spell_out: SpellOut) -> None:
    model, images = deit(), torch.randn(1, 3, 32, 48)
    found = explain("rollout", model, images, [0])
    identity = torch.eye(7)
    first, second = (
        (attention.mean(1) + identity) / 2 for attention in spell_out(model.eval(), images, 0)
    )
    torch.testing.assert_close(found, over_image((second @ first)[:, 0, 1:]))


@pytest.mark.parametrize("class_token", [True, False])
def test_relevance_of_a_plain_transformer_is_that_of_the_paper(
    spell_out: SpellOut, class_token: bool
) -> None:
    model = deit() if class_token else deit(class_token=False, global_pool="avg")
    images = torch.randn(1, 3, 32, 48)
    found = explain("relevance", model, images, [2])
    relevance = torch.eye(6 + class_token)
    for attention in spell_out(model.eval(), images, 2):
        assert attention.grad is not None
        product = (attention * attention.grad).detach().clamp(min=0).mean(1)
        relevance = relevance + product @ relevance
    relevance = relevance - torch.eye(6 + class_token)
    rows = relevance[:, 0, 1:] if class_token else relevance.mean(1)
    torch.testing.assert_close(found, over_image(rows))


def test_transformers_without_a_class_token() -> None:
    model = deit(class_token=False, global_pool="avg")
    for name in ATTENTIVE:
        assert explain(name, model, torch.randn(1, 3, 32, 48), [1]).isfinite().all()


def test_options_are_checked(small: MakeSmall) -> None:
    model = small()
    with pytest.raises(UnknownNameError, match="did you mean 'grad_cam'"):
        METHODS.get("gradcam")
    with pytest.raises(UnknownNameError, match="unknown option 'stage'"):
        METHODS.create("occlusion", model, options={"stage": 1})
    with pytest.raises(PacavitError, match="stage 2 has no clusters; choose among: 0, 1"):
        METHODS.create("class_map", model, options={"stage": 2})
    with pytest.raises(PacavitError, match=r"has no layer 'stages\.7'"):
        METHODS.create("grad_cam", model, options={"layer": "stages.7"})
    with pytest.raises(PacavitError, match="window must be above 0"):
        METHODS.create("occlusion", model, options={"window": 0.0})
    with pytest.raises(PacavitError, match="answers no map"):
        METHODS.create("grad_cam", model, options={"layer": "head"})(
            torch.randn(1, 3, 32, 32), torch.tensor([0])
        )
    with pytest.raises(PacavitError, match="the last layer of Sequential is not known"):
        METHODS.create("grad_cam", nn.Sequential(nn.Linear(2, 2)), options={})


def test_a_missing_library_is_told(small: MakeSmall, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(PacavitError, match=r"pip install 'pacavit\[explain\]'"):
        METHODS.create("grad_cam", small(), options={})
