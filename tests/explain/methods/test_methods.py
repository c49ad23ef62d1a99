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
from pacavit.explain import METHODS, default_method
from pacavit.models import PacaViT

MakeSmall = Callable[..., PacaViT]
SpellOut = Callable[[nn.Module, Tensor, int], list[Tensor]]
OPTIONS: dict[str, dict[str, Any]] = {"integrated_gradients": {"steps": 4}}
ATTENTIVE = ("rollout", "relevance")
OF_CLASSIFIERS = [name for name in METHODS if METHODS.get(name).works_on != "detectors"]
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


@pytest.mark.parametrize("name", OF_CLASSIFIERS)
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


@pytest.mark.parametrize("name", [name for name in OF_CLASSIFIERS if name not in CLUSTERED])
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


def swin(**options: Any) -> nn.Module:
    """Its maps are (B, H, W, C)."""
    settings: dict[str, Any] = {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 4)}
    settings |= {"img_size": (64, 96), "window_size": 2, "num_classes": 3, **options}
    return timm.create_model("swin_tiny_patch4_window7_224", **settings)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    # The network, the last layer with a map in space, and the layout of that layer's output.
    "swin": (swin, "layers.3", "NHWC"),
    "swin, layer of another layout": (swin, "patch_embed.proj", "NCHW"),
    "mambaout": (
        lambda: timm.create_model("mambaout_femto", depths=(1, 1, 1, 1), num_classes=3),
        "stages.3",
        "NHWC",
    ),
    "convnext": (
        lambda: timm.create_model("convnext_atto", depths=(1, 1, 1, 1), num_classes=3),
        "stages.3",
        "NCHW",
    ),
    "convnext, layer of another layout": (
        lambda: timm.create_model(
            "convnext_atto",
            depths=(1, 1, 1, 1),
            num_classes=3,
            conv_mlp=False,
            ls_init_value=1.0,
        ),
        "stages.2.blocks.0.norm",
        "NHWC",
    ),
    "resnet": (lambda: timm.create_model("resnet10t", num_classes=3), "layer4", "NCHW"),
    "vit": (lambda: deit(img_size=(64, 96)), "blocks.1.norm1", "NLC"),
    "vit without a class token": (
        lambda: deit(img_size=(64, 96), class_token=False, global_pool="avg"),
        "blocks.1.norm1",
        "NLC",
    ),
    "vit of another attention": (
        lambda: timm.create_model(
            "vit_relpos_small_patch16_224",
            img_size=(64, 96),
            depth=2,
            num_classes=3,
            init_values=1.0,
        ),
        "blocks.1.norm1",
        "NLC",
    ),
    "cait, class token added later": (
        lambda: timm.create_model(
            "cait_xxs24_224", img_size=(64, 96), depth=2, num_classes=3, init_values=1.0
        ),
        "blocks.0",
        "NLC",
    ),
}


def cam_by_hand(model: nn.Module, layer: str, layout: str, images: Tensor, label: int) -> Tensor:
    """Selvaraju et al.: ReLU of the sum of channels times their mean gradient, (1, H, W)."""
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda *args: kept.append(args[2]))
    score = model(images.clone().requires_grad_())[0, label]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    activation = kept[0].detach()
    if layout == "NHWC":
        activation, gradient = (t.permute(0, 3, 1, 2) for t in (activation, gradient))
    if layout == "NLC":
        activation, gradient = (
            t[:, t.shape[1] - 24 :].mT.unflatten(2, (4, 6)) for t in (activation, gradient)
        )
    return (activation * gradient.mean((2, 3), keepdim=True)).sum(1).clamp(min=0)


def over_size(cam: Tensor, size: tuple[int, int]) -> Tensor:
    """A map between 0 and 1, enlarged to the image: (1, H, W) -> (1, height, width)."""
    cam = cam - cam.amin()
    cam = cam / (1e-7 + cam.amax())
    return F.interpolate(cam[:, None], size=size, mode="bilinear")[:, 0]


def with_contrast(model: nn.Module) -> nn.Module:
    """Larger weights, so that maps differ from place to place."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2)
    return model.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_grad_cam_is_that_of_the_paper_in_every_layout(name: str) -> None:
    torch.manual_seed(2)
    make, layer, layout = NETWORKS[name]
    model, images = with_contrast(make()), torch.randn(1, 3, 64, 96)
    options = {"layer": layer} if "," in name else {}
    method = METHODS.create("grad_cam", model, options=options)
    cams = [cam_by_hand(model, layer, layout, images, label) for label in range(3)]
    assert any(cam.amax() > 1e-3 for cam in cams)
    for label, cam in enumerate(cams):
        found = method(images, torch.tensor([label]))
        torch.testing.assert_close(found, over_size(cam, (64, 96)), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_the_layout_of_a_cube_is_that_of_the_model(layout: str) -> None:
    torch.manual_seed(2)
    model: Any = with_contrast(swin(img_size=(96, 96)))
    images = torch.randn(1, 3, 96, 96)
    assert model.layers[0](model.patch_embed(images)).shape[1:] == (24, 24, 24)
    model.output_fmt = layout
    method = METHODS.create("grad_cam", model, options={"layer": "layers.0"})
    found = method(images, torch.tensor([1]))
    cam = cam_by_hand(model, "layers.0", layout, images, 1)
    torch.testing.assert_close(found, over_size(cam, (96, 96)), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["grad_cam_plusplus", "hires_cam", "layer_cam", "eigen_cam"])
def test_the_family_of_grad_cam_sees_maps_with_channels_last(name: str) -> None:
    model, images = swin().eval(), torch.randn(1, 3, 64, 96)
    found = explain(name, model, images, [1])
    plain = nn.Sequential()
    layer = model.get_submodule("layers.3")

    class ChannelsFirst(nn.Module):
        """The same network, whose last stage shows its map as (B, C, H, W)."""

        def __init__(self) -> None:
            super().__init__()
            self.network, self.view = model, plain

        def forward(self, x: Tensor) -> Tensor:
            handle = layer.register_forward_hook(
                lambda _, args, out: self.view(out.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            )
            try:
                return self.network(x)
            finally:
                handle.remove()

    other = METHODS.create(name, ChannelsFirst().eval(), options={"layer": "view"})
    torch.testing.assert_close(found, other(images, torch.tensor([1])), atol=1e-5, rtol=1e-4)
    assert found.amax() > found.amin()


def test_maps_of_one_cell_are_those_of_an_earlier_stage() -> None:
    torch.manual_seed(2)
    model = with_contrast(timm.create_model("resnet10t", num_classes=3))
    images = torch.randn(1, 3, 32, 32)
    found = explain("grad_cam", model, images, [1])
    cam = cam_by_hand(model, "layer3", "NCHW", images, 1)
    assert cam.shape == (1, 2, 2)
    torch.testing.assert_close(found, over_size(cam, (32, 32)), atol=1e-3, rtol=1e-3)


def test_tokens_that_fit_several_grids_are_refused() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.embed(x.flatten(2).mT[:, :30]).mean(1)

    method = METHODS.create("grad_cam", Tokens(), options={"layer": "embed"})
    with pytest.raises(PacavitError, match="tokens whose grid is not known"):
        method(torch.randn(1, 3, 8, 8), torch.tensor([1]))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: timm.create_model("resnet10t", num_classes=3), "grad_cam"),
        (lambda: timm.create_model("convnext_atto", num_classes=3), "grad_cam"),
        (swin, "grad_cam"),
        (deit, "relevance"),
        (lambda: PacaViT(num_clusters=0, num_classes=3), "relevance"),
        (lambda: PacaViT(num_classes=3), "cluster_contributions"),
    ],
    ids=["resnet", "convnext", "swin", "vit", "pacavit without clusters", "pacavit"],
)
def test_the_default_method_fits_the_network(make: Callable[[], nn.Module], expected: str) -> None:
    assert default_method(make()) == expected


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
    with pytest.raises(PacavitError, match="returns no map"):
        METHODS.create("grad_cam", model, options={"layer": "head"})(
            torch.randn(1, 3, 32, 32), torch.tensor([0])
        )
    with pytest.raises(PacavitError, match="the last layer of Sequential is not known"):
        METHODS.create("grad_cam", nn.Sequential(nn.Linear(2, 2)), options={})


def test_a_missing_library_is_reported(small: MakeSmall, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(PacavitError, match=r"pip install 'pacavit\[explain\]'"):
        METHODS.create("grad_cam", small(), options={})
